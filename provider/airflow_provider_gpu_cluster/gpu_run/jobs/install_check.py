"""Check a cluster before the first job: its Python, disk, tools, and problems to expect."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

from ..environments.python_environment import find_uv
from ..errors import Refused
from ..linux import processes
from ..reply import Reply
from ..store import safe_folders
from ..store.directories import Root
from ..store.writing import writing

if TYPE_CHECKING:
    from ..engines.engine import Engine
    from ..protocol.replies import Check

_LITTLE_SPACE = 1 << 30


def answer(root: Root, engine: Engine) -> Reply:
    """Carry out the verb ``install-check``."""
    return Reply(check(root, engine))


def check(root: Root, engine: Engine) -> Check:
    """
    Look at everything a job will need.

    :raises Refused: no job could run here.
    """
    with writing(root.path):
        os.makedirs(root.own, exist_ok=True)
        probe = os.path.join(root.own, f"probe-{os.getpid()}")
        try:
            with open(probe, "w", encoding="ascii") as file:
                file.write("writable\n")
        finally:
            with contextlib.suppress(OSError):
                os.unlink(probe)
    disk = shutil.disk_usage(root.path)
    warnings: list[str] = []
    if disk.free < _LITTLE_SPACE:
        warnings.append(f"only {disk.free / 1e6:.1f} MB are free in {root.path}")
    warnings += safe_folders.warnings(root.path)
    warnings += engine.warnings()
    facts: Check = {
        "host": processes.hostname(),
        "user": processes.user(),
        "engine": engine.name,
        "root_dir": root.path,
        "python": {"version": ".".join(str(part) for part in sys.version_info[:3]), "executable": sys.executable},
        "disk": {"free": disk.free, "total": disk.total},
        "cpus": os.cpu_count(),
        "uv": find_uv(),
        "git": _version("git"),
        "warnings": warnings,
    }
    try:
        facts["capacity"] = engine.capacity()
    except Refused as refusal:
        raise Refused(
            refusal.code,
            "{} (everything else is ready: Python {}, {:.1f} GB free in {})".format(
                refusal.message, facts["python"]["version"], disk.free / 1e9, root.path
            ),
        ) from refusal
    warnings += ["GPU {gpu} does not work: {why}".format(**gpu) for gpu in facts["capacity"].get("broken_gpus", [])]
    warnings += facts["capacity"].get("remarks", [])
    if facts["git"] is None:
        warnings.append("there is no git on the cluster, so code cannot come from git")
    return facts


def _version(program: str) -> str | None:
    path = shutil.which(program)
    if path is None:
        return None
    done = subprocess.run(
        [path, "--version"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    match = re.search(r"\d+(\.\d+)+", done.stdout.decode("ascii", "replace"))
    return match.group() if match else None
