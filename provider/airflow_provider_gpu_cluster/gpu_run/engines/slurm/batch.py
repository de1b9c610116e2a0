"""
Attempts that are submitted together: a single one, or several as the elements of an array.

Where Slurm does not take an array in one, it is handed over in pieces: several Slurm arrays, whose elements have the
numbers that they have in the whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
from typing import TYPE_CHECKING, Iterator, Mapping, Sequence

from ...linux import locks
from ...store import records
from ...store.directories import Attempt, Root

if TYPE_CHECKING:
    from ...protocol.notes import BatchAttempts, BatchNote, PieceNote, RequeuedJob

# In an attempt's folder, and in that of an array.
_RECORD = "slurm.json"
_ATTEMPTS = "attempts.json"
_REQUEUED = "requeued.json"


class Batch:
    """
    Attempts that are submitted together.

    :param folder: of its record.
    :param workdir: where its jobs start, which together with their name identifies them among all jobs of their user.
    :param requeued: the job of the attempt before, if this one needs no other.
    """

    def __init__(
        self,
        folder: str,
        workdir: str,
        attempts: Sequence[Attempt],
        *,
        is_array: bool,
        requeued: RequeuedJob | None = None,
    ) -> None:
        self.folder = folder
        self.workdir = workdir
        self.attempts = list(attempts)
        self.is_array = is_array
        self.requeued = requeued

    @classmethod
    def of(cls, attempt: Attempt) -> Batch:
        """Return the batch that an attempt belongs to; an attempt alone is a batch of one."""
        array = _noted(attempt.path).get("array")
        listed = None if array is None else _listed(array)
        if array is None or listed is None:
            requeued = _requeued_for(attempt)
            folder = attempt.job.path if requeued is None else requeued["folder"]
            return cls(attempt.path, folder, [attempt], is_array=False, requeued=requeued)
        attempts = [Attempt.at_path(path) for path in listed["attempts"]]
        return cls(array, array, attempts, is_array=True)

    @classmethod
    def together(cls, root: Root, attempts: Sequence[Attempt], most: int) -> list[Batch]:
        """
        Make batches of several attempts that belong to no batch.

        :param most: how many elements an array may have.
        """
        groups = [attempts[start : start + max(1, most)] for start in range(0, len(attempts), max(1, most))]
        return [cls._of_group(root, group) for group in groups]

    @classmethod
    def _of_group(cls, root: Root, attempts: Sequence[Attempt]) -> Batch:
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

    def is_noted(self) -> bool:
        """Return whether somebody has tried to submit it."""
        return self.requeued is not None or bool(_noted(self.folder))

    def pieces(self) -> list[BatchPiece]:
        """Return its pieces in their order, with their outcome so far; at first, one is the whole batch."""
        if self.requeued is not None:
            return [BatchPiece(self, {"answered_at": self.requeued["at"], "ids": [self.requeued["id"]]})]
        note = _noted(self.folder)
        return [BatchPiece(self, one) for one in note.get("pieces") or [note]]

    def piece_of(self, attempt: Attempt) -> BatchPiece:
        """Return the piece that an attempt belongs to."""
        index = self.index(attempt)
        return next(piece for piece in self.pieces() if index in piece.indexes)

    def write(self, notes: Sequence[PieceNote]) -> None:
        """Write down the outcome of its pieces; only for the holder of its lock."""
        # The whole batch has the form that all versions of this program know.
        note = {"pieces": list(notes)} if "first" in notes[0] else notes[0]
        records.write_json(os.path.join(self.folder, _RECORD), note)

    def lock(self) -> int | None:
        """Return an open file that keeps others from submitting the batch; None when another process submits it now."""
        return locks.lock(os.path.join(self.folder, "slurm.lock"))

    def ids_of(self, attempt: Attempt, jobs: Sequence[str]) -> list[str]:
        """Return what Slurm calls an attempt in the jobs with those ids."""
        return [f"{job}_{self.index(attempt)}" for job in jobs] if self.is_array else list(jobs)

    def name_of(self, attempt: Attempt) -> str | None:
        """Return the name by which to look up an attempt's jobs; None in an array, whose folder is enough."""
        if self.requeued is not None:
            return self.requeued["name"]
        return None if self.is_array else _name(attempt)

    def index(self, attempt: Attempt) -> int:
        """Return the number of an attempt in the array."""
        return [other.path for other in self.attempts].index(attempt.path)

    @property
    def output(self) -> str:
        """The path where Slurm puts the output of the scripts themselves."""
        return os.path.join(self.folder, "supervisor.log")

    def output_of(self, attempt: Attempt) -> str:
        """Return the path of the output of an attempt's script."""
        if self.requeued is not None:
            return self.requeued["output"]
        return f"{self.output}.{self.index(attempt)}" if self.is_array else self.output


