"""
What a job has that goes with it to another cluster: its outputs, and its inputs if they are wanted.

The markers of an end are of an attempt, and stay. Pipes and sockets have no content, and stay as well. A link goes as a
link, if it leads to somewhere in its folder.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import os
import stat
from typing import TYPE_CHECKING, Any, BinaryIO, Iterator, NamedTuple, cast

from ..linux.paths import is_really_within
from ..protocol import lines
from ..protocol.files import OUTPUTS, SMALL
from ..protocol.holes import extents, update_with_zeros
from ..store import records
from .folder import OutputsFolder, Unsendable, mode_of, stamp_of
from .sending import SIGN_OF_LIFE_S

if TYPE_CHECKING:
    from ..protocol.carrying import CarriedFolder, CarriedJob
    from ..protocol.inputs import ClusterInput, InputFacts, InputNotes, Row
    from ..store.directories import JobDirectory, Root

_OF_AN_ATTEMPT = ("SUCCESS", "FAILED", "status.txt")
_KINDS = (OUTPUTS, "code", "data", "models")
_PIECE = 1 << 20
_HASHERS = 4
_MOST_SAID = 3


class _CarriedRow(NamedTuple):
    """
    Something in a folder.

    :param row: without the checksum of a file.
    :param found: the status of a file.
    """

    row: Row
    found: os.stat_result | None = None


class CarriedFiles:
    """
    The files of a job that can be carried, by their paths relative to its directory.

    :raises Refused: there is no such job.
    """

    def __init__(self, root: Root, job_id: str) -> None:
        self._job: JobDirectory = root.job(job_id)
        self._folders = {kind: OutputsFolder(root, job_id, kind) for kind in _KINDS}
        self._faults: list[str] = []

    def entries(self) -> list[Any]:
        """Return nothing: the list of what is carried is another one."""
        return []

    def open(self, name: str) -> tuple[int, os.stat_result]:
        """Open a file that was listed before; see :meth:`.OutputsFolder.open`."""
        kind, _, path = name.partition("/")
        if kind not in self._folders or not path:
            raise Unsendable("is not carried")
        return self._folders[kind].open(path)

    # -- what there is

    def listed(self, with_inputs: bool, *, without_checksums: bool, out: BinaryIO) -> CarriedJob:
        """
        Return what there is to carry.

        :param out: for signs of life, as all of it is read for its checksums.
        """
        folders = [(OUTPUTS, "", cast("InputFacts", {}))]
        linked: list[ClusterInput] = []
        for target, facts in self._noted().items() if with_inputs else ():
            kind, _, name = target.partition("/")
            if os.path.islink(self._job.at(target)):
                path = facts.get("path") or os.readlink(self._job.at(target))
                linked.append(
                    {"kind": kind, "name": name, "written": facts["written"], "type": "cluster", "path": path}
                )
            else:
                folders.append((kind, name, facts))
        found = [list(self._walked(kind, name)) for kind, name, _ in folders]
        sizes = [one.found.st_size for rows in found for one in rows if one.found is not None]
        job: CarriedJob = {"files": len(sizes), "bytes": sum(sizes), "why_not": self._why_not()}
        if job["why_not"] or without_checksums:
            return job
        self._add_checksums([os.path.join(kind, name) for kind, name, _ in folders], found, out)
        job["why_not"] = self._why_not()
        job["linked"] = linked
        job["folders"] = [self._described(kind, name, facts, rows) for (kind, name, facts), rows in zip(folders, found)]
        return job

    def _described(self, kind: str, name: str, facts: InputFacts, found: list[_CarriedRow]) -> CarriedFolder:
        is_single = os.path.isfile(self._job.at(kind, name))
        stamps = {one.row[0]: stamp_of(one.found) for one in found if one.found and one.found.st_size >= SMALL}
        kept: InputFacts = {**facts}
        # It is written anew where they are carried to.
        kept.pop("checksums", None)
        rows = [one.row for one in found]
        described: CarriedFolder = {
            "kind": kind, "name": name, "single_file": is_single, "rows": rows, "facts": kept, "stamps": stamps
        }  # fmt: skip
        if kind == OUTPUTS:
            # Which checkpoint is the last one, many programs see by that.
            described["modified_ns"] = {one.row[0]: one.found.st_mtime_ns for one in found if one.found}
        return described

    def _noted(self) -> InputNotes:
        noted: InputNotes | None = records.read_json(self._job.at(".job", "inputs.json"), records.MOST_BYTES_OF_LISTS)
        return noted or {}

    def _walked(self, kind: str, name: str) -> Iterator[_CarriedRow]:
        top = self._job.at(kind, name).rstrip("/")
        if os.path.isfile(top):
            yield from self._looked_at(os.path.dirname(top), os.path.basename(top), kind)
        elif os.path.isdir(top):
            yield from self._below(top, "", os.path.join(kind, name).rstrip("/"))

    def _below(self, top: str, folder: str, shown: str) -> Iterator[_CarriedRow]:
        try:
            names = sorted(os.listdir(os.path.join(top, folder)))
        except OSError as error:
            self._faults.append(f"{os.path.join(shown, folder)} cannot be listed ({error.strerror})")
            return
        for name in names:
            if shown == OUTPUTS and not folder and name in _OF_AN_ATTEMPT:
                continue
            path = os.path.join(folder, name)
            for one in self._looked_at(top, path, shown):
                yield one
                if one.row[1] == "dir":
                    yield from self._below(top, path, shown)

    def _looked_at(self, top: str, path: str, shown: str) -> Iterator[_CarriedRow]:
        full = os.path.join(top, path)
        try:
            found = os.lstat(full)
            if stat.S_ISLNK(found.st_mode):
                target = _target_within(top, path)
                if target is None:
                    self._faults.append(f"{os.path.join(shown, path)} is a link that leads out of {shown}/")
                else:
                    yield _CarriedRow([path, "link", 0o755, target])
            elif stat.S_ISDIR(found.st_mode):
                yield _CarriedRow([path, "dir", 0o755, ""])
            elif stat.S_ISREG(found.st_mode):
                if not os.access(full, os.R_OK):
                    self._faults.append(f"{os.path.join(shown, path)} cannot be read by the user that runs the job")
                yield _CarriedRow([path, "file", mode_of(found), "", found.st_size], found)
        except OSError as error:
            self._faults.append(f"{os.path.join(shown, path)} cannot be read ({error.strerror})")

    def _why_not(self) -> str:
        if not self._faults:
            return ""
        more = len(self._faults) - _MOST_SAID
        return "; ".join(self._faults[:_MOST_SAID]) + (f"; and {more} more" if more > 0 else "")

    # -- checksums

    def _add_checksums(self, folders: list[str], found: list[list[_CarriedRow]], out: BinaryIO) -> None:
        """Put the checksum into the row of each file; those of large files are kept for the next time."""
        kept = self._kept()
        known: dict[str, list[str]] = {}
        with concurrent.futures.ThreadPoolExecutor(_HASHERS) as pool:
            tasks: dict[concurrent.futures.Future[str], tuple[str, _CarriedRow]] = {}
            for folder, rows in zip(folders, found):
                is_single = os.path.isfile(self._job.at(folder))
                for one in rows:
                    if one.found is None:
                        continue
                    name = os.path.join(os.path.dirname(folder) if is_single else folder, one.row[0])
                    before = kept.get(name)
                    if before is not None and before[0] == stamp_of(one.found):
                        one.row[3], known[name] = before[1], before
                    else:
                        tasks[pool.submit(self._checksum, name)] = (name, one)
            waiting = set(tasks)
            while waiting:
                done, waiting = concurrent.futures.wait(waiting, timeout=SIGN_OF_LIFE_S)
                lines.write_line(out, {})
                out.flush()
                for task in done:
                    name, one = tasks[task]
                    self._take_checksum(name, one, task, known)
        with contextlib.suppress(OSError):
            records.write_json(self._kept_at, known, sync=False)

    def _take_checksum(
        self, name: str, one: _CarriedRow, task: concurrent.futures.Future[str], known: dict[str, list[str]]
    ) -> None:
        try:
            one.row[3] = task.result()
        except (Unsendable, OSError) as error:
            self._faults.append(f"{name} {error}")
            return
        if one.found is not None and one.found.st_size >= SMALL:
            known[name] = [stamp_of(one.found), one.row[3]]

    @property
    def _kept_at(self) -> str:
        return self._job.at(".job", "carried-checksums.json")

    def _kept(self) -> dict[str, list[str]]:
        with contextlib.suppress(OSError, ValueError, TypeError):
            kept = records.read_json(self._kept_at, records.MOST_BYTES_OF_LISTS) or {}
            return {name: [str(one) for one in value] for name, value in kept.items() if len(value) == 2}
        return {}

    def _checksum(self, name: str) -> str:
        digest = hashlib.sha256()
        fd, found = self.open(name)
        try:
            for start, end, is_data in extents(fd, 0, found.st_size):
                if not is_data:
                    update_with_zeros(digest, end - start)
                    continue
                at = start
                while at < end:
                    piece = os.pread(fd, min(_PIECE, end - at), at)
                    if not piece:
                        raise Unsendable("changed while its checksum was computed")
                    digest.update(piece)
                    at += len(piece)
            if stamp_of(os.fstat(fd)) != stamp_of(found):
                raise Unsendable("changed while its checksum was computed")
        finally:
            os.close(fd)
        return digest.hexdigest()


def _target_within(top: str, path: str) -> str | None:
    """Return where a link leads, relative to itself and without leaving its folder; None if it leads out of that."""
    full = os.path.join(top, path)
    target = os.readlink(full)
    plain = os.path.normpath(os.path.join(os.path.dirname(path), target))
    if os.path.exists(full) and not is_really_within(full, top):
        return None
    if not os.path.isabs(target) and plain != ".." and not plain.startswith("../"):
        return target
    if not os.path.exists(full):
        return None
    real = os.path.realpath(full)
    return os.path.relpath(real, os.path.realpath(os.path.join(top, os.path.dirname(path))))
