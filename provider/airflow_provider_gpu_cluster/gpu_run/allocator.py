"""From waiting jobs to leased GPUs: one look at the queue, the leases and the GPUs, and the locks that follow."""

from __future__ import annotations

import os
import time
from typing import NamedTuple, Sequence

from . import processes
from .gpus import Gpu, find_busy, find_gpus
from .leases import Holder, Leases, Queue
from .schedule import Ticket, Wait, plan

_INVENTORY_S = 60.0
_BUSY_S = 5.0
_FRESH_S = 1.0


class Grant(NamedTuple):
    """GPUs that are leased: the open files are the leases."""

    gpus: list[Gpu]
    fds: list[int]


class Allocator:
    """
    Serves the waiting jobs of one process out of the GPUs of the host.

    :param virtual_gpus: see :func:`.gpus.find_gpus`.
    :param queue_name: unique on this host.
    """

    def __init__(self, leases: Leases, virtual_gpus: int | None, queue_name: str) -> None:
        self._leases = leases
        self._virtual_gpus = virtual_gpus
        self._queue = Queue(leases, queue_name)
        self._gpus: list[Gpu] = []
        self._gpus_read = -_INVENTORY_S
        self._busy: dict[str, str] = {}
        self._busy_read = -_BUSY_S

    @property
    def name(self) -> str:
        """Owner of this process's tickets."""
        return self._queue.name

    def grant(self, tickets: Sequence[Ticket]) -> tuple[dict[str, Grant], dict[str, Wait]]:
        """
        Lease GPUs to those of ``tickets`` whose turn it is.

        Asking nvidia-smi takes long, so it is done outside the mutex: when something could start, and every few
        seconds while somebody's processes are in the way.

        :return: the leases by job, and why the others wait.
        :raises Refused: the GPUs cannot be listed.
        """
        if time.monotonic() - self._gpus_read > _INVENTORY_S:
            self._gpus = find_gpus(self._virtual_gpus)
            self._gpus_read = time.monotonic()
        with self._leases.mutex():
            self._queue.publish(tickets)
            starts, waits = self._plan(tickets)
        if starts or self._busy:
            age = time.monotonic() - self._busy_read
            if age > (_FRESH_S if starts else _BUSY_S):
                self._busy = find_busy(self._virtual_gpus)
                self._busy_read = time.monotonic()
        if not starts and not self._busy:
            return {}, waits
        with self._leases.mutex():
            starts, waits = self._plan(tickets)
            taken = {ticket: self._take(ticket, starts[ticket.job_id]) for ticket in tickets if ticket.job_id in starts}
            grants = {ticket.job_id: grant for ticket, grant in taken.items() if grant is not None}
            self._queue.publish([ticket for ticket in tickets if ticket.job_id not in grants])
        return grants, waits

    def _plan(self, tickets: Sequence[Ticket]) -> tuple[dict[str, list[Gpu]], dict[str, Wait]]:
        """Plan for the whole host and return what of it is about ``tickets``."""
        starts, waits = plan(self._leases.tickets(), self._leases.slots(self._gpus, self._busy), time.time())
        mine = {ticket.job_id for ticket in tickets}
        return (
            {job_id: gpus for job_id, gpus in starts.items() if job_id in mine},
            {job_id: wait for job_id, wait in waits.items() if job_id in mine},
        )

    def _take(self, ticket: Ticket, gpus: Sequence[Gpu]) -> Grant | None:
        now = time.time()
        until = None if ticket.time_limit_s is None else now + ticket.time_limit_s
        holder = Holder(ticket.job_id, processes.user(), now, until)
        fds: list[int] = []
        for gpu in gpus:
            fd = self._leases.take(gpu, holder)
            if fd is None:
                # Somebody who does not keep to the mutex has it. All or none.
                for taken in fds:
                    os.close(taken)
                return None
            fds.append(fd)
        return Grant(list(gpus), fds)

    def close(self) -> None:
        """Leave the queue."""
        self._queue.close()