class BatchPiece:
    """
    Attempts of a batch that are submitted with one ``sbatch``.

    Its note is written before the first ``sbatch`` begins, so a missing ``asked_at`` means that there was none.

    :param note: the outcome so far.
    """

    def __init__(self, batch: Batch, note: PieceNote) -> None:
        self.batch = batch
        self.note = note
        first = note.get("first", 0)
        self.indexes = range(first, first + note.get("count", len(batch.attempts)))

    @property
    def attempts(self) -> list[Attempt]:
        """Its attempts, in their order."""
        return self.batch.attempts[self.indexes.start : self.indexes.stop]

    @property
    def name(self) -> str:
        """The name of its job in Slurm."""
        return _name(self.batch.attempts[self.indexes.start])

    def waiting(self) -> Iterator[int]:
        """Return the numbers of its attempts that nobody has claimed."""
        return (index for index in self.indexes if self.batch.attempts[index].claimed() is None)

    def write(self, note: PieceNote) -> None:
        """Write down its outcome; only for the holder of the batch's lock."""
        if "first" in self.note:
            note = {**note, "first": self.note["first"], "count": self.note["count"]}
        self._replace(note)
        self.note = note

    def cut(self, index: int) -> None:
        """Make two pieces of it, of which the second begins with that number; likewise."""
        first, end = self.indexes.start, self.indexes.stop
        self._replace({"first": first, "count": index - first}, {"first": index, "count": end - index})

    def _replace(self, *notes: PieceNote) -> None:
        others = self.batch.pieces()
        place = [other.indexes.start for other in others].index(self.indexes.start)
        kept = [other.note for other in others]
        self.batch.write([*kept[:place], *notes, *kept[place + 1 :]])


def note_requeued(attempt: Attempt, job: str) -> None:
    """Note that Slurm has put the job of an attempt back into its queue, before anybody can see that attempt's end."""
    batch = Batch.of(attempt)
    requeued: RequeuedJob = {
        "id": job,
        "name": batch.name_of(attempt),
        "folder": batch.workdir,
        "output": batch.output_of(attempt),
        "at": time.time(),
    }
    records.create_json(attempt.at(_REQUEUED), requeued)


def _requeued_for(attempt: Attempt) -> RequeuedJob | None:
    """Return the job of the attempt before, if Slurm has requeued it and this attempt follows by itself."""
    if attempt.number < 2:
        return None
    requeued: RequeuedJob | None = records.read_json(attempt.job.attempt(attempt.number - 1).at(_REQUEUED))
    return requeued if requeued is not None and "recovery" in attempt.request() else None


def attempt_of_script(path: str, env: Mapping[str, str]) -> tuple[Attempt, str]:
    """
    Return the attempt that a script runs, and what Slurm calls it.

    :param path: of the attempt, or of the folder of an array. The variables of an array can also be those of another
        job, in which this one was submitted, so this says whether they count.
    :param env: the script's environment.
    """
    listed = _listed(path)
    if listed is None:
        return Attempt.at_path(path), env["SLURM_JOB_ID"]
    number = env["SLURM_ARRAY_TASK_ID"]
    return Attempt.at_path(listed["attempts"][int(number)]), "{}_{}".format(env["SLURM_ARRAY_JOB_ID"], number)


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
            if all(_is_over(path) for path in _all(folder)):
                shutil.rmtree(folder, ignore_errors=True)


def _is_over(path: str) -> bool:
    """Return whether no script will run the attempt of that path, or one that follows it as the same Slurm job."""
    while os.path.exists(os.path.join(path, _REQUEUED)):
        folder, number = os.path.split(path)
        path = os.path.join(folder, str(int(number) + 1))
    return os.path.exists(os.path.join(path, "exit.json")) or not os.path.exists(path)


def _all(folder: str) -> list[str]:
    paths = attempts_at(folder)
    # An array that is just being made lists no attempts yet.
    return paths or [folder]
