"""
Notes of the attempts that were handed to the site's launcher, or are to be: one for each that has not ended.

The notes lie outside the jobs' directories: one look covers all of them, and a job may delete its own directory.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from ...store import records
from ...store.directories import Attempt, Root

if TYPE_CHECKING:
    from ...protocol.notes import LaunchNote


class LaunchNotes:
    """The notes of one root."""

    def __init__(self, root: Root) -> None:
        self.folder = os.path.join(root.own, "command")
        self._notes = os.path.join(self.folder, "launches")

    def read(self, attempt: Attempt) -> LaunchNote | None:
        """Return the note of an attempt; None when there is none."""
        note: LaunchNote | None = records.read_json(self._path(attempt))
        return note

    def add(self, attempt: Attempt, note: LaunchNote) -> None:
        """Note an attempt that is to be handed over, unless there is a note of it."""
        os.makedirs(self._notes, exist_ok=True)
        records.create_json(self._path(attempt), note)

    def write(self, attempt: Attempt, note: LaunchNote) -> None:
        """Replace the note of an attempt."""
        records.write_json(self._path(attempt), note)

    def remove(self, attempt: Attempt) -> None:
        """Forget an attempt that has ended."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path(attempt))

    def all(self) -> list[tuple[Attempt, LaunchNote]]:
        """Return all attempts that have a note. Notes of attempts that have ended are removed."""
        found = []
        for attempt, note in self._read(self._names()):
            if os.path.exists(attempt.at("exit.json")):
                self.remove(attempt)
            else:
                found.append((attempt, note))
        return found

    def of_job(self, job_id: str) -> list[tuple[Attempt, LaunchNote]]:
        """Return the attempts of a job that have a note."""
        return self._read([name for name in self._names() if name.rsplit(".", 2)[0] == job_id])

    def _read(self, names: list[str]) -> list[tuple[Attempt, LaunchNote]]:
        found = []
        for name in names:
            # A job can write to the notes, and a broken one must not hide the others.
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
                note: LaunchNote | None = records.read_json(os.path.join(self._notes, name))
                if note is not None:
                    found.append((Attempt.at_path(note["path"]), note))
        return found

    def _names(self) -> list[str]:
        try:
            return sorted(name for name in os.listdir(self._notes) if name.endswith(".json"))
        except FileNotFoundError:
            return []

    def _path(self, attempt: Attempt) -> str:
        return os.path.join(self._notes, f"{attempt.job.job_id}.{attempt.number}.json")
