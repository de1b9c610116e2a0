"""Slurm's way to write several nodes as one word, such as ``gpu[01-03,7],login``."""

from __future__ import annotations

import re
from typing import Iterator

_ENTRY = re.compile(r"((?:[^,\[\]]|\[[^\]]*\])+)")
_RANGE = re.compile(r"\[([^\]]*)\]")
# A word of other origin must not make a process run out of memory.
MOST_NODES = 20_000


def nodes_of(text: str) -> list[str]:
    """Return the names in a list of nodes; what is no range stays as it is."""
    found: list[str] = []
    for entry in _ENTRY.findall(text):
        for name in _expanded(entry):
            if len(found) >= MOST_NODES:
                return found
            found.append(name)
    return found


def _expanded(entry: str) -> Iterator[str]:
    brackets = _RANGE.search(entry)
    if brackets is None:
        yield entry
        return
    for part in brackets.group(1).split(","):
        for number in _numbers(part):
            # There may be a second range behind it, such as rack[1-2]n[1-4].
            yield from _expanded(entry[: brackets.start()] + number + entry[brackets.end() :])


def _numbers(part: str) -> Iterator[str]:
    first, dash, last = part.partition("-")
    if dash and first.isdigit() and last.isdigit():
        for number in range(int(first), min(int(last), int(first) + MOST_NODES) + 1):
            yield str(number).zfill(len(first))
    else:
        yield part
