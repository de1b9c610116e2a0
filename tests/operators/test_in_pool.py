"""A task waits for its job of a pool through the loss of a cluster: the job never runs on two of them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.hooks.gpu_cluster import GpuClusterHook
from airflow_provider_gpu_cluster.jobs import parameter_checks
from airflow_provider_gpu_cluster.jobs.status import JobState
from airflow_provider_gpu_cluster.operators.gpu_job import SubmitGpuJobOperator
from airflow_provider_gpu_cluster.pools import holding, keeping
from airflow_provider_gpu_cluster.sandbox import Sandbox
from airflow_provider_gpu_cluster.watch import watch
from tests.harness.deferral import TaskLogs, own_watchers, task_logs
from tests.harness.patience import PATIENCE_S
from tests.harness.task_context import StateStore, TaskInstance, execute, task_context

pytestmark = pytest.mark.long

FIRST, SECOND = "gpu01", "gpu02"
FAILOVER_S, ORPHAN_S = 6.0, 8.0


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Sandbox]:
    """Return two clusters with a GPU each, and let everything that takes minutes take seconds."""
    monkeypatch.setattr(parameter_checks, "SHORTEST_FAILOVER_S", 0.0)
    monkeypatch.setattr(holding, "MARGIN_S", 0.3)
    monkeypatch.setattr(watch, "RETRY_FOR_S", 0.0)
    monkeypatch.setattr(keeping, "TELL_EVERY_S", 0.5)
    with Sandbox(gpus=[1, 1]) as sandbox:
        for name, value in sandbox.environ().items():
            monkeypatch.setenv(name, value)
        yield sandbox


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TaskLogs]:
    """Return what is logged during the test."""
    with own_watchers(monkeypatch), task_logs(tmp_path / "log", monkeypatch) as logs:
        yield logs


@pytest.fixture
def task(tmp_path: Path, logs: TaskLogs) -> Iterator[Task]:
    """Return a task, which is told to stop at the end."""
    task = Task(tmp_path, logs)
    yield task
    task.operator.on_kill()


class Task:
    """A task that waits for its job in another thread."""

    def __init__(self, folder: Path, logs: TaskLogs) -> None:
        self.runs = folder / "runs"
        self.gate = folder / "gate"
        self.logs = logs
        self.ti = TaskInstance("train")
        self.store = StateStore()
        self.make()

    def make(self, **options: Any) -> None:
        """Make the operator."""
        # Each run says where it is, for as long as it lives.
        command = (
            f"echo start $JOB_DIR $(date +%s.%N) >> {self.runs}; "
            f"while [ ! -e {self.gate} ]; do echo alive $JOB_DIR $(date +%s.%N) >> {self.runs}; sleep 0.1; done"
        )
        options = {"command": command, "policy": "in_order", "orphan_timeout": ORPHAN_S, "grace": 0.5, **options}
        self.operator = SubmitGpuJobOperator(
            task_id="train",
            gpu_cluster_conn_id=[FIRST, SECOND],
            wait_for_completion=True,
            failover_after=FAILOVER_S,
            poll_interval=0.2,
            **options,
        )

    def until(self, check: Callable[[], Any]) -> Any:
        """Wait until something is true, or the task has failed."""
        pause = threading.Event()
        for _ in range(round(PATIENCE_S * 20)):
            if result := check():
                return result
            if self.end.done():
                raise AssertionError(f"the task has ended: {self.end.result()}")
            pause.wait(0.05)
        raise AssertionError(f"the log says only {self.logs.events}")

    def start(self) -> None:
        """Start it."""
        self.end: Future[Any] = Future()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            self.end.set_result(execute(self.operator, task_context(self.ti, store=self.store)))
        except BaseException as error:
            self.end.set_exception(error)

    def result(self) -> Any:
        """Return what the task returns."""
        return self.end.result(PATIENCE_S)

    @property
    def alive(self) -> list[tuple[str, float]]:
        """Where the job was alive, and when."""
        lines = self.runs.read_text().splitlines() if self.runs.exists() else []
        return [(Path(line.split()[1]).parts[-3], float(line.split()[2])) for line in lines]

    @property
    def places(self) -> list[str]:
        """Where the job began."""
        lines = self.runs.read_text().splitlines() if self.runs.exists() else []
        return [Path(line.split()[1]).parts[-3] for line in lines if line.startswith("start")]


def blocked(sandbox: Sandbox) -> tuple[GpuClusterHook, dict[str, Any]]:
    """Let a job take the GPU of the first cluster."""
    hook = GpuClusterHook(FIRST)
    return hook, hook.submit(command="sleep 1000", job_id="blocker")


def test_a_job_that_waits_where_nobody_gets_is_launched_elsewhere(
    pool: Sandbox, task: Task, eventually: Callable[..., Any]
) -> None:
    first, _ = pool.clusters
    hook, blocker = blocked(pool)
    eventually(lambda: hook.status(blocker).state is JobState.RUNNING)
    task.make(policy=lambda offers: offers[0])
    task.start()
    task.until(lambda: "GPU job waits for its turn" in task.logs.events)
    first.cut_off()
    task.until(lambda: task.places == ["gpu02"])
    assert task.ti.xcoms["return_value"]["gpu_cluster_conn_id"] == SECOND
    # It comes back, and its GPU is free now.
    first.restore()
    hook.cancel(blocker, wait_s=10)
    job_id = task.ti.xcoms["return_value"]["job_id"]
    status = task.until(lambda: (found := hook.status(job_id)).final and found.moved_to and found)
    assert (status.state, status.started_at, status.moved_to) == (JobState.CANCELLED, None, SECOND)
    task.gate.touch()
    result = task.result()
    assert result["gpu_cluster_conn_id"] == SECOND
    assert task.places == ["gpu02"]
    assert task.store["gpu_cluster_placement"]["elsewhere"] == {}
    hook.close()


def test_a_job_that_runs_where_nobody_gets_has_ended_before_it_is_launched_elsewhere(
    pool: Sandbox, task: Task, eventually: Callable[..., Any]
) -> None:
    first, _ = pool.clusters
    task.start()
    task.until(lambda: task.places == ["gpu01"])
    first.cut_off()
    task.until(lambda: "gpu02" in task.places)
    first.restore()
    task.gate.touch()
    assert task.result()["gpu_cluster_conn_id"] == SECOND
    assert task.places == ["gpu01", "gpu02"]
    last_there = max(moment for place, moment in task.alive if place == "gpu01")
    first_here = min(moment for place, moment in task.alive if place == "gpu02")
    assert last_there < first_here


def test_what_may_run_on_out_of_reach_is_waited_for(pool: Sandbox, task: Task, eventually: Callable[..., Any]) -> None:
    first, _ = pool.clusters
    task.make(orphan_timeout=None)
    task.start()
    task.until(lambda: task.places == ["gpu01"])
    first.cut_off()
    threading.Event().wait(FAILOVER_S + 2)
    task.gate.touch()
    first.restore()
    assert task.result()["gpu_cluster_conn_id"] == FIRST
    assert task.places == ["gpu01"]
    assert json.dumps(task.logs.events).count("failover_after is of use only") == 1
