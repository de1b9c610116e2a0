"""The place of a part of an array is kept in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, cast

import pytest

from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError, LaunchError
from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.jobs.status import JobState, JobStatus
from airflow_provider_gpu_cluster.jobs.submission import Submission
from airflow_provider_gpu_cluster.pools import parts_keeping
from airflow_provider_gpu_cluster.pools.keeping import JobWentElsewhere
from airflow_provider_gpu_cluster.pools.members import Members
from airflow_provider_gpu_cluster.pools.parts import standing_of
from airflow_provider_gpu_cluster.pools.parts_keeping import PartKeeping

ARRAY = JobHandle("x.p2", "a", "/jobs/x.p2", "host", None, 1, array_size=2)
ELSEWHERE = JobHandle("x.p2", "b", "/b/x.p2", "host", None, 1, array_size=2)
THERE = Submission(ELSEWHERE, JobStatus("x.p2", JobState.QUEUED), created=True)


class Part:
    """Its cluster, which says what a test says, and its keeper, which notes what it is told. They are fakes."""

    def __init__(self, every_s: float | None = 0.02) -> None:
        self.every_s = every_s
        self.state: JobState | None = JobState.RUNNING
        self.told: list[tuple[str, str]] = []
        self.raises: Exception | None = None
        self.is_closed = threading.Event()
        self.went = threading.Event()

    def keep(self) -> PartKeeping:
        return PartKeeping(ARRAY, cast("Any", self), cast("Any", Members(lambda conn_id: Cluster(conn_id, self))))

    def is_due(self, status: JobStatus | None, *, is_out_of_reach: bool) -> bool:
        assert is_out_of_reach == (status is None)
        return True

    def in_contact(self, member: Any, status: JobStatus) -> None:
        assert len(status.elements) == 2
        self.told.append((member.conn_id, str(status.state)))
        self._raise()

    def out_of_reach(self) -> None:
        self.told.append(("", "out of reach"))
        self._raise()

    def _raise(self) -> None:
        if self.raises is not None:
            error, self.raises = self.raises, None
            self.went.set()
            raise error


class Cluster:
    def __init__(self, conn_id: str, part: Part) -> None:
        self.conn_id = conn_id
        self._part = part

    def retrying_for(self, seconds: float) -> Cluster:
        return self

    def statuses(self, job_ids: list[str]) -> list[JobStatus]:
        assert job_ids == ["x.p2", "x.p2_0", "x.p2_1"]
        if self._part.state is None:
            raise GpuClusterConnectionError("away")
        return [JobStatus(job_id, self._part.state, attempt=1) for job_id in job_ids]

    def close(self) -> None:
        self._part.is_closed.set()


def test_it_is_kept_where_it_is_and_followed(eventually: Callable[..., Any]) -> None:
    part = Part()
    keeping = part.keep()
    eventually(lambda: ("a", "RUNNING") in part.told)
    assert keeping.news() is None
    part.raises = JobWentElsewhere(THERE)
    part.state = None
    assert eventually(keeping.news) == THERE
    assert ("", "out of reach") in part.told
    assert keeping.news() is None
    part.state = JobState.QUEUED
    eventually(lambda: ("b", "QUEUED") in part.told)
    keeping.stop()
    assert part.is_closed.is_set()


def test_what_cannot_be_placed_anywhere_is_told_to_the_task() -> None:
    part = Part()
    part.raises = LaunchError("no cluster takes it")
    keeping = part.keep()
    assert part.is_closed.wait(10)
    with pytest.raises(LaunchError, match="no cluster takes it"):
        keeping.news()
    keeping.stop()


def test_what_can_only_move_is_left_alone_once_it_has_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts_keeping, "LOOK_SELDOM_S", 0.01)
    part = Part(every_s=None)
    keeping = part.keep()
    assert part.is_closed.wait(10)
    assert part.told == [("a", "RUNNING")]
    keeping.stop()


def test_an_array_stands_as_its_elements_do() -> None:
    waits = JobStatus("x_0", JobState.QUEUED, attempt=1, queue_place=4, orphan_timeout_s=60.0)
    runs = JobStatus("x_1", JobState.RUNNING, attempt=2, orphan_timeout_s=30.0)
    succeeded = JobStatus("x_2", JobState.SUCCEEDED, attempt=1)
    taken_back = JobStatus("x_3", JobState.CANCELLED, attempt=1, placement="withdrawn")
    standing = standing_of("x", [waits, runs, succeeded])
    assert (standing.state, standing.attempt, standing.queue_place, standing.orphan_timeout_s) == (
        "RUNNING",
        2,
        4,
        30.0,
    )
    assert [str(state) for state, _ in standing.elements] == ["QUEUED", "RUNNING", "SUCCEEDED"]
    assert not standing.is_elsewhere
    gone = standing_of("x", [succeeded, taken_back])
    assert (gone.state, gone.is_elsewhere) == (JobState.CANCELLED, True)
    assert standing_of("x", [succeeded], moved_to="b").is_elsewhere
