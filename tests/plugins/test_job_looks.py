"""Many pages, few questions."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError, GpuClusterSetupError, LaunchError
from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.jobs.spec import JobSpec
from airflow_provider_gpu_cluster.jobs.status import JobState
from airflow_provider_gpu_cluster.plugins.job_detail import Known, Rights, job_detail
from airflow_provider_gpu_cluster.plugins.job_looks import JobLooks
from airflow_provider_gpu_cluster.plugins.job_model import JobDetail


def handle(job_id: str, conn_id: str = "lab") -> JobHandle:
    return JobHandle(job_id, conn_id, f"/jobs/{job_id}", "host", None, 1)


class Counter:
    """Counts the questions; ``answer`` decides what becomes of each."""

    def __init__(self, answer: Callable[[], Awaitable[None]] | Exception | None = None) -> None:
        self.calls: list[str] = []
        self.answer = answer

    async def __call__(self, conn_id: str, verb: str, request: dict[str, Any]) -> Any:
        self.calls.append(request["job_id"])
        if isinstance(self.answer, Exception):
            raise self.answer
        if self.answer is not None:
            await self.answer()
        return {"status": {"job_id": request["job_id"], "state": "RUNNING"}}


async def look(looks: JobLooks, *handles: JobHandle, wait_s: float = 5) -> list[Known]:
    return list(await asyncio.gather(*(looks.look(one, wait_s=wait_s) for one in handles)))


def test_pages_opened_together_cost_one_question() -> None:
    cluster = Counter(lambda: asyncio.sleep(0.01))
    known = asyncio.run(look(JobLooks(cluster), *[handle("a")] * 50))
    assert cluster.calls == ["a"]
    assert all(one.status and one.status.state is JobState.RUNNING and one.as_of for one in known)


def test_an_answer_is_kept_for_a_moment_and_until_something_was_done() -> None:
    cluster = Counter()

    async def run() -> None:
        looks = JobLooks(cluster, keep_s=3600)
        await look(looks, handle("a"))
        await look(looks, handle("a"))
        assert len(cluster.calls) == 1
        looks.forget(handle("a"))
        looks.forget(handle("never asked for"))
        await look(looks, handle("a"))
        assert len(cluster.calls) == 2
        old = JobLooks(cluster, keep_s=0)
        await look(old, handle("a"))
        await look(old, handle("a"))
        assert len(cluster.calls) == 4

    asyncio.run(run())


def test_a_slow_cluster_is_asked_once_and_keeps_nobody_waiting() -> None:
    async def run() -> None:
        gate = asyncio.Event()

        async def wait() -> None:
            await gate.wait()

        cluster = Counter(wait)
        looks = JobLooks(cluster)
        for _ in range(3):
            [known] = await look(looks, handle("a"), wait_s=0.001)
            assert (known.status, known.error) == (None, None)
        gate.set()
        [known] = await look(looks, handle("a"))
        assert known.status
        assert cluster.calls == ["a"]

    asyncio.run(run())


def test_an_unreachable_cluster_is_left_alone_and_what_was_known_stays() -> None:
    async def run() -> None:
        cluster = Counter()
        looks = JobLooks(cluster, keep_s=0, keep_error_s=3600)
        await look(looks, handle("a"))
        cluster.answer = GpuClusterConnectionError("lab does not answer")
        [known] = await look(looks, handle("a"))
        assert known.error == "lab does not answer"
        assert known.status
        assert known.as_of
        assert known.error_since
        assert known.error_since > known.as_of
        [other] = await look(looks, handle("b"))
        assert (other.error, other.status) == ("lab does not answer", None)
        assert cluster.calls == ["a", "a"]
        cluster.answer = None
        [elsewhere] = await look(looks, handle("c", "other"))
        assert elsewhere.error is None
        # A second outage begins anew, the first one goes on.
        looks = JobLooks(cluster, keep_s=0, keep_error_s=0)
        cluster.answer = GpuClusterConnectionError("no route")
        first, second = [(await look(looks, handle("a")))[0].error_since for _ in range(2)]
        assert first == second
        cluster.answer = None
        assert (await look(looks, handle("a")))[0].error is None

    asyncio.run(run())


def test_what_is_wrong_with_one_job_is_said_of_that_job() -> None:
    cluster = Counter(LaunchError("no such job: a"))

    async def run() -> None:
        looks = JobLooks(cluster)
        [known] = await look(looks, handle("a"))
        assert known.error == "no such job: a"
        cluster.answer = None
        assert (await look(looks, handle("b")))[0].error is None

    asyncio.run(run())


def test_only_so_many_jobs_are_remembered() -> None:
    cluster = Counter()

    async def run() -> None:
        looks = JobLooks(cluster, most_jobs=4, keep_s=3600)
        for number in range(5):
            await look(looks, handle(str(number)))
        assert len(looks._looks) == 4
        await look(looks, handle("4"))
        assert cluster.calls.count("4") == 1
        await look(looks, handle("0"))
        assert cluster.calls.count("0") == 2

    asyncio.run(run())


def test_a_job_on_a_real_cluster_with_all_that_is_told_of_it(
    cluster: Cluster, gpu_cluster_conn: dict[str, Any], eventually: Callable[..., Any]
) -> None:
    submitted = cluster.submit(
        "looked-at",
        spec=JobSpec(command="-"),
        sources=[],
        env={"SEED": "7"},
        run_script='echo "{\\"step\\": 1, \\"total\\": 2}" >> $PROGRESS_FILE\nsleep 30\n',
        request_key="1",
        generation="0",
        record={},
    )

    def detail() -> dict[str, Any]:
        (known,) = asyncio.run(look(JobLooks(), submitted.handle, wait_s=30))
        return job_detail(submitted.handle, known, Rights(read_log=True))

    told = eventually(lambda: (one := detail())["progress"] and one)
    JobDetail.model_validate(told)
    assert (told["state"], told["error"]) == ("RUNNING", None)
    assert (told["progress"]["step"], told["progress"]["total"]) == (1, 2)
    assert told["progress"]["seconds_left"] > 0
    assert [line["act"] for line in told["acts"]] == ["submit", "launch"]
    assert told["env_names"] == ["SEED"]
    assert "PROGRESS_FILE" in told["script"]


def test_a_cluster_that_is_not_there_says_so_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    connection = {"conn_type": "gpu_cluster", "host": "127.0.0.1", "port": port, "password": "hunter2"}
    monkeypatch.setenv("AIRFLOW_CONN_NOWHERE", json.dumps(connection))
    (known,) = asyncio.run(look(JobLooks(), handle("a", "nowhere"), wait_s=30))
    assert known.error
    assert str(port) in known.error
    assert "hunter2" not in known.error


def test_a_handle_cannot_lead_to_another_kind_of_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("AIRFLOW_CONN_DATABASE", f"postgres://me:hunter2@127.0.0.1:{server.getsockname()[1]}/db")
        (known,) = asyncio.run(look(JobLooks(), handle("a", "database"), wait_s=30))
        assert known.error
        assert "is of type postgres" in known.error
        assert GpuClusterSetupError.__name__ not in known.error
        server.settimeout(0.2)
        with pytest.raises(TimeoutError):
            server.accept()
