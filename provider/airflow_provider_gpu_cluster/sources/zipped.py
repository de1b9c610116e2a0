"""A file or folder inside a zip archive as a source: what stands beside a DAG file in a zip of DAGs."""

from __future__ import annotations

import io
import lzma
import os
import posixpath
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import IO, BinaryIO, TypeVar, cast

from airflow_provider_gpu_cluster.exceptions import SourceError
from airflow_provider_gpu_cluster.files.checksums import sha256_of
from airflow_provider_gpu_cluster.sources.ignore import IGNORE_FILE, Ignore
from airflow_provider_gpu_cluster.sources.source import FILE_MODE, PROGRAM_MODE, Entry, UploadSource, canonical_digest

_T = TypeVar("_T")
_LONGEST_TARGET = 4096
# What the libraries raise for a damaged, encrypted or unknown kind of archive.
_ERRORS = (
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    lzma.LZMAError,
    zipfile.BadZipFile,
    zlib.error,
)


def split_zip(path: Path) -> tuple[Path, str] | None:
    """
    Return the zip archive in which a path is, and the path in it; None for a path that is in none.

    The archive itself is in none: it may be a file to be sent.
    """
    for above in path.parents:
        if above.is_file():
            return (above, path.relative_to(above).as_posix()) if zipfile.is_zipfile(above) else None
    return None


def read_text(path: Path) -> str:
    """
    Return the text of a file, which may be inside a zip archive.

    :raises OSError: it cannot be read.
    """
    place = split_zip(path)
    if place is None:
        return path.read_text(encoding="utf-8")
    archive, inner = place
    try:
        with zipfile.ZipFile(archive) as opened:
            return opened.read(inner).decode("utf-8")
    except KeyError:
        raise FileNotFoundError(f"there is no {inner!r} in the archive {str(archive)!r}") from None
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
        raise OSError(str(error)) from error


