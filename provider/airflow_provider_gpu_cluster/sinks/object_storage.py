"""ObjectStorageSink."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from airflow.sdk import ObjectStoragePath

from airflow_provider_gpu_cluster.files.checksums import Checksums, cache_folder
from airflow_provider_gpu_cluster.files.partial_file import PREFIX, SUFFIX, PartialFile, PartialFolder, write_error
from airflow_provider_gpu_cluster.sinks.sink import check_path, check_space

# File systems on which a file is not visible before its put is complete.
ATOMIC_PUT = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "adl", "az", "memory"})


class ObjectStorageSink:
    """
    Receives files into an object store.

    A small file is put at once; a larger one is first written to a file on the worker, checked, and then put. If a put
    is atomic (S3, GCS, Azure: an object appears when its upload is complete), it goes directly to its key; elsewhere to
    a temporary name that is then moved. Object stores keep no permission bits.
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
        """Check that each of these files fits into the cache; see :class:`Sink`."""
        check_space(_partial_path(), max(sizes, default=0))

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
        """Note the checksum of the file just published, because the store could only tell it by sending the file."""
        if (stamp := self._stamp(self._key(path))) is not None:
            checksums.remember(self._address(path), stamp, sha256)

    def read(self, path: str) -> bytes:
        """Return the content of a published file."""
        content: bytes = self._file_system.cat_file(self._key(path))
        return content

    def listed(self, folder: str) -> list[str]:
        """Return the paths of the files in a folder; see :class:`Sink`."""
        # A listing remembered from an earlier task of this process may be out of date.
        self._file_system.invalidate_cache()
        try:
            entries = self._file_system.ls(self._key(folder), detail=True)
        except FileNotFoundError:
            return []
        names = [entry["name"].rpartition("/")[2] for entry in entries if entry["type"] == "file"]
        return [f"{folder}/{name}" for name in names if name and not name.startswith(PREFIX)]

    def remove(self, path: str) -> None:
        """Remove a published file; see :class:`Sink`."""
        with contextlib.suppress(FileNotFoundError):
            self._file_system.rm_file(self._key(path))

    def claiming(self, folder: str) -> contextlib.AbstractContextManager[object]:
        """Keep nobody out: object stores have no locks; see :class:`Sink`."""
        return contextlib.nullcontext()

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
        check_path(path)
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
    """Return the folder on this machine that holds files on their way into an object store."""
    return os.fspath(cache_folder() / "partial")
