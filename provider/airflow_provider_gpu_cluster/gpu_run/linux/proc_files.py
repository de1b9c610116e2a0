"""Files below /proc, as far as they can be read; see proc(5)."""

from __future__ import annotations


def read_text(path: str, most_bytes: int) -> str:
    """Return the begin of a file; an empty text when it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(most_bytes)
    except OSError:
        return ""


def stat_fields(pid: int) -> list[str]:
    """Return the fields of /proc/<pid>/stat after the command name; none when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].decode("ascii", "replace").split()
    except OSError:
        return []
