"""The callbacks of DAGs whose runs have ended. A whole Airflow calls them in tests/whole_airflow."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from airflow.sdk import DAG, task
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
from airflow.serialization.serialized_objects import DagSerialization

from airflow_provider_gpu_cluster.callbacks import jobs_of_run
from airflow_provider_gpu_cluster.callbacks.gpu_job import cancel_forgotten_jobs, cancel_jobs_of_run
from airflow_provider_gpu_cluster.callbacks.policy import dag_policy
from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError
from airflow_provider_gpu_cluster.jobs.status import JobState, JobStatus
from airflow_provider_gpu_cluster.operators.gpu_job import CancelGpuJobOperator, SubmitGpuJobOperator
from airflow_provider_gpu_cluster.sensors.gpu_job import GpuJobSensor
from airflow_provider_gpu_cluster.task_groups.gpu_job import GpuJobTaskGroup
from airflow_provider_gpu_cluster.tasks.job_notes import StoredXCom


class Airflow:
    """What a callback sees of a run: XComs and states of its tasks, and the clusters of its jobs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.xcoms: dict[tuple[str, str], list[Any]] = {}
        self.states: dict[str, dict[str, str | None]] = {}
        self.cancelled: list[tuple[str, tuple[str, ...]]] = []
        self.requested_by = ""
        self.answer: Callable[[str], Any] = lambda job_id: JobStatus(job_id, JobState.CANCELLED, attempt=1)
        self.unreachable = ""
        monkeypatch.setattr(StoredXCom, "get_all", self._get_all)
        monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", self._get_task_states)
        airflow = self

        class ClusterOfRun:
            """Stands for a cluster."""

            def __init__(self, conn_id: str) -> None:
                self.conn_id = conn_id
                self.settings: Any = self
                self.name = conn_id
                self.interrupted = threading.Event()

            def __enter__(self) -> ClusterOfRun:
                return self

            def __exit__(self, *error: object) -> None: ...

            def interrupt(self) -> None:
                self.interrupted.set()

            def retrying_for(self, seconds: float) -> ClusterOfRun:
                return self

            def cancel(self, job_ids: list[str], *, requested_by: str) -> list[JobStatus]:
                if self.conn_id == airflow.unreachable:
                    assert self.interrupted.wait(60)
                    raise GpuClusterConnectionError("interrupted")
                airflow.requested_by = requested_by
                airflow.cancelled.append((self.conn_id, tuple(job_ids)))
                return [airflow.answer(job_id) for job_id in job_ids]

        monkeypatch.setattr(jobs_of_run, "cluster_of", ClusterOfRun)

    def _get_all(self, *, key: str, dag_id: str, task_id: str, run_id: str) -> list[Any] | None:
        assert (dag_id, run_id) == ("lab", "run-1")
        value = self.xcoms.get((task_id, key))
        if isinstance(value, Exception):
            raise value
        return value

    def _get_task_states(self, *, dag_id: str, task_ids: list[str], run_ids: list[str]) -> dict[str, Any]:
        return {
            "run-1": {key: state for name in task_ids for key, state in self.states.get(name, {name: None}).items()}
        }


@pytest.fixture
def airflow(monkeypatch: pytest.MonkeyPatch) -> Airflow:
    return Airflow(monkeypatch)


def handle(number: int, conn_id: str = "one") -> dict[str, Any]:
    return {"gpu_cluster_conn_id": conn_id, "job_id": f"job-{number}"}


def context(dag: DAG) -> dict[str, Any]:
    return {"dag": dag, "run_id": "run-1", "reason": "timed_out"}


def test_all_jobs_of_a_run_are_found_and_cancelled_cluster_by_cluster(airflow: Airflow) -> None:
    with DAG("lab", schedule=None) as dag:
        mapped = SubmitGpuJobOperator.partial(task_id="mapped").expand(command=["a", "b"])
        single = SubmitGpuJobOperator(task_id="single", command="a", do_xcom_push=False)

        @task
        def by_hook() -> dict[str, Any]:
            return {}

        @task
        def unrelated() -> dict[str, Any]:
            return {}

        GpuJobSensor(task_id="wait", job=by_hook())
        GpuJobSensor.partial(task_id="waits").expand(job=mapped.output)
        unrelated() >> single
    airflow.xcoms = {
        ("mapped", "return_value"): [handle(1), "file:///not/here", handle(2, "two")],
        ("single", "gpu_job"): [handle(3)],
        ("by_hook", "return_value"): [handle(4)],
        ("unrelated", "return_value"): [handle(5)],
    }
    cancel_jobs_of_run(context(dag))
    assert sorted(airflow.cancelled) == [("one", ("job-1", "job-3", "job-4")), ("two", ("job-2",))]
    assert airflow.requested_by == "Airflow, as run run-1 of lab ended: timed_out"


