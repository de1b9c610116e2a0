"""The interface of all sinks, and the checks that they share."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from airflow_provider_gpu_cluster.exceptions import CollectError, NoSpaceError
from airflow_provider_gpu_cluster.files.checksums import Checksums
from airflow_provider_gpu_cluster.files.partial_file import PartialFile


class Sink(Protocol):
    """
    Receives collected files.

    All paths are relative to the outputs folder, with ``/``; a path that leads out of it is refused. Of the permission
    bits, only the executable bit is kept.
    """

    def present(self, files: Mapping[str, tuple[int, int]], checksums: Checksums) -> list[str]:
        """
        Return those of the files that already exist with the same size and mode.

        :param files: size and mode of each path.
        """
        ...

    def sha256_of(self, path: str, checksums: Checksums) -> str | None:
        """Return the checksum of a file that is present; None if that would take fetching it."""
        ...

    def arrived(self, path: str, key: str, stamp: str, part: int = 0) -> int:
        """Return how many bytes of a file have arrived in earlier tries."""
        ...

    def check_space(self, sizes: Iterable[int]) -> None:
        """
        Check that files of these sizes fit.

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

        :param key: identifies the file among those of all jobs.
        :param stamp: identifies the version of the file.
        :param part: number of a part that is transferred separately.
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

    def listed(self, folder: str) -> list[str]:
        """Return the paths of the files in a folder, which need not exist; not of those in folders below it."""
        ...

    def remove(self, path: str) -> None:
        """Remove a published file."""
        ...

    def claiming(self, folder: str) -> AbstractContextManager[object]:
        """Keep others out who do the same with this folder, where that is possible."""
        ...


def check_space(folder: str, needed: int) -> None:
    """
    Check that so many bytes fit into a folder of this machine, which need not exist yet.

    :raises NoSpaceError: they do not.
    """
    while not os.path.exists(folder):
        folder = os.path.dirname(folder)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise NoSpaceError(
            f"{needed / 1e6:,.1f} MB are to be collected, and {free / 1e6:,.1f} MB are free on the disk of {folder} on "
            f"{socket.gethostname()}; nothing was transferred. Make room and collect again, or leave something out"
        )


def check_path(path: str) -> None:
    """
    Check a path that the cluster sent.

    :raises CollectError: it is not a plain relative path, so it could name a file outside of the destination.
    """
    if not path or "\0" in path or not {"", ".", ".."}.isdisjoint(path.split("/")):
        raise CollectError(f"the cluster offers the output {path!r}, which leaves the outputs folder; refused")
