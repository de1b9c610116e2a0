"""The attempts of one ``sbatch``: a single one, or several as the elements of an array."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from typing import TYPE_CHECKING, Sequence

from ...linux import locks
from ...store import records
from ...store.directories import Attempt, Root

if TYPE_CHECKING:
    from ...protocol.notes import BatchAttempts, BatchNote

# In an attempt's folder, and in that of an array.
_RECORD = "slurm.json"
_ATTEMPTS = "attempts.json"


class Batch:
    """
    Attempts that are submitted together.

    Its record is written before the first ``sbatch`` begins, so a missing record means that there was none. The record
    has ``asked_at``, when the first ``sbatch`` began; ``answered_at`` and ``ids``, once Slurm's job ids are known; and
    ``message``, which says what went wrong.

    :param folder: of its record.
    :param name: of its job in Slurm.
    :param workdir: where that job starts; together with the name it identifies the job among all jobs of its user.
    """

    def __init__(self, folder: str, name: str, workdir: str, attempts: Sequence[Attempt], *, is_array: bool) -> None:
        self.folder = folder
        self.name = name
        self.workdir = workdir
        self.attempts = list(attempts)
        self.is_array = is_array

    @classmethod
    def of(cls, attempt: Attempt) -> Batch:
        """Return the batch that an attempt belongs to; an attempt alone is a batch of one."""
        array = _noted(attempt.path).get("array")
        listed = None if array is None else _listed(array)
        if array is None or listed is None:
            return cls(attempt.path, _name(attempt), attempt.job.path, [attempt], is_array=False)
        attempts = [Attempt.at_path(path) for path in listed["attempts"]]
        return cls(array, _name(attempts[0]), array, attempts, is_array=True)

    @classmethod
    def together(cls, root: Root, attempts: Sequence[Attempt]) -> Batch:
        """Make one batch of several attempts that belong to no batch."""
        if len(attempts) == 1:
            return cls.of(attempts[0])
        paths = [attempt.path for attempt in attempts]
        arrays = os.path.join(root.own, "slurm", "arrays")
        array = os.path.join(arrays, hashlib.sha256("\n".join(paths).encode()).hexdigest()[:16])
        _clear(arrays)
        os.makedirs(array, exist_ok=True)
        listed: BatchAttempts = {"attempts": paths}
        records.write_json(os.path.join(array, _ATTEMPTS), listed)
        pointer: BatchNote = {"array": array}
        for attempt in attempts:
            records.create_json(attempt.at(_RECORD), pointer)
        return cls.of(attempts[0])

    def record(self) -> BatchNote:
        """Return the outcome so far; empty before the first try."""
        return _noted(self.folder)

    def write(self, record: BatchNote) -> None:
        """Write down the outcome."""
        records.write_json(os.path.join(self.folder, _RECORD), record)

    def lock(self) -> int | None:
        """Return an open file that keeps others from submitting the batch; None when another process submits it now."""
        return locks.lock(os.path.join(self.folder, "slurm.lock"))

    def ids_of(self, attempt: Attempt, ids: Sequence[str]) -> list[str]:
        """Return what Slurm calls an attempt in the jobs with those ids."""
        return [f"{job}_{self.index(attempt)}" for job in ids] if self.is_array else list(ids)

    def index(self, attempt: Attempt) -> int:
        """Return the number of an attempt in the array."""
        return [other.path for other in self.attempts].index(attempt.path)

    @property
    def output(self) -> str:
        """The path where Slurm puts the output of the scripts themselves."""
        return os.path.join(self.folder, "supervisor.log")

    def output_of(self, attempt: Attempt) -> str:
        """Return the path of the output of an attempt's script."""
        return f"{self.output}.{self.index(attempt)}" if self.is_array else self.output


def element(path: str) -> Attempt:
    """Return the attempt that a script runs: the one at ``path``, or the element of the array there."""
    listed = _listed(path)
    if listed is None:
        return Attempt.at_path(path)
    return Attempt.at_path(listed["attempts"][int(os.environ["SLURM_ARRAY_TASK_ID"])])


def attempts_at(folder: str) -> list[str]:
    """Return the paths of the attempts of the array in that folder; an empty list when there is no array."""
    listed = _listed(folder)
    return [] if listed is None else list(listed.get("attempts", ()))


def _noted(folder: str) -> BatchNote:
    note: BatchNote | None = records.read_json(os.path.join(folder, _RECORD))
    return note or {}


def _listed(folder: str) -> BatchAttempts | None:
    listed: BatchAttempts | None = records.read_json(os.path.join(folder, _ATTEMPTS), records.MOST_BYTES_OF_LISTS)
    return listed


def _name(attempt: Attempt) -> str:
    return f"{attempt.job.job_id}.{attempt.number}"


def _clear(arrays: str) -> None:
    """Remove the arrays that will never be started again."""
    with contextlib.suppress(OSError):
        for name in os.listdir(arrays):
            folder = os.path.join(arrays, name)
            over = (
                os.path.exists(os.path.join(path, "exit.json")) or not os.path.exists(path) for path in _all(folder)
            )
            if all(over):
                shutil.rmtree(folder, ignore_errors=True)


def _all(folder: str) -> list[str]:
    paths = attempts_at(folder)
    # An array that is just being made lists no attempts yet.
    return paths or [folder]
