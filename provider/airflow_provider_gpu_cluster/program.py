"""The ``gpu_run`` package as one file that any Python on a cluster can run."""

from __future__ import annotations

import hashlib
import io
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from airflow_provider_gpu_cluster import gpu_run

_SHEBANG = b"#!/usr/bin/env python3\n"
# Zip files hold times; a fixed one keeps the bytes, and so the name, the same for the same sources.
_ALWAYS = (1980, 1, 1, 0, 0, 0)


class Program(NamedTuple):
    """
    The program to ship.

    :param content: bytes of the zip file.
    :param name: its file name: the SHA-256 of the content, and ``.pyz``.
    """

    content: bytes
    name: str


@lru_cache(maxsize=1)
def build_program() -> Program:
    """Return the program that belongs to this version of the provider."""
    package = Path(gpu_run.__file__).parent
    buffer = io.BytesIO(_SHEBANG)
    buffer.seek(0, io.SEEK_END)
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(package.rglob("*.py")):
            _add(archive, f"gpu_run/{path.relative_to(package).as_posix()}", path)
        _add(archive, "__main__.py", package / "__main__.py")
    content = buffer.getvalue()
    return Program(content, f"{hashlib.sha256(content).hexdigest()}.pyz")


def _add(archive: zipfile.ZipFile, name: str, path: Path) -> None:
    archive.writestr(zipfile.ZipInfo(name, _ALWAYS), path.read_bytes(), zipfile.ZIP_DEFLATED)
