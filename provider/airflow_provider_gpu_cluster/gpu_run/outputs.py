"""A job's outputs for the way home: what there is, and the files themselves as a stream."""

from __future__ import annotations

import errno
import os
import stat
from typing import Any, BinaryIO, Iterator

from . import frames, protocol
from .errors import Refused
from .store import JobDirectory, Root


def list_outputs(root: Root, job_id: str) -> list[dict[str, Any]]:
    """
    List everything in a job's outputs that is no folder.

    :return: ``path``, ``kind`` (``file``, or why it cannot be sent: ``outside`` for a link that leaves the folder,
        ``broken``, ``special``, ``unreadable``), ``size``, ``mode``, and ``target`` of a link that cannot be followed.
    :raises Refused: there is no such job.
    """
    folder = _folder(root, job_id)
    unreadable: list[str] = []
    # A folder that cannot be listed must not pass for an empty one.
    entries = [_describe(folder, name) for name in _walk(folder, unreadable)]
    return entries + [{"path": name, "kind": "unreadable", "size": 0, "mode": 0} for name in unreadable]


def send_outputs(root: Root, job_id: str, names: list[str], out: BinaryIO) -> None:
    """Send files of a job's outputs, which were listed before; what has become something else is named as such."""
    folder = _folder(root, job_id)
    for name in names:
        _send(folder, name, out)
    frames.write_line(out, {"end": len(names)})


def _send(folder: str, name: str, out: BinaryIO) -> None:
    path = os.path.join(folder, frames.safe_path(name))
    try:
        # Should it have become a pipe, to open it must not wait for who writes into it.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        gone = error.errno in (errno.ENOENT, errno.ENOTDIR)
        frames.write_line(out, {"path": name, "kind": "gone" if gone else "unreadable"})
        return
    try:
        found = os.fstat(fd)
        # Where it lies is asked about the file that is open, as a link can be put in its place at any moment.
        if not stat.S_ISREG(found.st_mode) or not _is_inside(f"/proc/self/fd/{fd}", folder):
            frames.write_line(out, {"path": name, "kind": "gone"})
            return
        header = {"path": name, "kind": "file", "size": found.st_size, "mode": _mode(found)}
        with open(fd, "rb", closefd=False) as source:
            frames.write_file(out, header, source, lambda: os.fstat(fd).st_mtime_ns == found.st_mtime_ns)
    finally:
        os.close(fd)


def _folder(root: Root, job_id: str) -> str:
    job: JobDirectory = root.job(job_id)
    if not job.exists():
        raise Refused(protocol.NO_SUCH_JOB, f"there is no job {job_id} under {root.path} on this cluster")
    attempts = job.attempts()
    ended = attempts[-1].ended() if attempts else None
    if ended is not None and not attempts[-1].is_marked():
        # Its end is proven a moment before the markers are written.
        attempts[-1].mark(ended)
    return job.at("outputs")


def _walk(folder: str, unreadable: list[str]) -> Iterator[str]:
    """
    Yield what a folder holds; a link to a folder counts as a link, unless that folder is walked anyway.

    :param unreadable: receives the folders that cannot be listed.
    """

    def note(error: OSError) -> None:
        if error.errno != errno.ENOENT:
            unreadable.append(os.path.relpath(error.filename, folder))

    for where, folders, files in os.walk(folder, onerror=note):
        for name in sorted(files) + sorted(folders):
            path = os.path.join(where, name)
            is_link = os.path.islink(path)
            if name in folders and (not is_link or _is_inside(path, folder)):
                continue
            yield os.path.relpath(path, folder)


def _is_inside(path: str, folder: str) -> bool:
    real, top = os.path.realpath(path), os.path.realpath(folder)
    return real == top or real.startswith(top + os.sep)


def _describe(folder: str, name: str) -> dict[str, Any]:
    path = os.path.join(folder, name)
    entry: dict[str, Any] = {"path": name, "kind": "file", "size": 0, "mode": 0o644}
    if os.path.islink(path):
        entry["target"] = os.readlink(path)
        if not _is_inside(path, folder):
            return dict(entry, kind="outside")
    try:
        found = os.stat(path)
    except OSError:
        return dict(entry, kind="broken")
    if not stat.S_ISREG(found.st_mode):
        return dict(entry, kind="special")
    if not os.access(path, os.R_OK):
        return dict(entry, kind="unreadable")
    return dict(entry, size=found.st_size, mode=_mode(found))


def _mode(found: os.stat_result) -> int:
    return 0o755 if found.st_mode & 0o100 else 0o644
