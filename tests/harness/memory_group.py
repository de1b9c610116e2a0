"""A control group whose processes may use little memory: the kernel kills one that uses more. Only root can make it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

_V1 = Path("/sys/fs/cgroup/memory")
_V2 = Path("/sys/fs/cgroup")


@contextlib.contextmanager
def memory_group(limit_bytes: int) -> Iterator[Path]:
    """Make such a group, and yield the file that a process writes its id to in order to join it."""
    is_v1 = _V1.is_dir()
    folder = (_V1 if is_v1 else _V2) / f"gpu-run-test-{os.getpid()}"
    if not is_v1:
        (_V2 / "cgroup.subtree_control").write_text("+memory")
    folder.mkdir()
    try:
        names = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes") if is_v1 else ("memory.max", "memory.swap.max")
        for name, value in zip(names, (limit_bytes, limit_bytes if is_v1 else 0), strict=True):
            # A kernel without swap has no limit for it.
            if (folder / name).exists():
                (folder / name).write_text(str(value))
        yield folder / "cgroup.procs"
    finally:
        # Its processes have ended, or go on in the group above.
        for pid in (folder / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):
                (folder.parent / "cgroup.procs").write_text(pid)
        folder.rmdir()
