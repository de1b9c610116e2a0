"""What becomes of the job when a deferred task is ended, in Airflow's trigger runner."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any

import pytest
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError
from airflow_provider_gpu_cluster.jobs.status import JobState, JobStatus
from airflow_provider_gpu_cluster.jobs.submission import Submission
from airflow_provider_gpu_cluster.tasks.links import KILL_XCOM_KEY
from airflow_provider_gpu_cluster.triggers import first_request, gpu_job
from airflow_provider_gpu_cluster.triggers.gpu_job import GpuJobTrigger
from tests.harness.deferral import TaskLogs, Triggerer, XComs, dto
from tests.harness.patience import PATIENCE_S
from tests.harness.task_context import TaskInstance
from tests.triggers.fake_watcher import FakeWatcher, status

HANDLE = {
    "job_id": "job-1",
    "gpu_cluster_conn_id": "gpu_cluster_default",
    "job_dir": "/jobs/job-1",
    "engine": "host",
    "submitted_at": "2026-01-01T00:00:00+00:00",
    "gpus": 1,
}
NOTE = {"gpu_cluster_conn_id": "gpu_cluster_default", "job_id": "job-1"}
GONE = "gone"
TRYING = "GPU job could not be cancelled, trying again"


class Killed:
    """A task that waits for a job which runs, until something ends its trigger."""

    def __init__(self, logs: TaskLogs, xcoms: XComs, monkeypatch: pytest.MonkeyPatch) -> None:
        self.logs = logs
        self.xcoms = xcoms
        self.watcher = FakeWatcher(status(JobState.RUNNING))
        self.ti = TaskInstance("wait")
        self.asked: list[dict[str, Any]] = []
        self.answer: Callable[[], object] = lambda: None
        """Called before the task's state is told."""
        self.timeout_s = 20.0
        self._monkeypatch = monkeypatch
        monkeypatch.setattr(gpu_job, "KILL_PAUSE_S", 0.02)
        monkeypatch.setattr("airflow_provider_gpu_cluster.triggers.watchers.watcher_of", lambda conn_id: self.watcher)
        monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", self._get_task_states)

    def _get_task_states(self, **asked: Any) -> dict[str, Any]:
        self.asked.append(asked)
        self.answer()
        return {} if self.ti.state == GONE else self.ti.get_task_states(**asked)

    def __call__(self, end: Callable[[Triggerer, int], Awaitable[None]] | None = None, **arguments: Any) -> list[str]:
        """End the trigger, by default as a user does that ends the task, and return the jobs that were cancelled."""
        trigger = GpuJobTrigger(**{"job": HANDLE, "cancel_on_kill": True, **arguments})
        self._monkeypatch.setattr(gpu_job, "KILL_TIMEOUT_S", self.timeout_s)

        async def run() -> None:
            triggerer = Triggerer(self.logs)
            trigger_id = await triggerer.start(self.ti, *trigger.serialize())
            while "GPU job runs" not in self.logs.events:
                await asyncio.sleep(0)
            task = triggerer.task(trigger_id)
            await (end(triggerer, trigger_id) if end else triggerer.user_ends_task(trigger_id))
            await asyncio.wait({task}, timeout=PATIENCE_S)
            assert task.cancelled()

        asyncio.run(run())
        assert self.watcher.subscriptions["job-1"].closed
        return [job_id for job_id, _ in self.watcher.cancelled]


@pytest.fixture
def killed(logs: TaskLogs, xcoms: XComs, monkeypatch: pytest.MonkeyPatch) -> Killed:
    killed = Killed(logs, xcoms, monkeypatch)
    killed.xcoms["wait", -1, KILL_XCOM_KEY] = NOTE
    return killed


