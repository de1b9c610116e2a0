"""Files behind an ``ObjectStoragePath`` scheme, such as ``s3://``, streamed through the worker."""

from __future__ import annotations

import io
import posixpath
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, BinaryIO, TypeVar, cast
from urllib.parse import urlsplit

from airflow_provider_gpu_cluster.exceptions import InvalidJobError, SourceError
from airflow_provider_gpu_cluster.sources.source import (
    FILE_MODE,
    Entry,
    UploadSource,
    canonical_digest,
)

_T = TypeVar("_T")


@dataclass(frozen=True)
class ObjectStoreSource(UploadSource):
    """
    One object, or all objects below a prefix. Nothing is excluded: excludes apply to folders on the worker.

    :param root: the object or prefix as its file system names it, for instance ``bucket/key``.
    :param file_system: the fsspec file system.
    """

    root: str
    file_system: Any = field(repr=False, compare=False)

    def entries(self) -> Iterator[Entry]:
        """
        Yield the objects, and the folders their names imply.

        :raises SourceError: the store cannot be listed, or a name cannot become a path.
        """
        folders: set[str] = set()
        for path, name, info in self._objects:
            for parent in _parents(path):
                if parent not in folders:
                    folders.add(parent)
                    yield Entry(parent, "dir")
            yield Entry(path, "file", info["size"], FILE_MODE, open=partial(self._open, name))

    @cached_property
    def digest(self) -> str:
        """SHA-256 over names, sizes and the store's own tags of the objects; reads no object."""
        return "etag:" + canonical_digest(
            [path, info["size"], self._tag(name, info)] for path, name, info in self._objects
        )

    def _identified(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        keys = {path: self._key(name, info) for path, name, info in self._objects}
        for entry in entries:
            yield replace(entry, content=keys[entry.path]) if entry.kind == "file" else entry

    def _key(self, name: str, info: dict[str, Any]) -> str:
        """Return the key by which the cluster knows this version of an object, whatever its path in an input."""
        store = type(self.file_system).__name__
        return "tag-" + canonical_digest([[store, self.written, name, info["size"], self._tag(name, info)]])

    @cached_property
    def _objects(self) -> list[tuple[str, str, dict[str, Any]]]:
        """Path in the upload, name in the store, and the store's information about each object."""
        if self.single_file:
            found = {self.root: self._ask(lambda: self.file_system.info(self.root))}
            paths = {self.root: self.name}
        else:
            found = self._ask(lambda: self.file_system.find(self.root, detail=True))
            prefix = self.root.rstrip("/") + "/"
            # Some tools mark an empty folder by an object whose name ends in a slash.
            found = {name: info for name, info in found.items() if name.startswith(prefix) and not name.endswith("/")}
            paths = {name: name.removeprefix(prefix) for name in found}
        self._check(paths.values())
        for name, info in found.items():
            if info.get("size") is None:
                raise SourceError(f"{self.written}: the store does not say how large {name!r} is")
        return sorted(((paths[name], name, info) for name, info in found.items()), key=lambda item: item[0])

    def _check(self, paths: Iterable[str]) -> None:
        names = set(paths)
        for path in names:
            if posixpath.normpath(path) != path or path.startswith(("/", "../")):
                raise SourceError(
                    f"{self.written}: the object {path!r} cannot become a file of that name; rename it in the store"
                )
            if names.intersection(_parents(path)):
                raise SourceError(
                    f"{self.written}: a part of {path!r} is an object and cannot become a folder as well; "
                    "rename it in the store"
                )

    def _tag(self, name: str, info: dict[str, Any]) -> str:
        tag = info.get("ETag") or info.get("etag") or self._ask(lambda: self.file_system.ukey(name))
        return str(tag)

    def _open(self, name: str) -> BinaryIO:
        return cast("BinaryIO", _ObjectStream(self.written, self._ask(lambda: self.file_system.open(name, "rb"))))

    def _ask(self, question: Callable[[], _T]) -> _T:
        return _ask(self.written, question)


class _ObjectStream(io.RawIOBase):
    """An object being read, whose store may fail at any piece of it."""

    def __init__(self, written: str, stream: Any) -> None:
        self._written = written
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        return _ask(self._written, lambda: bytes(self._stream.read(size)))

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return _ask(self._written, lambda: int(self._stream.seek(offset, whence)))

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()


def open_store(written: str) -> tuple[Any, str]:
    """
    Return the file system and the path in it that a URL such as ``s3://conn_id@bucket/key`` means.

    :raises InvalidJobError: no installed Airflow provider supports the scheme.
    :raises SourceError: the store cannot be reached.
    """
    from airflow.sdk import ObjectStoragePath

    try:
        parts = urlsplit(written)
    except ValueError as error:
        raise InvalidJobError(f"a source is no URL ({error}); write it like s3://bucket/key") from None
    shown, hint = written, ""
    if parts.scheme in ("http", "https"):
        # What stands before the @ of a web address may be a token.
        shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        hint = f"; for a Git repository write git+{parts.scheme}://"
    if ":" in parts.netloc.rpartition("@")[0]:
        raise InvalidJobError(
            f"a {parts.scheme}:// source carries a password in its URL; put it into an Airflow connection "
            f"and write {parts.scheme}://conn_id@bucket/key{hint}"
        )
    try:
        path = ObjectStoragePath(written)
        return path.fs, path.path
    except ValueError as error:
        raise InvalidJobError(
            f"{shown!r}: nothing here can read {parts.scheme}:// ({error}); install the Airflow provider "
            f"that brings it, for instance apache-airflow-providers-amazon[s3fs] for s3://{hint}"
        ) from error
    except Exception as error:
        raise _unreadable(written, error) from error


def object_store_source(kind: str, written: str, file_system: Any, root: str) -> ObjectStoreSource:
    """
    Look up an object or prefix.

    :raises SourceError: it does not exist, or the store cannot be reached.
    """
    # A listing remembered from an earlier task of this process may be out of date.
    _ask(written, lambda: file_system.invalidate_cache())
    if written.endswith("/"):
        single_file = False
        if not _ask(written, lambda: file_system.isdir(root)):
            raise SourceError(f"{written}: there is no object below this prefix")
    else:
        single_file = _ask(written, lambda: file_system.info(root))["type"] == "file"
    own_name = posixpath.basename(root.rstrip("/"))
    if not own_name and kind != "code":
        raise InvalidJobError(f"{kind}: {written!r} has no name of its own; name a bucket or a key below it")
    name = own_name if single_file or kind != "code" else ""
    return ObjectStoreSource(kind, name, written, single_file=single_file, root=root, file_system=file_system)


def _ask(written: str, question: Callable[[], _T]) -> _T:
    """Ask the store. Its libraries raise many kinds of errors; all of them mean that it cannot be read."""
    try:
        return question()
    except FileNotFoundError as error:
        raise SourceError(f"{written}: there is no such object or prefix; check the bucket and key") from error
    except Exception as error:
        raise _unreadable(written, error) from error


def _unreadable(written: str, error: Exception) -> SourceError:
    return SourceError(
        f"{written}: could not be read ({type(error).__name__}: {error}); check the Airflow connection and its rights"
    )


def _parents(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
