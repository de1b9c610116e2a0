"""
Downloads a job's outputs by SFTP, for clusters whose commands cannot send bytes unchanged.

The cluster lists the outputs, computes their checksums, and refuses files that lead out of the folder or change. SFTP
reads the bytes from the cluster's disk. Only files with the checksum that the cluster has computed are published.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO

import paramiko

from airflow_provider_gpu_cluster.connection.sftp import PipelinedFile, SftpRefusal
from airflow_provider_gpu_cluster.connection.sftp_small_files import read_small_files
from airflow_provider_gpu_cluster.exceptions import CollectError
from airflow_provider_gpu_cluster.files.checksums import Checksums
from airflow_provider_gpu_cluster.gpu_run.protocol.files import CHANGED
from airflow_provider_gpu_cluster.sinks import Sink
from airflow_provider_gpu_cluster.transfer.download import Download
from airflow_provider_gpu_cluster.transfer.progress import TransferProgress

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.gpu_run.protocol.outputs import ChecksumsRequest, OutputEntry

# The cluster is asked for the checksums of so many files, or bytes, at a time: it must read them all, and each request
# starts a program there.
_GROUP_FILES = 4096
_GROUP_BYTES = 256 << 20


class SftpDownload(Download):
    """
    The files of one job to collect.

    Each connection asks for the checksums of the next files, by :meth:`request`, and fetches them, by :meth:`fetch`::

        while download.left:
            lines.write_line(out, download.request())
            download.take_checksums(stream)
            download.fetch(sftp, path_of, progress)
    """

    _group: tuple[str, ...] = ()
    _unknown: tuple[str, ...] = ()

    def __init__(self, job_id: str, entries: list[OutputEntry], sink: Sink, checksums: Checksums) -> None:
        super().__init__(job_id, entries, sink, checksums)
        self._sha256: dict[str, str] = {}

    def request(self) -> ChecksumsRequest:
        """Return the request to the cluster: for the checksums of the next files, unless they are known."""
        group: list[str] = []
        size = 0
        for path in sorted(self.left):
            size += self.left[path]["size"]
            if group and (size > _GROUP_BYTES or len(group) >= _GROUP_FILES):
                break
            group.append(path)
        self._group = tuple(group)
        self._unknown = tuple(path for path in group if path not in self._sha256)
        return {"checksums_of": list(self._unknown)}

    def take_checksums(self, stream: BinaryIO) -> None:
        """
        Read the requested checksums.

        :raises CollectError: a file has changed since it was listed.
        """
        for path, sha256 in zip(self._unknown, self._read_checksums(len(self._unknown), stream), strict=True):
            if sha256 is not None:
                self._sha256[path] = sha256
        for path in self._group:
            if path not in self._sha256:
                raise self._fault(path, CHANGED)

    def fetch(self, sftp: paramiko.SFTPClient, path_of: Callable[[str], str], progress: TransferProgress) -> None:
        """
        Fetch the files whose checksums have arrived.

        :param path_of: returns the SFTP path of a file.
        :raises CollectError: a file changed, or was damaged.
        """
        small = [path for path in self._group if "stamp" not in self.left[path]]
        files = [(os.fsencode(path_of(path)), self.left[path]["size"]) for path in small]
        for number, content in read_small_files(sftp, files):
            self._take(small[number], content, progress)
        for path in (path for path in self._group if path in self.left):
            try:
                with PipelinedFile(sftp, os.fsencode(path_of(path)), "rb") as file:
                    self._fetch_large(path, file, progress)
            except SftpRefusal as refusal:
                raise self._refused(path, refusal) from refusal

    def _take(self, path: str, content: bytes | SftpRefusal, progress: TransferProgress) -> None:
        """Take a small file, whole."""
        if isinstance(content, SftpRefusal):
            raise self._refused(path, content) from content
        entry = self.left[path]
        if hashlib.sha256(content).hexdigest() != self._sha256[path]:
            raise self._other(path)
        self._sink.put(path, memoryview(content), entry["mode"])
        self._publish(path, len(content), self._sha256[path])
        self._count(len(content), progress)

    def _fetch_large(self, path: str, file: PipelinedFile, progress: TransferProgress) -> None:
        entry = self.left[path]
        size, sha256 = entry["size"], self._sha256[path]
        expected = self._arrived(entry)
        with self._sink.partial(path, self._key(path), entry["stamp"]) as partial:
            # Another process may be collecting the same file, and hold its partial file.
            offset = min(size, partial.size)
            progress.advance(offset - expected)
            partial.start_at(offset)
            for piece in file.read(offset, size):
                if piece.count(0) == len(piece):
                    # It may have been a hole.
                    partial.write_zeros(len(piece))
                else:
                    partial.write(memoryview(piece))
                self._count(len(piece), progress)
            if not partial.is_whole(size, sha256):
                # The next try starts from the beginning.
                partial.discard()
                raise self._other(path)
            self._sink.publish(partial, path, entry["mode"])
            self._publish(path, size, sha256)

    def _refused(self, path: str, refusal: SftpRefusal) -> CollectError:
        return self._fault(path, f"cannot be fetched by SFTP: {refusal}")

    def _other(self, path: str) -> CollectError:
        return self._fault(
            path, "is not what its checksum on the cluster says: it changed meanwhile, or was damaged on its way"
        )
