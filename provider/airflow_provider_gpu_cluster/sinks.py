"""
Where collected files go.

What is brought there becomes visible under its name by one rename or put, after its checksum was compared. Small files
come at once; larger ones are kept beside or in a cache until they are whole, also from one try to the next::

    sink.put("metrics.json", content, mode)

    with sink.partial("last.pth", key, stamp) as partial:
        partial.start_at(sink.arrived("last.pth", key, stamp))
        partial.write(piece)
        assert partial.is_whole(size, sha256)
        sink.publish(partial, "last.pth", mode)
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import socket
import stat
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from airflow.sdk import ObjectStoragePath

from airflow_provider_gpu_cluster.checksums import Checksums, cache_folder
from airflow_provider_gpu_cluster.exceptions import CollectError, InvalidJobError, NoSpaceError
from airflow_provider_gpu_cluster.partial_file import PREFIX, SUFFIX, PartialFile, PartialFolder, write_error

# File systems on which a file that is being put cannot be seen before it is whole.
ATOMIC_PUT = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "adl", "az", "memory"})


class Sink(Protocol):
    """
    Receives collected files.

    All paths are relative to the outputs folder, with ``/``; one that leaves it is refused. Of the permission bits only
    whether a file may be executed is kept.
    """

    def present(self, files: Mapping[str, tuple[int, int]], checksums: Checksums) -> list[str]:
        """
        Return those of the files that are there already as far as size and mode tell.

        :param files: size and mode of each path.
        """
        ...

    def sha256_of(self, path: str, checksums: Checksums) -> str | None:
        """Return the checksum of a file that is present; None when it cannot be had without fetching it."""
        ...

    def arrived(self, path: str, key: str, stamp: str, part: int = 0) -> int:
        """Return how many bytes of a file have arrived in tries before."""
        ...

    def check_space(self, sizes: Iterable[int]) -> None:
        """
        Look whether files of these sizes fit.

        :raises NoSpaceError: they do not.
        """
        ...

    concurrent_puts: int
    """From how many threads :meth:`put` may be called at once."""

    def put(self, path: str, content: memoryview, mode: int) -> None:
        """Write a file whose content was checked."""
        ...

    def partial(self, path: str, key: str, stamp: str, part: int = 0) -> PartialFile:
        """
        Open a file that comes in pieces.

        :param key: tells it from other files of any job.
        :param stamp: tells versions of it from each other.
        :param part: number of a part of it that comes by itself.
        """
        ...

    def forget_partial(self, path: str, key: str) -> None:
        """Remove what is left of a file that has arrived."""
        ...

    def publish(self, partial: PartialFile, path: str, mode: int) -> None:
        """Give a file its name, after it was checked."""
        ...

    def remember(self, path: str, sha256: str, checksums: Checksums) -> None:
        """Note the checksum of what was just published, where that saves fetching it later."""
        ...

    def read(self, path: str) -> bytes:
        """Return the content of a published file."""
        ...


def open_sink(destination: str | os.PathLike[str] | ObjectStoragePath) -> LocalSink | ObjectStorageSink:
    """
    Open a destination by its address.

    :param destination: an absolute path of this machine (``~`` is the home directory), a URL such as
        ``s3://connection@bucket/folder``, or an ``ObjectStoragePath``.
    :raises InvalidJobError: it is none of these.
    """
    if isinstance(destination, ObjectStoragePath):
        return _storage_sink(destination)
    text = os.fspath(destination)
    if "://" in text:
        return _storage_sink(ObjectStoragePath(text))
    path = Path(text).expanduser()
    if not path.is_absolute():
        raise InvalidJobError(
            f"destination {text!r} is relative, and a worker has no folder of its own to start from; "
            "write an absolute path or a URL such as s3://bucket/folder"
        )
    return LocalSink(path)


def _storage_sink(destination: ObjectStoragePath) -> LocalSink | ObjectStorageSink:
    scheme = destination.protocol or "file"
    if scheme in ("file", "local"):
        return LocalSink(Path(destination.path))
    try:
        return ObjectStorageSink(destination, destination.fs)
    except ValueError as error:
        raise InvalidJobError(
            f"destination {destination}: nothing here can write to {scheme}:// ({error}); install the Airflow "
            "provider that brings it, for instance apache-airflow-providers-amazon[s3fs] for s3://"
        ) from error


class LocalSink:
    """Receives files into a folder of this machine. Each is written beside its final name, then renamed."""

    # What takes the time is the kernel, which makes files in different folders side by side.
    concurrent_puts = 4

    def __init__(self, destination: Path) -> None:
        self.destination = destination
        self._top = os.fspath(destination)
        self._real_top: str | None = None
        self._folders: dict[str, str] = {}
        self._partials: dict[str, PartialFolder] = {}
        self._draft = f"{PREFIX}{uuid.uuid4().hex}"
        self._drafts = itertools.count()

    def __str__(self) -> str:
        return self._top

    def present(self, files: Mapping[str, tuple[int, int]], checksums: Checksums) -> list[str]:
        """Return those of the files that are there already; see :class:`Sink`."""
        return [path for path, (size, mode) in files.items() if self._is_there(path, size, mode)]

    def _is_there(self, path: str, size: int, mode: int) -> bool:
        final = self._final(path)
        try:
            found = os.lstat(final)
        except OSError:
            return False
        if (
            not stat.S_ISREG(found.st_mode)
            or found.st_size != size
            or bool(found.st_mode & 0o111) != bool(mode & 0o111)
        ):
            return False
        self._make_folder(path)
        return True

    def sha256_of(self, path: str, checksums: Checksums) -> str | None:
        """Return the checksum of a file that is present; see :class:`Sink`."""
        try:
            return checksums.of_file(self._final(path))
        except OSError:
            return None

    def arrived(self, path: str, key: str, stamp: str, part: int = 0) -> int:
        """Return how many bytes of a file have arrived in tries before; see :class:`Sink`."""
        folder = os.path.dirname(self._final(path))
        return self._partial_folder(folder).size(key, stamp, part) if os.path.isdir(folder) else 0

    def check_space(self, sizes: Iterable[int]) -> None:
        """Look whether files of these sizes fit; see :class:`Sink`."""
        _check_space(self._top, sum(sizes))

    def put(self, path: str, content: memoryview, mode: int) -> None:
        """Write a file whose content was checked; see :class:`Sink`."""
        folder, final = self._make_folder(path), self._final(path)
        draft = f"{folder}/{self._draft}-{next(self._drafts)}{SUFFIX}"
        try:
            fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o777 if mode & 0o111 else 0o666)
            try:
                try:
                    while content:
                        content = content[os.write(fd, content) :]
                finally:
                    os.close(fd)
                os.rename(draft, final)
            except BaseException:
                os.unlink(draft)
                raise
        except OSError as error:
            raise write_error(final, error) from error

    def partial(self, path: str, key: str, stamp: str, part: int = 0) -> PartialFile:
        """Open a file that comes in pieces; see :class:`Sink`."""
        return self._partial_folder(self._make_folder(path)).open(path, key, stamp, part)

    def forget_partial(self, path: str, key: str) -> None:
        """Remove what is left of a file that has arrived; see :class:`Sink`."""
        self._partial_folder(self._make_folder(path)).remove(key)

    def publish(self, partial: PartialFile, path: str, mode: int) -> None:
        """Give a file its name; see :class:`Sink`."""
        final = self._final(path)
        if mode & 0o111:
            partial.make_executable()
        try:
            os.rename(partial.path, final)
        except OSError as error:
            raise write_error(final, error) from error
        partial.published()

    def remember(self, path: str, sha256: str, checksums: Checksums) -> None:
        """Note nothing: a file of this machine is read faster than fetched."""

    def read(self, path: str) -> bytes:
        """Return the content of a published file."""
        return Path(self._final(path)).read_bytes()

    def _final(self, path: str) -> str:
        _check_path(path)
        return f"{self._top}/{path}"

    def _make_folder(self, path: str) -> str:
        """Return the folder of a file, made if it is missing."""
        _check_path(path)
        parent = path.rpartition("/")[0]
        if (known := self._folders.get(parent)) is not None:
            return known
        folder = os.path.join(self._top, parent) if parent else self._top
        try:
            os.makedirs(folder, exist_ok=True)
        except OSError as error:
            raise write_error(folder, error) from error
        if self._real_top is None:
            self._real_top = os.path.realpath(self._top)
        # A link that was there before us must not lead out of the destination either.
        if not Path(os.path.realpath(folder)).is_relative_to(self._real_top):
            raise CollectError(f"{path}: {folder} is a link that leaves {self._top}")
        self._folders[parent] = folder
        return folder

    def _partial_folder(self, folder: str) -> PartialFolder:
        if folder not in self._partials:
            try:
                self._partials[folder] = PartialFolder(folder)
            except OSError as error:
                raise write_error(folder, error) from error
        return self._partials[folder]


class ObjectStorageSink:
    """
    Receives files into an object store.

    A small file is put at once; a larger one goes to a file of the worker first, is checked, and is then put. Where a
    put is atomic (S3, GCS, Azure: an object appears when its upload is complete), it goes straight to its key;
    elsewhere to a temporary name that is then moved. Object stores keep no permission bits.
    """

    # Not every file system of fsspec can be used from several threads.
    concurrent_puts = 1

    def __init__(self, destination: ObjectStoragePath, file_system: Any) -> None:
        self.destination = destination
        self._file_system = file_system
        self._partials: PartialFolder | None = None

    def __str__(self) -> str:
        return str(self.destination)

    def present(self, files: Mapping[str, tuple[int, int]], checksums: Checksums) -> list[str]:
        """Return those of the files that are there already and were put by this user; see :class:`Sink`."""
        noted = [path for path in files if checksums.knows(self._address(path))]
        found = self._list() if noted else {}
        return [path for path in noted if found.get(self._key(path)) == files[path][0]]

    def _list(self) -> dict[str, int]:
        """Return the size of everything below the destination, in one request for many."""
        with contextlib.suppress(Exception):
            # A listing remembered from an earlier task of this process may be out of date.
            self._file_system.invalidate_cache()
            listing = self._file_system.find(self.destination.path, detail=True)
            return {self._file_system._strip_protocol(key): info["size"] for key, info in listing.items()}
        return {}

    def sha256_of(self, path: str, checksums: Checksums) -> str | None:
        """Return the checksum of a file that is present; see :class:`Sink`."""
        stamp = self._stamp(self._key(path))
        return None if stamp is None else checksums.recall(self._address(path), stamp)

    def arrived(self, path: str, key: str, stamp: str, part: int = 0) -> int:
        """Return how many bytes of a file have arrived in tries before; see :class:`Sink`."""
        return self._partial_folder().size(self._partial_key(key), stamp, part)

    def check_space(self, sizes: Iterable[int]) -> None:
        """Look whether each of these files fits on its way; see :class:`Sink`."""
        _check_space(_partial_path(), max(sizes, default=0))

    def put(self, path: str, content: memoryview, mode: int) -> None:
        """Write a file whose content was checked; see :class:`Sink`."""
        self._store(self._key(path), lambda key: self._file_system.pipe_file(key, bytes(content)))

    def partial(self, path: str, key: str, stamp: str, part: int = 0) -> PartialFile:
        """Open a file that comes in pieces; see :class:`Sink`."""
        return self._partial_folder().open(path, self._partial_key(key), stamp, part)

    def forget_partial(self, path: str, key: str) -> None:
        """Remove what is left of a file that has arrived; see :class:`Sink`."""
        self._partial_folder().remove(self._partial_key(key))

    def publish(self, partial: PartialFile, path: str, mode: int) -> None:
        """Give a file its name; see :class:`Sink`."""
        self._store(self._key(path), lambda key: self._file_system.put_file(partial.path, key))
        partial.published()

    def remember(self, path: str, sha256: str, checksums: Checksums) -> None:
        """Note the checksum of what was just published: to ask the store for it means fetching it."""
        if (stamp := self._stamp(self._key(path))) is not None:
            checksums.remember(self._address(path), stamp, sha256)

    def read(self, path: str) -> bytes:
        """Return the content of a published file."""
        content: bytes = self._file_system.cat_file(self._key(path))
        return content

    def _store(self, key: str, put: Callable[[str], Any]) -> None:
        fs = self._file_system
        protocols = {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)
        try:
            if protocols & ATOMIC_PUT:
                put(key)
                return
            folder = key.rpartition("/")[0]
            fs.makedirs(folder, exist_ok=True)
            partial = f"{folder}/{PREFIX}{uuid.uuid4().hex}{SUFFIX}"
            try:
                put(partial)
                fs.mv(partial, key)
            except BaseException:
                with contextlib.suppress(Exception):
                    fs.rm_file(partial)
                raise
        except OSError as error:
            raise write_error(f"{self.destination}: {key}", error) from error

    def _key(self, path: str) -> str:
        _check_path(path)
        key: str = self.destination.joinpath(path).path
        return key

    def _address(self, path: str) -> str:
        return f"{self.destination}/{path}"

    def _stamp(self, key: str) -> str | None:
        """Return what changes when an object does; None when the store does not tell."""
        with contextlib.suppress(Exception):
            info = self._file_system.info(key)
            tag = info.get("ETag") or info.get("etag") or self._file_system.ukey(key)
            return f"{info['size']}:{tag}"
        return None

    def _partial_key(self, key: str) -> str:
        return f"{self.destination} {key}"

    def _partial_folder(self) -> PartialFolder:
        if self._partials is None:
            path = _partial_path()
            try:
                os.makedirs(path, mode=0o700, exist_ok=True)
                self._partials = PartialFolder(path)
            except OSError as error:
                raise write_error(path, error) from error
        return self._partials


def _partial_path() -> str:
    """Return the folder on this machine through which files go into an object store."""
    return os.fspath(cache_folder() / "partial")


def _check_space(folder: str, needed: int) -> None:
    while not os.path.exists(folder):
        folder = os.path.dirname(folder)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise NoSpaceError(
            f"{needed / 1e6:,.1f} MB are to be collected, and {free / 1e6:,.1f} MB are free on the disk of {folder} on "
            f"{socket.gethostname()}; nothing was transferred. Make room and collect again, or leave something out"
        )


def _check_path(path: str) -> None:
    """
    Look at a path that the cluster sent.

    :raises CollectError: it is not a plain relative path, and could name a file outside of the destination.
    """
    if not path or "\0" in path or not {"", ".", ".."}.isdisjoint(path.split("/")):
        raise CollectError(f"the cluster offers the output {path!r}, which leaves the outputs folder; refused")
