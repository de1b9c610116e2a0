"""Write the ends of attempts, and transfers, into the ledger. Whatever goes wrong there, the caller goes on."""

from __future__ import annotations

import contextlib
import json
import os
import time
from typing import TYPE_CHECKING, Any, Mapping, cast

from ..ledger.end_line import end_line
from ..ledger.ledger import MOMENT_S, Ledger, is_booked
from ..ledger.metrics import final_metrics
from ..ledger.who import line_of
from ..linux import regular_files
from ..protocol.ledger import TRANSFER
from ..protocol.masks import are_masks, hidden_in
from . import records
from .unfinished import forget_unfinished

if TYPE_CHECKING:
    from ..protocol.ledger import TransferLine

#: The directions of a transfer: to the cluster, and from it.
IN, OUT = "in", "out"
# A line for each session.
_MOST_BYTES_OF_TRANSFERS = 1 << 20


def book_end(
    job: str,
    number: int,
    record: Mapping[str, Any],
    request: Mapping[str, Any] | None,
    *,
    wait_s: float = MOMENT_S,
) -> bool:
    """
    Write the line of an attempt's end, unless it is there; return whether it is there now.

    :param job: path of the job's directory.
    :param record: how the attempt ended.
    :param request: what it was to run, and who asked; None when that is gone.
    :param wait_s: how long to wait for other writers, in seconds.
    """
    folder = os.path.join(job, ".job", "attempts", str(number))
    if is_booked(folder):
        return True
    # A job can write to its records, and to the files beside them.
    with contextlib.suppress(Exception):
        metrics = final_metrics(
            os.path.join(job, "outputs", "metrics.json"),
            since=os.path.join(folder, "claim.json"),
            until=os.path.join(folder, "exit.json"),
        )
        masks = (request or {}).get("masks")
        line = end_line(
            {**record, "job_id": os.path.basename(job), "attempt": number},
            request or {},
            _record(folder, "claim.json"),
            _record(os.path.join(job, ".job", "attempts", str(number - 1)), "exit.json"),
            metrics=hidden_in(metrics, masks if are_masks(masks) else None),
            moved=_moved(job, folder),
        )
        if ledger_of(job).append_end(line, folder, wait_s=wait_s):
            forget_unfinished(job, number)
            return True
    return False


def _record(folder: str, name: str) -> dict[str, Any]:
    """Return a record; an empty one if it is not there, or spoilt."""
    with contextlib.suppress(OSError, ValueError):
        return records.read_json(os.path.join(folder, name)) or {}
    return {}


def ledger_of(job: str) -> Ledger:
    """
    Return the ledger that a job's lines belong to.

    :param job: path of the job's directory.
    """
    return Ledger(os.path.join(os.path.dirname(job), ".gpu-run"))


class Transfer:
    """
    A transfer of files of a job, from when this is made.

    :param job: path of the job's directory.
    :param by: who has asked for the job.
    :param direction: ``in`` or ``out``.
    """

    def __init__(self, job: str, by: Mapping[str, Any] | None, direction: str) -> None:
        self._job = job
        self._by = by
        self._direction = direction
        self._began = time.monotonic()
        #: How many bytes were sent, by now.
        self.bytes = 0

    def add(self, count: int) -> None:
        """Note that so many bytes were sent."""
        self.bytes += count

    def book(self) -> None:
        """Write its line, if anything was sent."""
        if not self.bytes:
            return
        line = cast("TransferLine", line_of(TRANSFER, records.now(), os.path.basename(self._job), self._by))
        line["direction"], line["bytes"] = self._direction, self.bytes
        line["seconds"] = round(time.monotonic() - self._began, 3)
        with contextlib.suppress(OSError):
            # For the line of the attempt's end.
            records.append_line(_transfers(self._job), {self._direction: self.bytes})
        ledger_of(self._job).append(line)


def _transfers(job: str) -> str:
    return os.path.join(job, ".job", "transfers.jsonl")


def _moved(job: str, attempt: str) -> dict[str, int]:
    """Return how many bytes were sent for a job since the end of its attempt before, by direction."""
    taken = os.path.join(attempt, "transfers.jsonl")
    with contextlib.suppress(OSError):
        if not os.path.lexists(taken):
            os.rename(_transfers(job), taken)
    moved = {IN: 0, OUT: 0}
    with contextlib.suppress(OSError, ValueError, TypeError, AttributeError, RecursionError):
        for text in regular_files.read(taken, _MOST_BYTES_OF_TRANSFERS).splitlines():
            for direction, count in json.loads(text).items():
                moved[direction] += max(0, int(count))
    return moved
