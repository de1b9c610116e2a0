"""What follows when the chosen cluster of a pool does not take a job after all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from airflow_provider_gpu_cluster.exceptions import (
    GpuClusterConnectionError,
    GpuClusterError,
    InvalidJobError,
    JobConflictError,
    SourceError,
)
from airflow_provider_gpu_cluster.pools.choice import reasons
from airflow_provider_gpu_cluster.pools.offer import Offer


def is_of_the_job(error: GpuClusterError) -> bool:
    """Return whether no other cluster would make it good."""
    # What one cluster cannot fetch, another may: git, or the way to its server.
    is_of_source = isinstance(error, SourceError) and not error.code
    return is_of_source or isinstance(error, (InvalidJobError, JobConflictError))


def with_refusal(offer: Offer, refusal: GpuClusterError | None) -> Offer:
    """Return the offer of a cluster that has refused the job since, if it has."""
    if refusal is None:
        return offer
    is_passing = isinstance(refusal, GpuClusterConnectionError)
    return replace(offer, fits=False, why_not=str(refusal), is_passing=is_passing)


def refusal_of(refusals: Iterable[GpuClusterError], offers: Sequence[Offer]) -> GpuClusterError:
    """
    Return what to raise when no cluster is left: the error of one that seemed to fit, with what all have said.

    :param refusals: at least one.
    :param offers: of all.
    """
    known = list(refusals)
    # One that passes tells that another try may succeed.
    passing = [refusal for refusal in known if isinstance(refusal, GpuClusterConnectionError)]
    return type((passing or known)[-1])(f"no cluster of the pool has taken this job:{reasons(offers)}")
