"""A local file or folder as a source: its content, including symbolic links, and its digest."""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, cast

from airflow_provider_gpu_cluster.exceptions import ChecksumError, SourceError
from airflow_provider_gpu_cluster.files.checksums import Checksums, open_checksums, sha256_of, stamp_of
from airflow_provider_gpu_cluster.sources.ignore import IGNORE_FILE, Ignore
from airflow_provider_gpu_cluster.sources.source import (
    FILE_MODE,
    PROGRAM_MODE,
    Entry,
    UploadSource,
    canonical_digest,
)

_REMEDY = f"remove it, or name it in {IGNORE_FILE}"


@dataclass(frozen=True)
class LocalSource(UploadSource):
    """
    A file or folder on the worker.

    :param path: its absolute path.
    """

    path: Path

    def entries(self) -> Iterator[Entry]:
        """
        Yield everything to send, a folder before what is in it.

        A link that stays in the folder is sent as a relative link. For a link that leaves the folder, its
        target is sent instead.

        :raises SourceError: a broken link, a socket, pipe or device, or something that cannot be read.
        """
        if self.single_file:
            yield _file(str(self.path), self.name)
        else:
            root = os.path.realpath(self.path)
            yield from _Walk(root, Ignore.of_folder(root)).entries()

    @cached_property
    def digest(self) -> str:
        """SHA-256 over paths, kinds, executable bits, and the content of every file."""
        return canonical_digest(self.rows)

    def _identified(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        with open_checksums() as known:
            for entry in entries:
                if isinstance(entry.open, _LocalFile):
                    yield replace(entry, content=entry.open.sha256(known))
                else:
                    yield entry


@dataclass(frozen=True)
class _LocalFile:
    """
    A file of this machine, in the version that was found.

    :param stamp: changes when the file does.
    """

    real_path: str
    size: int
    stamp: str

    def __call__(self) -> BinaryIO:
        """Open the file. Two opens read the same content, or the second one fails."""
        try:
            stream = open(self.real_path, "rb", buffering=0)  # noqa: SIM115  (the caller closes it)
        except OSError as error:
            message = f"cannot read {self.real_path!r}: {error.strerror}; make it readable, or {_REMEDY}"
            raise SourceError(message) from error
        if stamp_of(os.fstat(stream.fileno())) != self.stamp:
            stream.close()
            raise self._changed()
        return cast(BinaryIO, stream)

    def sha256(self, known: Checksums) -> str:
        """Return its checksum; compute it unless it is known."""
        if (found := known.recall(self.real_path, self.stamp)) is not None:
            return found
        with self() as stream:
            try:
                sha256, size = sha256_of(stream)
                read = os.fstat(stream.fileno())
            except OSError as error:
                raise SourceError(f"cannot read {self.real_path!r}: {error.strerror}") from error
        if size != self.size or stamp_of(read) != self.stamp:
            raise self._changed()
        known.remember(self.real_path, read, sha256)
        return sha256

    def _changed(self) -> ChecksumError:
        return ChecksumError(
            f"{self.real_path!r} changed while it was being read or sent; nothing of it was kept: "
            f"try again when nothing writes to it, or name it in {IGNORE_FILE}"
        )


@dataclass(frozen=True)
class _Region:
    """A folder of this machine whose content is sent, and the path it is sent to."""

    base: str
    path: str

    def locate(self, real_path: str) -> str | None:
        """Return the path that something on this machine is sent to; None when it is not in the region."""
        if real_path == self.base:
            return self.path
        prefix = self.base.rstrip("/") + "/"
        return _join(self.path, real_path[len(prefix) :]) if real_path.startswith(prefix) else None


@dataclass(frozen=True)
class _Folder:
    """A folder still to be listed, and the regions it lies in, the innermost last."""

    real_path: str
    path: str
    regions: tuple[_Region, ...]


class _Walk:
    """One walk over a folder; iterative, so that folders may be nested to any depth."""

    def __init__(self, root: str, ignore: Ignore) -> None:
        self._ignore = ignore
        self._pending = [_Folder(root, "", (_Region(root, ""),))]

    def entries(self) -> Iterator[Entry]:
        while self._pending:
            folder = self._pending.pop()
            try:
                with os.scandir(folder.real_path) as listing:
                    items = sorted(listing, key=lambda item: item.name)
            except OSError as error:
                raise SourceError(
                    f"cannot list the folder {folder.real_path!r}: {error.strerror}; make it readable, or {_REMEDY}"
                ) from error
            for item in items:
                path = _join(folder.path, item.name)
                if item.is_symlink():
                    yield from self._link(item.path, path, folder.regions)
                elif item.is_dir(follow_symlinks=False):
                    yield from self._folder(item.path, path, folder.regions)
                elif not self._ignore.skips_file(path):
                    yield _file(item.path, path)

    def _folder(self, real_path: str, path: str, regions: tuple[_Region, ...]) -> Iterator[Entry]:
        if not self._ignore.skips_folder(path, real_path):
            self._pending.append(_Folder(real_path, path, regions))
            yield Entry(path, "dir")

    def _link(self, link: str, path: str, regions: tuple[_Region, ...]) -> Iterator[Entry]:
        if self._ignore.skips_file(path):
            return
        try:
            target = os.path.realpath(link, strict=True)
        except OSError as error:
            problem = "leads round in a circle" if error.errno == errno.ELOOP else "points to nothing"
            raise SourceError(
                f"the symbolic link {link!r} -> {os.readlink(link)!r} {problem} ({error.strerror}); mend it, {_REMEDY}"
            ) from error
        is_folder = os.path.isdir(target)
        if is_folder and self._ignore.skips_folder(path, target):
            return
        for region in reversed(regions):
            sent_to = region.locate(target)
            if sent_to is not None and self._is_sent(sent_to, region, is_folder=is_folder):
                start = posixpath.join("/", posixpath.dirname(path))
                yield Entry(path, "link", target=posixpath.relpath(posixpath.join("/", sent_to), start))
                return
        if not is_folder:
            yield _file(target, path)
            return
        if any(_Region(target, "").locate(region.base) is not None for region in regions):
            raise SourceError(
                f"the symbolic link {link!r} points to {target!r}, a folder that contains the link itself, "
                f"so its content has no end; {_REMEDY}"
            )
        yield from self._folder(target, path, (*regions, _Region(target, path)))

    def _is_sent(self, path: str, region: _Region, *, is_folder: bool) -> bool:
        """Return whether neither this path of the upload nor any folder above it is excluded."""
        inner = posixpath.relpath(posixpath.join("/", path), posixpath.join("/", region.path)).split("/")
        if inner == ["."]:
            return True
        for depth in range(1, len(inner) + 1):
            part = "/".join(inner[:depth])
            if depth < len(inner) or is_folder:
                skipped = self._ignore.skips_folder(_join(region.path, part), os.path.join(region.base, part))
            else:
                skipped = self._ignore.skips_file(path)
            if skipped:
                return False
        return True


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _file(real_path: str, path: str) -> Entry:
    try:
        status = os.stat(real_path)
    except OSError as error:
        raise SourceError(f"cannot read {real_path!r}: {error.strerror}; make it readable, or {_REMEDY}") from error
    if not stat.S_ISREG(status.st_mode):
        raise SourceError(
            f"{real_path!r} is a {_special(status.st_mode)}; only files, folders and links can be sent: {_REMEDY}"
        )
    mode = PROGRAM_MODE if status.st_mode & 0o111 else FILE_MODE
    file = _LocalFile(real_path, status.st_size, stamp_of(status))
    return Entry(path, "file", status.st_size, mode, is_local=True, open=file)


def _special(mode: int) -> str:
    if stat.S_ISSOCK(mode):
        return "socket"
    return "named pipe" if stat.S_ISFIFO(mode) else "device"
