"""GpuJobSensor, against a cluster that does what the test says, and on a real one."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from airflow.sdk import PokeReturnValue
from airflow.sdk.bases.operator import TRIGGER_FAIL_REPR, TriggerFailureReason
from airflow.sdk.exceptions import (
    AirflowRescheduleException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    TaskDeferred,
)

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.exceptions import (
    GpuClusterConnectionError,
    GpuClusterError,
    GpuJobError,
    GpuJobOutOfMemory,
    InvalidJobError,
)
from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.jobs.status import JobState, JobStatus
from airflow_provider_gpu_cluster.sensors.gpu_job import GpuJobSensor
from airflow_provider_gpu_cluster.watch.end import WatchEnd
from tests.harness import jobs, recorder
from tests.harness.fake_cluster import FakeCluster
from tests.harness.task_context import StateStore, TaskInstance, execute, task_context

HANDLE = {
    "job_id": "job-1",
    "gpu_cluster_conn_id": "gpu_cluster_default",
    "job_dir": "/jobs/job-1",
    "engine": "host",
    "submitted_at": "2026-01-01T00:00:00+00:00",
    "gpus": 1,
}
QUEUED = JobStatus("", JobState.QUEUED, attempt=1, queue_place=2, message="1 GPU is free, it needs 2")
RUNNING = JobStatus("", JobState.RUNNING, attempt=1, host="gpu1", gpus=(0, 1))
SUCCEEDED = JobStatus("", JobState.SUCCEEDED, attempt=1)
FAILED = JobStatus("", JobState.FAILED, attempt=1, reason="out_of_memory", exit_code=137)


class Pokes:
    """Pokes as Airflow does in reschedule mode: each with a new sensor, and only the state store in common."""

    def __init__(self, **arguments: Any) -> None:
        self.arguments = {"job": HANDLE, **arguments}
        self.ti = TaskInstance("done")
        self.store = StateStore()
        self.log: list[dict[str, Any]] = []

    def info(self, event: str, **fields: Any) -> None:
        self.log.append({"event": event, **fields})

    warning = error = info

    def sensor(self) -> GpuJobSensor:
        sensor = GpuJobSensor(task_id="done", **self.arguments)
        vars(sensor)["test_log"] = self
        return sensor

    def poke(self) -> bool | PokeReturnValue:
        return self.sensor().poke(task_context(self.ti, store=self.store))

    def execute(self) -> Any:
        return execute(self.sensor(), task_context(self.ti, store=self.store))

    @property
    def events(self) -> list[str]:
        return [line["event"] for line in self.log]


@pytest.fixture(autouse=True)
def own_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every sensor of a test write into the log of its pokes."""
    monkeypatch.setattr(GpuJobSensor, "log", property(lambda sensor: sensor.test_log))


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that puts a fake in the place of every cluster."""

    def put(cluster: FakeCluster) -> FakeCluster:
        monkeypatch.setenv("AIRFLOW_CONN_GPU_CLUSTER_DEFAULT", '{"conn_type": "gpu_cluster", "host": "fake"}')
        monkeypatch.setattr("airflow_provider_gpu_cluster.cluster.Cluster", cluster)
        return cluster

    return put


def test_it_gives_its_slot_back_between_pokes(use: Any) -> None:
    use(FakeCluster(RUNNING))
    pokes = Pokes()
    assert pokes.sensor().mode == "reschedule"
    with pytest.raises(AirflowRescheduleException):
        pokes.execute()
    assert pokes.ti.xcoms.keys() == {"gpu_job_link", "return_value"}


def test_each_try_says_once_where_its_job_is_shown(use: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.example.org/lab")
    use(FakeCluster(RUNNING))
    pokes = Pokes()
    for try_number in (1, 2):
        pokes.ti.try_number = try_number
        assert [pokes.poke() for _ in range(3)] == [False] * 3
        told = [event for event in pokes.events if "https://" in event]
        link = "https://airflow.example.org/lab/dags/lab/runs/manual__1/tasks/done/plugin/gpu-job"
        assert told == [f"GPU job in Airflow: {link}"] * try_number
    assert pokes.ti.xcoms["gpu_job_link"] == link.removeprefix("https://airflow.example.org")


def test_each_poke_tells_what_is_due_before_it_gives_its_slot_back(use: Any) -> None:
    due: Any = {"event": "time_limit_in", "attempt": 1, "left_s": 50.0, "tries": 1}
    cluster = use(FakeCluster(replace(RUNNING, due=(due,)), RUNNING))
    recorder.sent.clear()
    pokes = Pokes(notify={"time_limit_in": timedelta(minutes=1)}, notifier=recorder.Recorder())
    assert pokes.poke() is False
    assert [(one["event_id"], one["facts"]) for one in recorder.sent] == [("job-1/1/time_limit_in", {"left_s": 50.0})]
    assert cluster.noted == [("job-1", "time_limit_in")]
    assert pokes.poke() is False
    assert cluster.asked_to_notify == [{"time_limit_in": 60.0}] * 2
    assert len(recorder.sent) == 1


@pytest.mark.parametrize(
    "news",
    [
        WatchEnd(JobHandle.from_json({**HANDLE, "job_id": "another"}), SUCCEEDED),
        WatchEnd(error=GpuClusterError("no such node"), job_id="another"),
    ],
)
def test_news_of_another_job_is_no_end(use: Any, news: WatchEnd) -> None:
    """On SQLite, Airflow brings a task the event of a trigger that had the same id before."""
    use(FakeCluster(RUNNING))
    pokes = Pokes(deferrable=True)
    sensor = pokes.sensor()
    with pytest.raises(TaskDeferred) as deferral:
        sensor.execute_complete(task_context(pokes.ti), news.to_json())
    assert deferral.value.trigger.job == HANDLE
    assert [line["other_job_id"] for line in pokes.log if "other_job_id" in line] == ["another"]


def test_success_hands_the_handle_on(use: Any) -> None:
    use(FakeCluster(SUCCEEDED))
    assert Pokes().execute() == HANDLE


def test_life_of_the_job_is_told_once(use: Any) -> None:
    running = JobStatus("", JobState.RUNNING, attempt=1, progress={"step": 40, "event": "x"})
    use(FakeCluster(QUEUED, QUEUED, RUNNING, b"one\ntw", b"o\n", running, running, SUCCEEDED))
    pokes = Pokes()
    for _ in range(7):
        assert not pokes.poke()
    assert pokes.poke()
    assert pokes.events == [
        "GPU job waits for its turn",
        "GPU job runs",
        "one",
        "two",
        "GPU job progress: step 40, event x",
        "GPU job succeeded",
    ]
    assert pokes.log[0]["why"] == "1 GPU is free, it needs 2"


def test_a_job_that_goes_on_by_itself_is_one_job(use: Any) -> None:
    past: Any = ({"attempt": 1, "reason": "preempted"},)
    why = "attempt 1 was preempted after 2 s on gpu1; attempt 2 begins in 9 s"
    queued = JobStatus("", JobState.QUEUED, attempt=2, log_attempt=1, attempts=past, message=why)
    running = replace(queued, state=JobState.RUNNING, message="")
    succeeded = replace(running, state=JobState.SUCCEEDED)
    use(
        FakeCluster(
            RUNNING, b"one\ntw", queued, replace(queued, message=why.replace("9", "8")), running, b"o\n", succeeded
        )
    )
    pokes = Pokes()
    for _ in range(6):
        assert pokes.poke() is False
    assert pokes.poke()
    goes_on = "GPU job goes on in attempt 2"
    assert pokes.events == ["GPU job runs", "one", goes_on, "GPU job runs", "two", "GPU job succeeded"]


def test_retry_shows_nothing_twice_and_a_clear_shows_all_again(use: Any) -> None:
    use(FakeCluster(RUNNING, b"one\n", RUNNING))
    pokes = Pokes()
    pokes.poke(), pokes.poke()
    pokes.ti.try_number = 2
    pokes.poke()
    assert pokes.events.count("one") == 1
    pokes.ti.max_tries = 2
    pokes.poke()
    assert pokes.events.count("one") == 2


def test_two_sensors_of_one_job_both_show_all(use: Any) -> None:
    use(FakeCluster(RUNNING, b"one\n", RUNNING))
    first, second = Pokes(), Pokes()
    second.ti.task_id = "other"
    for pokes in (first, first, second):
        pokes.poke()
    assert first.events.count("one") == second.events.count("one") == 1


def test_output_can_be_left_out(use: Any) -> None:
    use(FakeCluster(RUNNING, b"one\n", SUCCEEDED))
    pokes = Pokes(get_logs=False)
    pokes.poke(), pokes.poke(), pokes.poke()
    assert pokes.events == ["GPU job runs", "GPU job succeeded"]


def test_bad_end_is_the_class_of_its_reason(use: Any) -> None:
    use(FakeCluster(RUNNING, b"boom\n", FAILED))
    pokes = Pokes()
    pokes.poke(), pokes.poke()
    with pytest.raises(GpuJobOutOfMemory) as raised:
        pokes.poke()
    assert raised.value.log_tail == "boom\n"


def test_outage_is_no_failure(use: Any) -> None:
    use(FakeCluster(RUNNING, GpuClusterConnectionError("no route"), RUNNING))
    pokes = Pokes()
    assert not pokes.poke()
    assert not pokes.poke()
    assert "unreachable_since" in pokes.store["gpu_job_watch"]["memory"]
    assert not pokes.poke()
    assert "unreachable_since" not in pokes.store["gpu_job_watch"]["memory"]


def test_outage_has_a_limit(use: Any) -> None:
    use(FakeCluster(GpuClusterConnectionError("no route")))
    pokes = Pokes(unreachable_timeout=0)
    pokes.poke()
    with pytest.raises(GpuClusterConnectionError):
        pokes.poke()


def test_who_would_ask_too_seldom_is_told(use: Any) -> None:
    """The cluster says of a job when it would end it as one that nobody asks about."""
    use(FakeCluster(replace(RUNNING, orphan_timeout_s=60.0)))
    with pytest.raises(InvalidJobError, match="poke_interval=60 s is not shorter than the job's orphan_timeout of 60"):
        Pokes(poke_interval=60).poke()
    assert not Pokes(poke_interval=20).poke()


def test_unknown_state_is_no_end(use: Any) -> None:
    use(FakeCluster(JobStatus("", JobState.UNKNOWN, message="it runs on gpu2, this is gpu1")))
    pokes = Pokes()
    assert not pokes.poke()
    assert not pokes.poke()
    assert pokes.events == ["State of the GPU job is not known now"]


def test_timeout_and_its_soft_form_are_airflows_own(use: Any) -> None:
    use(FakeCluster(RUNNING))
    with pytest.raises(AirflowSensorTimeout):
        Pokes(timeout=0, mode="poke").execute()
    with pytest.raises(AirflowSkipException):
        Pokes(timeout=0, mode="poke", soft_fail=True).execute()


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"timeout": 60}, AirflowSensorTimeout),
        ({"timeout": 60, "execution_timeout": timedelta(seconds=90)}, AirflowSensorTimeout),
        ({"timeout": 60, "execution_timeout": timedelta(seconds=30)}, AirflowTaskTimeout),
        ({"timeout": 60, "execution_timeout": timedelta(seconds=30), "soft_fail": True}, AirflowSkipException),
    ],
)
def test_the_limit_that_ended_a_deferral_names_the_error(limits: dict[str, Any], expected: type[BaseException]) -> None:
    """Airflow retries a task whose execution_timeout is over, and never a sensor whose timeout is."""
    sensor = GpuJobSensor(task_id="wait", job=HANDLE, deferrable=True, **limits)
    next_kwargs = {"error": TriggerFailureReason.TRIGGER_TIMEOUT}
    with pytest.raises(expected):
        sensor.resume_execution(TRIGGER_FAIL_REPR, next_kwargs, task_context())


@pytest.mark.usefixtures("gpu_cluster_conn")
def test_real_job_is_followed_to_its_end(cluster: Cluster, eventually: Any) -> None:
    handle = jobs.submit(cluster, "for i in 1 2 3; do echo line $i; sleep 0.3; done").handle
    pokes = Pokes(job=handle.to_json())
    assert eventually(pokes.poke)
    shown = [event for event in pokes.events if event.startswith("line")]
    assert shown == ["line 1", "line 2", "line 3"]
    assert pokes.events[-1] == "GPU job succeeded"


@pytest.mark.usefixtures("gpu_cluster_conn")
def test_real_failure_carries_exit_code_and_last_lines(cluster: Cluster) -> None:
    handle = jobs.submit(cluster, "echo last words; exit 3").handle
    jobs.wait(cluster, handle.job_id)
    with pytest.raises(GpuJobError) as raised:
        Pokes(job=handle.to_json()).poke()
    assert (raised.value.exit_code, raised.value.reason) == (3, "user_error")
    assert "last words" in raised.value.log_tail


@pytest.mark.parametrize(("mode", "expected"), [("reschedule", 7.5), ("poke", 1)])
def test_a_reschedule_leaves_the_scheduler_time(mode: str, expected: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL", "5")
    assert GpuJobSensor(task_id="wait", job={}, mode=mode, poke_interval=1).poke_interval == expected
    assert GpuJobSensor(task_id="wait", job={}, mode=mode, poke_interval=60).poke_interval == 60


@pytest.mark.parametrize("limits", [{"timeout": 1}, {"timeout": 60, "execution_timeout": timedelta(seconds=1)}])
def test_a_deferral_leaves_the_scheduler_time_too(limits: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL", "5")
    sensor = Pokes(deferrable=True, **limits).sensor()
    with pytest.raises(TaskDeferred) as deferred:
        execute(sensor, task_context())
    assert deferred.value.timeout == timedelta(seconds=7.5)
