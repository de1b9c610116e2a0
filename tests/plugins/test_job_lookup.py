"""Many pages, few calls."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError, GpuClusterSetupError, LaunchError
from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.jobs.spec import JobSpec
from airflow_provider_gpu_cluster.jobs.status import JobState, JobStatus
from airflow_provider_gpu_cluster.plugins.job_lookup import JobAnswer, JobLookup, ask_cluster
from tests.harness.patience import PATIENCE_S


def handle(job_id: str, conn_id: str = "lab") -> JobHandle:
    return JobHandle(job_id, conn_id, f"/jobs/{job_id}", "host", None, 1)


class Counter:
    """Counts the calls; ``answer`` decides what each brings."""

    def __init__(self, answer: Callable[[], None] = lambda: None) -> None:
        self.calls: list[str] = []
        self.answer = answer

    def __call__(self, asked: JobHandle) -> JobAnswer:
        self.calls.append(asked.job_id)
        self.answer()
        return JobAnswer(JobStatus(asked.job_id, JobState.RUNNING))


def wait_for(gate: threading.Event) -> None:
    gate.wait(PATIENCE_S)


def look(lookup: JobLookup, *handles: JobHandle, wait_s: float = 5) -> list[JobAnswer]:
    async def all_at_once() -> list[JobAnswer]:
        return list(await asyncio.gather(*(lookup.look(one, wait_s=wait_s) for one in handles)))

    return asyncio.run(all_at_once())


def test_pages_opened_together_cost_one_call() -> None:
    cluster = Counter(lambda: time.sleep(0.1))
    answers = look(JobLookup(cluster), *[handle("a")] * 50)
    assert cluster.calls == ["a"]
    assert all(answer.status and answer.status.state is JobState.RUNNING for answer in answers)


def test_an_answer_is_kept_for_a_moment_only() -> None:
    cluster = Counter()
    lookup = JobLookup(cluster, keep_s=0.2)
    look(lookup, handle("a"))
    look(lookup, handle("a"))
    assert len(cluster.calls) == 1
    time.sleep(0.25)
    look(lookup, handle("a"))
    assert len(cluster.calls) == 2


def test_a_slow_cluster_is_asked_once_however_often_it_is_looked_at() -> None:
    gate = threading.Event()
    cluster = Counter(lambda: wait_for(gate))
    lookup = JobLookup(cluster)
    for _ in range(3):
        [answer] = look(lookup, handle("a"), wait_s=0.02)
        assert (answer.status, answer.error) == (None, None)
    gate.set()
    [answer] = look(lookup, handle("a"))
    assert answer.status
    assert cluster.calls == ["a"]


def test_an_unreachable_cluster_is_left_alone_for_a_while_and_others_are_not() -> None:
    def unreachable() -> None:
        raise GpuClusterConnectionError("lab does not answer")

    cluster = Counter(unreachable)
    lookup = JobLookup(cluster, keep_s=0, keep_error_s=0.3)
    look(lookup, handle("a"))
    [answer] = look(lookup, handle("b"))
    assert answer.error == "lab does not answer"
    assert cluster.calls == ["a"]
    look(lookup, handle("c", "other"))
    assert cluster.calls == ["a", "c"]
    time.sleep(0.35)
    look(lookup, handle("b"))
    assert cluster.calls == ["a", "c", "b"]


def test_what_is_wrong_with_one_job_is_said_of_that_job() -> None:
    def gone() -> None:
        raise LaunchError("no such job: a")

    [answer] = look(JobLookup(Counter(gone)), handle("a"))
    assert answer.error == "no such job: a"


def test_the_text_of_an_unexpected_error_stays_on_the_server(caplog: pytest.LogCaptureFixture) -> None:
    def leak() -> None:
        raise RuntimeError("password=hunter2")

    [answer] = look(JobLookup(Counter(leak)), handle("a"))
    assert answer.error is not None
    assert "hunter2" not in answer.error
    assert "RuntimeError" in answer.error
    assert "hunter2" in caplog.text


def test_only_so_many_jobs_are_remembered() -> None:
    gate = threading.Event()
    cluster = Counter()
    lookup = JobLookup(cluster, max_jobs=4, keep_s=60)
    look(lookup, *[handle(str(number)) for number in range(4)])
    look(lookup, handle("4"))
    assert len(lookup._calls) == 4
    look(lookup, handle("0"))
    assert cluster.calls.count("0") == 2

    cluster.answer = lambda: wait_for(gate)
    look(lookup, *[handle(f"slow {number}") for number in range(4)], wait_s=0.05)
    [answer] = look(lookup, handle("one too many"))
    gate.set()
    assert answer.error is not None
    assert "Too many" in answer.error


def test_a_real_cluster_is_asked_through_the_connection_of_the_handle(
    cluster: Cluster, gpu_cluster_conn: dict[str, Any], eventually: Callable[..., Any]
) -> None:
    submitted = cluster.submit(
        "looked-at",
        spec=JobSpec(command="-"),
        sources=[],
        env={},
        run_script='echo "{\\"step\\": 1, \\"total\\": 2}" >> $PROGRESS_FILE\necho hello\nsleep 30\n',
        request_key="1",
        generation="0",
        record={},
    )
    answer = eventually(lambda: (one := ask_cluster(submitted.handle)).status and one.status.log_tail and one)
    running = answer.status
    assert running.state is JobState.RUNNING
    assert running.progress == {"step": 1, "total": 2}
    assert running.log_tail == "hello\n"
    assert [line["act"] for line in answer.acts] == ["submit", "launch"]


def test_a_cluster_that_is_not_there_says_so_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    connection = {"conn_type": "gpu_cluster", "host": "127.0.0.1", "port": port, "password": "hunter2"}
    monkeypatch.setenv("AIRFLOW_CONN_LAB", json.dumps(connection))
    began = time.monotonic()
    with pytest.raises(GpuClusterConnectionError) as error:
        ask_cluster(handle("a"))
    assert time.monotonic() - began < 30
    assert str(port) in str(error.value)
    assert "hunter2" not in str(error.value)


def test_a_handle_cannot_lead_to_another_kind_of_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("AIRFLOW_CONN_LAB", f"postgres://me:hunter2@127.0.0.1:{server.getsockname()[1]}/db")
        with pytest.raises(GpuClusterSetupError, match="is of type postgres"):
            ask_cluster(handle("a"))
        server.settimeout(0.2)
        with pytest.raises(TimeoutError):
            server.accept()
