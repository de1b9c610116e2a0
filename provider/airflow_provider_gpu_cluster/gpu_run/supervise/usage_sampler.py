"""
A process beside the supervisor that looks at what a job uses.

It is not the supervisor itself, which has to keep the job to its limits whatever happens to a driver. It is no process
of the job either: it is nobody's child, keeps no file of theirs open, and ends when the supervisor says so or is gone.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from ..errors import traceback_text
from ..linux.companion import Ended, Line, start_apart
from ..linux.tree_use import usable_cpus
from .usage_sampling import BEGIN, DONE, END, Place, Sampling

if TYPE_CHECKING:
    from ..store.directories import Attempt
    from .allocation import Allocation

# How long the end of a job waits for the last sample.
_LAST_SAMPLE_S = 0.3


class UsageSampler:
    """That process, as the supervisor sees it. What goes wrong with it is no concern of the job."""

    def __init__(self, line: Line | None) -> None:
        self._line = line

    def begin(self, root: int) -> None:
        """
        Begin to look.

        :param root: the process below which the job runs.
        """
        if self._line is not None:
            self._line.tell(f"{BEGIN} {root}")

    def end(self) -> None:
        """Let it take the last sample, and wait a moment for that."""
        line, self._line = self._line, None
        if line is None:
            return
        line.tell(END)
        deadline = time.monotonic() + _LAST_SAMPLE_S
        try:
            while line.hear(max(0.0, deadline - time.monotonic())) not in (DONE, None):
                pass
        except Ended:
            pass
        line.close()

    def leave(self) -> None:
        """Forget it, in a process that has nothing to do with it."""
        if self._line is not None:
            self._line.close()
            self._line = None


def start_sampler(attempt: Attempt, allocation: Allocation) -> UsageSampler:
    """Start it for the job of an attempt on one node. It begins when it is told to."""
    spec = attempt.request()["spec"]
    cpus = min(usable_cpus(), spec.get("cpus") or usable_cpus())
    names = [word.strip() for word in (allocation.visible or "").split(",") if word.strip()]
    place = Place(allocation.gpus, names, cpus, attempt.job.at("logs", "usage.jsonl"), attempt.at("usage.json"))
    try:
        return UsageSampler(start_apart(partial(_sample, attempt, place)))
    except OSError:
        # There is no room for another process.
        return UsageSampler(None)


def _sample(attempt: Attempt, place: Place, line: Line) -> None:
    try:
        Sampling(attempt, place, line).run()
    except Exception:
        attempt.event("sampler_error", traceback=traceback_text())
