"""Versions of this program in ``.gpu-run`` that are no longer used, and drafts of processes that died."""

from __future__ import annotations

import glob
import os
import re
import stat
from typing import Iterator

from ..linux import processes
from ..store.directories import Root
from .old_jobs import Needs
from .trash import Trash, measure

_DRAFTS_S = 3600.0
_PROGRAM = re.compile(r"([0-9a-f]{64})(\.pyz)?\Z")
_ANY_PROGRAM = re.compile(rb"[0-9a-f]{64}")
# Names of the upload, the link gpu-run, the records and the unpacked folder until they are complete.
_DRAFTS = (
    ".*.tmp",
    "*.tmp",
    "gpu-run.????????????????????????????????",
    "?" * 64 + ".????????",
    "queue/*/*.tmp",
    "command/*/*.tmp",
)


class OldPrograms:
    """
    Removes old files from ``.gpu-run``.

    :param program: path of the version that runs this.
    :param older_than_s: how old a version must be, in seconds.
    :param now: in seconds since the epoch.
    """

    def __init__(self, root: Root, program: str, older_than_s: float, now: float) -> None:
        self._folder = root.own
        self._program = program
        self._older_than_s = older_than_s
        self._now = now

    def find(self, needs: Needs) -> list[str]:
        """
        Return the names of versions that can be removed.

        :param needs: of the jobs that wait or run.
        """
        command = os.path.join(self._folder, "gpu-run")
        kept = {os.path.basename(path) for path in (self._program, os.path.realpath(command), *needs.programs)}
        kept = {os.path.splitext(name)[0] for name in kept} | in_processes()
        before = self._now - max(self._older_than_s, _DRAFTS_S)
        found: dict[str, float] = {}
        for name in os.listdir(self._folder):
            match = _PROGRAM.match(name)
            if match and match.group(1) not in kept:
                path = os.path.join(self._folder, name)
                found[match.group(1)] = max(found.get(match.group(1), 0.0), os.lstat(path).st_mtime)
        return sorted(name for name, changed in found.items() if changed < before)

    def discard(self, name: str, trash: Trash) -> bool:
        """Move a version to the trash; return False when a process began to use it at the last moment."""
        path = os.path.join(self._folder, name)
        # No process can start a missing archive: it is uploaded again. Processes that have started it are visible by
        # now.
        moved = trash.take(path + ".pyz") if os.path.lexists(path + ".pyz") else None
        if name in in_processes():
            if moved is not None:
                os.rename(moved, path + ".pyz")
            return False
        if os.path.lexists(path):
            trash.take(path)
        return True

    def size(self, name: str) -> int:
        """Return how many bytes a version takes up."""
        path = os.path.join(self._folder, name)
        return measure(path) + measure(path + ".pyz")

    def drafts(self) -> Iterator[str]:
        """Yield the paths of drafts that dead processes have left."""
        for pattern in _DRAFTS:
            for path in glob.glob(os.path.join(glob.escape(self._folder), pattern)):
                try:
                    found = os.lstat(path)
                except FileNotFoundError:
                    continue
                if found.st_mtime < self._now - _DRAFTS_S and not stat.S_ISSOCK(found.st_mode):
                    yield path


def in_processes() -> set[str]:
    """Return all version names that are on the command line of a live process."""
    found: set[bytes] = set()
    for pid in processes.all_pids():
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                found.update(_ANY_PROGRAM.findall(file.read()))
        except OSError:
            continue
    return {name.decode("ascii") for name in found}
