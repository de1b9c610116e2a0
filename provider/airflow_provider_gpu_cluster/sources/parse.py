"""Turns what a user writes for ``code``, ``data`` and ``models`` into :class:`Source` values."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

from airflow_provider_gpu_cluster.exceptions import InvalidJobError, SourceError
from airflow_provider_gpu_cluster.sources.folder import LocalSource
from airflow_provider_gpu_cluster.sources.git import parse_git
from airflow_provider_gpu_cluster.sources.object_store import object_store_source, open_store
from airflow_provider_gpu_cluster.sources.source import ClusterSource, Source
from airflow_provider_gpu_cluster.sources.zipped import ZippedSource, split_zip, zipped_source

FORMS = (
    "a path relative to the DAG file's folder or absolute, git+https://host/repo.git@ref#subdirectory=x, "
    "cluster:/path/on/the/cluster, or a URL of an object store such as s3://bucket/key"
)

Written: TypeAlias = "str | os.PathLike[str]"


def parse_sources(
    *,
    code: Written | None,
    data: Written | Sequence[Written] | None,
    models: Written | Sequence[Written] | None,
    base_dir: Path,
) -> tuple[Source, ...]:
    """
    Parse the sources of a job and look up those that this machine can see.

    :param code: one source; None for a job that needs no code.
    :param data: one source or a list of them; None for none.
    :param models: as ``data``.
    :param base_dir: the folder that relative paths start from: the DAG file's.
    :raises InvalidJobError: a source has no known form, or two of them would become the same file or folder.
    :raises SourceError: a source does not exist or cannot be read.
    """
    if isinstance(code, (list, tuple)):
        raise InvalidJobError(f"code takes one source, not a list of {len(code)}; give a folder that contains them all")
    sources = [
        _parse(kind, written, Path(base_dir))
        for kind, value in (("code", code), ("data", data), ("models", models))
        for written in _as_list(kind, value)
    ]
    seen: dict[tuple[str, str], Source] = {}
    for source in sources:
        other = seen.setdefault((source.kind, source.name), source)
        if other is not source:
            raise InvalidJobError(
                f"{source.kind}: {other.written!r} and {source.written!r} would both become "
                f"{source.kind}/{source.name}; rename one of them, or give a folder that contains both"
            )
    return tuple(sources)


def _as_list(kind: str, value: Any) -> list[str]:
    if value is None:
        return []
    items = list(value) if isinstance(value, (list, tuple)) else [value]
    return [_as_text(kind, item) for item in items]


def _as_text(kind: str, item: Any) -> str:
    # An ObjectStoragePath is not an os.PathLike for every store, and its text keeps the connection id.
    if hasattr(item, "protocol") and hasattr(item, "conn_id"):
        return str(item)
    if isinstance(item, (str, os.PathLike)):
        text = os.fspath(item)
        if isinstance(text, str) and text.strip() and "\0" not in text:
            return text
    raise InvalidJobError(f"{kind}: {item!r} is no source; valid is {FORMS}")


def _parse(kind: str, text: str, base_dir: Path) -> Source:
    if text.startswith("git+"):
        return parse_git(kind, text)
    if text.startswith("cluster:"):
        return _cluster_source(kind, text)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
        file_system, root = open_store(text)
        if text.startswith(("file://", "local://")):
            # Treated like any local path: with excludes, links, and a digest of the content.
            return _local_source(kind, text, Path(root), base_dir)
        return object_store_source(kind, text, file_system, root)
    return _local_source(kind, text, base_dir / os.path.expanduser(text), base_dir)


def _cluster_source(kind: str, text: str) -> ClusterSource:
    path = text.removeprefix("cluster:")
    if not path.startswith(("/", "~")):
        raise InvalidJobError(
            f"{kind}: {text!r} must name an absolute path on the cluster, or one below the home folder "
            "there, such as cluster:/shared/x or cluster:~/x"
        )
    path = posixpath.normpath(path)
    name = posixpath.basename(path)
    if kind != "code" and (not name or name.startswith("~")):
        raise InvalidJobError(f"{kind}: {text!r} has no name of its own; name a file or folder below it")
    return ClusterSource(kind, "" if kind == "code" else name, text, path=path)


def _local_source(kind: str, text: str, path: Path, base_dir: Path) -> LocalSource | ZippedSource:
    path = Path(os.path.abspath(path))
    # A DAG file in a zip archive has the archive as its folder.
    in_zip = (path, "") if path == base_dir and path.is_file() else split_zip(path)
    if in_zip is not None:
        return zipped_source(kind, text, *in_zip)
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SourceError(
            f"{kind}: there is no file or folder {str(path)!r} "
            f"(written {text!r}, looked up in {str(base_dir)!r}); valid is {FORMS}"
        ) from error
    except OSError as error:
        raise SourceError(
            f"{kind}: cannot read {str(path)!r} (written {text!r}): {error.strerror}; make it readable"
        ) from error
    single_file = not path.is_dir()
    if not path.name and kind != "code":
        raise InvalidJobError(f"{kind}: {text!r} has no name of its own; name a file or folder below it")
    name = path.name if single_file or kind != "code" else ""
    return LocalSource(kind, name, text, single_file=single_file, path=path)
