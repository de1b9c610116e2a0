"""What a job has noted of its own steps (see :mod:`tests.harness.training`), and what must hold of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

TRAINING = Path(__file__).with_name("training.py")


class Entry(NamedTuple):
    """
    One line.

    :param at: in seconds since the epoch.
    :param what: ``begins``, ``step``, ``stops``, ``fails``, ``done``, or ``overlaps``: another process is alive.
    :param step: how many steps are done; for ``begins``, those that were saved before.
    """

    at: float
    attempt: int
    pid: int
    what: str
    step: int


@dataclass(frozen=True)
class Ledger:
    """The entries of one job, in the order in which they were written."""

    entries: Sequence[Entry]

    @classmethod
    def read(cls, path: Path) -> Ledger:
        """Read a ledger; one that is not there yet is empty."""
        lines = path.read_text().splitlines() if path.exists() else []
        words = (line.split() for line in lines)
        return cls([Entry(float(at), int(a), int(pid), what, int(step)) for at, a, pid, what, step in words])

    def of(self, what: str) -> list[Entry]:
        """Return the entries of one kind."""
        return [entry for entry in self.entries if entry.what == what]

    @property
    def attempts(self) -> list[int]:
        """The numbers of the attempts, in the order in which they began."""
        return [entry.attempt for entry in self.of("begins")]

    @property
    def is_done(self) -> bool:
        """Whether the work is done."""
        return bool(self.of("done"))

    @property
    def steps_run(self) -> int:
        """How many steps were run, with those that were run again."""
        return len(self.of("step"))

    @property
    def steps_repeated(self) -> int:
        """How many steps were run again."""
        return self.steps_run - len({entry.step for entry in self.of("step")})

    def double_launches(self) -> list[str]:
        """Return what shows that the job was run by two processes at a time, or that an attempt was run twice."""
        faults = [f"attempt {entry.attempt} began while another one was alive" for entry in self.of("overlaps")]
        faults += [f"attempt {number} ran twice" for number in set(self.attempts) if self.attempts.count(number) > 1]
        latest = 0
        for entry in self.entries:
            if entry.attempt < latest:
                faults.append(f"attempt {entry.attempt} worked after attempt {latest} had begun")
            latest = max(latest, entry.attempt)
        return list(dict.fromkeys(faults))

    def faults(self, *, save_every: int) -> list[str]:
        """
        Return what must not be: two processes at a time, steps that are missing, more repeated than lay unsaved.

        :param save_every: after how many steps the job saves.
        """
        faults = self.double_launches()
        done = before = 0
        for entry in self.entries:
            if entry.what == "begins":
                before = entry.step
                if entry.step > done:
                    faults.append(f"attempt {entry.attempt} began after step {entry.step}, but only {done} were done")
                if done - entry.step > save_every:
                    faults.append(f"attempt {entry.attempt} repeats {done - entry.step} steps")
            elif entry.what == "step":
                if entry.step != before + 1:
                    faults.append(f"attempt {entry.attempt} went from step {before} to step {entry.step}")
                before = entry.step
                done = max(done, entry.step)
        if not self.is_done:
            faults.append(f"the work is not done; the last entry is {self.entries[-1] if self.entries else 'missing'}")
        return faults
