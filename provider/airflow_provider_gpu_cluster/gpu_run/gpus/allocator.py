"""Lease GPUs to waiting jobs: look at the queue, the leases and the GPUs, and take the locks that follow."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, NamedTuple, Sequence

from ..linux import processes
from .inventory import Gpu, Inventory, take_inventory
from .leases import Leases
from .queue import HostQueue
from .schedule import Holder, QueuedJob, Wait, plan

if TYPE_CHECKING:
    from ..protocol.records import LeasedGpu

_INVENTORY_S = 60.0
_BUSY_S = 1.0


class Grant(NamedTuple):
    """
    Leased GPUs; the open files are the leases.

    :param by_number: whether CUDA gives the GPUs of this host the same numbers as nvidia-smi.
    """

    gpus: list[Gpu]
    fds: list[int]
    by_number: bool = True

    @property
    def leased(self) -> list[LeasedGpu]:
        """What the job's records say about the GPUs."""
        if self.by_number:
            return [{"key": gpu.key, "index": gpu.number, "type": gpu.type} for gpu in self.gpus]
        return [{"key": gpu.key, "index": gpu.number, "type": gpu.type, "visible": gpu.key} for gpu in self.gpus]


class Allocator:
    """
    Gives GPUs of the host to the waiting jobs of one process.

    :param virtual_gpus: see :func:`.gpus.inventory.take_inventory`.
    :param queue_name: unique on this host.
    """

    def __init__(self, leases: Leases, virtual_gpus: int | None, queue_name: str) -> None:
        self._leases = leases
        self._virtual_gpus = virtual_gpus
        self._queue = HostQueue(leases.folder, queue_name)
        self._inventory = Inventory([])
        self._inventory_due = time.monotonic()
        self._busy: dict[str, str] = {}
        self._busy_due = time.monotonic()

    @property
    def name(self) -> str:
        """Owner of this process's queued jobs."""
        return self._queue.name

    def grant(
        self, queued_jobs: Sequence[QueuedJob], at_most: int | None = None
    ) -> tuple[dict[QueuedJob, Grant], dict[QueuedJob, Wait]]:
        """
        Lease GPUs to those of ``queued_jobs`` whose turn it is.

        :param at_most: how many of them may get GPUs now, None for all; the others get another turn.
        :return: the leases, and why the other jobs wait.
        :raises Refused: the GPUs cannot be listed, or the leases cannot be accessed.
        """
        # Asking nvidia-smi takes long, so it is done outside the mutex: whenever a job could start, and from time to
        # time while GPUs are in use without a lease.
        is_new = time.monotonic() >= self._inventory_due
        if is_new:
            self._look()
        with self._leases.mutex():
            self._queue.publish(queued_jobs)
            if is_new:
                self._find_busy()
            starts, waits = self._plan(queued_jobs)
        if not starts and (is_new or not self._busy or time.monotonic() < self._busy_due):
            return {}, waits
        if not is_new:
            self._look()
        grants: dict[QueuedJob, Grant] = {}
        with self._leases.mutex():
            self._find_busy()
            starts, waits = self._plan(queued_jobs)
            for queued, gpus in list(starts.items())[:at_most]:
                grant = self._take(queued, gpus)
                if grant is not None:
                    grants[queued] = grant
            self._queue.publish([queued for queued in queued_jobs if queued not in grants])
        return grants, waits

    def _look(self) -> None:
        self._inventory = take_inventory(self._virtual_gpus)
        self._inventory_due = time.monotonic() + _INVENTORY_S
        self._busy_due = time.monotonic() + _BUSY_S

    def _find_busy(self) -> None:
        self._busy = self._inventory.in_use_without_lease(self._leases.held(self._inventory.gpus))

    def _plan(self, queued_jobs: Sequence[QueuedJob]) -> tuple[dict[QueuedJob, list[Gpu]], dict[QueuedJob, Wait]]:
        """Plan for the whole host, and return the part of the plan for ``queued_jobs``."""
        everyone = [*self._queue.others(), *queued_jobs]
        slots = self._leases.slots(self._inventory.gpus, self._busy)
        starts, waits = plan(everyone, slots, time.time(), [str(gpu) for gpu in self._inventory.broken])
        mine = set(queued_jobs)
        return (
            {queued: gpus for queued, gpus in starts.items() if queued in mine},
            {queued: wait for queued, wait in waits.items() if queued in mine},
        )

    def _take(self, queued: QueuedJob, gpus: Sequence[Gpu]) -> Grant | None:
        """Lock these GPUs, all or none."""
        now = time.time()
        until = None if queued.time_limit_s is None else now + queued.time_limit_s
        holder = Holder(queued.job_id, processes.user(), now, until, queued.owner)
        fds: list[int] = []
        for gpu in gpus:
            fd = self._leases.take(gpu, holder)
            if fd is None:
                # A process that ignores the mutex has it. All or none.
                for taken in fds:
                    os.close(taken)
                return None
            fds.append(fd)
        return Grant(list(gpus), fds, self._inventory.is_numbered_by_cuda)

    def close(self) -> None:
        """Leave the queue."""
        self._queue.close()
