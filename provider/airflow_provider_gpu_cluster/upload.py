"""A job's inputs on their way to the cluster, over one exec channel, checked on arrival."""

from __future__ import annotations

from typing import Any, BinaryIO, cast

from airflow_provider_gpu_cluster.exceptions import ChecksumError, SourceError
from airflow_provider_gpu_cluster.gpu_run import frames
from airflow_provider_gpu_cluster.sources import UploadSource


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
                reader = cast(BinaryIO, _Reader(content, f"{source.kind} {source.written}: {entry.path!r}"))
                if frames.write_file(out, header, reader) is None:
                    raise ChecksumError(
                        f"{source.kind} {source.written}: {entry.path!r} changed while it was being sent; "
                        "nothing of it was kept, try again"
                    )
    frames.write_line(out, {"end": count})


class _Reader:
    """
    A file of a source. Whatever goes wrong while it is read becomes a :class:`SourceError`.

    An ``OSError`` would pass for one of the connection, and the libraries of object stores raise errors of every kind.
    """

    def __init__(self, content: BinaryIO, name: str) -> None:
        self._content = content
        self._name = name

    def read(self, size: int) -> bytes:
        try:
            return self._content.read(size)
        except Exception as error:
            raise SourceError(f"{self._name} cannot be read: {error}") from error
