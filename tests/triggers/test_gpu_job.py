"""GpuJobTrigger in Airflow's trigger runner: what it fires, and how the task goes on from there."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import pytest
from airflow.models.trigger import Trigger
from airflow.sdk import DAG
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
from airflow.sdk.execution_time.xcom import XCom
from airflow.triggers.base import TaskSuccessEvent, TriggerEvent

from airflow_provider_gpu_cluster.exceptions import (
    GpuClusterAuthenticationError,
    GpuClusterConnectionError,
    GpuClusterError,
    GpuClusterSetupError,
    GpuJobFailed,
    InvalidJobError,
    LaunchError,
)
from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.jobs.status import JobState
from airflow_provider_gpu_cluster.jobs.submission import Submission
from airflow_provider_gpu_cluster.logs.job_log import JobLog
from airflow_provider_gpu_cluster.logs.relay import LogPosition
from airflow_provider_gpu_cluster.operators.gpu_job import SubmitGpuJobOperator
from airflow_provider_gpu_cluster.sensors.gpu_job import GpuJobSensor
from airflow_provider_gpu_cluster.triggers import gpu_job
from airflow_provider_gpu_cluster.triggers.gpu_job import GpuJobTrigger, WatchEndEvent
from airflow_provider_gpu_cluster.triggers.job_follower import LEFT_FOR_WORKER_BYTES
from airflow_provider_gpu_cluster.watch.end import WatchEnd
from airflow_provider_gpu_cluster.watch.events import Acked, Failure, Outage
from tests.harness import recorder
from tests.harness.deferral import TaskLogs, Triggerer, XComs, dto, through_the_database
from tests.harness.task_context import TaskInstance, task_context
from tests.triggers.fake_watcher import FakeWatcher, printed, status

HANDLE = {
    "job_id": "job-1",
    "gpu_cluster_conn_id": "gpu_cluster_default",
    "job_dir": "/jobs/job-1",
    "engine": "host",
    "submitted_at": "2026-01-01T00:00:00+00:00",
    "gpus": 1,
}
RUNNING = status(JobState.RUNNING, host="gpu1", gpus=(0,))
SUCCEEDED = status(JobState.SUCCEEDED)
GONE = GpuClusterConnectionError("no route to host")

Use = Callable[[FakeWatcher], FakeWatcher]


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Use:
    """Return a function that puts a fake in the place of every watcher."""

    def put(watcher: FakeWatcher) -> FakeWatcher:
        monkeypatch.setattr("airflow_provider_gpu_cluster.triggers.watchers.watcher_of", lambda conn_id: watcher)
        return watcher

    return put


def fired(logs: TaskLogs, ti: TaskInstance | None = None, **arguments: Any) -> TriggerEvent:
    """Run a trigger to its end, and return its event."""

    async def run() -> TriggerEvent:
        triggerer = Triggerer(logs)
        trigger = GpuJobTrigger(**{"job": HANDLE, **arguments})
        return await triggerer.event(await triggerer.start(ti or TaskInstance("wait"), *trigger.serialize()))

    return asyncio.run(run())


def end_of(event: TriggerEvent) -> WatchEnd:
    """Return what the worker is told that goes on after a trigger."""
    assert type(event) is WatchEndEvent
    assert len(repr(event)) < 200
    return WatchEnd.from_json(through_the_database({"event": event.payload})["event"])


# -- what goes through the database -----------------------------------------------------------------------------------

EVERY_ARGUMENT: dict[str, Any] = {
    "job": HANDLE,
    "job_from": {"task_id": "train", "key": "return_value"},
    "launch": {"job_id": "job-1", "env": {"TOKEN": "s3cret"}, "inputs": [], "spec": {"gpus": 1, "gpu_type": None}},
    "gpu_cluster_conn_id": "other",
    "get_logs": False,
    "reader": "task-1",
    "poll_interval": 5,
    "unreachable_timeout": 60.5,
    "cancel_on_kill": True,
    "end_from_trigger": True,
    "handle_key": "gpu_job",
    "masked": ["s3cret"],
    "notify": {"queued_for": 60.0},
    "notifier": [recorder.PATH, {}],
}


def test_a_trigger_is_made_again_from_what_it_serializes() -> None:
    trigger = GpuJobTrigger(**EVERY_ARGUMENT)
    path, kwargs = trigger.serialize()
    assert path == f"{GpuJobTrigger.__module__}.{GpuJobTrigger.__qualname__}"
    assert kwargs == EVERY_ARGUMENT
    restored = Trigger._decrypt_kwargs(Trigger.encrypt_kwargs(through_the_database(kwargs)))
    assert GpuJobTrigger(**restored).serialize() == (path, EVERY_ARGUMENT)


def test_defaults_are_made_again_as_well() -> None:
    kwargs = GpuJobTrigger(job=HANDLE).serialize()[1]
    assert GpuJobTrigger(**through_the_database(kwargs)).serialize()[1] == kwargs


def test_what_is_masked_is_not_shown_with_the_trigger() -> None:
    trigger = GpuJobTrigger(**EVERY_ARGUMENT)
    assert "s3cret" not in repr(trigger)
    assert "s3cret" not in str(trigger)
    assert "job-1" in repr(trigger)
    launching = GpuJobTrigger(launch=EVERY_ARGUMENT["launch"])
    assert "s3cret" not in repr(launching)
    assert "job-1" in repr(launching)


# -- how it ends --------------------------------------------------------------------------------------------------


def test_success_ends_the_task_without_a_worker_where_that_is_allowed(use: Use, logs: TaskLogs) -> None:
    log = b"epoch 1\n"
    watcher = use(FakeWatcher(RUNNING, *printed(log), status(JobState.SUCCEEDED, log)))
    event = fired(logs, end_from_trigger=True)
    assert type(event) is TaskSuccessEvent
    assert event.xcoms is None
    assert logs.output == ["epoch 1"]
    assert logs.events == ["GPU job runs", "GPU job succeeded"]
    assert watcher.subscriptions["job-1"].closed


def test_success_wakes_the_task_where_it_may_not_end_here(use: Use, logs: TaskLogs) -> None:
    use(FakeWatcher(RUNNING, SUCCEEDED))
    end = end_of(fired(logs, get_logs=False))
    assert (end.status, end.error, end.reader) == (SUCCEEDED, None, None)
    assert end.handle is not None
    assert end.handle.to_json() == HANDLE
    # The worker says that it has succeeded, and nothing that was said already.
    assert logs.events == ["GPU job runs"]
    assert end.memory["running"] == 1


def test_success_wakes_the_task_where_nobody_told_the_trigger_which_it_is(use: Use, logs: TaskLogs) -> None:
    """In ``dag.test()`` there is no task instance, and no event ends a task."""
    use(FakeWatcher(RUNNING, SUCCEEDED))

    async def first() -> TriggerEvent:
        trigger = GpuJobTrigger(HANDLE, end_from_trigger=True, reader="task-1")
        return await anext(trigger.run())

    assert end_of(asyncio.run(first())).status == SUCCEEDED


def test_failure_wakes_the_task_with_the_last_lines(use: Use, logs: TaskLogs) -> None:
    log = b"boom\n"
    failed = status(JobState.FAILED, log, reason="user_error", exit_code=3, log_tail="boom\n")
    use(FakeWatcher(RUNNING, *printed(log), failed))
    end = end_of(fired(logs, end_from_trigger=True))
    assert end.status == failed
    assert end.reader is None
    assert isinstance(failed.error("x"), GpuJobFailed)
    assert logs.output == ["boom"]


def test_a_task_that_has_just_left_its_worker_comes_to_none_at_once(
    use: Use, logs: TaskLogs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow 3.3 may take the end of the first worker's process for that of the second, and fails the task then."""
    monkeypatch.setenv("AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL", "0.4")
    use(FakeWatcher(RUNNING, status(JobState.FAILED, reason="user_error", exit_code=3)))
    began = time.monotonic()
    end_of(fired(logs, end_from_trigger=True))
    assert time.monotonic() - began >= 0.6


