"""What a job has printed, as lines: of each of its processes by itself, where they are marked."""

from __future__ import annotations

import re
from typing import Callable, NamedTuple

# A longer line is some data.
_MOST_CHARACTERS = 4000
_MOST_LINES = 100_000
_AROUND = 20
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
# The marks of torch (its excepthook, torchrun), Open MPI, Ray and vLLM, and srun --label.
_MARKS = (
    re.compile(r"(?:\[default\d+\]:)?\[rank(?P<rank>\d+)\]: ?"),
    re.compile(r"\[default(?P<rank>\d+)\]: ?"),
    re.compile(r"\[\d+,(?P<rank>\d+)\](?:\[\S+\])?<std(?:out|err)>: ?"),
    re.compile(r"\((?P<rank>[\w.<>:-]+(?: \w+=\S+)* pid=\d+[^)\n]*)\) ?"),
)
_LABEL = re.compile(r" *(?P<rank>\d+): ?")
_LABELLED = re.compile(r"^ *\d+: Traceback \(most recent call last\)", re.MULTILINE)


class Line(NamedTuple):
    """
    A line.

    :param number: its place in the output.
    :param rank: the process that it is marked with; empty without a mark.
    :param text: without that mark.
    """

    number: int
    rank: str
    text: str


def lines_of(text: str, hide: Callable[[str], str] = str) -> list[Line]:
    """
    Return the lines of an output: without the codes of terminals, and of a redrawn line its last state.

    :param hide: returns a text without secrets, which could not be recognized in a line that is cut.
    """
    if "\x1b" in text:
        text = _ESCAPES.sub("", text)
    marks = (*_MARKS, _LABEL) if _LABELLED.search(text) else _MARKS
    found = []
    for number, raw in _kept(text.split("\n")):
        line = raw.rstrip("\r")
        if "\r" in line:
            line = line.rpartition("\r")[2]
        rank = ""
        if line[:1] in ("[", "(") or (len(marks) > len(_MARKS) and line[:8].strip()[:1].isdigit()):
            mark = next(filter(None, (mark.match(line) for mark in marks)), None)
            if mark:
                rank, line = mark.group("rank"), line[mark.end() :]
        if len(line) > _MOST_CHARACTERS:
            line = hide(line)[:_MOST_CHARACTERS]
        found.append(Line(number, rank, line))
    return found


def _kept(lines: list[str]) -> list[tuple[int, str]]:
    """Return the last lines with their numbers; of those before, the last traceback."""
    numbered = list(enumerate(lines[-_MOST_LINES:], max(0, len(lines) - _MOST_LINES)))
    for at in range(len(lines) - _MOST_LINES - 1, -1, -1):
        if "Traceback (most recent call last)" in lines[at]:
            first = max(0, at - _AROUND)
            end = min(at + 10 * _AROUND, len(lines) - _MOST_LINES)
            return [*enumerate(lines[first:end], first), *numbered]
    return numbered


def by_process(lines: list[Line]) -> list[list[Line]]:
    """Return the lines of each process, in their order; those without a mark belong together."""
    found: dict[str, list[Line]] = {}
    for line in lines:
        found.setdefault(line.rank, []).append(line)
    return list(found.values())
