"""Sources as values: where each comes from, where it goes, and what it consists of."""

from __future__ import annotations

import hashlib
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.gpu_run.protocol.inputs import ClusterInput, GitInput, Input, Row, UploadInput

FILE_MODE = 0o644
PROGRAM_MODE = 0o755


def no_content() -> BinaryIO:
    """Return the content of a folder or a link: none."""
    return io.BytesIO()


@dataclass(frozen=True)
class Entry:
    """
    One file, folder or symbolic link of an upload.

    :param path: relative to the source's folder, with ``/``; bytes that are not UTF-8 are surrogate escapes.
    :param size: bytes of a file; 0 for a folder or a link.
    :param mode: ``0o755`` for folders, links and programs, ``0o644`` for other files.
    :param target: what a link points to, relative to the link's own folder; None for others.
    :param content: the key of a file's content: its SHA-256, or ``tag-`` and a hash of what identifies it in its store.
        Empty if it was not computed yet, and for folders and links.
    :param is_local: whether it is a file of this machine.
    :param open: opens the file for reading; raises :class:`SourceError` when it cannot be read.
    """

    path: str
    kind: Literal["file", "dir", "link"]
    size: int = 0
    mode: int = PROGRAM_MODE
    target: str | None = None
    content: str = ""
    is_local: bool = False
    open: Callable[[], BinaryIO] = field(default=no_content, repr=False, compare=False)


@dataclass(frozen=True)
class Source(ABC):
    """
    One source of a job.

    :param kind: ``code``, ``data`` or ``models``: the job's folder for it.
    :param name: its path in that folder; empty when its content becomes the folder's content.
    :param written: as the user wrote it, without credentials.
    """

    kind: str
    name: str
    written: str

    @abstractmethod
    def to_json(self) -> Input:
        """Return the source as the remote program's input."""


@dataclass(frozen=True)
class UploadSource(Source):
    """
    A source whose bytes go through the worker.

    :param single_file: it is one file, whose only entry has the path ``name``; otherwise it is a folder, and
        the paths of its entries are relative to it.
    """

    single_file: bool

    @property
    @abstractmethod
    def digest(self) -> str:
        """Identity of the content: the same entries always have the same one."""

    @abstractmethod
    def entries(self) -> Iterator[Entry]:
        """
        Yield everything to send, a folder before what is in it.

        :raises SourceError: something cannot be read or sent.
        """

    @cached_property
    def manifest(self) -> tuple[Entry, ...]:
        """
        The entries, each file with the key of its content.

        :raises SourceError: something cannot be read or sent.
        """
        return tuple(self._identified(self.entries()))

    @abstractmethod
    def _identified(self, entries: Iterable[Entry]) -> Iterable[Entry]:
        """Give each file the key of its content."""

    @property
    def rows(self) -> list[Row]:
        """The manifest in the remote program's form, see :mod:`.gpu_run.staging.placing`."""
        return [
            [entry.path, entry.kind, entry.mode, entry.content, entry.size]
            if entry.kind == "file"
            else [entry.path, entry.kind, entry.mode, entry.target or ""]
            for entry in self.manifest
        ]

    def to_json(self) -> UploadInput:
        """Return the source as the remote program's input; computes the digest."""
        return {
            "type": "upload",
            "kind": self.kind,
            "name": self.name,
            "written": self.written,
            "digest": self.digest,
            "single_file": self.single_file,
        }


@dataclass(frozen=True)
class GitSource(Source):
    """
    A Git repository, fetched on the cluster.

    :param url: URL for ``git``, without a password or token.
    :param ref: branch, tag or commit; None for the repository's own default.
    :param subdirectory: the folder of the repository to take; None for all of it.
    :param credentials: ``user:token`` of an http URL. Secret: never recorded nor logged.
    """

    url: str
    ref: str | None = None
    subdirectory: str | None = None
    credentials: str | None = field(default=None, repr=False)

    def to_json(self) -> GitInput:
        """Return the source as the remote program's input, with its secret in ``credentials`` only."""
        return {
            "type": "git",
            "kind": self.kind,
            "name": self.name,
            "written": self.written,
            "url": self.url,
            "ref": self.ref,
            "subdirectory": self.subdirectory,
            "credentials": self.credentials,
        }


@dataclass(frozen=True)
class ClusterSource(Source):
    """
    A file or folder that is already on the cluster: code is copied, data and models are linked.

    :param path: absolute, or below the home folder with ``~/``.
    """

    path: str

    def to_json(self) -> ClusterInput:
        """Return the source as the remote program's input."""
        return {
            "type": "cluster",
            "kind": self.kind,
            "name": self.name,
            "written": self.written,
            "path": self.path,
        }


def canonical_digest(rows: Iterable[list[Any]]) -> str:
    """Return the SHA-256 of rows of plain JSON values, whatever their order."""
    return hashlib.sha256(json.dumps(sorted(rows), separators=(",", ":")).encode("ascii")).hexdigest()
