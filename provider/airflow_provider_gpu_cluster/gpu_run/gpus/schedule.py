"""Which job gets which GPUs next: a pure function from queue and GPUs to what starts now and why the rest waits."""

from __future__ import annotations

import math
from typing import NamedTuple, Sequence

from .inventory import Gpu, fitting


class QueuedJob(NamedTuple):
    """
    A place in the queue.

    :param job_id: the job that waits.
    :param rank: 0 for high priority, 1 normal, 2 low.
    :param submitted: when it was submitted, in seconds since the epoch.
    :param gpus: how many GPUs it needs.
    :param gpu_type: text in their name; None for any.
    :param time_limit_s: how long it can run at most, including its end; None if unknown.
    :param owner: the dispatcher that starts it.
    """

    job_id: str
    rank: int
    submitted: float
    gpus: int
    gpu_type: str | None
    time_limit_s: float | None
    owner: str


class Holder(NamedTuple):
    """
    Who has a GPU; written into its lease file for everyone to read.

    :param owner: the dispatcher that leased it, which distinguishes jobs of the same id under different roots.
    """

    job_id: str
    user: str
    since: float
    until: float | None
    owner: str = ""


class Slot(NamedTuple):
    """
    A GPU and when it is free: 0 for now, else the latest time in seconds since the epoch, infinity when unknown.

    :param note: who has it, for a person to read.
    :param is_leased: whether somebody holds its lease.
    :param holder: who does.
    """

    gpu: Gpu
    free_at: float
    note: str
    is_leased: bool = False
    holder: Holder | None = None


class Wait(NamedTuple):
    """Why a job waits: its place in the whole queue, from 1, and a sentence."""

    place: int
    why: str


def plan(
    queued_jobs: Sequence[QueuedJob], slots: Sequence[Slot], now: float, broken: Sequence[str] = ()
) -> tuple[dict[QueuedJob, list[Gpu]], dict[QueuedJob, Wait]]:
    """
    Decide for every waiting job.

    Jobs are served by priority, then first come, first served. A job that cannot start yet keeps the GPUs it could use
    from all jobs behind it, so that small jobs cannot starve a big one. The one exception is EASY backfilling (Lifka,
    "The ANL/IBM SP scheduling system", 1995): a later job may use free GPUs if its time limit ends it before any job
    ahead could have started. If it is unknown when the GPUs become free, nothing is backfilled.

    The results are keyed by queued jobs, not by job ids: two controllers may each have a job of the same id.

    :param broken: a sentence on each GPU of the host that does not work.
    :return: the GPUs of each job that starts now, and why each other job waits.
    """
    starts: dict[QueuedJob, list[Gpu]] = {}
    waits: dict[QueuedJob, Wait] = {}
    free_at = {slot.gpu.key: slot.free_at for slot in slots}
    # The time from which a GPU is kept for a job ahead.
    kept_from = {slot.gpu.key: math.inf for slot in slots}
    gpus = [slot.gpu for slot in slots]
    fitting_wish: dict[tuple[str | None, bool], list[Slot]] = {}
    for queued in sorted(queued_jobs, key=lambda queued: (queued.rank, queued.submitted, queued.job_id)):
        wish = (queued.gpu_type, queued.gpus == 1)
        if wish not in fitting_wish:
            keys = {gpu.key for gpu in fitting(gpus, queued.gpus, queued.gpu_type)}
            fitting_wish[wish] = [slot for slot in slots if slot.gpu.key in keys]
        fits = fitting_wish[wish]
        if len(fits) < queued.gpus:
            # The GPUs it was admitted for are gone. It waits until they come back, and delays no other job.
            waits[queued] = Wait(len(waits) + 1, _too_few(queued, len(fits), broken))
            continue
        end = math.inf if queued.time_limit_s is None else now + queued.time_limit_s
        free = [slot.gpu for slot in fits if free_at[slot.gpu.key] <= now]
        usable = [gpu for gpu in free if end <= kept_from[gpu.key]]
        if len(usable) >= queued.gpus:
            starts[queued] = usable[: queued.gpus]
            for gpu in starts[queued]:
                free_at[gpu.key] = end
            continue
        start = sorted(_usable_at(free_at[slot.gpu.key], kept_from[slot.gpu.key], end - now) for slot in fits)[
            queued.gpus - 1
        ]
        if start == math.inf:
            # Its start is unknown, so no job may be backfilled before it.
            start = now
        for slot in fits:
            kept_from[slot.gpu.key] = min(kept_from[slot.gpu.key], start)
        waits[queued] = Wait(len(waits) + 1, _why(queued, fits, free, len(free) - len(usable)))
    return starts, waits


def _usable_at(free_at: float, kept_from: float, duration: float) -> float:
    """Return the earliest time at which a job of that duration might get a GPU that is kept from ``kept_from`` on."""
    if kept_from == math.inf or free_at + duration <= kept_from:
        return free_at
    return max(free_at, kept_from)


def _too_few(queued: QueuedJob, there: int, broken: Sequence[str]) -> str:
    return "; ".join([f"it needs {_gpus(queued.gpus, queued.gpu_type)}", f"this host has {there} now", *broken])


def _why(queued: QueuedJob, fits: Sequence[Slot], free: Sequence[Gpu], kept: int) -> str:
    taken: dict[str, int] = {}
    for slot in fits:
        if slot.gpu not in free:
            note = slot.note or "jobs that start now"
            taken[note] = taken.get(note, 0) + 1
    parts = [f"{len(free)} free"]
    if kept:
        parts[0] += " but kept for jobs ahead"
    parts += [f"{count} with {note}" for note, count in sorted(taken.items())]
    return "it needs {}; of {} there are {}".format(_gpus(queued.gpus, queued.gpu_type), len(fits), ", ".join(parts))


def _gpus(count: int, gpu_type: str | None) -> str:
    return "{} {}GPU{}".format(count, gpu_type + " " if gpu_type else "", "" if count == 1 else "s")
