"""A destination for a part of an array: its folders are named after the indexes of the elements in the whole array."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager

from airflow_provider_gpu_cluster.files.checksums import Checksums
from airflow_provider_gpu_cluster.files.partial_file import PartialFile
from airflow_provider_gpu_cluster.sinks.sink import Sink


class PartSink:
    """
    Writes into another sink, in the folders of the whole array; see :class:`.Sink`.

    :param whole: receives the files of the whole array.
    :param first: index there of the first element of the part.
    """

    def __init__(self, whole: Sink, first: int) -> None:
        self._whole = whole
        self._first = first
        self.concurrent_puts = whole.concurrent_puts

    def __str__(self) -> str:
        """Name the destination."""
        return str(self._whole)

    def place(self, path: str) -> str:
        """Return the path of an output in the whole array, from that in its part."""
        index, _, rest = path.partition("/")
        return f"{int(index) + self._first}/{rest}"

    def present(self, files: Mapping[str, tuple[int, int]], checksums: Checksums) -> list[str]:
        """Return those of the files that already exist."""
        own = {self.place(path): path for path in files}
        found = self._whole.present({place: files[path] for place, path in own.items()}, checksums)
        return [own[place] for place in found]

    def sha256_of(self, path: str, checksums: Checksums) -> str | None:
        """Return the checksum of a file that is present."""
        return self._whole.sha256_of(self.place(path), checksums)

    def arrived(self, path: str, key: str, stamp: str, part: int = 0) -> int:
        """Return how many bytes of a file have arrived."""
        return self._whole.arrived(self.place(path), key, stamp, part)

    def check_space(self, sizes: Iterable[int]) -> None:
        """Check that files of these sizes fit."""
        self._whole.check_space(sizes)

    def put(self, path: str, content: memoryview, mode: int) -> None:
        """Write a file."""
        self._whole.put(self.place(path), content, mode)

    def partial(self, path: str, key: str, stamp: str, part: int = 0) -> PartialFile:
        """Open a file that comes in pieces."""
        return self._whole.partial(self.place(path), key, stamp, part)

    def forget_partial(self, path: str, key: str) -> None:
        """Remove what is left of a file that has arrived."""
        self._whole.forget_partial(self.place(path), key)

    def publish(self, partial: PartialFile, path: str, mode: int) -> None:
        """Give a file its name."""
        self._whole.publish(partial, self.place(path), mode)

    def remember(self, path: str, sha256: str, checksums: Checksums) -> None:
        """Note the checksum of what was published."""
        self._whole.remember(self.place(path), sha256, checksums)

    def read(self, path: str) -> bytes:
        """Return the content of a published file."""
        return self._whole.read(self.place(path))

    def listed(self, folder: str) -> list[str]:
        """Return the files in a folder of the whole."""
        return self._whole.listed(folder)

    def remove(self, path: str) -> None:
        """Remove a published file."""
        self._whole.remove(self.place(path))

    def claiming(self, folder: str) -> AbstractContextManager[object]:
        """Keep others out of a folder of the whole."""
        return self._whole.claiming(folder)
