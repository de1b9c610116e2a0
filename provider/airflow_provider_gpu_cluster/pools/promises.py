"""GPUs that the tasks of one process have just chosen, before an answer of their clusters says so."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

from airflow_provider_gpu_cluster.pools.choice import TYPICAL_RUN_S
from airflow_provider_gpu_cluster.pools.offer import Offer, gpus_of

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.gpu_run.protocol.appraisal import JobToAppraise

# How long a choice counts of which nothing more is heard, in seconds.
FORGOTTEN_AFTER_S = 60.0


@dataclass(frozen=True)
class SharedOffer(Offer):
    """
    An offer from an answer that several tasks use.

    :param asked_at: when the cluster was asked, by the clock of the promises.
    :param gpu_type: the type of GPU that the job needs; None for any.
    :param counted: the number of the last promise that it takes into account.
    """

    asked_at: float = 0.0
    gpu_type: str | None = None
    counted: int = 0


def shared(offer: Offer, *, asked_at: float, gpu_type: str | None) -> SharedOffer:
    """Return an offer with what is to be known of the answer that it is from."""
    values = {one.name: getattr(offer, one.name) for one in fields(Offer)}
    return SharedOffer(**values, asked_at=asked_at, gpu_type=gpu_type)


@dataclass(frozen=True)
class _Promise:
    """
    GPUs of a cluster for a job.

    :param number: of all promises, in their order.
    :param kept_at: when the cluster knew of it; None if it may not know yet.
    """

    number: int
    conn_id: str
    gpus: int
    gpu_type: str | None
    run_s: float
    made_at: float
    kept_at: float | None = None


class Promises:
    """
    The choices of a process, by job.

    :param clock: tells the time in seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._numbers = itertools.count(1)
        self._of_job: dict[str, _Promise] = {}

    def make(self, conn_id: str, job: JobToAppraise) -> None:
        """Note that a job was placed on a cluster, instead of where it was placed before."""
        self._forget()
        spec = job["spec"]
        run_s = spec.get("time_limit_s") or TYPICAL_RUN_S
        self._of_job[job["job_id"]] = _Promise(
            next(self._numbers), conn_id, gpus_of(job), spec.get("gpu_type"), run_s, self._clock()
        )

    def keep(self, job_id: str) -> None:
        """Note that the cluster knows of it, and tells of it in each answer from now on."""
        promise = self._of_job.get(job_id)
        if promise is not None and promise.kept_at is None:
            self._of_job[job_id] = replace(promise, kept_at=self._clock())

    def drop(self, job_id: str) -> None:
        """Note that nothing came of it."""
        self._of_job.pop(job_id, None)

    def _forget(self) -> None:
        before = self._clock() - FORGOTTEN_AFTER_S
        self._of_job = {
            job_id: promise
            for job_id, promise in self._of_job.items()
            if max(promise.made_at, promise.kept_at or 0.0) > before
        }

    def counted_in(self, offer: Offer) -> Offer:
        """Return what is left of an offer after the promises that its answer does not take into account."""
        if not isinstance(offer, SharedOffer) or not offer.fits:
            return offer
        self._forget()
        news = [
            promise
            for promise in self._of_job.values()
            if promise.conn_id == offer.conn_id
            and promise.number > offer.counted
            and (promise.kept_at is None or promise.kept_at >= offer.asked_at)
            and _may_be_same(promise.gpu_type, offer.gpu_type)
        ]
        return _less(offer, news) if news else offer


def _less(offer: SharedOffer, promises: Iterable[_Promise]) -> SharedOffer:
    free, waiting, work = offer.free_gpus, offer.waiting or 0, 0.0
    number = offer.counted
    for promise in promises:
        number = max(number, promise.number)
        work += promise.gpus * promise.run_s
        if free is not None and free >= promise.gpus:
            free -= promise.gpus
        else:
            waiting += 1
    # The GPUs work off what is before it together.
    longer_s = work / max(1, offer.gpus or 0)
    starts_in_s, known_by = offer.starts_in_s, offer.start_known_by
    if starts_in_s is not None and (starts_in_s > 0 or free is None or free < offer.needs_gpus):
        starts_in_s += longer_s
        known_by = None
    return replace(
        offer,
        free_gpus=free,
        waiting=waiting,
        starts_in_s=starts_in_s,
        start_known_by=known_by,
        likely_in_s=None if offer.likely_in_s is None else offer.likely_in_s + longer_s,
        counted=number,
    )


def _may_be_same(one: str | None, other: str | None) -> bool:
    """Return whether jobs that need these types may need the same GPU."""
    if one is None or other is None:
        return True
    return one.lower() in other.lower() or other.lower() in one.lower()
