"""Make it possible again to write into a job's directory, whatever the job has made of it."""

from __future__ import annotations

import contextlib
import os
import stat

from . import records

_ALL = 0o700


def make_folder(top: str, *below: str) -> None:
    """
    Make a folder, or have it in order: what is no folder is put aside, and a mode that forbids work in it is corrected.

    :param top: the job's directory.
    :param below: the names of the folders from there to the one that is wanted.
    :raises OSError: that is not possible.
    """
    os.makedirs(top, mode=_ALL, exist_ok=True)
    path = top
    _open_up(path)
    for name in below:
        path = os.path.join(path, name)
        if os.path.lexists(path) and not os.path.isdir(path):
            records.put_aside(path)
        with contextlib.suppress(FileExistsError):
            os.mkdir(path)
        _open_up(path)


def _open_up(path: str) -> None:
    """Give this user all rights in a folder of their own."""
    found = os.stat(path)
    mode = stat.S_IMODE(found.st_mode)
    if found.st_uid == os.geteuid() and mode & _ALL != _ALL:
        os.chmod(path, mode | _ALL)
