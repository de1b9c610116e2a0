"""
Lines of JSON, among the bytes of files that they announce.

Both ends of a channel use this module; :mod:`.staging.receiving` and :mod:`.outputs.sending` define what the lines say.
A reader distinguishes a stream that broke off, which is worth another try, from one that no correct sender writes.
"""

from __future__ import annotations

import json
from typing import Any, BinaryIO, Mapping

_MAX_LINE = 1 << 16


class BrokenStream(Exception):
    """The stream ended early."""


class GarbledStream(Exception):
    """The stream contains something that no correct sender writes."""


def safe_path(path: str) -> str:
    """
    Return ``path`` when it names something below a folder.

    :raises ValueError: it is absolute, empty, or climbs out with ``..``.
    """
    if not path or path.startswith("/") or "\0" in path or ".." in path.split("/"):
        raise ValueError(f"{path!r} does not stay inside its folder")
    return path


def write_line(out: BinaryIO, value: Mapping[str, object]) -> None:
    """Write one line of JSON."""
    out.write(json.dumps(value).encode("ascii") + b"\n")


def read_line(stream: BinaryIO, limit: int = _MAX_LINE) -> dict[str, Any]:
    """
    Read one line of JSON.

    :param limit: how long it may be, in bytes.
    :raises BrokenStream: the stream ended.
    :raises GarbledStream: it contains something else.
    """
    line = stream.readline(limit)
    if not line.endswith(b"\n") and len(line) < limit:
        raise BrokenStream("the stream of files broke off")
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise _garbled(line)
    return value


def _garbled(what: object) -> GarbledStream:
    return GarbledStream(f"the stream of files is garbled at {repr(what)[:60]}")
