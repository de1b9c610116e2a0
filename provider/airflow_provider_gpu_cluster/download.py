"""A job's outputs on their way home, over one exec channel, checked on arrival."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from airflow_provider_gpu_cluster.exceptions import CollectError, GpuClusterConnectionError
from airflow_provider_gpu_cluster.gpu_run import frames
from airflow_provider_gpu_cluster.sinks import Sink


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


def receive_files(stream: BinaryIO, sink: Sink, wanted: Collection[str], job_id: str) -> Iterator[CollectedFile]:
    """
    Take the files that the verb ``send`` streams, and yield each when it has its final name.

    :param wanted: the paths that were asked for; anything else is refused, since a cluster is not trusted.
    :raises CollectError: a file changed, was damaged, or is not what it was when it was listed.
    :raises GpuClusterConnectionError: the stream broke off; what has its final name is whole.
    """
    left = set(wanted)
    try:
        for header in frames.headers(stream):
            path = header["path"]
            if path not in left or header["kind"] != "file":
                raise CollectError(f"job {job_id}: the output {path!r} {_fault(header['kind'])}; try again")
            left.remove(path)
            with sink.file(path, header["size"], header["mode"]) as file:
                sha256 = frames.read_file(stream, header, file.write)
                file.publish(sha256)
            yield CollectedFile(path=path, size=header["size"], sha256=sha256)
    except frames.ChangedFile as error:
        raise CollectError(f"job {job_id}: output {error}; try again") from error
    except frames.GarbledStream as error:
        raise CollectError(f"job {job_id}: {error}") from error
    except frames.BrokenStream as error:
        raise GpuClusterConnectionError(f"job {job_id}: {error}") from error
    if left:
        raise CollectError(f"job {job_id}: the cluster did not send {sorted(left)[:5]}, which it has listed")


def _fault(kind: str) -> str:
    """Say what has become of an output that was a file when it was listed."""
    if kind == "unreadable":
        return "cannot be read by the user that runs the job"
    return "changed while it was being collected"
