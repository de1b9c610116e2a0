"""Whose budgets of GPU-hours a job needs room in, and what is said when there is none. No IO."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Iterable, Mapping, NamedTuple

from ..protocol.budgets import ALL, EACH, KINDS
from .acts import cleaned

if TYPE_CHECKING:
    from ..protocol.notes import UnfinishedNote
    from ..protocol.totals import MonthTotals

HOUR_S = 3600.0
#: What an attempt counts for each of its GPUs at least, as long as it waits or runs, in seconds.
LEAST_S = HOUR_S
_SUMS = {"dag": "dags", "user": "users", "owner": "owners"}
_WORDS = {"dag": "DAG {!r}", "user": "user {!r}", "owner": "the DAGs of owner {!r}", ALL: "all jobs together"}


class HoursLimit(NamedTuple):
    """
    A budget that applies to a job.

    :param key: of the connection's field, such as ``user:*``.
    :param kind: ``dag``, ``user``, ``owner`` or ``all``.
    :param name: whose it is; empty for ``all``.
    :param hours: how many GPU-hours it has each month.
    """

    key: str
    kind: str
    name: str
    hours: float

    @property
    def words(self) -> str:
        """Whose it is, for a person."""
        return _WORDS[self.kind].format(cleaned(self.name, 80))


class Count(NamedTuple):
    """
    What is counted against a budget, in GPU-hours.

    :param ended: by attempts that have ended in this month.
    :param unfinished: by attempts that wait or run.
    :param jobs: how many these are.
    """

    ended: float = 0.0
    unfinished: float = 0.0
    jobs: int = 0

    @property
    def hours(self) -> float:
        """All of it."""
        return self.ended + self.unfinished


def limits_of(budget: Mapping[str, Any], note: UnfinishedNote) -> list[HoursLimit]:
    """
    Return the budgets that apply to an attempt: of each kind the one of its name, or else the one for each.

    :param budget: the connection's field.
    """
    names = {"dag": note["dag_id"], "user": note["user"], "owner": note["owner"]}
    found = []
    for kind in KINDS:
        own, each = f"{kind}:{names[kind]}", f"{kind}:{EACH}"
        key = own if own in budget else each
        if names[kind] and key in budget:
            found.append(HoursLimit(key, kind, names[kind], float(budget[key])))
    if ALL in budget:
        found.append(HoursLimit(ALL, ALL, "", float(budget[ALL])))
    return found


def least_seconds(note: UnfinishedNote) -> float:
    """Return what an attempt counts at least as long as it waits or runs, in GPU-seconds."""
    limit_s = note["time_limit_s"]
    return note["gpus"] * (LEAST_S if limit_s is None else min(limit_s, LEAST_S))


def count_of(limit: HoursLimit, sums: MonthTotals | None, others: Iterable[tuple[UnfinishedNote, float]]) -> Count:
    """
    Return what is counted against a budget.

    :param sums: of the attempts that have ended in this month, in GPU-seconds; None when there are none.
    :param others: the attempts that wait or run, and what each counts, in GPU-seconds.
    """
    ended: float = 0.0
    if sums is not None:
        of_kind: Any = sums["all"] if limit.kind == ALL else sums[_SUMS[limit.kind]].get(limit.name, 0.0)  # type: ignore[literal-required]
        ended = float(of_kind)
    mine = [seconds for note, seconds in others if limit.kind == ALL or _name(note, limit.kind) == limit.name]
    return Count(ended / HOUR_S, sum(mine) / HOUR_S, len(mine))


def _name(note: UnfinishedNote, kind: str) -> str:
    return {"dag": note["dag_id"], "user": note["user"], "owner": note["owner"]}[kind]


def is_used_up(limit: HoursLimit, count: Count) -> bool:
    """Return whether no further attempt may start."""
    # Sums of many numbers are not exact.
    return count.hours >= limit.hours - 1e-9


def why(limit: HoursLimit, count: Count, now: float) -> str:
    """Return the sentence that a budget is used up, with both numbers."""
    month = f"{datetime.fromtimestamp(now, timezone.utc):%B %Y}"
    numbers = f"{hours(count.hours)} of {hours(limit.hours)}"
    text = f"the budget of GPU-hours of {limit.words} for {month} is used up: {numbers}"
    if count.jobs:
        text += ", of which {} count for {} that {} or {}".format(
            hours(count.unfinished),
            "1 job" if count.jobs == 1 else f"{count.jobs} jobs",
            "waits" if count.jobs == 1 else "wait",
            "runs" if count.jobs == 1 else "run",
        )
    return text


def what_helps(limit: HoursLimit, count: Count, now: float, conn_id: str) -> str:
    """Return what to do about it, for a person."""
    advice = [
        f"it begins anew at {begin_of_next_month(now):%Y-%m-%d %H:%M} UTC",
        "whoever keeps {} can raise {!r} in its field gpu_hours_budget".format(
            f"connection {cleaned(conn_id, 80)}" if conn_id else "the connection", cleaned(limit.key, 80)
        ),
        "with over_budget=wait there, jobs wait until the budget allows them to start",
    ]
    if count.jobs:
        advice.append(
            "a job that waits or runs counts as an hour for each of its GPUs at least, or as its time_limit if that is "
            "shorter, so fewer GPUs or a shorter time_limit leave more room"
        )
    return "What helps: {}".format("; ".join(advice))


def begin_of_next_month(now: float) -> datetime:
    """Return when the next month begins, in UTC."""
    today = datetime.fromtimestamp(now, timezone.utc)
    year, month = (today.year + 1, 1) if today.month == 12 else (today.year, today.month + 1)
    return datetime(year, month, 1, tzinfo=timezone.utc)


def month_of(now: float) -> str:
    """Return the name of the present month in the ledger, ``2026-11``."""
    return f"{datetime.fromtimestamp(now, timezone.utc):%Y-%m}"


def hours(value: float) -> str:
    """Return a number of GPU-hours for a person: two or three digits that count, or more of a large one."""
    if value >= 100 or value == int(value):
        return f"{value:,.0f}"
    digits = 1 if value >= 10 else 2 if value >= 0.1 else 6
    text = f"{float(f'{value:.2g}') if digits == 6 else value:.{digits}f}"
    return text.rstrip("0").rstrip(".")
