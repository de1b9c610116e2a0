"""
The markers in a job's outputs, where people and other tools look for its end: SUCCESS or FAILED, and status.txt.

A job ends once: an attempt that another follows by itself leaves none.
"""

from __future__ import annotations

import contextlib
import os
from datetime import datetime
from typing import TYPE_CHECKING, Any, Mapping

from .. import protocol
from ..linux import regular_files
from . import records
from .writing import write_text

if TYPE_CHECKING:
    from ..protocol.records import ExitRecord, Marked

_MARKERS = ("SUCCESS", "FAILED")
_MOST_IN_MARKER = 4096


def mark(outputs: str, record: ExitRecord) -> None:
    """
    Write the marker, and a line of status.

    :param outputs: path of the outputs.
    :param record: how the job has ended.
    """
    with contextlib.suppress(OSError):
        os.makedirs(outputs, exist_ok=True)
        clear(outputs)
        marker = "SUCCESS" if record["state"] == protocol.SUCCEEDED else "FAILED"
        write_text(os.path.join(outputs, "status.txt"), _status_line(record))
        write_text(os.path.join(outputs, marker), _status_line(record))


def is_marked(outputs: str) -> bool:
    """Return whether there is a marker."""
    return any(os.path.exists(os.path.join(outputs, marker)) for marker in _MARKERS)


def marked(outputs: str) -> Marked | None:
    """
    Return the end that the marker shows, for an attempt whose exit record is missing.

    :return: ``state``, ``reason`` and ``message``, and the rest of the status line as ``facts``; None when there is no
        marker.
    """
    for marker in _MARKERS:
        try:
            data = regular_files.read(os.path.join(outputs, marker), _MOST_IN_MARKER)
            return _told_by_marker(marker, data.decode("utf-8", "replace").split())
        except OSError:
            continue
    return None


def clear(outputs: str) -> None:
    """Remove the markers of an earlier end."""
    for marker in _MARKERS:
        try:
            os.unlink(os.path.join(outputs, marker))
        except FileNotFoundError:
            continue
        except IsADirectoryError:
            records.put_aside(os.path.join(outputs, marker))


def _status_line(record: Mapping[str, Any]) -> str:
    words = [record["state"]]
    for name in ("reason", "exit_code", "signal", "started_at", "ended_at"):
        if record.get(name) is not None:
            words.append(f"{name}={record[name]}")
    return " ".join(words) + "\n"


def _told_by_marker(marker: str, words: list[str]) -> Marked:
    """Return what a marker says, whether it has a line of status or another program has made it."""
    is_success = marker == "SUCCESS"
    told: Marked = {
        "state": protocol.SUCCEEDED if is_success else protocol.FAILED,
        "reason": None if is_success else protocol.USER_ERROR,
        "message": f"outputs/{marker} says so, and there is no other record of its end",
        "facts": {},
    }
    if not words or words[0] not in protocol.FINAL_STATES or (words[0] == protocol.SUCCEEDED) != is_success:
        return told
    told["state"] = words[0]
    said = dict(word.partition("=")[::2] for word in words[1:])
    if not is_success and said.get("reason") in protocol.REASONS:
        told["reason"] = said["reason"]
    if said.get("exit_code", "").isdigit():
        told["facts"]["exit_code"] = int(said["exit_code"])
    if said.get("signal", "").isdigit():
        told["facts"]["signal"] = int(said["signal"])
    if _is_time(said.get("started_at")):
        told["facts"]["started_at"] = said["started_at"]
    if _is_time(said.get("ended_at")):
        told["facts"]["ended_at"] = said["ended_at"]
    return told


def _is_time(text: str | None) -> bool:
    with contextlib.suppress(ValueError):
        return text is not None and bool(datetime.fromisoformat(text))
    return False
