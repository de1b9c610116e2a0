"""
A job's outputs on their way home by SFTP, where commands cannot give bytes.

The cluster lists them and computes their checksums, and refuses what leaves the folder or changes; the bytes are read
from its disk as they are. Nothing is published but what has the checksum that the cluster has computed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from typing import Any

import paramiko

from airflow_provider_gpu_cluster.download import Download
from airflow_provider_gpu_cluster.exceptions import CollectError
from airflow_provider_gpu_cluster.gpu_run.outputs import CHANGED
from airflow_provider_gpu_cluster.sftp_file import PipelinedFile, SftpRefusal
from airflow_provider_gpu_cluster.sftp_small_files import read_small_files
from airflow_provider_gpu_cluster.transfer_progress import TransferProgress

# The cluster is asked for the checksums of so many at a time, or so much: it has to read all that, and each time a
# program is started there.
_GROUP_FILES = 4096
_GROUP_BYTES = 256 << 20


class SftpDownload(Download):
    """
    The files of one job that are to be brought home.

    Each connection asks for the checksums of what comes next, by :meth:`request`, and fetches that, by :meth:`fetch`::

        while download.left:
            reply = ask(download.request())
            download.fetch(reply, sftp, path_of, progress)
    """

    _group: tuple[str, ...] = ()
    _unknown: tuple[str, ...] = ()

    def request(self, lanes: int = 1) -> dict[str, Any]:
        """Return what to ask the cluster for: the checksums of the files that come next, unless they are known."""
        group: list[str] = []
        size = 0
        for path in sorted(self.left):
            size += self.left[path]["size"]
            if group and (size > _GROUP_BYTES or len(group) >= _GROUP_FILES):
                break
            group.append(path)
        self._group = tuple(group)
        self._unknown = tuple(path for path in group if "sha256" not in self.left[path])
        return {"job_id": self.job_id, "checksums_of": list(self._unknown)}

    def fetch(
        self,
        reply: dict[str, Any],
        sftp: paramiko.SFTPClient,
        path_of: Callable[[str], str],
        progress: TransferProgress,
    ) -> None:
        """
        Fetch the files of which the checksums were asked for.

        :param reply: these.
        :param path_of: returns the path by which SFTP knows one of them.
        :raises CollectError: a file changed, was damaged, or is not what it was when it was listed.
        """
        sha256 = reply.get("sha256")
        if not isinstance(sha256, list) or len(sha256) != len(self._unknown):
            raise CollectError(f"job {self.job_id}: the cluster's checksums are garbled")
        for path, one in zip(self._unknown, sha256, strict=True):
            if one is not None:
                self.left[path]["sha256"] = str(one)
        for path in self._group:
            if "sha256" not in self.left[path]:
                raise self._fault(path, CHANGED)
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
        if hashlib.sha256(content).hexdigest() != entry["sha256"]:
            raise self._other(path)
        self._sink.put(path, memoryview(content), entry["mode"])
        self._publish(path, len(content), entry["sha256"])
        self._count(len(content), progress)

    def _fetch_large(self, path: str, file: PipelinedFile, progress: TransferProgress) -> None:
        entry = self.left[path]
        size, sha256 = entry["size"], entry["sha256"]
        expected = self._arrived(entry)
        with self._sink.partial(path, self._key(path), entry["stamp"]) as partial:
            # Somebody else may collect the same file meanwhile, and have what was here.
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
                # The next try begins anew.
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
