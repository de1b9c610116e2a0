"""
Make an input out of contents: every job gets files of its own.

A file is a clone of the content where the file system can share blocks until one of them is written to (FICLONE,
ioctl_ficlonerange(2)), and a copy elsewhere. It is never a hard link: the job runs as the user who owns the content, so
it could write through the link into the content, and so into the next job.

Everything that a job gets is hashed before, or comes from this process's memory, so damage on the disk is found here.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Collection, Iterable

from .. import protocol
from ..cache.contents import Contents, checked_key
from ..errors import Refused
from ..linux.copying import copy_content, write_all
from ..linux.paths import is_within
from ..protocol import lines
from .replaced_folder import ReplacedFolder

if TYPE_CHECKING:
    from ..protocol.inputs import DescribedUpload, Row

_PIECE = 1 << 20
_THREADS = 4
FILES_AT_ONCE = 64
_BYTES_AT_ONCE = 1 << 21
_EMPTY = hashlib.sha256().hexdigest()


class Missing(Exception):
    """A content is not here, or was damaged and has been removed."""


def place(
    contents: Contents,
    rows: list[Row],
    folder: str,
    checked: Collection[str] = (),
    replaced: ReplacedFolder | None = None,
) -> dict[str, str]:
    """
    Make in ``folder`` what the rows describe.

    Each row is ``[path, kind, mode, content]``, and for a file also its size. The content of a file is its key, that of
    a link its target.

    :param rows: checked by :func:`check`.
    :param checked: the SHA-256 of contents that need not be hashed again.
    :param replaced: the folder that ``folder`` replaces.
    :return: the SHA-256 of each file.
    :raises Missing: a content is not here.
    :raises Refused: a link leads out of the folder.
    """
    files = {}
    with _Writing() as writing:
        for path, kind, mode, content, *size in rows:
            target = os.path.join(folder, path)
            if kind == "dir":
                os.mkdir(target)
            elif kind == "link":
                os.symlink(content, target)
            elif replaced is not None and replaced.hand_on(path, mode, content, size[0], target):
                files[path] = content
            elif size[0] <= protocol.WHOLE_BYTES:
                data, files[path] = _small(contents, content, size[0])
                writing.add(target, mode, data)
            else:
                files[path] = _place_large(contents, content, size[0], target, mode, checked)
    _check_links(rows, folder)
    return files


def _small(contents: Contents, key: str, size: int) -> tuple[bytes, str]:
    if not size:
        return b"", _EMPTY
    found = contents.packs.read(key, size)
    if found is None:
        raise Missing(key)
    data, sha256 = found
    if hashlib.sha256(data).hexdigest() != sha256:
        contents.remove(sha256)
        raise Missing(key)
    return data, sha256


class _Writing:
    """Write small files, several at a time: making a file is mostly waiting, above all on a network file system."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_THREADS)
        self._some: list[tuple[str, int, bytes]] = []
        self._bytes = 0
        self._busy: deque[Future[None]] = deque()

    def __enter__(self) -> _Writing:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._hand_over()
                while self._busy:
                    self._busy.popleft().result()
        finally:
            self._pool.shutdown()

    def add(self, path: str, mode: int, data: bytes) -> None:
        """Write a new file soon."""
        self._some.append((path, mode, data))
        self._bytes += len(data)
        if len(self._some) >= FILES_AT_ONCE or self._bytes >= _BYTES_AT_ONCE:
            self._hand_over()

    def _hand_over(self) -> None:
        self._busy.append(self._pool.submit(_write_files, self._some))
        self._some, self._bytes = [], 0
        # Memory holds no more files than it takes to keep all threads busy.
        while len(self._busy) > 2 * _THREADS:
            self._busy.popleft().result()


def _write_files(files: list[tuple[str, int, bytes]]) -> None:
    for path, mode, data in files:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        try:
            write_all(fd, data)
        finally:
            os.close(fd)


def _place_large(contents: Contents, key: str, size: int, target: str, mode: int, checked: Collection[str]) -> str:
    opened = contents.open(key, size)
    if opened is None:
        raise Missing(key)
    source, sha256 = opened
    try:
        fd = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        try:
            is_whole = _fill(source, fd, size, sha256, is_checked=sha256 in checked)
        finally:
            os.close(fd)
    finally:
        os.close(source)
    if not is_whole:
        contents.remove(sha256)
        raise Missing(key)
    return sha256


def _fill(source: int, target: int, size: int, sha256: str, *, is_checked: bool) -> bool:
    """Copy the source's content to the target, and return whether it has that SHA-256."""
    if is_checked:
        copy_content(source, target, size)
        return True
    # Copying and hashing take about as long as each other, and run side by side.
    hashing = _Hashing(source)
    try:
        copy_content(source, target, size)
    finally:
        hashing.join()
    return hashing.sha256 == sha256


class _Hashing(threading.Thread):
    """Compute the SHA-256 of an open file."""

    def __init__(self, fd: int) -> None:
        super().__init__(daemon=True)
        self._fd = fd
        self.sha256 = ""
        self.start()

    def run(self) -> None:
        digest = hashlib.sha256()
        at = 0
        # If the disk cannot read the content, its hash stays unequal to any other.
        with contextlib.suppress(OSError):
            while piece := os.pread(self._fd, _PIECE, at):
                digest.update(piece)
                at += len(piece)
            self.sha256 = digest.hexdigest()


def size_of(inputs: Iterable[DescribedUpload], *, are_clones: bool) -> int:
    """
    Return how many bytes the files of all inputs take up.

    :param are_clones: large files are clones, which take up nothing, as they share the blocks of their contents.
    """
    sizes = (row[4] for wanted in inputs for row in wanted["rows"] if row[1] == "file")
    return sum(size for size in sizes if not are_clones or size <= protocol.WHOLE_BYTES)


# -- checks of rows ----------------------------------------------------------------------------------------------


def check(rows: list[Row], written: str) -> None:
    """
    Check that rows describe a folder that can be made. Each folder comes before its contents.

    :param written: the input as the user wrote it.
    :raises Refused: they do not.
    """
    try:
        _check(rows)
    except (ValueError, TypeError, IndexError, AttributeError) as error:
        raise Refused(protocol.CHECKSUM_MISMATCH, f"{written}: {error}") from error


def _check(rows: list[Row]) -> None:
    folders = {""}
    seen = {""}
    for path, kind, mode, content, *size in rows:
        parent, _, name = lines.safe_path(path).rpartition("/")
        if path in seen:
            raise ValueError(f"{path!r} comes twice")
        if name in ("", "."):
            raise ValueError(f"{path!r} is no name")
        if parent not in folders:
            raise ValueError(f"{path!r} lies in no folder")
        seen.add(path)
        if kind == "dir":
            folders.add(path)
        elif kind == "file":
            checked_key(content)
            if not isinstance(size[0], int) or size[0] < 0 or mode not in (0o644, 0o755):
                raise ValueError(f"{path!r} is no file of {size[0]!r} bytes with the mode {mode!r}")
        elif kind != "link" or not isinstance(content, str):
            raise ValueError(f"{path!r} is of the unknown kind {kind!r}")


def _check_links(rows: list[Row], folder: str) -> None:
    """Check that links stay in the folder; call when the folders that they lead through exist."""
    top = os.path.realpath(folder)
    for path, kind, _, target, *_ in rows:
        if kind == "link":
            real = os.path.realpath(os.path.join(top, path))
            if os.path.isabs(target) or not is_within(real, top):
                raise Refused(protocol.CHECKSUM_MISMATCH, f"the link {path!r} leaves its folder")
