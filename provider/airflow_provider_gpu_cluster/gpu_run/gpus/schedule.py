"""Which job gets which GPUs next: a pure function from queue and GPUs to what starts now and why the rest waits."""

from __future__ import annotations

import math
from typing import Iterable, NamedTuple, Sequence

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


class Turn(NamedTuple):
    """
    What becomes of a waiting job now.

    :param fits: the GPUs that it could use.
    :param free: of these, the ones that nobody has.
    :param usable: of these, the ones that are not kept for jobs ahead; those it gets, if it starts now.
    :param starts: whether it does.
    """

    fits: list[Slot]
    free: list[Gpu]
    usable: list[Gpu]
    starts: bool = False


class Board:
    """
    The GPUs of a host, while it is decided for one waiting job after the other, in their order, what becomes of it.

    :param slots: the GPUs at that moment.
    """

    def __init__(self, slots: Sequence[Slot]) -> None:
        self._slots = slots
        self._gpus = [slot.gpu for slot in slots]
        self._free_at = {slot.gpu.key: slot.free_at for slot in slots}
        self._fitting: dict[tuple[str | None, bool], list[Slot]] = {}
        self._now = 0.0
        self.begin(0.0)

    def begin(self, now: float) -> None:
        """Begin with the first job again, at a moment: GPUs are free whose time has come, and none is kept."""
        self._now = now
        # The time from which a GPU is kept for a job ahead.
        self._kept_from = {slot.gpu.key: math.inf for slot in self._slots}
        self._free = sum(free_at <= now for free_at in self._free_at.values())

    @property
    def has_free(self) -> bool:
        """Return whether any GPU is free."""
        return self._free > 0

    def next_end(self) -> float:
        """Return when the next of the GPUs that are in use is free; infinity when that is unknown."""
        return min((free_at for free_at in self._free_at.values() if free_at > self._now), default=math.inf)

    def fitting(self, queued: QueuedJob) -> list[Slot]:
        """Return the GPUs that a job may get, whoever has them."""
        wish = (queued.gpu_type, queued.gpus == 1)
        if wish not in self._fitting:
            keys = {gpu.key for gpu in fitting(self._gpus, queued.gpus, queued.gpu_type)}
            self._fitting[wish] = [slot for slot in self._slots if slot.gpu.key in keys]
        return self._fitting[wish]

    def free(self, queued: QueuedJob) -> list[Gpu]:
        """Return those of them that nobody has."""
        return [slot.gpu for slot in self.fitting(queued) if self._free_at[slot.gpu.key] <= self._now]

    def decide(self, queued: QueuedJob) -> Turn:
        """Let a job start, or keep the GPUs that it could use from all jobs that come behind it."""
        now, fits = self._now, self.fitting(queued)
        if len(fits) < queued.gpus:
            # The GPUs it was admitted for are gone. It waits until they come back, and delays no other job.
            return Turn(fits, [], [])
        end = math.inf if queued.time_limit_s is None else now + queued.time_limit_s
        free = self.free(queued)
        usable = [gpu for gpu in free if end <= self._kept_from[gpu.key]]
        if len(usable) >= queued.gpus:
            for gpu in usable[: queued.gpus]:
                self._free_at[gpu.key] = end
            self._free -= queued.gpus
            return Turn(fits, free, usable[: queued.gpus], starts=True)
        start = sorted(
            # A GPU that is free is so from now on, and not from the beginning of all time.
            _usable_at(max(self._free_at[slot.gpu.key], now), self._kept_from[slot.gpu.key], end - now)
            for slot in fits
        )[queued.gpus - 1]
        if start == math.inf:
            # Its start is unknown, so no job may be backfilled before it.
            start = now
        for slot in fits:
            self._kept_from[slot.gpu.key] = min(self._kept_from[slot.gpu.key], start)
        return Turn(fits, free, usable)


def in_order(queued_jobs: Iterable[QueuedJob]) -> list[QueuedJob]:
    """Return waiting jobs in the order in which they are served."""
    return sorted(queued_jobs, key=lambda queued: (queued.rank, queued.submitted, queued.job_id))


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
    board = Board(slots)
    board.begin(now)
    for queued in in_order(queued_jobs):
        fits, free, usable, is_started = board.decide(queued)
        if is_started:
            starts[queued] = usable
        elif len(fits) < queued.gpus:
            waits[queued] = Wait(len(waits) + 1, too_few(queued, len(fits), broken))
        else:
            waits[queued] = Wait(len(waits) + 1, _why(queued, fits, free, len(free) - len(usable)))
    return starts, waits


def _usable_at(free_at: float, kept_from: float, duration: float) -> float:
    """Return the earliest time at which a job of that duration might get a GPU that is kept from ``kept_from`` on."""
    if kept_from == math.inf or free_at + duration <= kept_from:
        return free_at
    return max(free_at, kept_from)


def too_few(queued: QueuedJob, there: int, broken: Sequence[str]) -> str:
    """Return why a job waits that the host has too few GPUs for at present."""
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
