"""A site with launchers of its own: a root on it, driven without SSH, and what a launcher can be like."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from pathlib import Path
from typing import Any

from airflow_provider_gpu_cluster.gpu_run.engines.command.engine import CommandEngine
from airflow_provider_gpu_cluster.gpu_run.store.directories import Attempt
from tests.gpu_run.host import Host

# Starts a script in a session of its own and prints its process id, as the simplest of launchers does.
DETACHING = 'setsid "$1" < /dev/null > /dev/null 2>&1 &\necho $!'


class Site:
    """
    The launchers of a site.

    :param folder: holds them, and the pool of GPUs of its ``gpu-run``.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "the site's"
        self._folder.mkdir()

    def launcher(self, script: str, name: str = "launch") -> str:
        """Make a shell script a launcher, and return its path, quoted for a launch command."""
        path = self._folder / name
        path.write_text(f"#!/bin/sh\necho called >> {shlex.quote(str(self._folder / 'calls'))}\n{script}\n")
        path.chmod(0o755)
        return shlex.quote(str(path))

    @property
    def calls(self) -> int:
        """How often launchers were called."""
        path = self._folder / "calls"
        return len(path.read_text().split()) if path.exists() else 0

    def gpu_run(self, virtual_gpus: int = 4) -> str:
        """Return the path of a person's ``gpu-run``, with a root and GPUs of its own, quoted for a launch command."""
        self.pool = Host(self._folder, virtual_gpus=virtual_gpus)
        os.chmod(self.pool.program, 0o755)
        self.pool.engine.launch([])
        link = Path(self.pool.root.own, "gpu-run")
        link.symlink_to(os.path.basename(self.pool.program))
        return shlex.quote(str(link))

    def pool_jobs(self) -> list[str]:
        """Return the jobs that its ``gpu-run`` knows."""
        return sorted(name for name in os.listdir(self.pool.root.path) if not name.startswith("."))


class CommandRoot(Host):
    """
    One root of one user of such a site.

    :param folder: holds the root.
    """

    def __init__(self, folder: Path, launch_command: str) -> None:
        super().__init__(folder, engine="command", launch_command=launch_command)
        self._engine = CommandEngine(self.root, self.settings, self.program)

    @property
    def engine(self) -> CommandEngine:  # type: ignore[override]
        return self._engine

    def forget_what_was_seen(self) -> None:
        """Go on as another process does, which has seen nothing yet."""
        self._engine = CommandEngine(self.root, self.settings, self.program)

    def note(self, job_id: str) -> dict[str, Any]:
        """Return what is known of a job's launch."""
        return dict(json.loads(self.note_path(job_id).read_text()))

    def note_path(self, job_id: str) -> Path:
        return Path(self.root.own, "command", "launches", f"{job_id}.{self.attempt(job_id).number}.json")

    def attempts(self, count: int, command: str, **spec: Any) -> list[Attempt]:
        """Make attempts of new jobs that run shell text, without launching them."""
        launched: list[Attempt] = []
        engine = self._engine
        launch, engine.launch = engine.launch, launched.extend  # type: ignore[method-assign, assignment]
        try:
            for _ in range(count):
                self.submit(command, **spec)
        finally:
            engine.launch = launch  # type: ignore[method-assign]
        return launched


def without(folder: Path, name: str) -> str:
    """Return a PATH in which that program is missing."""
    commands = folder / f"without-{name}"
    commands.mkdir()
    for other in ("sh", "bash", "cat", "sleep", "setsid", "python3"):
        (commands / other).symlink_to(str(shutil.which(other)))
    return str(commands)
