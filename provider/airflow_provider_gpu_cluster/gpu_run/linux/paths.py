"""Which path lies in which folder."""

from __future__ import annotations

import os


def is_within(path: str, folder: str) -> bool:
    """Return whether a path is a folder or lies in it, by their names only; for links, give their real paths."""
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def is_really_within(path: str, folder: str) -> bool:
    """Return whether a path is a folder or lies in it, after following all links in both."""
    return is_within(os.path.realpath(path), os.path.realpath(folder))
