"""
The line of an attempt's end, from its records.

Jobs can write to their records, and to the files that say what they have used. So nothing that makes no sense gets into
the line, and nothing keeps it from being made.
"""

from __future__ import annotations

import contextlib
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Mapping, cast

from ..linux import processes
from ..protocol.ledger import END
from ..protocol.placement import MARKS
from .who import line_of

if TYPE_CHECKING:
    from ..protocol.ledger import EndLine

_MOST_CHARACTERS = 500
_MOST_GPUS = 1024
_LARGEST = 1e15
# What the record of an end says about the use of GPUs, and the name of that in the line.
_OF_USAGE = (
    ("gpu_seconds_used", "used_gpu_seconds"),
    ("gpu_seconds_idle", "idle_gpu_seconds"),
    ("energy_j", "energy_j"),
)


def end_line(
    record: Mapping[str, Any],
    request: Mapping[str, Any],
    claim: Mapping[str, Any],
    before: Mapping[str, Any],
    *,
    metrics: Mapping[str, float],
    moved: Mapping[str, int],
) -> EndLine:
    """
    Return the line of an end.

    :param record: its ``exit.json``.
    :param request: the ``request.json`` of the attempt; empty when it is gone.
    :param claim: its ``claim.json``, likewise.
    :param before: the ``exit.json`` of the attempt before it, likewise.
    :param metrics: its final numbers.
    :param moved: how many bytes were transferred for it, by direction.
    """
    ended_at = _time(record.get("released_at")) or _time(record.get("ended_at"))
    line = cast("dict[str, Any]", line_of(END, ended_at, str(record["job_id"]), request.get("by")))
    submitted_at = _time(record.get("submitted_at")) or _time(request.get("requested_at"))
    leased_at = _time(record.get("leased_at")) or _time(claim.get("leased_at"))
    gpus = _list(record.get("gpus")) or _list(claim.get("gpus"))
    told = _number(record.get("gpu_seconds"))
    leased_s = (told / len(gpus) if told else _between(leased_at, ended_at)) if gpus else 0.0
    line.update(
        attempt=record["attempt"],
        engine=_text(_part(request, "settings").get("engine")) or "host",
        host=_text(record.get("host")) or _text(request.get("host")) or processes.hostname(),
        state=_text(record.get("state")),
        reason=_text(record.get("reason")) or None,
        verdict=_text(record.get("kind")) or None,
        gpus=len(gpus),
        leased_s=round(leased_s, 3),
        gpu_seconds=round(len(gpus) * leased_s, 3),
        received_bytes=moved.get("in", 0),
        sent_bytes=moved.get("out", 0),
    )
    types = _texts(gpu.get("type") for gpu in _list(claim.get("gpus")) if isinstance(gpu, Mapping))
    if types:
        line["gpu_type"] = ", ".join(sorted(set(types)))[:_MOST_CHARACTERS]
    keys = _texts(_list(record.get("gpu_keys")))
    if keys:
        line["gpu_keys"] = keys
    followed_at = _time(before.get("released_at")) or _time(before.get("ended_at"))
    # One that was taken back before was no attempt that this one goes on from.
    if followed_at and before.get("placement") not in MARKS:
        line["follows_at"], line["follows_reason"] = followed_at, _text(before.get("reason")) or None
    moments = {"submitted_at": submitted_at, **{name: _time(record.get(name)) for name in ("started_at", "ended_at")}}
    line.update({name: moment for name, moment in moments.items() if moment})
    array = _part(request, "array")
    if _text(array.get("job_id")) and isinstance(array.get("index"), int):
        # In the array that is here, which may be a part of a larger one.
        first = array.get("first", 0)
        line["array"] = _text(array["job_id"])
        line["element"] = array["index"] - (first if isinstance(first, int) else 0)
    if record.get("next"):
        line["goes_on"] = True
    if record.get("placement") in MARKS:
        line["placement"] = record["placement"]
    line.update(_used(record, line["gpu_seconds"]))
    seconds = _part(record, "seconds")
    parts = {
        "queued": _between(submitted_at, leased_at or ended_at),
        "running": _between(_time(record.get("started_at")), _time(record.get("ended_at"))),
    }
    for name in ("queued", "staging", "building", "running"):
        told = _number(seconds.get(name))
        value = parts.get(name) if told is None else told
        if value is not None:
            line[f"{name}_s"] = round(value, 3)
    if metrics:
        line["metrics"] = dict(metrics)
    return cast("EndLine", line)


def _used(record: Mapping[str, Any], gpu_seconds: float) -> dict[str, float]:
    """Return what was measured of the GPUs; nothing where nobody did."""
    usage = _part(record, "usage")
    found: dict[str, float] = {}
    for name, ours in _OF_USAGE:
        value = _number(usage.get(name))
        if value is not None:
            found[ours] = round(value if name == "energy_j" else min(value, gpu_seconds), 3)
    return found


def _part(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = record.get(name)
    return value if isinstance(value, Mapping) else {}


def _list(value: object) -> list[Any]:
    return value[:_MOST_GPUS] if isinstance(value, list) else []


def _text(value: object) -> str:
    return value[:_MOST_CHARACTERS] if isinstance(value, str) else ""


def _texts(values: Any) -> list[str]:
    return [text for text in map(_text, values) if text]


def _number(value: object) -> float | None:
    """Return a number of seconds, joules or bytes, if it is one."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(cast(float, value)) if is_number and 0 <= cast(float, value) < _LARGEST else None


def _time(value: object) -> str:
    """Return a time if it is one, with its time zone."""
    with contextlib.suppress(ValueError, OverflowError):
        if isinstance(value, str) and datetime.fromisoformat(value).tzinfo is not None:
            return datetime.fromisoformat(value).astimezone(timezone.utc).isoformat(timespec="milliseconds")
    return ""


def _between(start: str, end: str) -> float:
    """Return the seconds from one time to another; 0 when one is unknown, or a clock was set back."""
    if not start or not end:
        return 0.0
    return max(0.0, (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds())
