"""The ``gpu_run`` package as one file that any Python on a cluster can run."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping
from functools import cached_property, lru_cache
from pathlib import Path

from airflow_provider_gpu_cluster import gpu_run

_SHEBANG = b"#!/usr/bin/env python3\n"
# Zip files hold times; a fixed one keeps the bytes the same for the same sources.
_ALWAYS = (1980, 1, 1, 0, 0, 0)


class Program:
    """
    The program to ship.

    :param sources: the bytes of each of its files, by path.
    """

    def __init__(self, sources: Mapping[str, bytes]) -> None:
        self._sources = sources

    @cached_property
    def name(self) -> str:
        """
        Its file name: the SHA-256 of its sources, and ``.pyz``.

        It is the hash of the sources, not of the zip file. The zip file would have to be built for every job, only to
        find that the cluster has it, and its bytes depend on the version of zlib.
        """
        digest = hashlib.sha256(_SHEBANG)
        for path, source in sorted(self._sources.items()):
            digest.update(f"{path}\0{len(source)}\0".encode())
            digest.update(source)
        return f"{digest.hexdigest()}.pyz"

    @cached_property
    def content(self) -> bytes:
        """The zip file."""
        buffer = io.BytesIO(_SHEBANG)
        buffer.seek(0, io.SEEK_END)
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for path, source in sorted(self._sources.items()):
                archive.writestr(zipfile.ZipInfo(path, _ALWAYS), source, zipfile.ZIP_DEFLATED)
        return buffer.getvalue()


@lru_cache(maxsize=1)
def build_program() -> Program:
    """Return the program that belongs to this version of the provider."""
    package = Path(gpu_run.__file__).parent
    sources = {f"gpu_run/{path.relative_to(package).as_posix()}": path.read_bytes() for path in package.rglob("*.py")}
    return Program({**sources, "__main__.py": (package / "__main__.py").read_bytes()})
