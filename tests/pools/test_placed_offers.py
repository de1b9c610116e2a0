"""Where a job has run last, by what the clusters tell of it."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_gpu_cluster.pools.offer import Member, Offer
from airflow_provider_gpu_cluster.pools.placed_offers import last_of


def offer(conn_id: str, attempt: int, epoch: int | None, told: int, **status: Any) -> Offer:
    """Return the offer of a cluster whose attempt was launched under one placement, and which knows a later one."""
    placed: Any = {
        "placement": {"epoch": told, "key": "k"},
        "status": {"job_id": "job", "attempt": attempt, "state": "CANCELLED", "started_at": "then", **status},
    }
    if epoch is not None:
        placed["launched"] = {"epoch": epoch, "key": "k"}
    return Offer(Member(conn_id), True, placed=placed)


TAKEN_BACK = {"placement": "withdrawn", "started_at": None}


@pytest.mark.parametrize(
    ("offers", "last"),
    [
        # After a failover, the first cluster was told of the second, where the job began anew.
        ([offer("a", 1, 1, 2), offer("b", 1, 2, 2)], "b"),
        ([offer("a", 3, 1, 2), offer("b", 1, 2, 2)], "b"),
        # It only waited there, and had brought nothing along.
        ([offer("a", 3, 1, 2), offer("b", 1, 2, 3, **TAKEN_BACK)], "a"),
        # It waited there with all that it had.
        ([offer("a", 1, 1, 2), offer("b", 2, 2, 3, **TAKEN_BACK)], "b"),
        # Programs of an earlier version do not tell under which placement they have launched it.
        ([offer("a", 1, None, 2), offer("b", 2, None, 2)], "b"),
        ([Offer(Member("a"), True), offer("b", 1, None, 2)], "b"),
        ([Offer(Member("a"), True)], None),
    ],
)
def test_where_it_has_run_last(offers: list[Offer], last: str | None) -> None:
    assert last_of(offers) == last
    assert last_of(offers[::-1]) == last