# The states after a user has marked the task, or cleared it: cleared, it soon waits for its turn to run again.
@pytest.mark.parametrize(
    "state",
    [
        *("failed", "success", "skipped", "upstream_failed", "removed", GONE),
        *("restarting", None, "scheduled", "queued", "running", "up_for_retry", "up_for_reschedule"),
    ],
)
def test_user_who_ends_the_task_ends_the_job(killed: Killed, state: str | None) -> None:
    killed.ti.state = state
    assert killed() == ["job-1"]
    assert killed.watcher.cancelled[0][1].startswith("Airflow")
    assert "GPU job is being cancelled, because a user ended the task" in killed.logs.events


def test_user_who_ends_the_task_ends_the_job_between_two_attempts(killed: Killed) -> None:
    killed.watcher = FakeWatcher(status(JobState.RUNNING), status(JobState.QUEUED, attempt=2, log_attempt=1))
    killed.ti.state = "failed"
    assert killed() == ["job-1"]


def test_trigger_that_was_handed_to_another_triggerer_leaves_the_job(killed: Killed) -> None:
    """Airflow ends the trigger here in the same way (apache/airflow#73454); the task still waits for the same job."""
    killed.ti.state = "deferred"
    assert killed() == []
    assert "The GPU job is left alone: its task waits for it in another triggerer" in killed.logs.events


def test_cleared_task_that_waits_for_another_job_already_ends_the_first(killed: Killed) -> None:
    killed.ti.state = "deferred"
    killed.xcoms["wait", -1, KILL_XCOM_KEY] = {**NOTE, "job_id": "job-2"}
    assert killed() == ["job-1"]


def test_deferred_task_without_a_job_in_xcom_leaves_the_job(killed: Killed) -> None:
    """Between a clear and the next launch it is seen for a moment, and cannot be told from a hand-over."""
    killed.ti.state = "deferred"
    killed.xcoms.clear()
    killed.timeout_s = 0.3
    assert killed() == []
    assert any("left alone: no more time" in one.event for one in killed.logs.records)


def test_cleared_task_is_waited_for_until_it_has_its_next_job(killed: Killed) -> None:
    killed.ti.state = "deferred"
    killed.xcoms.clear()

    def launch_at_last() -> None:
        if len(killed.asked) == 3:
            killed.xcoms["wait", -1, KILL_XCOM_KEY] = {**NOTE, "job_id": "job-2"}

    killed.answer = launch_at_last
    assert killed() == ["job-1"]
    assert len(killed.asked) == 3


def test_unreadable_state_leaves_the_job(killed: Killed) -> None:
    def fail() -> None:
        raise RuntimeError("API server is away")

    killed.answer = fail
    killed.timeout_s = 0.3
    assert killed() == []
    assert len(killed.asked) > 1
    # What keeps it from being done is told once.
    (record,) = (one for one in killed.logs.told if one.event == TRYING)
    assert record.fields["error"] == "API server is away"


def test_state_is_read_again_until_it_can_be(killed: Killed) -> None:
    def fail_at_first() -> None:
        if len(killed.asked) < 3:
            raise RuntimeError("database is locked")

    killed.ti.state = "failed"
    killed.answer = fail_at_first
    assert killed() == ["job-1"]
    assert len(killed.asked) == 3


def test_unreadable_xcom_leaves_the_job(killed: Killed) -> None:
    killed.ti.state = "deferred"
    killed.xcoms["wait", -1, KILL_XCOM_KEY] = "no note at all"
    killed.timeout_s = 0.3
    assert killed() == []
    assert TRYING in killed.logs.events


def test_job_can_be_kept_from_being_cancelled(killed: Killed) -> None:
    killed.ti.state = "failed"
    assert killed(cancel_on_kill=False) == []
    assert killed.asked == []


def test_mapped_task_reads_its_own_state(killed: Killed) -> None:
    killed.ti = TaskInstance("wait", map_index=3)
    killed.ti.state = "failed"
    assert killed() == ["job-1"]
    assert killed.asked == [{"dag_id": "lab", "task_ids": ["wait"], "run_ids": ["manual__1"], "map_index": 3}]


