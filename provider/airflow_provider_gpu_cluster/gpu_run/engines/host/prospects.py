"""Whether jobs fit a host, and when they could start there."""

from __future__ import annotations

import contextlib
import os
import time
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Callable, Sequence

from ... import protocol
from ...errors import Refused
from ...gpus.forecast import forecast, with_likely_ends
from ...gpus.inventory import Inventory, take_inventory
from ...gpus.schedule import Board, QueuedJob, Slot, in_order, too_few
from ...ledger.ledger import Ledger
from ...ledger.speed import mean_run_s
from ...linux import processes
from ...protocol.appraisal import FREE_NOW, QUEUE
from ...store.budgets import is_held
from ...store.placements import Promise
from ..own_jobs import SPOILT
from ..wanted import Wanted, refuse_what_only_slurm_has, unfit
from .root_queue import RootQueue, place_in_queue

if TYPE_CHECKING:
    from ...protocol.appraisal import Prospect
    from ...protocol.settings import Settings
    from ...protocol.spec import Spec

# How long all forecasts of a request may take together, in seconds.
_THINK_S = 1.5
# How much more memory a machine may be said to have than its kernel has to give.
_NOMINAL = 1.1
# How many jobs that have just been put into the queue are looked at.
_MOST_NEW = 1000


def host_prospects(
    queue: RootQueue,
    settings: Settings,
    wanted: Sequence[Wanted],
    promises: Sequence[Promise],
    check: Callable[[Spec], None],
) -> list[Prospect]:
    """
    Return for each of these jobs whether it fits, and when it could start.

    :param check: refuses what can never run here.
    """
    found: list[Prospect] = []
    host: _Host | None = None
    for one in wanted:
        try:
            check(one.spec)
            refuse_what_only_slurm_has(one.spec)
            _refuse_too_much_memory(one.spec)
            host = host or _Host(queue, settings, promises)
            found.append(host.prospect(one))
        except Refused as refusal:
            found.append(unfit(refusal))
    return found


def _refuse_too_much_memory(spec: Spec) -> None:
    """
    Refuse a job that wants more memory than this host has; where no other is to choose, it is a limit like any other.

    :raises Refused: it says how much there is.
    """
    wanted = spec.get("memory_bytes") or 0
    has = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if has > 0 and wanted > _NOMINAL * has:
        told = f"{processes.hostname()} has {has / 2**30:.1f} GiB"
        raise Refused(protocol.NOT_ENOUGH_GPUS, f"the job asks for {wanted / 2**30:.1f} GiB of host memory, but {told}")


class _Host:
    """
    The GPUs of a host and everybody who waits for some, as they are at one moment.

    :raises Refused: the GPUs cannot be listed, or the leases cannot be read.
    """

    def __init__(self, queue: RootQueue, settings: Settings, promises: Sequence[Promise]) -> None:
        self._settings = settings
        self._owner = queue.owner()
        self._own = queue.root.own
        self._inventory: Inventory = take_inventory(queue.virtual_gpus)
        gpus = self._inventory.gpus
        leases = queue.open_leases()
        with leases.mutex():
            self._slots = leases.slots(gpus, self._inventory.in_use_without_lease(leases.held(gpus)))
            waiting = leases.queued_jobs()
        self._now = time.time()
        waiting += _just_queued(queue, self._owner, waiting, self._slots)
        mine = {queued.job_id for queued in waiting if queued.owner == self._owner}
        waiting += [self._promised(promise) for promise in promises if promise.gpus > 0 and promise.job_id not in mine]
        self._waiting = in_order(waiting)
        self._mine = {queued.job_id: queued for queued in self._waiting if queued.owner == self._owner}
        # The GPUs, and who has them once everybody has started who can.
        self._board = Board(self._slots)
        self._board.begin(self._now)
        for queued in self._waiting:
            if not self._board.has_free:
                break
            self._board.decide(queued)
        self._deadline = time.monotonic() + _THINK_S

    def _promised(self, promise: Promise) -> QueuedJob:
        priority = promise.priority if promise.priority in protocol.PRIORITIES else "normal"
        rank = protocol.PRIORITIES.index(priority)
        limit = promise.time_limit_s
        return QueuedJob(promise.job_id, rank, self._now, promise.gpus, promise.gpu_type, limit, self._owner)

    def prospect(self, wanted: Wanted) -> Prospect:
        waits_here = self._mine.get(wanted.job_id)
        queued, everyone = waits_here, self._waiting
        if queued is None:
            # Behind all of its priority.
            queued = place_in_queue(wanted.job_id, self._now + 1, wanted.spec, self._settings, owner=self._owner)
            everyone = [*self._waiting, queued]
        fits = self._board.fitting(queued)
        place = (queued.rank, queued.submitted, queued.job_id)
        prospect: Prospect = {
            "fits": True,
            "gpus": len(fits),
            "free_gpus": len(self._board.free(queued)),
            "waiting": sum((one.rank, one.submitted, one.job_id) < place for one in self._waiting),
        }
        if len(fits) < queued.gpus:
            prospect["remark"] = too_few(queued, len(fits), [str(gpu) for gpu in self._inventory.broken])
            return prospect
        ahead = forecast(everyone, self._slots, self._now, [queued], deadline=self._deadline)
        if queued in ahead.starts:
            prospect["starts_in_s"] = round(ahead.starts[queued] - self._now, 3)
            prospect["start_known_by"] = QUEUE if prospect["starts_in_s"] else FREE_NOW
        elif ahead.is_cut:
            prospect["remark"] = (
                f"the queue is too long to go through all of it: {prospect['waiting']:,} jobs wait before it, and it "
                f"starts in more than {(ahead.until - self._now) / 3600:,.1f} hours"
            )
        elif self._run_s is not None:
            likely, slots = with_likely_ends(everyone, self._slots, self._now, self._run_s)
            wished = likely[everyone.index(queued)]
            ahead = forecast(likely, slots, self._now, [wished], deadline=self._deadline)
            if wished in ahead.starts:
                prospect["likely_in_s"] = round(ahead.starts[wished] - self._now, 3)
        return prospect

    @cached_property
    def _run_s(self) -> float | None:
        return mean_run_s(Ledger(self._own))


def _just_queued(queue: RootQueue, owner: str, shown: Sequence[QueuedJob], slots: Sequence[Slot]) -> list[QueuedJob]:
    """Return the waiting jobs of this root that its dispatcher has not shown to all of the host yet."""
    known = {queued.job_id for queued in shown if queued.owner == owner}
    known.update(slot.holder.job_id for slot in slots if slot.holder is not None and slot.holder.owner == owner)
    found = []
    for name in islice((name for name in queue.entries() if RootQueue.job_id(name) not in known), _MOST_NEW):
        # Jobs can write to their records, and some of these have just begun.
        with contextlib.suppress(*SPOILT):
            attempt = queue.read(name)
            if attempt is not None and attempt.claimed() is None:
                request = attempt.request()
                if not is_held(attempt, request):
                    found.append(queue.queued_job(attempt, request, owner))
    return found
