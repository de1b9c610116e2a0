"""What follows when the chosen cluster of a pool does not take a job after all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from airflow_provider_gpu_cluster.exceptions import (
    GpuClusterConnectionError,
    GpuClusterError,
    InvalidJobError,
    JobConflictError,
    SourceError,
)
from airflow_provider_gpu_cluster.pools.offer import Offer

# Faults of the job, which no other cluster would make good.
OF_THE_JOB = (InvalidJobError, SourceError, JobConflictError)


def with_refusal(offer: Offer, refusal: GpuClusterError | None) -> Offer:
    """Return the offer of a cluster that has refused the job since, if it has."""
    return offer if refusal is None else replace(offer, fits=False, why_not=str(refusal))


def refusal_of(refusals: Iterable[GpuClusterError], error: GpuClusterError) -> GpuClusterError:
    """
    Return what to raise when no cluster is left: the error of one that seemed to fit, with what all have said.

    :param error: of the choice among all, which has that.
    """
    known = list(refusals) or [error]
    # One that passes tells that another try may succeed.
    passing = [refusal for refusal in known if isinstance(refusal, GpuClusterConnectionError)]
    return type((passing or known)[-1])(str(error))
