"""What a cluster lacks for a job that may be launched there. Nothing is brought in."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, NamedTuple, Sequence

from .. import protocol
from ..cache.contents import Contents
from ..cache.incoming import Incoming
from ..environments import python_environment
from ..errors import Refused
from ..linux.copying import shares_blocks
from ..linux.disk_space import check_room_later
from ..store.directories import JobDirectory, Root
from ..store.writing import writing
from .inputs import in_place, source_on_cluster

if TYPE_CHECKING:
    from ..protocol.inputs import Input, Row, UploadInput
    from ..protocol.spec import Spec

# For the records of a job, and the beginning of its output.
_RECORDS_BYTES = 1 << 22
_REQUIREMENTS = "requirements.txt"
# For how long lists of what uploads consist of are read, in seconds, and those of how many bytes: of 200,000 files.
_LOOKS_S = 2.0
_MOST_BYTES_OF_ROWS = 1 << 25


class MissingUpload(NamedTuple):
    """
    What is known of an upload that is not in place.

    :param missing: how many of its bytes are not on the cluster; None if that is unknown.
    :param size: of all its files, likewise.
    """

    missing: int | None
    size: int | None


class Lacking:
    """What a cluster lacks for jobs that are asked about together; what they share is looked at once."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._contents = Contents(root)
        self._rows: dict[str, list[Row] | None] = {}
        self._uploads: dict[str, MissingUpload] = {}
        self._requirements: dict[str, str | None] = {}
        self._until = time.monotonic() + _LOOKS_S
        self._room: dict[tuple[MissingUpload, ...], Refused | None] = {}
        self._groups: set[str] | None = None

    def check(self, job: JobDirectory, inputs: Sequence[Input] | None) -> None:
        """
        Refuse a job one of whose sources must be on this cluster, and is not.

        :raises Refused: it says which.
        """
        if inputs is None and not job.exists():
            raise Refused(protocol.NOT_STAGED, f"job {job.job_id} was staged, but not here: there is no {job.path}")
        for wanted in inputs or ():
            if wanted["type"] == "cluster":
                source_on_cluster(wanted)

    def uploads(self, job: JobDirectory, inputs: Sequence[Input], sizes: Sequence[int | None]) -> list[MissingUpload]:
        """
        Return what is known of the uploads that are not in place.

        :param sizes: of each input, as far as the worker says it.
        """
        found = []
        for number, wanted in enumerate(inputs):
            if not in_place(job, wanted) and wanted["type"] == "upload":
                found.append(self._upload(wanted, sizes[number] if number < len(sizes) else None))
        return found

    def _upload(self, wanted: UploadInput, told: int | None) -> MissingUpload:
        digest = wanted["digest"]
        if digest not in self._uploads:
            rows = self._rows_of(digest)
            if rows is None:
                # All of it, unless it has been here.
                return MissingUpload(None if self._contents.has_manifest(digest) else told, told)
            files = [(row[3], row[4]) for row in rows if row[1] == "file"]
            # Equal files are sent once.
            missing = sum(self._missing_of(key, size) for key, size in dict(files).items())
            self._uploads[digest] = MissingUpload(missing, sum(size for _, size in files))
        return self._uploads[digest]

    def _missing_of(self, key: str, size: int) -> int:
        if self._contents.has(key, size):
            return 0
        return size - Incoming(self._contents, key, size).arrived() if size > protocol.WHOLE_BYTES else size

    def _rows_of(self, digest: str) -> list[Row] | None:
        """Return the rows of an upload, if they are known here, and can be read in a moment."""
        if digest not in self._rows:
            if time.monotonic() > self._until:
                return None
            self._rows[digest] = self._contents.manifest(digest, is_used=False, most_bytes=_MOST_BYTES_OF_ROWS)
        return self._rows[digest]

    def check_room(self, uploads: Sequence[MissingUpload]) -> None:
        """
        Refuse a job for which the disk has no room.

        :raises Refused: it says how much there is, and how much is needed.
        """
        if tuple(uploads) not in self._room:
            self._room[tuple(uploads)] = self._refusal_of(uploads)
        refusal = self._room[tuple(uploads)]
        if refusal is not None:
            raise refusal

    def _refusal_of(self, uploads: Sequence[MissingUpload]) -> Refused | None:
        try:
            self._check_room(uploads)
        except Refused as refusal:
            return refusal
        return None

    def _check_room(self, uploads: Sequence[MissingUpload]) -> None:
        folder = self._root.path
        of_its_own = sum(upload.size or 0 for upload in uploads)
        if of_its_own:
            # On a full disk this cannot be tried.
            with contextlib.suppress(OSError):
                of_its_own = 0 if shares_blocks(folder) else of_its_own
        needed = _RECORDS_BYTES + of_its_own + sum(upload.missing or 0 for upload in uploads)
        with writing(folder):
            check_room_later(folder, needed, "it")

    def is_environment_built(
        self, job: JobDirectory, spec: Spec, inputs: Sequence[Input] | None, python: str | None
    ) -> bool | None:
        """
        Return whether a job's Python environment is built; None if it needs none, or what it needs is not known here.

        :param python: the interpreter of the connection.
        """
        code = self._code(job, inputs)
        text = spec.get("requirements")
        if text is None and code is None:
            text = self._requirements_sent(inputs or ())
        if code is None and (text is None or python_environment.needs_its_folder(text)):
            return None
        parts = python_environment.wanted(text, spec.get("setup", ""), python, code or self._root.path)
        if parts is None:
            return None
        if self._groups is None:
            self._groups = python_environment.built_groups(self._root)
        return python_environment.group(parts) in self._groups

    def _code(self, job: JobDirectory, inputs: Sequence[Input] | None) -> str | None:
        """Return the folder of a job's code, if it is here already."""
        if inputs is None:
            return job.at("code")
        code = [wanted for wanted in inputs if wanted["kind"] == "code"]
        if all(job.exists() and in_place(job, wanted) for wanted in code):
            return job.at("code")
        if len(code) == 1 and code[0]["type"] == "cluster":
            path, is_folder = source_on_cluster(code[0])
            return path if is_folder else None
        return None

    def _requirements_sent(self, inputs: Sequence[Input]) -> str | None:
        """Return the text of the requirements in code that is sent, if it is in the cache; None if it is not known."""
        for wanted in inputs:
            if wanted["type"] == "upload" and wanted["kind"] == "code":
                digest = wanted["digest"]
                if digest not in self._requirements:
                    self._requirements[digest] = self._requirements_in(self._rows_of(digest) or [])
                return self._requirements[digest]
        return None

    def _requirements_in(self, rows: Sequence[Row]) -> str | None:
        for path, kind, _, key, *size in rows:
            if path == _REQUIREMENTS and kind == "file" and 0 < size[0] <= protocol.WHOLE_BYTES:
                found = self._contents.packs.read(key, size[0])
                return None if found is None else found[0].decode("utf-8", "surrogateescape")
        return None
