"""
Where collected files go.

A file becomes visible under its name by one rename or put, after its checksum was verified. Small files arrive at once;
larger ones are kept next to their destination or in a cache until they are whole, even across tries::

    sink.put("metrics.json", content, mode)

    with sink.partial("last.pth", key, stamp) as partial:
        partial.start_at(sink.arrived("last.pth", key, stamp))
        partial.write(piece)
        assert partial.is_whole(size, sha256)
        sink.publish(partial, "last.pth", mode)
"""

from __future__ import annotations

import os
from pathlib import Path

from airflow.sdk import ObjectStoragePath

from airflow_provider_gpu_cluster.exceptions import InvalidJobError
from airflow_provider_gpu_cluster.sinks.local import LocalSink
from airflow_provider_gpu_cluster.sinks.object_storage import ObjectStorageSink
from airflow_provider_gpu_cluster.sinks.sink import Sink

__all__ = ["LocalSink", "ObjectStorageSink", "Sink", "open_sink"]


def open_sink(destination: str | os.PathLike[str] | ObjectStoragePath) -> LocalSink | ObjectStorageSink:
    """
    Open a destination by its address.

    :param destination: an absolute path of this machine (``~`` is the home directory), a URL such as
        ``s3://connection@bucket/folder``, or an ``ObjectStoragePath``.
    :raises InvalidJobError: it is none of these.
    """
    if isinstance(destination, ObjectStoragePath):
        return _storage_sink(destination)
    text = os.fspath(destination)
    if "://" in text:
        return _storage_sink(ObjectStoragePath(text))
    path = Path(text).expanduser()
    if not path.is_absolute():
        raise InvalidJobError(
            f"destination {text!r} is relative, and a worker has no folder of its own to start from; "
            "write an absolute path or a URL such as s3://bucket/folder"
        )
    return LocalSink(path)


def _storage_sink(destination: ObjectStoragePath) -> LocalSink | ObjectStorageSink:
    scheme = destination.protocol or "file"
    if scheme in ("file", "local"):
        return LocalSink(Path(destination.path))
    try:
        return ObjectStorageSink(destination, destination.fs)
    except ValueError as error:
        raise InvalidJobError(
            f"destination {destination}: nothing here can write to {scheme}:// ({error}); install the Airflow "
            "provider that brings it, for instance apache-airflow-providers-amazon[s3fs] for s3://"
        ) from error
