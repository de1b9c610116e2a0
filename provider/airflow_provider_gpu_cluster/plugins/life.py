"""
The line of a job's life: which parts it has had, from when to when. Pure.

Only what is recorded is told. A part whose end has not come has no end; where nothing is recorded, there is a gap.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from airflow_provider_gpu_cluster.gpu_run.protocol import QUEUED as QUEUED_STATE
from airflow_provider_gpu_cluster.gpu_run.protocol.acts import COLLECT, RECOVER, RESUBMIT, STAGE, SUBMIT

STAGING = "staging"
BUILDING = "building"
QUEUED = "queued"
RUNNING = "running"
RECOVERING = "recovering"
COLLECTING = "collecting"

_TIMES = ("started_at", "ended_at")
_LAUNCHES = (SUBMIT, RESUBMIT, RECOVER)
# What took less is not worth a part.
_SHORTEST_S = 0.05

Part = dict[str, Any]


def life(
    *,
    submitted_at: str | None,
    attempts: Iterable[Mapping[str, Any]],
    acts: Iterable[Mapping[str, Any]] = (),
    seconds: Mapping[str, Any] | None = None,
    state: str = "",
    ended_at: str | None = None,
    engine: str = "host",
) -> list[Part]:
    """
    Return the parts of a job's life, in their order: ``kind``, ``attempt``, ``start``, ``end`` and ``label``.

    Values may be of the job's making: a time that is none counts as unknown.

    :param attempts: how each stands or has ended: ``attempt``, ``state``, ``reason``, ``started_at``, ``ended_at``.
    :param acts: its audit trail, the oldest first.
    :param seconds: how long the parts of the latest attempt took.
    :param state: of the job.
    :param ended_at: when the job ended, for one that has ended without running.
    :param engine: with ``host`` an environment is built while the job waits, with others when it has its GPUs.
    """
    acts = [{**act, "at": _moment(act.get("at"))} for act in acts]
    tried: list[dict[str, Any]] = [{**one, **{name: _moment(one.get(name)) for name in _TIMES}} for one in attempts]
    submitted_at, ended_at = _moment(submitted_at), _moment(ended_at)
    seconds = seconds or {}
    last: int = tried[-1]["attempt"] if tried else 1
    parts: list[Part] = []
    before: Mapping[str, Any] | None = None
    for attempt in tried or [{"attempt": 1, "ended_at": ended_at}]:
        number: int = attempt["attempt"]
        asked = _act(acts, number)
        since = asked.get("at") or (submitted_at if number == last or before is None else None)
        of_latest = seconds if number == last else {}
        if before is None:
            parts += _staging(acts, since, of_latest)
        if asked.get("act") == RECOVER and before is not None and before.get("ended_at"):
            reason = _words(before.get("reason"))
            label = f"before attempt {number}: goes on by itself" + (f" after {reason}" if reason else "")
            parts.append(_part(RECOVERING, number, before["ended_at"], _until(attempt), label))
        else:
            parts += _waiting(attempt, since, of_latest, engine)
        if attempt.get("started_at"):
            parts.append(_running(attempt))
        before = attempt
    if before is not None and before.get("ended_at") and state == QUEUED_STATE and tried:
        reason = _words(before.get("reason"))
        label = "another attempt follows by itself" + (f" after {reason}" if reason else "")
        parts.append(_part(RECOVERING, last + 1, before["ended_at"], None, label))
    parts += _collecting(acts, last)
    return [part for part in parts if part["start"] is not None]


def _act(acts: Iterable[Mapping[str, Any]], number: int) -> Mapping[str, Any]:
    """Return the act that has made an attempt."""
    return next((act for act in acts if act.get("act") in _LAUNCHES and act.get("attempt") == number), {})


def _staging(acts: Iterable[Mapping[str, Any]], since: str | None, seconds: Mapping[str, Any]) -> list[Part]:
    took_s = _number(seconds.get("staging"))
    # An act is noted when it is done; without a task of its own, inputs come with the submit.
    end = next((act["at"] for act in acts if act.get("act") == STAGE and act.get("at")), since)
    if took_s < _SHORTEST_S or end is None:
        return []
    return [_part(STAGING, 1, _moved(end, -took_s), end, "inputs staged")]


def _waiting(attempt: Mapping[str, Any], since: str | None, seconds: Mapping[str, Any], engine: str) -> list[Part]:
    """Return the time before an attempt that somebody has asked for, with that of its Python environment."""
    number, until = attempt["attempt"], _until(attempt)
    label = "waits for GPUs" if until is None else "waited for GPUs"
    built_s = _number(seconds.get("building"))
    if built_s < _SHORTEST_S or since is None or until is None:
        return [_part(QUEUED, number, since, until, label)]
    built = "Python environment built"
    if engine == "host":
        border = min(_moved(since, built_s), until, key=_time)
        parts = [_part(BUILDING, number, since, border, built), _part(QUEUED, number, border, until, label)]
    else:
        border = max(_moved(until, -built_s), since, key=_time)
        parts = [_part(QUEUED, number, since, border, label), _part(BUILDING, number, border, until, built)]
    return [part for part in parts if part["start"] != part["end"]]


def _until(attempt: Mapping[str, Any]) -> str | None:
    """Return when the time before an attempt ended; None if it lasts."""
    return attempt.get("started_at") or attempt.get("ended_at")


def _running(attempt: Mapping[str, Any]) -> Part:
    number, end = attempt["attempt"], attempt.get("ended_at")
    told = _words(attempt.get("reason")) or (_words(str(attempt.get("state") or "")).lower() if end else "running")
    return _part(RUNNING, number, attempt["started_at"], end, f"attempt {number}: {told or 'ended'}")


def _collecting(acts: Iterable[Mapping[str, Any]], number: int) -> list[Part]:
    """Return when outputs were fetched. It is known when that began, not how long it took."""
    times = [act["at"] for act in acts if act.get("act") == COLLECT and act.get("at")]
    if not times:
        return []
    again = "" if len(times) == 1 else f", {len(times)} times"
    return [_part(COLLECTING, number, times[0], times[-1], f"outputs collected{again}")]


def _part(kind: str, attempt: int, start: str | None, end: str | None, label: str) -> Part:
    if start is not None and end is not None and _time(end) < _time(start):
        # Clocks of several hosts, or one that was set back.
        end = start
    return {"kind": kind, "attempt": attempt, "start": start, "end": end, "label": label}


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else 0.0


def _moment(text: Any) -> str | None:
    try:
        return text if isinstance(text, str) and _time(text).tzinfo is not None else None
    except ValueError:
        return None


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _moved(text: str, seconds: float) -> str:
    return (_time(text) + timedelta(seconds=seconds)).isoformat(timespec="milliseconds")


def _words(name: object) -> str:
    return name.replace("_", " ") if isinstance(name, str) else ""
