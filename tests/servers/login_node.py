"""A login node of a real Slurm: an OpenSSH server whose sessions find Slurm's commands."""

from __future__ import annotations

import json
import os
import shutil
import stat
import sys
from pathlib import Path

from tests.servers.slurm import RealSlurm
from tests.servers.sshd import RealSshd


class LoginNode:
    """
    A login node of a Slurm: an OpenSSH server, whose sessions find Slurm's commands behind those of this test.

    :param folder: an empty folder.
    """

    def __init__(self, folder: Path, slurm: RealSlurm) -> None:
        self.slurm = slurm
        self.commands = folder / "bin"
        self.commands.mkdir()
        (folder / "sshd").mkdir()
        # The first python3 that a job finds is the one that runs the tests.
        python = str(Path(sys.executable).parent)
        path = os.pathsep.join([str(self.commands), python, "/usr/local/bin", "/usr/bin", "/bin"])
        self.sshd = RealSshd(
            folder / "sshd",
            environment={
                **slurm.environment,
                "PATH": path,
                "LOGIN_SECRET": "of-the-login",
                "GPU_RUN_FAKE_NVML": str(folder / "gpus.json"),
            },
        )
        # Its GPUs are devices like /dev/null, and somebody has to say what they do.
        gpus = [{"percent": 90, "memory_bytes": 6e9, "power_w": 300}, {"percent": 30, "power_w": 100}]
        (folder / "gpus.json").write_text(json.dumps({"gpus": gpus}))

    def replace(self, name: str, script: str) -> None:
        """Put a shell script in the place of one of Slurm's commands; the command itself is ``$REAL``."""
        path = self.commands / name
        path.write_text(f"#!/bin/bash\nREAL={shutil.which(name)}\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def restore(self) -> None:
        """Put Slurm's own commands back into their places."""
        for path in self.commands.iterdir():
            path.unlink()
