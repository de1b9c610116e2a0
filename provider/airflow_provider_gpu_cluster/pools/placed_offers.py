"""What the offers of clusters tell of the job itself: where it waits or runs, and where it ran last."""

from __future__ import annotations

from collections.abc import Sequence

from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.gpu_run.protocol import placement as words
from airflow_provider_gpu_cluster.gpu_run.protocol.placement import order
from airflow_provider_gpu_cluster.pools.offer import Offer
from airflow_provider_gpu_cluster.pools.placement_record import Rank

# Of a cluster that was told of no placement.
NO_RANK: Rank = (0, "")


def rank_of(offer: Offer) -> Rank:
    """Return the rank of the highest placement that a cluster was told of."""
    placement = offer.placed.get("placement") if offer.placed is not None else None
    return order(placement) if placement else NO_RANK


def state_of(offer: Offer) -> str | None:
    """Return the state of the job's last attempt there; None if there is none."""
    status = offer.placed.get("status") if offer.placed is not None else None
    return None if status is None else status["state"]


def is_renewed_only(offer: Offer) -> bool:
    """Return whether the job is kept there only for as long as its placement is renewed."""
    placement = offer.placed.get("placement") if offer.placed is not None else None
    return placement is not None and placement.get("renewed_only", False)


def is_active(offer: Offer) -> bool:
    """Return whether an attempt waits or runs there, or may."""
    state = state_of(offer)
    if state == protocol.UNKNOWN:
        # A cluster also says so of a job that it does not have, and tells where that is.
        return "moved_to" not in (offer.placed or {}).get("status", {})
    return state in (protocol.QUEUED, protocol.RUNNING)


def knows_otherwise(offer: Offer, conn_id: str) -> bool:
    """Return whether a cluster was told that the job is on another than this one."""
    placement = offer.placed.get("placement") if offer.placed is not None else None
    return placement is not None and placement.get("conn_id") not in (None, conn_id)


def holder_of(offers: Sequence[Offer]) -> Offer | None:
    """Return the cluster on which the job waits or runs, or has succeeded; of several, the one of the last choice."""
    have = [offer for offer in offers if _is_to_run(offer) or state_of(offer) == protocol.SUCCEEDED]
    return max(have, key=rank_of, default=None)


def _is_to_run(offer: Offer) -> bool:
    """Return whether an attempt waits or runs there, and not only until it is ended, as the job is elsewhere."""
    return is_active(offer) and (offer.placed or {}).get("kind", words.CLAIM) == words.CLAIM


def last_of(offers: Sequence[Offer]) -> str | None:
    """Return the cluster where the job ran last, if all its attempts have ended: there is what it has saved."""
    had = [offer for offer in offers if state_of(offer) is not None]
    return max(had, key=_last_run).conn_id if had else None


def _last_run(offer: Offer) -> tuple[bool, Rank, int, bool, Rank]:
    """
    Return what grows with the launches that have run, or have brought along what others have saved.

    The numbers of attempts say that only between moves: after a failover, a job begins anew.
    """
    assert offer.placed is not None
    status, launched = offer.placed.get("status", {}), offer.placed.get("launched")
    was_taken_back = "placement" in status and not status.get("started_at")
    has_run = (status.get("attempt") or 0) - was_taken_back
    return has_run > 0, order(launched) if launched else NO_RANK, has_run, not was_taken_back, rank_of(offer)