def test_a_task_that_needs_no_worker_or_has_had_none_is_not_held_back(
    use: Use, logs: TaskLogs, xcoms: XComs, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Longer than a test may take.
    monkeypatch.setenv("AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL", "1000")
    use(FakeWatcher(RUNNING, SUCCEEDED))
    assert type(fired(logs, end_from_trigger=True)) is TaskSuccessEvent
    xcoms["train", -1, "return_value"] = HANDLE
    use(FakeWatcher(RUNNING, SUCCEEDED))
    assert end_of(fired(logs, job=None, job_from={"task_id": "train", "key": "return_value"})).error is None


def test_progress_is_one_readable_line(use: Use, logs: TaskLogs) -> None:
    running = status(JobState.RUNNING, progress={"step": 40, "total": 100, "loss": 0.25})
    use(FakeWatcher(running, SUCCEEDED))
    fired(logs)
    assert logs.events == ["GPU job runs", "GPU job progress: step 40 of 100 (40%), loss 0.25"]


def test_progress_that_was_held_back_is_told_when_nothing_else_comes(
    use: Use, logs: TaskLogs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_gpu_cluster.logs.job_log.PROGRESS_EVERY_S", 0.3)
    monkeypatch.setattr("airflow_provider_gpu_cluster.triggers.job_follower.HELD_BACK_S", 0.4)
    steps = [status(JobState.RUNNING, progress={"step": step, "total": 4}) for step in (1, 2)]
    watcher = use(FakeWatcher(*steps))

    async def run() -> None:
        triggerer = Triggerer(logs)
        trigger_id = await triggerer.start(TaskInstance("wait"), *GpuJobTrigger(HANDLE).serialize())
        while len(logs.events) < 3:
            await asyncio.sleep(0.01)
        watcher.subscriptions["job-1"].tell(SUCCEEDED)
        await triggerer.event(trigger_id)

    asyncio.run(asyncio.wait_for(run(), 20))
    assert logs.events[1] == "GPU job progress: step 1 of 4 (25%)"
    assert logs.events[2].startswith("GPU job progress: step 2 of 4 (50%)")


def test_too_much_output_at_the_end_is_left_to_the_worker(use: Use, logs: TaskLogs) -> None:
    shown = b"first\n"
    log = shown + b"x" * 99 * (LEFT_FOR_WORKER_BYTES // 90)
    watcher = use(FakeWatcher(RUNNING, *printed(shown), acknowledges=False))

    async def run() -> TriggerEvent:
        triggerer = Triggerer(logs)
        ti = TaskInstance("wait")
        trigger = GpuJobTrigger(HANDLE, reader="task-1", end_from_trigger=True)
        trigger_id = await triggerer.start(ti, *trigger.serialize())
        while not watcher.subscriptions or not watcher.subscriptions["job-1"].acks:
            await asyncio.sleep(0)
        subscription = watcher.subscriptions["job-1"]
        subscription.tell(status(JobState.SUCCEEDED, log))
        # The worker starts where the cluster says that the reader is, so the cluster must know first.
        await asyncio.wait([triggerer.task(trigger_id)], timeout=0.3)
        assert not triggerer.task(trigger_id).done()
        subscription.tell(Acked(subscription.acks[-1][0]))
        return await triggerer.event(trigger_id)

    end = end_of(asyncio.run(run()))
    assert end.reader == "task-1"
    assert end.status == status(JobState.SUCCEEDED, log)
    assert logs.output == ["first"]
    assert watcher.subscriptions["job-1"].acks[-1][0] == LogPosition(1, len(shown))
    assert "GPU job succeeded" not in logs.events


def test_little_output_at_the_end_is_shown_here(use: Use, logs: TaskLogs) -> None:
    log = b"line\n" * (LEFT_FOR_WORKER_BYTES // 50)
    use(FakeWatcher(status(JobState.SUCCEEDED, log), *printed(log)))
    assert type(fired(logs, end_from_trigger=True)) is TaskSuccessEvent
    assert len(logs.output) == LEFT_FOR_WORKER_BYTES // 50


def test_without_logs_nothing_is_read(use: Use, logs: TaskLogs) -> None:
    watcher = use(FakeWatcher(RUNNING, status(JobState.SUCCEEDED, b"hello\n")))
    assert type(fired(logs, get_logs=False, end_from_trigger=True)) is TaskSuccessEvent
    assert watcher.subscriptions["job-1"].reader is None


# -- when the cluster cannot be reached -------------------------------------------------------------------------------


def test_an_outage_that_lasts_too_long_fails_the_task_and_leaves_the_job(use: Use, logs: TaskLogs) -> None:
    watcher = use(FakeWatcher(RUNNING, Outage(GONE)))
    end = end_of(fired(logs, unreachable_timeout=0.2))
    assert type(end.error) is GpuClusterConnectionError
    assert str(end.error) == "no route to host"
    assert end.status is None
    assert logs.events == ["GPU job runs", "GPU cluster cannot be reached; the job is not affected, waiting on"]
    assert watcher.cancelled == []


def test_an_outage_that_ends_in_time_is_told_and_forgotten(use: Use, logs: TaskLogs) -> None:
    log = b"hello\n"
    outage = Outage(GONE)
    events = (RUNNING, outage, outage, *printed(log), outage, status(JobState.SUCCEEDED, log))
    use(FakeWatcher(*events))
    end = end_of(fired(logs))
    assert end.error is None
    gone, back = "GPU cluster cannot be reached; the job is not affected, waiting on", "GPU cluster is reached again"
    assert logs.events == ["GPU job runs", gone, back, gone, back]
    assert logs.output == ["hello"]


def test_an_outage_is_told_ever_less_often(use: Use, logs: TaskLogs, monkeypatch: pytest.MonkeyPatch) -> None:
    from datetime import datetime, timedelta, timezone

    began = datetime(2026, 1, 1, tzinfo=timezone.utc)
    elapsed = timedelta()
    defaults = JobLog.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "now", lambda: began + elapsed)
    watcher = use(FakeWatcher(RUNNING))

    async def run() -> WatchEnd:
        nonlocal elapsed
        triggerer = Triggerer(logs)
        trigger = GpuJobTrigger(HANDLE, unreachable_timeout=2 * 3600)
        trigger_id = await triggerer.start(TaskInstance("wait"), *trigger.serialize())
        while not logs.events:
            await asyncio.sleep(0)
        for second in range(0, 2 * 3600 + 60, 30):
            elapsed = timedelta(seconds=second)
            watcher.subscriptions["job-1"].tell(Outage(GONE))
            for _ in range(20):
                await asyncio.sleep(0)
        return end_of(await triggerer.event(trigger_id))

    end = asyncio.run(run())
    assert type(end.error) is GpuClusterConnectionError
    told = [record.fields["unreachable_s"] for record in logs.told if "cannot be reached" in record.event]
    assert told == [0, 30, 60, 120, 240, 480, 960, 1920, 3840]


def test_a_cluster_that_cannot_run_jobs_fails_the_task(use: Use, logs: TaskLogs) -> None:
    use(FakeWatcher(Failure(GpuClusterSetupError("no usable Python on me@fake"))))
    end = end_of(fired(logs))
    assert type(end.error) is GpuClusterSetupError
    assert str(end.error) == "no usable Python on me@fake"


def test_a_result_that_cannot_be_stored_is_returned_by_a_worker(
    use: Use, logs: TaskLogs, xcoms: XComs, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = replace(SUCCEEDED, seconds={"running": 60.0})
    use(FakeWatcher(RUNNING, used))
    assert type(fired(logs, end_from_trigger=True)) is TaskSuccessEvent
    assert xcoms["wait", -1, "return_value"] == {**HANDLE, "seconds": {"running": 60.0}}

    def refuse(*_: Any, **__: Any) -> None:
        raise ConnectionError("no API server")

    monkeypatch.setattr(XCom, "set", refuse)
    use(FakeWatcher(RUNNING, used))
    assert end_of(fired(logs, end_from_trigger=True)).status == used


# -- which job --------------------------------------------------------------------------------------------------------


def test_the_handle_comes_from_the_task_that_launched_the_job(use: Use, logs: TaskLogs, xcoms: XComs) -> None:
    xcoms["train", -1, "return_value"] = HANDLE
    use(FakeWatcher(RUNNING, SUCCEEDED))
    job_from = {"task_id": "train", "key": "return_value"}
    assert end_of(fired(logs, job=None, job_from=job_from)).status == SUCCEEDED
    # What the sensor pushes where it starts on a worker.
    assert xcoms["wait", -1, "return_value"] == HANDLE
    assert xcoms["wait", -1, "gpu_job_link"] == "/dags/lab/runs/manual__1/tasks/wait/plugin/gpu-job"


def test_the_handle_is_pushed_under_the_key_of_a_task_that_returns_nothing(
    use: Use, logs: TaskLogs, xcoms: XComs
) -> None:
    xcoms["train", -1, "return_value"] = HANDLE
    use(FakeWatcher(RUNNING, SUCCEEDED))
    fired(logs, job=None, job_from={"task_id": "train", "key": "return_value"}, handle_key="gpu_job")
    assert {key for task_id, _, key in xcoms if task_id == "wait"} == {"gpu_job", "gpu_job_link"}


@pytest.mark.parametrize(("indexes", "expected"), [((2, 3, -1), 3), ((2, -1), -1)])
def test_in_a_mapped_task_group_the_handle_is_that_of_its_own_instance(
    indexes: tuple[int, ...], expected: int, use: Use, logs: TaskLogs, xcoms: XComs
) -> None:
    for index in indexes:
        xcoms["train", index, "return_value"] = {**HANDLE, "job_id": f"job-of-{index}"}
    watcher = use(FakeWatcher(RUNNING, SUCCEEDED))
    ti = TaskInstance("wait", map_index=3)
    fired(logs, ti, job=None, job_from={"task_id": "train", "key": "return_value"})
    assert list(watcher.subscriptions) == [f"job-of-{expected}"]
    assert xcoms["wait", 3, "return_value"]["job_id"] == f"job-of-{expected}"


@pytest.mark.parametrize("found", [None, "text", {"job_id": "job-1"}])
def test_no_handle_fails_the_task(found: Any, use: Use, logs: TaskLogs, xcoms: XComs) -> None:
    if found is not None:
        xcoms["train", -1, "return_value"] = found
    watcher = use(FakeWatcher())
    end = end_of(fired(logs, job=None, job_from={"task_id": "train", "key": "return_value"}))
    assert type(end.error) is InvalidJobError
    assert "not a job handle" in str(end.error)
    assert end.handle is None
    assert not watcher.subscriptions
    assert not any(task_id == "wait" for task_id, _, _ in xcoms)


def test_connection_is_the_jobs_unless_another_is_given(logs: TaskLogs, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def watcher_of(conn_id: str) -> FakeWatcher:
        asked.append(conn_id)
        return FakeWatcher(RUNNING, SUCCEEDED)

    monkeypatch.setattr("airflow_provider_gpu_cluster.triggers.watchers.watcher_of", watcher_of)
    fired(logs)
    fired(logs, gpu_cluster_conn_id="other")
    assert asked == ["gpu_cluster_default", "other"]


def test_reader_is_of_the_try_where_the_task_gave_none(use: Use, logs: TaskLogs) -> None:
    watcher = use(FakeWatcher(RUNNING, SUCCEEDED))
    ti = TaskInstance("wait")
    fired(logs, ti)
    assert watcher.subscriptions["job-1"].reader == f"try-{ti.id}"
    fired(logs, ti, reader="task-1")
    assert watcher.subscriptions["job-1"].reader == "task-1"


def test_secrets_are_masked_before_anything_is_logged(
    use: Use, logs: TaskLogs, monkeypatch: pytest.MonkeyPatch
) -> None:
    masked: list[Any] = []

    async def mask(secret: Any, name: str | None = None) -> None:
        assert not logs.told
        masked.append(secret)

    monkeypatch.setattr(gpu_job, "amask_secret", mask)
    use(FakeWatcher(RUNNING, SUCCEEDED))
    fired(logs, masked=["s3cret", "t0ken"])
    assert masked == ["s3cret", "t0ken"]


# -- which tasks need no worker ---------------------------------------------------------------------------------------


def in_a_dag(sensor: dict[str, Any]) -> GpuJobSensor:
    with DAG("lab", schedule=None):
        train = SubmitGpuJobOperator(task_id="train", command="true")
        return GpuJobSensor(task_id="wait", job=train.output, deferrable=True, **sensor)


def nothing(*_: Any) -> None: ...


@pytest.mark.parametrize(
    ("sensor", "starts", "ends"),
    [
        ({}, True, True),
        ({"start_from_trigger": False}, False, True),
        ({"end_from_trigger": False}, True, False),
        ({"on_execute_callback": nothing}, False, True),
        ({"pre_execute": nothing}, False, True),
        ({"post_execute": nothing}, True, False),
        ({"on_success_callback": nothing}, True, False),
        ({"gpu_cluster_conn_id": "{{ params.cluster }}"}, False, True),
    ],
)
def test_a_sensor_needs_no_worker_where_nothing_of_it_would_be_left_out(
    sensor: dict[str, Any], starts: bool, ends: bool
) -> None:
    made = in_a_dag(sensor)
    assert bool(made.start_from_trigger) == starts
    if starts:
        assert made.start_trigger_args is not None
        assert made.start_trigger_args.trigger_kwargs is not None
        assert made.start_trigger_args.trigger_kwargs["end_from_trigger"] == ends
    else:
        assert made._trigger(job=HANDLE).end_from_trigger == ends


def test_arguments_for_the_scheduler_are_plain_values() -> None:
    args = in_a_dag({}).start_trigger_args
    assert args is not None
    json.dumps(args.trigger_kwargs)
    assert args.trigger_kwargs is not None
    assert args.trigger_kwargs["job_from"] == {"task_id": "train", "key": "return_value"}


# -- a job that the trigger launches -----------------------------------------------------------------------------

REQUEST: Any = {"job_id": "job-1", "spec": {"gpus": 1, "command": "true"}, "record": {"triggered_by": "ada"}}
LAUNCHED = Submission(JobHandle.from_json(HANDLE), status(JobState.QUEUED), created=True)


def to_launch(*outcomes: Submission | GpuClusterError) -> FakeWatcher:
    """Return a watcher that launches, and says what comes of each try."""
    watcher = FakeWatcher(RUNNING, SUCCEEDED)
    for outcome in outcomes:
        future: Future[Submission] = Future()
        watcher.launches.append(future)
        if isinstance(outcome, Submission):
            future.set_result(outcome)
        else:
            future.set_exception(outcome)
    return watcher


def launching(logs: TaskLogs, **arguments: Any) -> TriggerEvent:
    where = {"gpu_cluster_conn_id": "gpu_cluster_default", "reader": "task-1"}
    return fired(logs, **{"job": None, "launch": REQUEST, **where, **arguments})


def test_a_job_is_launched_and_watched(use: Use, logs: TaskLogs, xcoms: XComs) -> None:
    watcher = use(to_launch(LAUNCHED))
    event = launching(logs, end_from_trigger=True, cancel_on_kill=True)
    assert type(event) is TaskSuccessEvent
    assert watcher.launched == [REQUEST]
    assert logs.events == ["GPU job launched", "GPU job runs", "GPU job succeeded"]
    # What the operator pushes where it launches on a worker.
    assert {key: value for (_, _, key), value in xcoms.items()} == {
        "return_value": HANDLE,
        "gpu_job_link": "/dags/lab/runs/manual__1/tasks/wait/plugin/gpu-job",
        "gpu_job_cancel_on_kill": HANDLE,
        "gpu_job_launch": {
            **HANDLE,
            "user": "ada",
            "state": "QUEUED",
            "attempt": 1,
            "request": {"gpus": 1, "command": "true"},
        },
    }


def test_the_log_says_once_where_the_job_is_shown(
    use: Use, logs: TaskLogs, xcoms: XComs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.example.org")
    told = "GPU job in Airflow: https://airflow.example.org/dags/lab/runs/manual__1/tasks/wait/plugin/gpu-job"
    for _ in ("a triggerer", "the next one, after that one has died"):
        use(to_launch(LAUNCHED))
        launching(logs)
    assert logs.events.count(told) == 1
    # This task has begun in the triggerer, and its retry finds the XComs of the try before it.
    xcoms["train", -1, "return_value"] = HANDLE
    use(FakeWatcher(RUNNING, SUCCEEDED))
    fired(logs, job=None, job_from={"task_id": "train", "key": "return_value"})
    assert logs.events.count(told) == 2


def test_a_job_that_is_there_is_not_launched_again(use: Use, logs: TaskLogs, xcoms: XComs) -> None:
    use(to_launch(replace(LAUNCHED, created=False)))
    launching(logs)
    assert logs.events[0] == "GPU job found again; it is not launched twice"
    assert "gpu_job_cancel_on_kill" not in {key for _, _, key in xcoms}


def test_a_job_that_cannot_be_launched_fails_its_task_with_the_class_that_says_why(
    use: Use, logs: TaskLogs, xcoms: XComs
) -> None:
    watcher = use(to_launch(LaunchError("it has only 4 GPUs")))
    end = end_of(launching(logs))
    assert type(end.error) is LaunchError
    assert str(end.error) == "it has only 4 GPUs"
    assert len(watcher.launched) == 1
    assert xcoms == {}
    with pytest.raises(LaunchError, match="only 4 GPUs"):
        SubmitGpuJobOperator(task_id="wait", command="true", job=HANDLE).execute_complete(task_context(), end.to_json())


def test_a_cluster_that_is_away_for_a_moment_is_asked_again(
    use: Use, logs: TaskLogs, xcoms: XComs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_gpu_cluster.triggers.launcher.PAUSE_S", 0.01)
    watcher = use(to_launch(GONE, GONE, LAUNCHED))
    assert end_of(launching(logs)).error is None
    assert watcher.launched == [REQUEST] * 3
    assert [event for event in logs.events if "cannot be reached" in event] == [
        "GPU cluster cannot be reached; the job is not launched yet, trying again"
    ]


@pytest.mark.parametrize("retry_for_s", [0.0, 0.2])
def test_a_cluster_that_stays_away_fails_the_task(
    use: Use, logs: TaskLogs, xcoms: XComs, monkeypatch: pytest.MonkeyPatch, retry_for_s: float
) -> None:
    monkeypatch.setattr("airflow_provider_gpu_cluster.triggers.launcher.PAUSE_S", 0.05)
    monkeypatch.setattr("airflow_provider_gpu_cluster.triggers.launcher.RETRY_FOR_S", retry_for_s)
    watcher = use(to_launch(*[GONE] * 20))
    assert type(end_of(launching(logs)).error) is GpuClusterConnectionError
    assert (len(watcher.launched) == 1) == (retry_for_s == 0)


def test_a_cluster_that_lets_nobody_in_is_not_asked_again(use: Use, logs: TaskLogs, xcoms: XComs) -> None:
    watcher = use(to_launch(GpuClusterAuthenticationError("the key is not accepted")))
    assert type(end_of(launching(logs)).error) is GpuClusterAuthenticationError
    assert len(watcher.launched) == 1


@pytest.mark.parametrize("state", ["failed", "success", None, "gone"])
def test_a_job_that_nobody_waits_for_any_more_is_not_launched(
    use: Use, logs: TaskLogs, xcoms: XComs, monkeypatch: pytest.MonkeyPatch, state: str | None
) -> None:
    """A user has ended the task while no triggerer was up."""
    ti = TaskInstance("wait")
    ti.state = state
    known = {} if state == "gone" else ti.get_task_states()
    monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", lambda **asked: known)
    watcher = use(to_launch())

    async def run() -> None:
        trigger = GpuJobTrigger(launch=REQUEST, gpu_cluster_conn_id="gpu_cluster_default")
        trigger.task_instance = dto(ti)  # type: ignore[assignment]
        (event,) = [event async for event in trigger.run()]
        end = end_of(event)
        assert "Nobody waits" in str(end.error)
        assert end.about == REQUEST["job_id"]

    asyncio.run(run())
    assert watcher.launched == []
    assert xcoms == {}


# -- what people are told ---------------------------------------------------------------------------------------------


def test_people_are_told_beside_the_loop_of_all_triggers(use: Use, logs: TaskLogs, eventually: Any) -> None:
    due: Any = {"event": "queued_for", "attempt": 1, "for_s": 61.0, "tries": 1}
    watcher = use(FakeWatcher(replace(status(JobState.QUEUED), due=(due,)), RUNNING, SUCCEEDED))
    recorder.sent.clear()
    recorder.Recorder.hold.clear()
    try:
        # The mail server does not answer yet.
        assert end_of(fired(logs, notify={"queued_for": 60.0}, notifier=[recorder.PATH, {}])).status == SUCCEEDED
        assert watcher.asked_to_notify == {"job-1": {"queued_for": 60.0}}
        assert watcher.noted == []
    finally:
        recorder.Recorder.hold.set()
    eventually(lambda: watcher.noted == [("job-1", "queued_for")])
    (sent,) = recorder.sent
    assert (sent["event_id"], sent["cluster"], sent["ti"].task_id) == ("job-1/1/queued_for", watcher.name, "wait")
