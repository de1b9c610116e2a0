"""Small JSON files that are complete or absent, even if a process dies while writing them."""

from __future__ import annotations

import errno
import json
import os
from datetime import datetime, timezone
from typing import Any, Mapping, TextIO


def now() -> str:
    """Return the present time in the form of all records: ISO 8601 in UTC, to the millisecond."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def seconds_between(start: str, end: str) -> float:
    """Return the seconds between two record times."""
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


def new_name() -> str:
    """Return a name that nothing else has."""
    return os.urandom(16).hex()


def read_json(path: str) -> Any:
    """Return the record at ``path``, or None. The caller checks its contents."""
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except (FileNotFoundError, NotADirectoryError):
        return None


def write_json(path: str, value: Mapping[str, object], *, sync: bool = True) -> None:
    """
    Write or replace the record at ``path``; a reader sees the old one or the new one.

    :param sync: wait until it is on the disk. Otherwise the record may be empty after a power cut.
    """
    draft = _draft(path, value, sync)
    try:
        os.replace(draft, path)
    except OSError:
        os.unlink(draft)
        raise


def create_json(path: str, value: Mapping[str, object]) -> bool:
    """
    Write the record at ``path`` unless there is one: among any number of callers on any host, exactly one gets True.

    ``link`` is atomic on local file systems and on NFS. When its reply is lost on NFS, it reports a failure although it
    succeeded; the link count of the draft reveals that (open(2), O_EXCL).
    """
    draft = _draft(path, value)
    try:
        os.link(draft, path)
        return True
    except FileExistsError:
        return os.stat(draft).st_nlink == 2
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS):
            raise
        return _create_without_links(path, value)
    finally:
        os.unlink(draft)


def _create_without_links(path: str, value: Mapping[str, object]) -> bool:
    """Do the same on a file system without hard links; a crash there can leave a truncated record."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return False
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        _dump(value, file)
    return True


def _draft(path: str, value: Mapping[str, object], sync: bool = True) -> str:
    draft = f"{path}.{new_name()}.tmp"
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            _dump(value, file)
            if sync:
                os.fsync(file.fileno())
    except BaseException:
        os.unlink(draft)
        raise
    return draft


def _dump(value: Mapping[str, object], file: TextIO) -> None:
    json.dump(value, file, indent=1, sort_keys=True)
    file.write("\n")
    file.flush()


def append_line(path: str, value: Mapping[str, object]) -> None:
    """Append one record to a file of JSON lines, in one write."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(fd, json.dumps(value, sort_keys=True).encode() + b"\n")
    finally:
        os.close(fd)
