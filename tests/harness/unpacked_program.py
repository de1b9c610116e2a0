"""
The program, unpacked for all clusters of a test process together.

Each test has a cluster of its own, and there the first start of the program unpacks it, and the first import of each
of its modules compiles that: more work for the processor than all else in most tests. The clusters of
tests/connection/ have nothing yet, as that is what tests there are about.
"""

from __future__ import annotations

import atexit
import functools
import io
import shutil
import tempfile
import zipfile
from pathlib import Path

from airflow_provider_gpu_cluster.connection.program import build_program


def provide_unpacked(root: Path) -> None:
    """Let a root that has no program yet find it unpacked, as if it had been started there before."""
    own = root / ".gpu-run"
    for folder in (root, own):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (own / _unpacked().name).symlink_to(_unpacked())


@functools.cache
def _unpacked() -> Path:
    around = Path(tempfile.mkdtemp(prefix="gpu-run-unpacked-"))
    atexit.register(shutil.rmtree, around, ignore_errors=True)
    program = build_program()
    folder = around / Path(program.name).stem
    with zipfile.ZipFile(io.BytesIO(program.content)) as content:
        content.extractall(folder)
    return folder
