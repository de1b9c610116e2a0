"""Which clusters that have not answered may have a job that was to be cancelled."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError
from airflow_provider_gpu_cluster.jobs.status import JobState, JobStatus
from airflow_provider_gpu_cluster.pools.cancelled import check_cancelled
from airflow_provider_gpu_cluster.pools.placement_record import (
    CHOSEN,
    ENDED,
    LAUNCHED,
    SENT,
    Elsewhere,
    PlacementRecord,
)

NOW = 1000.0
HERE = JobStatus("job", JobState.CANCELLED, attempt=1)
NOTHING = JobStatus("job", JobState.UNKNOWN)
BEFORE = JobStatus("job", JobState.FAILED, attempt=1)


def check(silent: str, *answers: JobStatus, orphan_timeout_s: float | None = None, **record: Any) -> None:
    usual = {"key": "try-1 x", "conn_id": "a", "members": ("a", "b", "c"), "stage": LAUNCHED}
    values: dict[str, Any] = {**usual, **record}
    failed = {name: GpuClusterConnectionError(f"{name} is away") for name in silent}
    check_cancelled(
        PlacementRecord("job", 2, **values),
        "job",
        answers,
        failed,
        now=NOW,
        unsent_by="try-1",
        orphan_timeouts_s=dict.fromkeys(failed, orphan_timeout_s),
    )


@pytest.mark.parametrize(
    ("silent", "record", "answers"),
    [
        ("b", {}, [HERE]),
        ("a", {"stage": CHOSEN}, [NOTHING]),
        ("a", {"stage": ENDED}, []),
        ("b", {"elsewhere": {"b": Elsewhere(1, NOW - 1)}}, [HERE]),
        ("bc", {"conn_id": None, "stage": CHOSEN}, [HERE]),
        ("a", {"start_by": NOW - 50, "gone_after_s": 40.0}, []),
    ],
)
def test_it_is_cancelled(silent: str, record: dict[str, Any], answers: list[JobStatus]) -> None:
    check(silent, *answers, **record)
    check_cancelled(None, "job", [], {"a": Exception()}, now=NOW)


@pytest.mark.parametrize(
    ("silent", "record", "answers", "named"),
    [
        ("ab", {}, [NOTHING], "a"),
        ("a", {"stage": SENT}, [NOTHING], "a"),
        ("a", {"stage": CHOSEN, "key": "try-2 x"}, [NOTHING], "a"),
        ("bc", {"elsewhere": {"b": Elsewhere(1, NOW + 60)}}, [HERE], "b"),
        ("bc", {"conn_id": None, "stage": CHOSEN}, [NOTHING], "b and c"),
        # It failed there in an earlier try.
        ("c", {"conn_id": None, "stage": CHOSEN}, [BEFORE], "c"),
    ],
)
def test_one_that_may_have_it_is_named(
    silent: str, record: dict[str, Any], answers: list[JobStatus], named: str
) -> None:
    with pytest.raises(GpuClusterConnectionError, match=f"could not be cancelled on {named}, where it may wait or run"):
        check(silent, *answers, **record)


@pytest.mark.parametrize(
    ("record", "orphan_timeout_s", "told"),
    [
        ({}, None, r"When that cluster is back, end it there with GpuClusterHook\(\.\.\.\)\.cancel\(job_id\)"),
        ({}, 900.0, r"ends itself 900 s after somebody last asked about it \(orphan_timeout\)"),
        ({"start_by": NOW, "gone_after_s": 60.0}, 900.0, "nothing of it can run there after 1970-01-01 00:17:40 UTC"),
    ],
)
def test_the_error_says_what_ends_it(record: dict[str, Any], orphan_timeout_s: float | None, told: str) -> None:
    with pytest.raises(GpuClusterConnectionError, match=told):
        check("a", orphan_timeout_s=orphan_timeout_s, **record)
