"""The verb ``totals``: what the ledger adds up to, and how the cluster stands now. Monitoring asks it often."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, cast

from .. import protocol
from ..errors import Refused
from ..ledger.ledger import Ledger
from ..ledger.totals import read_totals
from ..linux import processes
from ..reply import Reply
from ..store.directories import JobDirectory, Root
from ..store.job_folders import jobs_of
from ..store.next_attempt import is_followed

if TYPE_CHECKING:
    from ..engines.engine import Engine
    from ..protocol.totals import LedgerTotals, TotalsReply, VerbCount

# How long to read a ledger whose sums are lost, and how long to count jobs, in seconds.
LEDGER_S = 3.0
JOBS_S = 2.0
_MOST_BYTES = 1 << 16
_OF_REPLY = ("is_complete", "pairs", "job_durations", "queue_durations", "transfers", "final_numbers")


def answer(root: Root, engine: Engine, program: str) -> Reply:
    """Carry out the verb ``totals``."""
    reply: TotalsReply = {"calls": _calls(program)}
    with contextlib.suppress(OSError):
        totals = read_totals(Ledger(root.own), within_s=LEDGER_S)
        reply["ledger"] = cast("LedgerTotals", {name: value for name, value in totals.items() if name in _OF_REPLY})
    jobs = _jobs(root)
    if jobs is not None:
        reply["waiting_jobs"], reply["running_jobs"] = jobs
    try:
        reply["capacity"] = engine.capacity()
    except Refused as error:
        # A scheduler that is silent now is no reason to tell nothing.
        reply["capacity_fault"] = error.message
    return Reply(reply)


def _jobs(root: Root) -> tuple[int, int] | None:
    """Return how many jobs wait and run, as their records say; None when that takes too long."""
    deadline = time.monotonic() + JOBS_S
    counts = {protocol.QUEUED: 0, protocol.RUNNING: 0}
    try:
        for job in jobs_of(root):
            # What a job does to its own records matters to no other.
            with contextlib.suppress(Refused, OSError, ValueError):
                state = _state(job)
                if state is not None:
                    counts[state] += 1
            if time.monotonic() > deadline:
                return None
    except FileNotFoundError:
        pass
    return counts[protocol.QUEUED], counts[protocol.RUNNING]


def _state(job: JobDirectory) -> str | None:
    """Return the state of a job; None when it has ended, or was not launched."""
    attempts = job.attempts()
    if not attempts:
        return None
    ended = attempts[-1].ended()
    if ended is not None:
        return protocol.QUEUED if is_followed(ended) else None
    return protocol.QUEUED if attempts[-1].claimed() is None else protocol.RUNNING


def _calls(program: str) -> list[VerbCount]:
    """Return the calls of this user for this root that are under way on this host."""
    own = os.path.dirname(program)
    counts: dict[str, int] = {}
    for pid in processes.all_pids():
        with contextlib.suppress(OSError):
            if pid == os.getpid() or os.stat(f"/proc/{pid}").st_uid != os.geteuid():
                continue
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                *_, path, verb = [b"", b"", *file.read(_MOST_BYTES).rstrip(b"\0").split(b"\0")]
            name = os.fsdecode(verb)
            if os.path.dirname(os.fsdecode(path)) == own and name in protocol.VERBS:
                counts[name] = counts.get(name, 0) + 1
    return [{"verb": verb, "count": count} for verb, count in sorted(counts.items())]
