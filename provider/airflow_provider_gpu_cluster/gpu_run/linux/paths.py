"""Paths: what is in what."""

from __future__ import annotations

import os


def is_within(path: str, folder: str) -> bool:
    """Return whether a path is a folder, or something in it, by their names; for links, give their real paths."""
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def is_really_within(path: str, folder: str) -> bool:
    """Return the same of what they are when all links in them are followed."""
    return is_within(os.path.realpath(path), os.path.realpath(folder))
