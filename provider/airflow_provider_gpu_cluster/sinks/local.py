"""LocalSink."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import stat
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from airflow_provider_gpu_cluster.exceptions import CollectError
from airflow_provider_gpu_cluster.files.checksums import Checksums
from airflow_provider_gpu_cluster.files.partial_file import PREFIX, SUFFIX, PartialFile, PartialFolder, write_error
from airflow_provider_gpu_cluster.sinks.sink import check_path, check_space


class LocalSink:
    """Receives files into a folder of this machine. Each is written next to its final name, then renamed."""

    # The kernel takes most of the time, and creates files in different folders in parallel.
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
        """Check that files of these sizes fit; see :class:`Sink`."""
        check_space(self._top, sum(sizes))

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
        """Note nothing: reading a local file is faster than fetching it."""

    def read(self, path: str) -> bytes:
        """Return the content of a published file."""
        return Path(self._final(path)).read_bytes()

    def listed(self, folder: str) -> list[str]:
        """Return the paths of the files in a folder; see :class:`Sink`."""
        try:
            names = os.listdir(self._final(folder))
        except FileNotFoundError:
            return []
        paths = (f"{folder}/{name}" for name in names if not name.startswith(PREFIX))
        return [path for path in paths if os.path.isfile(self._final(path))]

    def remove(self, path: str) -> None:
        """Remove a published file; see :class:`Sink`."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._final(path))

    @contextlib.contextmanager
    def claiming(self, folder: str) -> Iterator[None]:
        """Keep others out who do the same; see :class:`Sink`."""
        fd = os.open(self._make_folder(f"{folder}/x"), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # A network file system may have no locks; then two who come at the same time may both be refused.
            with contextlib.suppress(OSError):
                fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _final(self, path: str) -> str:
        check_path(path)
        return f"{self._top}/{path}"

    def _make_folder(self, path: str) -> str:
        """Return the folder of a file, made if it is missing."""
        check_path(path)
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
        # An existing link must not lead out of the destination either.
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