def test_only_jobs_that_nothing_has_ended_are_forgotten(airflow: Airflow) -> None:
    with DAG("lab", schedule=None) as dag:
        group = GpuJobTaskGroup("group", command="a", destination="/x")
        SubmitGpuJobOperator.partial(task_id="waits", wait_for_completion=True).expand(command=["a", "b"])
        lasting = SubmitGpuJobOperator(task_id="lasting", command="a")
        ended = SubmitGpuJobOperator(task_id="ended", command="a")
        ended >> CancelGpuJobOperator(task_id="cancel", job=ended.output).as_teardown()
    assert group.cancel.task_id == "group.cancel"
    airflow.xcoms = {
        ("group.stage", "gpu_job_cancel_with_run"): [handle(1)],
        ("group.submit", "gpu_job_cancel_with_run"): [handle(1)],
        ("waits", "gpu_job_cancel_on_kill"): [handle(2), handle(3)],
        (lasting.task_id, "return_value"): [handle(4)],
        ("ended", "gpu_job_cancel_with_run"): [handle(5)],
    }
    airflow.states = {
        "group.cancel": {"group.cancel": "skipped"},
        "group.stage": {"group.stage": "success"},
        "group.submit": {"group.submit": "success"},
        "waits": {"waits_0": "success", "waits_1": "skipped"},
        "lasting": {"lasting": "success"},
        "ended": {"ended": "success"},
        "cancel": {"cancel": "success"},
    }
    cancel_forgotten_jobs(context(dag))
    # That a job of a mapped task has ended does no harm.
    assert airflow.cancelled == [("one", ("job-1", "job-2", "job-3"))]


def test_a_run_that_failed_as_its_job_did_asks_no_cluster(airflow: Airflow) -> None:
    with DAG("lab", schedule=None) as dag:
        GpuJobTaskGroup("group", command="a", destination="/x")
    airflow.xcoms = {("group.submit", "gpu_job_cancel_with_run"): [handle(1)]}
    names = ("stage", "submit", "wait", "collect", "cancel")
    airflow.states = {f"group.{name}": {f"group.{name}": "success"} for name in names}
    cancel_forgotten_jobs(context(dag))
    assert airflow.cancelled == []


def test_a_launch_that_is_under_way_is_cancelled_when_it_has_come(
    airflow: Airflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs_of_run, "_PAUSE_S", 0.01)
    answers = iter([JobStatus("job-1", JobState.UNKNOWN)] * 2 + [JobStatus("job-1", JobState.CANCELLED, attempt=1)])
    airflow.answer = lambda job_id: next(answers)
    jobs_of_run.cancel_in_time([("one", "job-1")], context(DAG("lab", schedule=None)))
    assert len(airflow.cancelled) == 3


def test_a_silent_cluster_and_an_unreadable_xcom_keep_nothing_else_alive(
    airflow: Airflow, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(jobs_of_run, "LIMIT_S", 0.2)
    airflow.unreachable = "one"
    with DAG("lab", schedule=None) as dag:
        SubmitGpuJobOperator(task_id="first", command="a")
        SubmitGpuJobOperator(task_id="second", command="a")
    airflow.xcoms = {
        ("first", "gpu_job"): RuntimeError("no such row"),  # type: ignore[dict-item]
        ("first", "return_value"): [handle(1)],
        ("second", "return_value"): [handle(2, "two")],
    }
    began = time.monotonic()
    cancel_jobs_of_run(context(dag))
    assert time.monotonic() - began < 30
    assert airflow.cancelled == [("two", ("job-2",))]
    assert "could not cancel job-1 through connection one: interrupted" in caplog.text
    assert "no such row" in caplog.text


def test_callbacks_never_raise(caplog: pytest.LogCaptureFixture) -> None:
    cancel_jobs_of_run({})
    cancel_forgotten_jobs({"dag": None, "run_id": "run-1"})
    assert caplog.text.count("could not look for the GPU jobs") == 2


def other(context: Any) -> None: ...


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, [cancel_forgotten_jobs]),
        (other, [other, cancel_forgotten_jobs]),
        ([other], [other, cancel_forgotten_jobs]),
        (cancel_jobs_of_run, cancel_jobs_of_run),
        ([cancel_jobs_of_run, other], [cancel_jobs_of_run, other]),
    ],
)
def test_dags_with_jobs_get_the_callback_once(given: Any, expected: Any) -> None:
    with DAG("lab", schedule=None, on_failure_callback=given, dagrun_timeout=timedelta(hours=1)) as dag:
        SubmitGpuJobOperator.partial(task_id="mapped").expand(command=["a", "b"])
    dag_policy(dag)
    dag_policy(dag)
    assert dag.on_failure_callback == expected
    assert DagSerialization.to_dict(dag)["dag"]["has_on_failure_callback"] is True


def test_dags_without_jobs_get_none() -> None:
    with DAG("lab", schedule=None) as dag:

        @task
        def other_task() -> None: ...

        other_task()
    dag_policy(dag)
    assert dag.on_failure_callback is None