def test_job_of_a_trigger_that_the_scheduler_started_is_cancelled(killed: Killed) -> None:
    killed.xcoms["train", -1, "return_value"] = HANDLE
    killed.ti.state = "failed"
    assert killed(job=None, job_from={"task_id": "train", "key": "return_value"}) == ["job-1"]


def test_triggerer_that_is_shut_down_leaves_the_job(killed: Killed) -> None:
    killed.ti.state = "failed"
    assert killed(lambda triggerer, _: triggerer.shut_down()) == []
    assert killed.asked == []


def test_the_first_request_to_airflows_api_is_made_before_it_counts(
    killed: Killed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first_request, "_is_answered", False)
    monkeypatch.setattr(first_request, "_first", None)
    asked_before: list[int] = []

    async def after_a_moment(triggerer: Triggerer, trigger_id: int) -> None:
        while not first_request._is_answered:
            await asyncio.sleep(0.01)
        asked_before.append(len(killed.asked))
        killed.ti.state = "failed"
        await triggerer.user_ends_task(trigger_id)

    assert killed(after_a_moment) == ["job-1"]
    assert asked_before == [1]


def test_a_first_request_that_fails_is_made_again_and_one_that_does_not_is_not(
    killed: Killed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first_request, "_is_answered", False)
    monkeypatch.setattr(first_request, "_first", None)

    def fail() -> None:
        raise RuntimeError("no API yet")

    async def run() -> None:
        for answer, expected in ((fail, 1), (lambda: None, 2), (fail, 2)):
            killed.answer = answer
            first_request.make_first_request(killed.ti)
            assert first_request._first is not None
            await first_request._first
            assert len(killed.asked) == expected

    asyncio.run(run())


def test_being_told_again_every_second_breaks_nothing_off(killed: Killed) -> None:
    """Airflow 3.3 cancels what the trigger does then each time, until the trigger has ended."""
    killed.ti.state = "failed"
    may_go_on = threading.Event()
    killed.answer = lambda: may_go_on.wait(PATIENCE_S)
    killed.watcher.answer = Future()

    async def again_and_again(triggerer: Triggerer, trigger_id: int) -> None:
        await triggerer.user_ends_task(trigger_id)
        while not killed.asked:
            await asyncio.sleep(0.01)
        for _ in range(3):
            await triggerer.user_ends_task(trigger_id)
            await asyncio.sleep(0.01)
        may_go_on.set()
        while not killed.watcher.cancelled:
            await asyncio.sleep(0.01)
        for _ in range(3):
            await triggerer.user_ends_task(trigger_id)
            await asyncio.sleep(0.01)
        killed.watcher.answer.set_result(status(JobState.CANCELLED))
        while "GPU job is being cancelled, because a user ended the task" not in killed.logs.events:
            await asyncio.sleep(0.01)

    assert killed(again_and_again) == ["job-1"]
    assert len(killed.asked) == 1


def test_it_goes_on_with_that_however_often_it_is_broken_off(killed: Killed) -> None:
    killed.ti.state = "failed"
    may_go_on = threading.Event()
    killed.answer = lambda: may_go_on.wait(PATIENCE_S)

    async def run() -> None:
        trigger = GpuJobTrigger(HANDLE, cancel_on_kill=True)
        trigger.task_instance = dto(killed.ti)  # type: ignore[assignment]
        task = asyncio.create_task(trigger.on_kill())
        while not killed.asked:
            await asyncio.sleep(0.01)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0.01)
        assert not task.done()
        may_go_on.set()
        await task

    asyncio.run(run())
    assert killed.watcher.cancelled[0][0] == "job-1"


def test_cluster_that_cannot_be_reached_is_told_and_asked_again(killed: Killed) -> None:
    killed.ti.state = "failed"
    killed.watcher.answer = Future()
    killed.watcher.answer.set_exception(GpuClusterConnectionError("no route to host"))
    killed.timeout_s = 0.3
    assert len(killed()) > 1
    (record,) = (one for one in killed.logs.told if one.event == TRYING)
    assert record.fields["error"] == "no route to host"
    assert any("no more time" in one.event for one in killed.logs.records)


