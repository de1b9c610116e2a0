"""A pool's hook follows jobs from cluster to cluster, on clusters that are fakes."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError, LaunchError
from airflow_provider_gpu_cluster.hooks.pool_calls import SILENT_S, PoolCalls
from airflow_provider_gpu_cluster.jobs.status import JobState, JobStatus
from airflow_provider_gpu_cluster.pools.members import Members
from airflow_provider_gpu_cluster.pools.offer import Member
from airflow_provider_gpu_cluster.pools.pool import Pool

LOST = JobStatus("job", JobState.LOST)


class FakeMember:
    """A cluster that tells one status after the other; the last one stays. It is a fake."""

    def __init__(self, conn_id: str, told: list[JobStatus | Exception]) -> None:
        self.settings = SimpleNamespace(conn_id=conn_id)
        self._told = told
        self.calls = 0

    def statuses(self, job_ids: Sequence[str], *, tail_bytes: int = 0) -> list[JobStatus]:
        self.calls += 1
        told = self._told.pop(0) if len(self._told) > 1 else self._told[0]
        if isinstance(told, Exception):
            raise told
        return [told for _ in job_ids]

    def audit(self, job_id: str) -> dict[str, Any]:
        if isinstance(self._told[0], Exception):
            raise self._told[0]
        return {"acts": [{"at": str(number), "act": "submit"} for number, _ in enumerate(self._told[1:])]}

    def retrying_for(self, seconds: float) -> FakeMember:
        assert seconds < SILENT_S, "it would be given up before it says why it cannot be reached"
        return self

    def cancel(self, job_ids: Sequence[str], **how: Any) -> list[JobStatus]:
        return self.statuses(job_ids)

    def interrupt(self) -> None: ...

    def close(self) -> None: ...


def calls_of(**told: list[Any]) -> tuple[PoolCalls, dict[str, FakeMember]]:
    fakes = {conn_id: FakeMember(conn_id, statuses) for conn_id, statuses in told.items()}
    members: Any = Members(fakes.__getitem__)
    return PoolCalls(Pool(tuple(map(Member, told))), members), fakes


def went(where: str) -> JobStatus:
    return JobStatus("job", JobState.CANCELLED, attempt=1, placement="withdrawn", moved_to=where)


RUNS = JobStatus("job", JobState.RUNNING, attempt=2)


@pytest.mark.parametrize(
    ("told", "where", "state"),
    [
        ({"a": [RUNS], "b": [LOST]}, "a", "RUNNING"),
        ({"a": [went("b")], "b": [RUNS]}, "b", "RUNNING"),
        ({"a": [went("b")], "b": [went("c")], "c": [RUNS]}, "c", "RUNNING"),
        ({"a": [went("b"), RUNS], "b": [went("a")]}, "a", "RUNNING"),
        # Taken back, and not launched yet: that is no end.
        ({"a": [went("b")], "b": [went("a")]}, "a", "UNKNOWN"),
    ],
)
def test_a_job_is_found_hop_by_hop(told: dict[str, list[JobStatus]], where: str, state: str) -> None:
    calls, fakes = calls_of(**told)
    assert [str(status.state) for status in calls.statuses([("a", "job"), ("a", "other")])] == [state] * 2
    # Both in one call.
    assert sum(fake.calls for fake in fakes.values()) <= 4
    if state != "UNKNOWN":
        assert calls.conn_id_after("a", "job") == where


@pytest.mark.parametrize(
    ("told", "where"),
    [
        ({"a": [LOST], "b": [RUNS]}, "b"),
        ({"a": [went("b")], "b": [RUNS]}, "b"),
        ({"a": [JobStatus("job", JobState.UNKNOWN)], "b": [JobStatus("job", JobState.FAILED, attempt=1)]}, "b"),
        (
            {"a": [JobStatus("job", JobState.FAILED, attempt=3)], "b": [JobStatus("job", JobState.QUEUED, attempt=1)]},
            "b",
        ),
        ({"a": [LOST], "b": [JobStatus("job", JobState.UNKNOWN)]}, "b"),  # staged
        ({"a": [GpuClusterConnectionError("away")], "b": [RUNS]}, "b"),
    ],
)
def test_a_bare_id_is_that_of_the_cluster_where_the_job_is(told: dict[str, list[Any]], where: str) -> None:
    assert calls_of(**told)[0].conn_ids_of(["job"]) == [where]


def test_a_job_that_nobody_has_is_told_and_not_guessed() -> None:
    with pytest.raises(LaunchError, match=r"no cluster of the pool knows job job \(asked were a, b\)"):
        calls_of(a=[LOST], b=[LOST])[0].conn_ids_of(["job"])
    with pytest.raises(GpuClusterConnectionError, match="and these have not: b: away"):
        calls_of(a=[LOST], b=[GpuClusterConnectionError("away")])[0].conn_ids_of(["job"])
    unknown = JobStatus("job", JobState.UNKNOWN, message="Slurm cannot be asked")
    with pytest.raises(GpuClusterConnectionError, match="have not: b: away; a: Slurm cannot be asked"):
        calls_of(a=[unknown], b=[GpuClusterConnectionError("away")])[0].conn_ids_of(["job"])


def test_acts_that_nobody_knows_are_told_of_all() -> None:
    unknown, away = LaunchError("a: there is no job"), GpuClusterConnectionError("away")
    with pytest.raises(LaunchError, match=r"no cluster of the pool knows job job \(asked were a, b\)"):
        calls_of(a=[unknown], b=[unknown])[0].audit("job")
    with pytest.raises(GpuClusterConnectionError, match="and these have not: b: away"):
        calls_of(a=[unknown], b=[away])[0].audit("job")
    assert calls_of(a=[unknown], b=[LOST, LOST])[0].audit("job") == [
        {"at": "0", "act": "submit", "gpu_cluster_conn_id": "b"}
    ]


DOWN = GpuClusterConnectionError("it is down")
NOTHING = JobStatus("job", JobState.UNKNOWN)
ENDED = JobStatus("job", JobState.CANCELLED, attempt=1)
ORPHANED = JobStatus("job", JobState.FAILED, reason="orphaned", attempt=1)


@pytest.mark.parametrize(
    ("told", "where"),
    [
        ({"a": [DOWN], "b": [ENDED]}, "b"),
        ({"a": [went("b")], "b": [RUNS]}, "b"),
        # After a failover that nobody has told the first of.
        ({"a": [ORPHANED], "b": [RUNS]}, "b"),
        ({"a": [NOTHING], "b": [NOTHING]}, "a"),
        # Where it was is known, and where it may be does not answer.
        ({"a": [DOWN], "b": [NOTHING]}, ""),
        ({"a": [went("b")], "b": [DOWN]}, ""),
        ({"a": [ORPHANED], "b": [DOWN]}, ""),
    ],
)
def test_a_job_is_cancelled_wherever_it_is(told: dict[str, list[Any]], where: str) -> None:
    calls, fakes = calls_of(**told)
    if where:
        assert calls.cancel_one("job", requested_by="a test", wait_s=0)[0] == where
    else:
        with pytest.raises(
            GpuClusterConnectionError, match="job job may wait or run on a cluster that does not answer"
        ):
            calls.cancel_one("job", requested_by="a test", wait_s=0)
    assert [fake.calls for fake in fakes.values()] == [1, 1]
