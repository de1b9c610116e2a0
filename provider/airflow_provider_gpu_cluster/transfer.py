"""
Files between the worker and the cluster, over one exec channel, checked on arrival.

This is the one place that knows how bytes travel; the frames they travel in are :mod:`.gpu_run.frames`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from airflow_provider_gpu_cluster.exceptions import ChecksumError, CollectError, GpuClusterConnectionError
from airflow_provider_gpu_cluster.gpu_run import frames
from airflow_provider_gpu_cluster.sinks import Sink
from airflow_provider_gpu_cluster.sources import UploadSource


@dataclass(frozen=True)
class CollectedFile:
    """
    A file that was brought home.

    :param path: relative to the job's outputs, and to the destination.
    :param size: in bytes.
    :param sha256: checksum of its content, in hex; the same on both sides.
    """

    path: str
    size: int
    sha256: str


def send_source(source: UploadSource, out: BinaryIO) -> None:
    """
    Send a source to the verb ``receive``.

    :raises SourceError: something cannot be read.
    :raises ChecksumError: a file changed its size while it was read.
    """
    count = 0
    for entry in source.entries():
        count += 1
        header: dict[str, Any] = {"path": entry.path, "kind": entry.kind}
        if entry.kind == "dir":
            frames.write_line(out, header)
        elif entry.kind == "link":
            frames.write_line(out, {**header, "target": entry.target})
        else:
            header.update(size=entry.size, mode=entry.mode)
            with entry.open() as content:
                if frames.write_file(out, header, content) is None:
                    raise ChecksumError(
                        f"{source.kind} {source.written}: {entry.path!r} changed while it was being sent; "
                        "nothing of it was kept, try again"
                    )
    frames.write_line(out, {"end": count})


def receive_files(stream: BinaryIO, sink: Sink, wanted: set[str], job_id: str) -> Iterator[CollectedFile]:
    """
    Take the files that the verb ``send`` streams, and yield each when it has its final name.

    :param wanted: the paths that were asked for; anything else is refused, since a cluster is not trusted.
    :raises CollectError: a file changed, was damaged, or is not what it was when it was listed.
    :raises GpuClusterConnectionError: the stream broke off; what has its final name is whole.
    """
    try:
        for header in frames.headers(stream):
            path = header["path"]
            if path not in wanted or header["kind"] != "file":
                raise CollectError(
                    f"job {job_id}: the output {path!r} changed while it was being collected ({header['kind']}); try again"
                )
            with sink.file(path, header["size"], header["mode"]) as file:
                sha256 = frames.read_file(stream, header, file.write)
                file.publish(sha256)
            yield CollectedFile(path=path, size=header["size"], sha256=sha256)
    except frames.ChangedFile as error:
        raise CollectError(f"job {job_id}: output {error}; try again") from error
    except frames.BrokenStream as error:
        raise GpuClusterConnectionError(f"job {job_id}: {error}") from error