def test_waiting_for_the_cluster_has_an_end(killed: Killed) -> None:
    killed.timeout_s = 0.2
    killed.ti.state = "failed"
    killed.watcher.answer = Future()
    assert killed() == ["job-1"]
    assert killed.watcher.answer.cancelled()


@pytest.mark.parametrize("moments", range(8))
def test_trigger_that_is_told_to_end_ends_even_if_news_come_at_that_moment(killed: Killed, moments: int) -> None:
    async def at_once(triggerer: Triggerer, trigger_id: int) -> None:
        killed.watcher.subscriptions["job-1"].tell(status(JobState.RUNNING, message="news"))
        for _ in range(moments):
            await asyncio.sleep(0)
        triggerer.task(trigger_id).cancel()

    assert killed(at_once) == []


# -- a job that the trigger launches -----------------------------------------------------------------------------

REQUEST: Any = {"job_id": "job-1", "request_key": "a/1"}
NOT_LAUNCHED = JobStatus("job-1", JobState.LOST, reason="lost")
TOO_EARLY = "A user ended the task before its GPU job was launched"


class KilledLaunch(Killed):
    """The same, of a job that is being launched when the trigger is ended."""

    def __init__(self, logs: TaskLogs, xcoms: XComs, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(logs, xcoms, monkeypatch)
        self.ti.state = "deferred"
        self.launch: Future[Submission] = Future()
        self.watcher.launches = [self.launch]

    def end_it(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        """End the trigger as a user does, and return when it has ended."""
        trigger = GpuJobTrigger(launch=REQUEST, gpu_cluster_conn_id="gpu_cluster_default", cancel_on_kill=True)

        async def run() -> None:
            triggerer = Triggerer(self.logs)
            trigger_id = await triggerer.start(self.ti, *trigger.serialize())
            while not self.watcher.launched:
                await asyncio.sleep(0.01)
            task = triggerer.task(trigger_id)
            self.ti.state = "failed"
            await triggerer.user_ends_task(trigger_id)
            meanwhile()
            await asyncio.wait({task}, timeout=PATIENCE_S)
            assert task.cancelled()

        asyncio.run(run())


@pytest.fixture
def launching(logs: TaskLogs, xcoms: XComs, monkeypatch: pytest.MonkeyPatch) -> KilledLaunch:
    return KilledLaunch(logs, xcoms, monkeypatch)


def test_a_launch_that_the_cluster_was_not_asked_for_is_taken_back(launching: KilledLaunch) -> None:
    launching.watcher.answer = Future()
    launching.watcher.answer.set_result(NOT_LAUNCHED)
    launching.end_it()
    assert launching.launch.cancelled()
    # Another triggerer may have launched it before.
    assert [job_id for job_id, _ in launching.watcher.cancelled] == ["job-1"]
    assert TOO_EARLY in launching.logs.events


def test_a_launch_that_is_under_way_is_not_waited_for(launching: KilledLaunch) -> None:
    """The cluster knows the request's key by then, whether it gets the request before or after."""
    assert launching.launch.set_running_or_notify_cancel()
    launching.watcher.answer = Future()
    launching.watcher.answer.set_result(NOT_LAUNCHED)
    launching.end_it()
    assert [job_id for job_id, _ in launching.watcher.cancelled] == ["job-1"]
    assert launching.watcher.launches_stopped == ["a/1"]
    assert TOO_EARLY in launching.logs.events
    assert launching.xcoms == {}


def test_a_launch_that_fails_meanwhile_is_cancelled_as_well(launching: KilledLaunch) -> None:
    """Nobody knows whether the cluster has got the request."""
    assert launching.launch.set_running_or_notify_cancel()
    launching.end_it(lambda: launching.launch.set_exception(GpuClusterConnectionError("the connection broke")))
    assert [job_id for job_id, _ in launching.watcher.cancelled] == ["job-1"]
