"""The verb ``totals``: what the ledger adds up to, and how the cluster stands now. Monitoring asks it often."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, cast

from .. import protocol
from ..errors import Refused
from ..ledger.ledger import Ledger
from ..ledger.totals import read_totals
from ..linux import processes
from ..reply import Reply
from ..store.directories import Attempt, Root
from ..store.settling import settle
from ..store.unfinished import all_unfinished

if TYPE_CHECKING:
    from ..engines.engine import Engine
    from ..protocol.totals import LedgerTotals, TotalsReply, VerbCount

# How long to read a ledger whose sums are lost, in seconds.
LEDGER_S = 3.0
_MOST_BYTES = 1 << 16
_OF_REPLY = ("is_complete", "pairs", "job_durations", "queue_durations", "transfers", "final_numbers")


def answer(root: Root, engine: Engine, program: str) -> Reply:
    """Carry out the verb ``totals``."""
    reply: TotalsReply = {"calls": _calls(program)}
    with contextlib.suppress(OSError):
        totals = read_totals(Ledger(root.own), within_s=LEDGER_S)
        reply["ledger"] = cast("LedgerTotals", {name: value for name, value in totals.items() if name in _OF_REPLY})
    with contextlib.suppress(OSError):
        reply["waiting_jobs"], reply["running_jobs"] = _jobs(root)
    try:
        reply["capacity"] = engine.capacity()
    except Refused as error:
        # A scheduler that is silent now is no reason to tell nothing.
        reply["capacity_fault"] = error.message
    return Reply(reply)


def _jobs(root: Root) -> tuple[int, int]:
    """Return how many jobs wait and run, as their records say."""
    counts = {protocol.QUEUED: 0, protocol.RUNNING: 0}
    for unfinished in all_unfinished(root.path):
        # What a job does to its own records matters to no other.
        with contextlib.suppress(Refused, OSError, ValueError):
            job, _, number = unfinished.path.partition("/.job/attempts/")
            state = _state(root.job(os.path.basename(job)).attempt(int(number)))
            if state is not None:
                counts[state] += 1
    return counts[protocol.QUEUED], counts[protocol.RUNNING]


def _state(attempt: Attempt) -> str | None:
    """Return whether an attempt waits or runs; None when it has ended. The next one is noted by itself."""
    if not os.path.isdir(attempt.path):
        return None
    if attempt.ended() is not None:
        # The ledger was locked when it ended, or its disk was full.
        settle(attempt.job)
        return None
    return protocol.QUEUED if attempt.claimed() is None else protocol.RUNNING


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
