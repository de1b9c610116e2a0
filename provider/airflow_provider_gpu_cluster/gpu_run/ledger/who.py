"""Who a line of the ledger is for: the task, and the person."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Mapping, cast

from ..linux import processes

if TYPE_CHECKING:
    from ..protocol.ledger import LedgerLine

_MOST_CHARACTERS = 250
_TEXTS = ("dag_id", "task_id", "run_id", "owner")
# Whom a job is for, the first of them that is known.
_PEOPLE = ("triggered_by", "owner", "person")


def line_of(kind: str, at: str, job_id: str, by: Mapping[str, Any] | None) -> LedgerLine:
    """
    Return a line that says when it was, which job it is about, and who that job is for.

    :param by: who has asked for the job, as its records say; they may say anything.
    """
    told = by if isinstance(by, Mapping) else {}
    line: dict[str, Any] = {"kind": kind, "at": at, "job_id": job_id}
    for name in _TEXTS:
        if _text(told.get(name)):
            line[name] = _text(told.get(name))
    if isinstance(told.get("map_index"), int):
        line["map_index"] = told["map_index"]
    people = filter(None, (_text(told.get(name)) for name in _PEOPLE))
    line["user"] = next(people, None) or processes.user()
    return cast("LedgerLine", line)


def _text(value: object) -> str:
    return value[:_MOST_CHARACTERS] if isinstance(value, str) else ""
