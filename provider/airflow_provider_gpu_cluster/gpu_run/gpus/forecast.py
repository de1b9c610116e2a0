"""When waiting jobs will start if everything that runs and waits takes as long as its time limit allows."""

from __future__ import annotations

import heapq
import math
import time
from collections import deque
from typing import Collection, NamedTuple, Sequence

from .schedule import Board, QueuedJob, Slot, in_order

_AT_ONCE = 64


class Forecast(NamedTuple):
    """
    Expected starts.

    :param starts: in seconds since the epoch, of the wanted jobs whose start is known.
    :param is_cut: whether there was no time to look further ahead; then what is missing is later than ``until``.
    :param until: how far this has looked ahead, likewise.
    """

    starts: dict[QueuedJob, float]
    is_cut: bool
    until: float


def forecast(
    queued_jobs: Sequence[QueuedJob],
    slots: Sequence[Slot],
    now: float,
    wanted: Collection[QueuedJob],
    *,
    deadline: float = math.inf,
) -> Forecast:
    """
    Go through a queue on a clock of its own, from one end of a job to the next, by the rules of :func:`.schedule.plan`.

    Of jobs that ask for the same, one that cannot start at a moment speaks for all that come behind it, so a long queue
    takes hardly longer than a short one for each job that starts.

    :param queued_jobs: all that wait, ``wanted`` among them.
    :param deadline: when to stop, by the monotonic clock.
    """
    board = Board(slots)
    alike: dict[tuple[int, str | None, float | None], deque[tuple[int, QueuedJob]]] = {}
    for place, queued in enumerate(in_order(queued_jobs)):
        kind = (queued.gpus, queued.gpu_type, queued.time_limit_s)
        alike.setdefault(kind, deque()).append((place, queued))
    starts: dict[QueuedJob, float] = {}
    left = set(wanted)
    decisions = 0
    while left and now < math.inf:
        board.begin(now)
        first = [(those[0][0], kind) for kind, those in alike.items() if those]
        # Places differ, so that kinds are never compared.
        heapq.heapify(first)
        while first and board.has_free:
            decisions += 1
            if decisions % _AT_ONCE == 0 and time.monotonic() > deadline:
                return Forecast(starts, True, now)
            _, kind = heapq.heappop(first)
            those = alike[kind]
            if board.decide(those[0][1]).starts:
                _, queued = those.popleft()
                if queued in left:
                    starts[queued] = now
                    left.remove(queued)
                if those:
                    heapq.heappush(first, (those[0][0], kind))
        now = board.next_end()
    return Forecast(starts, False, now)


def with_likely_ends(
    queued_jobs: Sequence[QueuedJob], slots: Sequence[Slot], now: float, run_s: float
) -> tuple[list[QueuedJob], list[Slot]]:
    """
    Return a queue and GPUs of which all ends are known: a job without a time limit takes as long as most do.

    :param run_s: how long that is, in seconds; for one that runs already, so much more.
    """
    queued = [one if one.time_limit_s is not None else one._replace(time_limit_s=run_s) for one in queued_jobs]
    return queued, [slot if slot.free_at < math.inf else slot._replace(free_at=now + run_s) for slot in slots]
