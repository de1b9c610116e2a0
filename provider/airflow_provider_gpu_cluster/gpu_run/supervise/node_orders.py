"""
What the supervisor of a job on several nodes has its nodes do: lines in a file that each of them follows.

A signal that goes to a node through ``srun`` reaches every process there, and not the program alone.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING

from ..store import records

if TYPE_CHECKING:
    from ..protocol.records import NodeOrder
    from ..store.directories import Attempt
    from .job_processes import JobProcesses

_FILE = "orders.jsonl"
_MOST_BYTES = 1 << 16


class NodeOrders:
    """Orders to all nodes of an attempt."""

    def __init__(self, attempt: Attempt) -> None:
        self._path = attempt.at(_FILE)
        with contextlib.suppress(OSError):
            # A file that is not there yet may stay unseen on another node for long.
            records.log_file(self._path).close()

    def warn(self, number: int) -> None:
        """Have every program warned that catches the signal."""
        self._give({"kind": "warn", "number": number, "to_all": False})

    def stop(self, number: int, *, to_all: bool) -> None:
        """Have every program told to end."""
        self._give({"kind": "stop", "number": number, "to_all": to_all})

    def kill(self) -> None:
        """Have everything killed."""
        self._give({"kind": "kill", "number": 9, "to_all": True})

    def _give(self, order: NodeOrder) -> None:
        with contextlib.suppress(OSError):
            records.append_line(self._path, order)


class NodesTold:
    """A stop that the nodes carry out; see :class:`.telling.Telling`."""

    def __init__(self, orders: NodeOrders, job: JobProcesses, number: int, *, to_all: bool, is_told: bool) -> None:
        self._job = job
        if not is_told:
            orders.stop(number, to_all=to_all)

    @property
    def told(self) -> list[int]:
        """The process that waits for the nodes."""
        return [self._job.top]

    def is_over(self) -> bool:
        """Return whether all nodes have ended."""
        return self._job.status is not None

    def end_shells(self) -> None:
        """Do nothing: each node ends its own."""

    def status(self) -> int | None:
        """Return None: each node notes its own."""
        return None


class OrdersRead:
    """The orders of an attempt, as one of its nodes reads them."""

    def __init__(self, attempt: Attempt) -> None:
        self._path = attempt.at(_FILE)
        self._read_to = 0

    def new(self) -> list[NodeOrder]:
        """Return those that have come since the last call."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            with open(self._path, "rb") as file:
                file.seek(self._read_to)
                data = file.read(_MOST_BYTES)
            whole = data[: data.rfind(b"\n") + 1]
            self._read_to += len(whole)
            found: list[NodeOrder] = [json.loads(line) for line in whole.splitlines()]
            return [{"kind": one["kind"], "number": int(one["number"]), "to_all": one["to_all"]} for one in found]
        return []


def note_failure(path: str, rank: str, code: int) -> None:
    """Note that a node's script has failed, if none has failed before; see :class:`.allocation.Allocation`."""
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "w", encoding="ascii") as file:
            file.write(f"{rank} {code}\n")
