"""
Where collected files go.

A sink gives out one file at a time. What is written to it becomes visible under its name only by
``publish()``, which first compares the checksum; leaving the context without it throws away what was
written::

    with sink.file("checkpoints/last.pth", size, 0o644) as file:
        file.write(piece)
        file.publish(sha256)
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import tempfile
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Protocol

from airflow.sdk import ObjectStoragePath

from airflow_provider_gpu_cluster.exceptions import CollectError, InvalidJobError, NoSpaceError

# File systems on which a file that is being put cannot be seen before it is whole.
ATOMIC_PUT = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "adl", "az", "memory"})


class SinkFile(ABC):
    """A file on its way. It checks what arrives against its size and checksum."""

    def __init__(self, path: str, size: int, target: BinaryIO) -> None:
        self.path = path
        self.size = size
        self._target = target
        self._received = 0
        self._hash = hashlib.sha256()

    def write(self, piece: bytes) -> None:
        """Add the next bytes."""
        try:
            self._target.write(piece)
        except OSError as error:
            raise _write_error(self.path, error) from error
        self._hash.update(piece)
        self._received += len(piece)

    def publish(self, sha256: str) -> None:
        """
        Make the file visible under its name.

        :param sha256: checksum the cluster computed, in hex.
        :raises CollectError: size or checksum differ; the file stays hidden.
        """
        if self._received != self.size:
            raise CollectError(f"{self.path}: {self._received} bytes arrived of {self.size}; collect again")
        if self._hash.hexdigest() != sha256:
            raise CollectError(
                f"{self.path}: checksum {self._hash.hexdigest()} arrived, {sha256} was sent: it was "
                "damaged on the way, or changed while it was read; collect again"
            )
        try:
            self._target.flush()
            self._publish()
        except OSError as error:
            raise _write_error(self.path, error) from error

    @abstractmethod
    def _publish(self) -> None:
        """Move what was written to its final name."""


class Sink(Protocol):
    """Receives collected files."""

    def file(self, path: str, size: int, mode: int) -> AbstractContextManager[SinkFile]:
        """
        Open the next file.

        :param path: relative to the outputs folder, with ``/``; a path that leaves it is refused.
        :param size: in bytes.
        :param mode: permission bits; only whether it may be executed is kept.
        """
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

    def __init__(self, destination: Path) -> None:
        self.destination = destination

    def __str__(self) -> str:
        return str(self.destination)

    @contextlib.contextmanager
    def file(self, path: str, size: int, mode: int) -> Iterator[SinkFile]:
        """Open the next file; see :class:`Sink`."""
        final = self.destination.joinpath(*safe_parts(path))
        partial = final.with_name(f".gpu-collect-{uuid.uuid4().hex}.part")
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            # A link that was there before us must not lead out of the destination either.
            if not final.parent.resolve().is_relative_to(self.destination.resolve()):
                raise CollectError(f"{path}: {final.parent} is a link that leaves {self.destination}")
            target = open(partial, "xb")  # noqa: SIM115  (closed below)
        except OSError as error:
            raise _write_error(str(final), error) from error
        try:
            with target:
                yield _LocalFile(path, size, target, partial, final, 0o777 if mode & 0o111 else 0o666)
        finally:
            partial.unlink(missing_ok=True)

    def read(self, path: str) -> bytes:
        """Return the content of a published file."""
        return self.destination.joinpath(*safe_parts(path)).read_bytes()


class _LocalFile(SinkFile):
    def __init__(self, path: str, size: int, target: BinaryIO, partial: Path, final: Path, mode: int) -> None:
        super().__init__(path, size, target)
        self._partial, self._final, self._mode = partial, final, mode

    def _publish(self) -> None:
        if self._mode == 0o777:
            # open() applied the umask to 0666; give x to whom it left r.
            given = self._partial.stat().st_mode & 0o777
            self._partial.chmod(given | (given & 0o444) >> 2)
        os.replace(self._partial, self._final)


class ObjectStorageSink:
    """
    Receives files into an object store.

    Each file goes to a temporary file of the worker first, is checked, and is then put. Where a put is atomic
    (S3, GCS, Azure: an object appears when its upload is complete), it goes straight to its key; elsewhere to
    a temporary name that is then moved.
    """

    def __init__(self, destination: ObjectStoragePath, file_system: Any) -> None:
        self.destination = destination
        self._file_system = file_system

    def __str__(self) -> str:
        return str(self.destination)

    @contextlib.contextmanager
    def file(self, path: str, size: int, mode: int) -> Iterator[SinkFile]:
        """Open the next file; see :class:`Sink`. Object stores keep no permission bits."""
        final = self.destination.joinpath(*safe_parts(path))
        try:
            target = tempfile.NamedTemporaryFile(prefix="gpu-collect-")  # noqa: SIM115  (closed below)
        except OSError as error:
            raise _write_error(tempfile.gettempdir(), error) from error
        with target:
            yield _StorageFile(path, size, target, self._file_system, final.path)

    def read(self, path: str) -> bytes:
        """Return the content of a published file."""
        content: bytes = self._file_system.cat_file(self.destination.joinpath(*safe_parts(path)).path)
        return content


class _StorageFile(SinkFile):
    def __init__(self, path: str, size: int, target: Any, file_system: Any, key: str) -> None:
        super().__init__(path, size, target)
        self._name, self._file_system, self._key = target.name, file_system, key

    def _publish(self) -> None:
        fs, key = self._file_system, self._key
        protocols = {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)
        if protocols & ATOMIC_PUT:
            fs.put_file(self._name, key)
            return
        folder = key.rpartition("/")[0]
        fs.makedirs(folder, exist_ok=True)
        partial = f"{folder}/.gpu-collect-{uuid.uuid4().hex}.part"
        try:
            fs.put_file(self._name, partial)
            fs.mv(partial, key)
        except BaseException:
            with contextlib.suppress(Exception):
                fs.rm_file(partial)
            raise


def safe_parts(path: str) -> tuple[str, ...]:
    """
    Split a path that the cluster sent into its parts.

    :raises CollectError: it is not a plain relative path, and could name a file outside of the destination.
    """
    parts = path.split("/")
    if not path or "\0" in path or any(part in ("", ".", "..") for part in parts):
        raise CollectError(f"the cluster offers the output {path!r}, which leaves the outputs folder; refused")
    return PurePosixPath(path).parts


def _write_error(where: str, error: OSError) -> CollectError | NoSpaceError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpaceError(f"{where}: {error.strerror} on the side that collects; make room and collect again")
    return CollectError(f"{where} cannot be written: {error.strerror or error}")