@dataclass(frozen=True)
class ZippedSource(UploadSource):
    """
    A file or folder inside a zip archive on the worker.

    The same is sent as if the archive were a folder: with the excludes of its ``.gpujobignore``, and links in it.

    :param archive: the archive's absolute path.
    :param inner: the path in it; empty for everything.
    """

    archive: Path
    inner: str

    def entries(self) -> Iterator[Entry]:
        """
        Yield everything to send, a folder before what is in it.

        :raises SourceError: something cannot be read or sent.
        """
        members = self._members
        if self.single_file:
            yield self._file(members[self.inner], self.name)
            return
        prefix = f"{self.inner}/" if self.inner else ""
        below = {path.removeprefix(prefix): info for path, info in members.items() if path.startswith(prefix)}
        folders = {parent for path in below for parent in _parents(path)}
        folders |= {path for path, info in below.items() if info.is_dir()}
        ignore = self._ignore(below.get(IGNORE_FILE))
        skipped: set[str] = set()
        for path in sorted(folders | below.keys()):
            if not skipped.isdisjoint(_parents(path)):
                continue
            if path in folders:
                if path in below and not below[path].is_dir():
                    raise self._refusal(path, "is a file and a folder as well")
                if ignore.skips_folder(path, "") or (f"{path}/pyvenv.cfg" in below and not ignore.brings_back(path)):
                    skipped.add(path)
                else:
                    yield Entry(path, "dir")
            elif not ignore.skips_file(path):
                yield self._link(below, path) if _is_link(below[path]) else self._file(below[path], path)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over paths, kinds, executable bits, and the content of every file."""
        return canonical_digest(self.rows)

    def _identified(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        for entry in entries:
            if entry.kind == "file":
                with entry.open() as stream:
                    sha256, _ = sha256_of(stream)
                yield replace(entry, content=sha256)
            else:
                yield entry

    @cached_property
    def _members(self) -> dict[str, zipfile.ZipInfo]:
        """Everything in the archive, by its path; of several with one path the last, as Python reads it."""
        with self._opened() as opened:
            found = {info.filename.rstrip("/"): info for info in opened.infolist()}
        for path in found:
            if not path or posixpath.normpath(path) != path or path.startswith(("/", "../")) or path in (".", ".."):
                raise self._refusal(path, "would leave the folder that the archive stands for")
        return found

    def _opened(self) -> zipfile.ZipFile:
        return self._ask(lambda: zipfile.ZipFile(self.archive))

    def _ignore(self, info: zipfile.ZipInfo | None) -> Ignore:
        if info is None:
            return Ignore([])
        text = self._read(info).decode("utf-8-sig", "replace")
        return Ignore(text.splitlines(), f"{self.archive}/{info.filename}")

    def _file(self, info: zipfile.ZipInfo, path: str) -> Entry:
        mode = info.external_attr >> 16
        if mode and not stat.S_ISREG(mode) and stat.S_IFMT(mode):
            raise self._refusal(info.filename, "is neither a file nor a folder nor a link")
        sent = PROGRAM_MODE if mode & 0o111 else FILE_MODE
        return Entry(path, "file", info.file_size, sent, open=lambda: self._open(info))

    def _link(self, below: dict[str, zipfile.ZipInfo], path: str) -> Entry:
        target = os.fsdecode(self._read(below[path]))
        place = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
        if target.startswith("/") or place.startswith("../") or place == ".." or "\0" in target:
            raise self._refusal(path, f"is a link to {target!r}, which leads out of what is sent")
        if place != "." and place not in below and not any(one.startswith(f"{place}/") for one in below):
            raise self._refusal(path, f"is a link to {target!r}, which is not there")
        return Entry(path, "link", target=target)

    def _read(self, info: zipfile.ZipInfo) -> bytes:
        if info.file_size > 1 << 20 or (_is_link(info) and info.file_size > _LONGEST_TARGET):
            raise self._refusal(info.filename, "is too large")
        with self._open(info) as stream:
            return stream.read()

    def _open(self, info: zipfile.ZipInfo) -> BinaryIO:
        # A stream keeps its archive open.
        stream = self._ask(lambda: zipfile.ZipFile(self.archive).open(info))  # noqa: SIM115  (the caller closes it)
        return cast("BinaryIO", _Member(self, stream))

    def ask(self, question: Callable[[], _T]) -> _T:
        """Read from the archive; an error becomes a :class:`SourceError`."""
        return self._ask(question)

    def _ask(self, question: Callable[[], _T]) -> _T:
        try:
            return question()
        except _ERRORS as error:
            raise SourceError(
                f"{self.kind}: cannot read {self.written!r} out of the archive {str(self.archive)!r}: {error}"
            ) from error

    def _refusal(self, path: str, why: str) -> SourceError:
        return SourceError(
            f"{self.kind}: {path!r} in the archive {str(self.archive)!r} {why}; remove it there, or name it in "
            f"{IGNORE_FILE}"
        )


class _Member(io.RawIOBase):
    """A file in an archive being read, which may turn out to be damaged at any piece of it."""

    def __init__(self, source: ZippedSource, stream: IO[bytes]) -> None:
        self._source = source
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        return self._source.ask(lambda: bytes(self._stream.read(size)))

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._source.ask(lambda: int(self._stream.seek(offset, whence)))

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()


def zipped_source(kind: str, written: str, archive: Path, inner: str) -> ZippedSource:
    """
    Look up a file or folder in an archive.

    :raises SourceError: it is not there.
    """
    inner = "" if inner == "." else inner
    probe = ZippedSource(kind, "", written, single_file=False, archive=archive, inner=inner)
    members = probe._members
    single_file = inner in members and not members[inner].is_dir() and not _is_link(members[inner])
    if not single_file and inner and not any(path == inner or path.startswith(f"{inner}/") for path in members):
        raise SourceError(
            f"{kind}: there is no file or folder {inner!r} in the archive {str(archive)!r}, which holds the DAG file "
            f"(written {written!r}); put it into the archive, or give an absolute path"
        )
    own_name = posixpath.basename(inner) or archive.stem
    name = own_name if single_file or kind != "code" else ""
    return replace(probe, name=name, single_file=single_file)


def _is_link(info: zipfile.ZipInfo) -> bool:
    return stat.S_ISLNK(info.external_attr >> 16)


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]
