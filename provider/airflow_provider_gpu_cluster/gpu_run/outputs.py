"""A job's outputs for the way home: what there is, and the files themselves as a stream."""

from __future__ import annotations

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
        ``broken``, ``special``), ``size``, ``mode``, and ``target`` of a link that cannot be followed.
    :raises Refused: there is no such job.
    """
    return [_describe(path, name) for path, name in _walk(_folder(root, job_id))]


def send_outputs(root: Root, job_id: str, names: list[str], out: BinaryIO) -> None:
    """
    Send files of a job's outputs, which were listed before.

    :raises Refused: one has become something that must not be sent. Whoever reads the stream sees it break off.
    """
    folder = _folder(root, job_id)
    for name in names:
        path = os.path.join(folder, frames.safe_path(name))
        entry = _describe(path, name) if os.path.lexists(path) else {"kind": "gone"}
        if entry["kind"] != "file" or not _is_inside(path, folder):
            frames.write_line(out, {"path": name, "kind": entry["kind"]})
            continue
        with open(path, "rb") as source:
            header = {"path": name, "kind": "file", "size": os.fstat(source.fileno()).st_size, "mode": entry["mode"]}
            frames.write_file(out, header, source)
    frames.write_line(out, {"end": len(names)})


def _folder(root: Root, job_id: str) -> str:
    job: JobDirectory = root.job(job_id)
    if not job.exists():
        raise Refused(protocol.NO_SUCH_JOB, f"there is no job {job_id} under {root.path} on this cluster")
    return job.at("outputs")


def _walk(folder: str) -> Iterator[Any]:
    """Yield what a folder holds; a link to a folder counts as a link, unless that folder is walked anyway."""
    for where, folders, files in os.walk(folder):
        for name in sorted(files) + sorted(folders):
            path = os.path.join(where, name)
            is_link = os.path.islink(path)
            if name in folders and (not is_link or _is_inside(path, folder)):
                continue
            yield path, os.path.relpath(path, folder)


def _is_inside(path: str, folder: str) -> bool:
    return os.path.realpath(path).startswith(os.path.realpath(folder) + os.sep)


def _describe(path: str, name: str) -> dict[str, Any]:
    folder = path[: -len(name)].rstrip("/")
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
    return dict(entry, size=found.st_size, mode=0o755 if found.st_mode & 0o100 else 0o644)
