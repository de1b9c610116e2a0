"""
A walk through the outputs of a job or an array that can go on after any place, in another process.

The order is that of the parts of the paths, so that a place in it says by itself what comes before and after.
"""

from __future__ import annotations

import itertools
import os
from typing import Iterator, NamedTuple

from ..linux.paths import is_really_within

MOST_IN_FOLDER = 200_000
"""How many names of one folder are looked at."""


class Walked(NamedTuple):
    """
    Something in a folder.

    :param path: below the folder where the walk began; empty for that folder itself.
    :param kind: ``folder``, ``entry`` for what is none, ``unreadable`` for a folder that cannot be listed, or ``cut``
        for one with more names than are looked at.
    """

    path: str
    kind: str


class _Level(NamedTuple):
    path: str
    names: Iterator[os.DirEntry[str]]


def walk(folder: str, after: str = "") -> Iterator[Walked]:
    """
    Yield what is in a folder and below.

    A link to a folder counts as a link, unless that folder is walked anyway.

    :param after: a path that was yielded before; begin after it.
    """
    begun = after.split("/") if after else []
    levels: list[_Level] = []
    kind = _go_down(folder, "", levels)
    if kind in ("unreadable", "cut"):
        yield Walked("", kind)
    while levels:
        level = levels[-1]
        entry = next(level.names, None)
        if entry is None:
            levels.pop()
            continue
        depth = len(levels) - 1
        is_on_way = depth < len(begun) and level.path == "/".join(begun[:depth])
        if is_on_way and entry.name < begun[depth]:
            continue
        is_passed = is_on_way and entry.name == begun[depth]
        path = f"{level.path}/{entry.name}" if level.path else entry.name
        if _is_folder(entry):
            kind = _go_down(entry.path, path, levels)
        elif entry.is_symlink() and os.path.isdir(entry.path) and is_really_within(entry.path, folder):
            kind = ""
        else:
            kind = "entry"
        if kind and not is_passed:
            yield Walked(path, kind)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False


def _go_down(folder: str, path: str, levels: list[_Level]) -> str:
    """Go down into a folder, if it can be listed; return its kind, or an empty text if it has gone."""
    try:
        with os.scandir(folder) as listing:
            entries = list(itertools.islice(listing, MOST_IN_FOLDER + 1))
    except FileNotFoundError:
        return ""
    except OSError:
        return "unreadable"
    levels.append(_Level(path, iter(sorted(entries[:MOST_IN_FOLDER], key=lambda entry: entry.name))))
    return "cut" if len(entries) > MOST_IN_FOLDER else "folder"
