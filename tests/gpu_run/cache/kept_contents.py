"""Contents on the cluster, as if a worker had sent them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.gpu_run.cache.contents import Contents
from airflow_provider_gpu_cluster.gpu_run.cache.incoming import Incoming
from airflow_provider_gpu_cluster.gpu_run.cache.packs import PackWriter
from airflow_provider_gpu_cluster.gpu_run.store.directories import Root

LARGE = protocol.WHOLE_BYTES + 1


def make_contents(folder: Path) -> Contents:
    """Return the contents of a root, with the folders they need."""
    contents = Contents(Root(str(folder)))
    contents.create()
    return contents


def sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def tag_of(text: str) -> str:
    return "tag-" + sha256_of(text.encode())


def keep(contents: Contents, data: bytes, key: str = "") -> str:
    """Keep a content, and return its key: its SHA-256 if no other is given."""
    key = key or sha256_of(data)
    if len(data) <= protocol.WHOLE_BYTES:
        keep_small(contents, {key: data})
    else:
        incoming = Incoming(contents, key, len(data))
        assert incoming.take()
        incoming.begin()
        incoming.write(0, data)
        incoming.publish()
    return key


def keep_small(contents: Contents, small: dict[str, bytes]) -> None:
    """Keep small contents by their keys, all in one pack."""
    writer = PackWriter(contents.packs)
    for key, data in small.items():
        writer.add(key, sha256_of(data), data)
    writer.close()
