"""Downloads a job's outputs: keeps track of what is left, and checks each file on arrival."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from airflow_provider_gpu_cluster.connection.session import IF_DAMAGED_AGAIN
from airflow_provider_gpu_cluster.exceptions import CollectError, GpuClusterConnectionError, GpuClusterProtocolError
from airflow_provider_gpu_cluster.files.checksums import Checksums
from airflow_provider_gpu_cluster.files.partial_file import PartialFile
from airflow_provider_gpu_cluster.gpu_run.protocol import lines
from airflow_provider_gpu_cluster.sinks import Sink
from airflow_provider_gpu_cluster.transfer.file_stream import LINE_BYTES, is_entry, read_line
from airflow_provider_gpu_cluster.transfer.progress import TransferProgress

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.gpu_run.protocol.outputs import OutputEntry

# What one takes in a list, in JSON.
_CHECKSUM_BYTES = 68


@dataclass(frozen=True)
class CollectedFile:
    """
    A file that was collected.

    :param path: relative to the job's outputs, and to the destination.
    :param size: in bytes.
    :param sha256: checksum of its content, in hex; the same on both sides.
    """

    path: str
    size: int
    sha256: str


class Download:
    """
    The files of one job to collect, whichever way they travel.

    :param entries: the cluster's list of files. The cluster is not trusted: only files in this list are accepted.
    :raises GpuClusterProtocolError: it is not a list of files.
    """

    def __init__(self, job_id: str, entries: list[OutputEntry], sink: Sink, checksums: Checksums) -> None:
        if not all(map(is_entry, entries)):
            raise GpuClusterProtocolError(f"job {job_id}: the cluster's list of outputs is garbled")
        if len({entry["path"] for entry in entries}) < len(entries):
            raise GpuClusterProtocolError(
                f"job {job_id}: the cluster's list of outputs is garbled: a path stands twice"
            )
        self.job_id = job_id
        self.left: dict[str, OutputEntry] = {entry["path"]: entry for entry in entries}
        self.collected: list[CollectedFile] = []
        self.received = 0
        """Bytes that came so far, holes included."""
        self._sink = sink
        self._checksums = checksums
        self._lock = threading.Lock()
        self._busy: set[str] = set()

    def skip_present(self, stream: BinaryIO, out: BinaryIO) -> None:
        """Skip files that already exist and are the same on the cluster, which is asked for their checksums."""
        present = self.present()
        if not present:
            return
        lines.write_line(out, {"checksums_of": present})
        self.skip_unchanged(dict(zip(present, self._read_checksums(len(present), stream), strict=True)))

    def _read_checksums(self, count: int, stream: BinaryIO) -> list[str | None]:
        with self._stream_errors():
            sha256 = read_line(stream, LINE_BYTES + count * _CHECKSUM_BYTES).get("sha256")
        if not isinstance(sha256, list) or len(sha256) != count:
            raise GpuClusterProtocolError(f"job {self.job_id}: the cluster's checksums are garbled")
        return [None if one is None else str(one) for one in sha256]

    def present(self) -> list[str]:
        """Return the paths at which there is a file already that may be the same."""
        sizes = {path: (entry["size"], entry["mode"]) for path, entry in self.left.items()}
        return self._sink.present(sizes, self._checksums)

    def skip_unchanged(self, sha256: Mapping[str, str | None]) -> None:
        """
        Leave out what is there already.

        :param sha256: what the cluster says of paths that are present.
        """
        for path, there in sha256.items():
            if there is not None and self._sink.sha256_of(path, self._checksums) == there:
                self._done(path, self.left[path]["size"], there)

    def missing_bytes(self) -> int:
        """Return how many bytes have to come, holes included."""
        return sum(entry["size"] - self._arrived(entry) for entry in self.left.values())

    def check_space(self) -> None:
        """
        Check that what is left fits.

        :raises NoSpaceError: it does not.
        """
        needed = (entry.get("needs", entry["size"]) - self._arrived(entry) for entry in self.left.values())
        self._sink.check_space(max(0, size) for size in needed)

    @contextlib.contextmanager
    def _stream_errors(self) -> Iterator[None]:
        try:
            yield
        except lines.GarbledStream as error:
            raise GpuClusterProtocolError(f"job {self.job_id}: {error}") from error
        except lines.BrokenStream as error:
            raise GpuClusterConnectionError(f"job {self.job_id}: {error}") from error

    def _partial(self, path: str, stamp: str, part: int = 0) -> PartialFile:
        with self._lock:
            return self._sink.partial(path, self._key(path), stamp, part)

    def _publish(self, path: str, size: int, sha256: str) -> None:
        self._sink.remember(path, sha256, self._checksums)
        self._done(path, size, sha256)

    def _done(self, path: str, size: int, sha256: str) -> None:
        del self.left[path]
        self.collected.append(CollectedFile(path, size, sha256))

    def _count(self, nbytes: int, progress: TransferProgress) -> None:
        with self._lock:
            self.received += nbytes
        progress.advance(nbytes)

    def _arrived(self, entry: OutputEntry) -> int:
        if "stamp" not in entry or entry["path"] in self._busy:
            return 0
        return min(entry["size"], self._sink.arrived(entry["path"], self._key(entry["path"]), entry["stamp"]))

    def _key(self, path: str) -> str:
        return f"{self.job_id}/{path}"

    def _damaged(self, path: str) -> CollectError:
        """Return the error for what arrived and is not what was sent."""
        return CollectError(
            f"job {self.job_id}: the output {path!r} did not arrive as it was sent: its SHA-256 differs; try again. "
            f"{IF_DAMAGED_AGAIN}"
        )

    def _fault(self, path: str, why: object) -> CollectError:
        said = "".join(letter if letter.isprintable() else "?" for letter in str(why)[:200])
        return CollectError(f"job {self.job_id}: the output {path!r} {said}; try again")
