"""
The rules of recovery: which ends are followed by a next attempt, and when.

Each reason has a budget of its own, in ``recover`` of the job's spec. Besides, there is a brake: what ends again and
again soon after its start, in the same way and without having saved anything, would end so the next time as well.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from .. import protocol
from .words import line, went

if TYPE_CHECKING:
    from ..protocol.records import ExitRecord
    from ..protocol.recovery import NextAttempt, PastAttempt, QuickEnd, Recovery
    from ..protocol.spec import Spec

# An end within this time after the start is a quick one.
QUICKLY_S = 120.0
# The brake: so many quick ends of one kind in a row; on one node, if that may be at fault, fewer.
_QUICK_ENDS = 3
_QUICK_ENDS_ON_NODE = 2
# Ends that say nothing against the node.
_NOT_OF_A_NODE = (protocol.PREEMPTED, protocol.TIME_LIMIT, protocol.CHECKPOINTED, protocol.USER_ERROR)
_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 300.0
_MOST_PAST = 100
_MOST_SAID = 300


class Checkpoints(NamedTuple):
    """
    What an attempt has left to go on from.

    :param newest: path of the newest file of a checkpoint, relative to the outputs; None when there is none.
    :param is_new: whether it was written during the attempt.
    """

    newest: str | None
    is_new: bool


class Decision(NamedTuple):
    """
    What follows an end.

    :param next: the next attempt; None when this end is the job's.
    :param why_not: why there is none although the job recovers from such ends; empty when it does not.
    """

    next: NextAttempt | None
    why_not: str = ""


def decide(
    spec: Spec,
    end: ExitRecord,
    before: Recovery | None,
    checkpoints: Checkpoints,
    *,
    ran_s: float,
    node: str | None,
    now: float,
) -> Decision:
    """
    Return what follows an end.

    :param spec: of the attempt that has ended.
    :param before: why that attempt existed, if it followed another by itself.
    :param ran_s: how long its code ran, in seconds.
    :param node: where, if another node could be chosen; None if not.
    :param now: the present time, in seconds since the epoch.
    """
    reason = end["reason"]
    budget = spec.get("recover", {}).get(reason or "")
    if reason is None or not budget or end["state"] not in (protocol.FAILED, protocol.LOST):
        return Decision(None)
    if reason == protocol.OUT_OF_MEMORY and not end.get("started_at"):
        # A scheduler has refused so much memory.
        return Decision(None)
    used = dict(before["used"]) if before else {}
    refusal = _over_budget(reason, budget, used.get(reason, 0), checkpoints)
    if refusal:
        return Decision(None, refusal)
    quick_ends = _quick_ends(end, before, checkpoints, ran_s, node)
    refusal = _brake(quick_ends)
    if refusal:
        return Decision(None, refusal)
    used[reason] = used.get(reason, 0) + 1
    why = went(end, ran_s)
    streak = 1
    if before and before["reason"] == reason and ran_s < QUICKLY_S:
        streak = before["streak"] + 1
    recovery: Recovery = {
        "first": before["first"] if before else end["attempt"],
        "used": used,
        "reason": reason,
        "why": why,
        "streak": streak,
        "not_before": now + pause_s(streak),
        "checkpoint": checkpoints.newest,
        "quick_ends": quick_ends,
        "past": [*(before["past"] if before else []), _past(end, checkpoints, why)][-_MOST_PAST:],
    }
    excluded = list(before.get("exclude_nodes", [])) if before else []
    if reason == protocol.NODE_FAILURE and node is not None and node not in excluded:
        excluded.append(node)
    if excluded:
        recovery["exclude_nodes"] = excluded
    following: NextAttempt = {"recovery": recovery}
    if isinstance(budget, list):
        memory = spec.get("memory_bytes") or end.get("memory_limit_bytes")
        if memory:
            following["memory_bytes"] = math.ceil(memory * budget[1])
    return Decision(following)


def pause_s(streak: int) -> float:
    """Return how long to wait before the next attempt, in seconds: twice as long for each such end in a row."""
    return min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(streak - 1, 30))


def _over_budget(reason: str, budget: object, used: int, checkpoints: Checkpoints) -> str:
    """Return why a budget does not allow another attempt; empty when it does."""
    if budget == protocol.PROGRESS:
        return "" if checkpoints.is_new else "it saved nothing new in CHECKPOINT_DIR, so it is not started again"
    times = budget[0] if isinstance(budget, list) else budget
    assert isinstance(times, int)
    if used < times:
        return ""
    again = "once" if times == 1 else f"{times} times"
    return f"it was started again {again} for that reason ({reason}), and recover allows no more"


def _quick_ends(
    end: ExitRecord, before: Recovery | None, checkpoints: Checkpoints, ran_s: float, node: str | None
) -> list[QuickEnd]:
    """Return the last quick ends in a row, this one included; none when it was not quick, or has saved something."""
    if ran_s >= QUICKLY_S or checkpoints.is_new:
        return []
    kind = end.get("kind") or end["reason"] or ""
    at = None if end["reason"] in _NOT_OF_A_NODE else node
    earlier = [quick for quick in (before["quick_ends"] if before else []) if quick["kind"] == kind]
    this: QuickEnd = {"kind": kind, "node": at}
    return [*earlier, this][-_QUICK_ENDS:]


def _brake(quick_ends: list[QuickEnd]) -> str:
    """Return why another attempt would end in the same way; empty when nothing speaks for that."""
    within = f"within {QUICKLY_S:.0f} s of its start and without having saved anything, so it is not started again"
    if not quick_ends:
        return ""
    node = quick_ends[-1]["node"]
    if node is not None and sum(quick["node"] == node for quick in quick_ends) >= _QUICK_ENDS_ON_NODE:
        return f"it ended so twice on {node} {within}"
    if len(quick_ends) >= _QUICK_ENDS:
        return f"it ended so {len(quick_ends)} times in a row {within}"
    return ""


def _past(end: ExitRecord, checkpoints: Checkpoints, why: str) -> PastAttempt:
    return {
        "attempt": end["attempt"],
        "reason": end["reason"],
        "kind": end.get("kind") or end["reason"],
        "message": end["message"][:_MOST_SAID],
        "started_at": end.get("started_at"),
        "ended_at": end.get("ended_at", ""),
        "host": end.get("host"),
        "exit_code": end.get("exit_code"),
        "gpu_seconds": end.get("gpu_seconds"),
        "checkpoint": checkpoints.newest if checkpoints.is_new else None,
        "line": line(why, end["attempt"] + 1, checkpoints.newest),
    }
