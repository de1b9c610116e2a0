"""
Which folders others could change, who could so have their own code run as this user.

The folders on the way to the program are checked before it starts, see ``connection/safe_start.py``; here are those
that it makes and uses afterwards, and what is only worth a warning.
"""

from __future__ import annotations

import os
from typing import Iterator

from .. import protocol
from ..errors import Refused
from ..linux import processes

_OTHERS_WRITE = 0o022
_GROUP_WRITES = 0o020
_STICKY = 0o1000
_NOBODY = 65534


def check_own(path: str, *, may_be_open: bool = False) -> None:
    """
    Make sure that a folder, if it exists, was made by this user and can be changed by no other.

    :param may_be_open: whether others may be able to change it, since it is closed to them next.
    :raises Refused: it was not, or can.
    """
    try:
        found = os.stat(path)
    except OSError:
        return
    if found.st_uid != os.geteuid():
        nfs = " (on NFS, an owner 'nobody' means that user ids are not mapped)" if found.st_uid == _NOBODY else ""
        raise Refused(
            protocol.ROOT_NOT_SAFE,
            f"{path} belongs to {_user(found.st_uid)}, not to {processes.user()}{nfs}, so nothing in it is used; "
            "remove it, or set 'root_dir' in the connection to a folder of your own",
        )
    if found.st_mode & _OTHERS_WRITE and not may_be_open:
        raise Refused(
            protocol.ROOT_NOT_SAFE,
            f"{path} can be written to by others, so nothing in it is used; if you trust what is in it, run "
            f"'chmod go-w {path}' on the cluster",
        )


def warnings(root: str) -> list[str]:
    """Return a sentence on each folder, from the root upwards, in which others could replace what is next."""
    return [
        f"{folder} {why}, who could put their own folder in the place of {below} and so run code as "
        f"{processes.user()}; that is right if you trust them (access lists are not looked at)"
        for folder, below, why in _unsure(root)
    ]


def _unsure(root: str) -> Iterator[tuple[str, str, str]]:
    below, folder = os.path.join(root, ".gpu-run"), os.path.realpath(root)
    while True:
        try:
            found = os.stat(folder)
        except OSError:
            return
        if found.st_uid not in (os.geteuid(), 0, _NOBODY):
            yield folder, below, f"belongs to {_user(found.st_uid)}"
        elif found.st_mode & _GROUP_WRITES and not found.st_mode & _STICKY and not _is_private(found.st_gid):
            yield folder, below, f"can be written to by the group {_group(found.st_gid)}"
        if folder == "/":
            return
        below, folder = folder, os.path.dirname(folder)


def _is_private(gid: int) -> bool:
    """Return whether a group is this user's alone, as most distributions give each user one of the same name."""
    return _group(gid) == _user(os.geteuid())


def _user(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    import grp

    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
