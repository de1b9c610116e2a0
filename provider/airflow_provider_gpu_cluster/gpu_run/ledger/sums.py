"""Add up the lines of a ledger, by user, DAG, task, day, month or reason."""

from __future__ import annotations

from operator import add
from typing import TYPE_CHECKING, Any, Callable, Sequence

from ..protocol import CANCELLED, SUCCEEDED
from ..protocol.ledger import BY_DAG, BY_DAY, BY_MONTH, BY_REASON, BY_TASK, BY_USER, END, TRANSFER
from .moved import is_no_end

if TYPE_CHECKING:
    from ..protocol.ledger import UsageReply, UsageRow
    from .ledger import Ledger

_HOUR_S = 3600.0
_KWH_J = 3.6e6
# More than anything here is: what is larger was not written by this program.
_LARGEST = 1e18


def _task(line: dict[str, Any]) -> str:
    return "{}.{}".format(line.get("dag_id", ""), line["task_id"]) if line.get("task_id") else ""


_KEYS: dict[str, Callable[[dict[str, Any]], Any]] = {
    BY_USER: lambda line: line.get("user", ""),
    BY_DAG: lambda line: line.get("dag_id", ""),
    BY_TASK: _task,
    BY_DAY: lambda line: line["at"][:10],
    BY_MONTH: lambda line: line["at"][:7],
    BY_REASON: lambda line: line.get("reason") or "",
}
# What an attempt's key would be if it had ended as the one before it did, where that may be another.
_KEYS_BEFORE: dict[str, Callable[[dict[str, Any]], Any]] = {
    BY_DAY: lambda line: line["follows_at"][:10],
    BY_MONTH: lambda line: line["follows_at"][:7],
    BY_REASON: lambda line: line.get("follows_reason") or "",
}
_NOTHING = (0.0,) * 11
# A set, of which nothing but a text can be asked.
_GOOD = frozenset((SUCCEEDED, CANCELLED))


def add_up(ledger: Ledger, since: str | None, until: str | None, by: str) -> UsageReply:
    """
    Return what the lines of a time add up to. Those that make no sense are passed over.

    :param since: the first moment, in the form of all records, in UTC; None begins with the first line.
    :param until: the first moment that does not belong to it.
    :param by: one of :data:`.protocol.ledger.BYS`.
    """
    key_of, key_before = _KEYS[by], _KEYS_BEFORE.get(by)
    sums: dict[str, Sequence[float]] = {}
    jobs = 0.0
    # A transfer belongs to no end, and so to no reason. By reason, what the ends themselves say is added up.
    for line in ledger.lines(since, until, (END,) if by == BY_REASON else (END, TRANSFER), are_brief=True):
        key = key_of(line)
        if not isinstance(key, str):
            continue
        is_job = False
        if line["kind"] == TRANSFER:
            numbers = _of_transfer(line)
        else:
            if is_no_end(line):
                continue
            follows_at = line.get("follows_at")
            is_job = not isinstance(follows_at, str) or (since is not None and follows_at < since)
            is_job_here = is_job or (key_before is not None and key_before(line) != key)
            numbers = _of_end(line, is_job_here, with_bytes=by == BY_REASON)
        if numbers is not None:
            jobs += is_job
            sums[key] = list(map(add, sums.get(key, _NOTHING), numbers))
    rows = [_row(key, numbers) for key, numbers in sums.items()]
    rows.sort(key=lambda row: row["key"] if by in (BY_DAY, BY_MONTH) else (-row["gpu_hours"], row["key"]))
    total = [sum(column) for column in zip(*sums.values())] or list(_NOTHING)
    return {"rows": rows, "total": _row("", [jobs, *total[1:]])}


def _of_end(line: dict[str, Any], is_job: bool, *, with_bytes: bool) -> tuple[float, ...] | None:
    """Return what the end of an attempt adds to each sum, in the order of a row."""
    try:
        gpu, used = line["gpu_seconds"], line.get("used_gpu_seconds")
        numbers = (
            is_job,
            1,
            0 if line["state"] in _GOOD else 1,
            gpu,
            used or 0,
            line.get("idle_gpu_seconds", 0),
            0 if used is None else gpu,
            line.get("energy_j", 0),
            line.get("queued_s", 0),
            line.get("received_bytes", 0) if with_bytes else 0,
            line.get("sent_bytes", 0) if with_bytes else 0,
        )
        return numbers if min(numbers) >= 0 and sum(numbers) < _LARGEST else None
    except (KeyError, TypeError):
        return None


def _of_transfer(line: dict[str, Any]) -> tuple[float, ...] | None:
    count, is_in = line.get("bytes"), line.get("direction") == "in"
    if not isinstance(count, int) or not 0 <= count < _LARGEST:
        return None
    return (*_NOTHING[:9], count if is_in else 0, 0 if is_in else count)


def _row(key: str, numbers: Sequence[float]) -> UsageRow:
    jobs, attempts, failed, gpu, used, idle, measured, energy, queued, received, sent = numbers
    return {
        "key": key,
        "jobs": int(jobs),
        "attempts": int(attempts),
        "failed": int(failed),
        "gpu_hours": round(gpu / _HOUR_S, 6),
        "used_gpu_hours": round(used / _HOUR_S, 6),
        "idle_gpu_hours": round(idle / _HOUR_S, 6),
        "measured_gpu_hours": round(measured / _HOUR_S, 6),
        "energy_kwh": round(energy / _KWH_J, 6),
        "queued_hours": round(queued / _HOUR_S, 6),
        "received_bytes": int(received),
        "sent_bytes": int(sent),
    }
