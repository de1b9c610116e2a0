"""Small JSON files that are complete or absent, even if a process dies while writing them."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from datetime import datetime, timezone
from typing import Any, BinaryIO, Mapping, TextIO

from ..linux import regular_files

# More than any record has, and few enough to be read and parsed in a moment.
MOST_BYTES = 1 << 20
# Of records with what a user has written, or with a line for each of many.
MOST_BYTES_OF_LISTS = 1 << 26


def now() -> str:
    """Return the present time in the form of all records: ISO 8601 in UTC, to the millisecond."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def time_of(seconds: float) -> str:
    """Return a time in that form that is given in seconds since the epoch."""
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")


def seconds_between(start: str, end: str) -> float:
    """Return the seconds between two record times."""
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


def new_name() -> str:
    """Return a name that nothing else has."""
    return os.urandom(16).hex()


def read_json(path: str, most_bytes: int = MOST_BYTES) -> Any:
    """
    Return the record at ``path``, or None. The caller checks its contents.

    Jobs can write to their records. So whatever is there, this takes a moment, and returns a JSON object or raises.

    :raises ValueError: it holds something else than a JSON object.
    :raises NotRegular: there is something else in the place of the file, or it is larger than ``most_bytes``.
    :raises OSError: it cannot be read now.
    """
    try:
        data = regular_files.read(path, most_bytes)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} holds no JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds no JSON object")
    return value


def is_spoilt(path: str) -> bool:
    """Return whether there is something at ``path`` that is no record, and never will be one."""
    try:
        read_json(path)
    except (ValueError, regular_files.NotRegular):
        return True
    return False


def log_file(path: str) -> BinaryIO:
    """Open a file to append output to; what is no file is put aside, as writing to it could wait for ever."""
    try:
        fd = regular_files.open_to_append(path)
    except regular_files.NotRegular:
        put_aside(path)
        fd = regular_files.open_to_append(path)
    return os.fdopen(fd, "ab")


def put_aside(path: str) -> None:
    """Give whatever is in the place of a record, or of a folder, another name; do nothing if nothing is there."""
    with contextlib.suppress(FileNotFoundError):
        os.rename(path, f"{path}.{new_name()}.replaced")


def write_json(path: str, value: Mapping[str, object], *, sync: bool = True) -> None:
    """
    Write or replace the record at ``path``; a reader sees the old one or the new one.

    :param sync: wait until it is on the disk. Otherwise the record may be empty after a power cut.
    """
    draft = _draft(path, value, sync)
    try:
        replace(draft, path)
    except OSError:
        os.unlink(draft)
        raise


def replace(draft: str, path: str) -> None:
    """Give a file its final name; a folder in its place is put aside."""
    try:
        os.replace(draft, path)
    except IsADirectoryError:
        put_aside(path)
        os.replace(draft, path)


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
    fd = regular_files.open_to_append(path)
    try:
        os.write(fd, json.dumps(value, sort_keys=True).encode() + b"\n")
    finally:
        os.close(fd)
