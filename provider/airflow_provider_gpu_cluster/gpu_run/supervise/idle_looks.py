"""What :class:`.idle.IdleWatch` is to see of a job, from the points of its sampler."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

from ..protocol.idle_policy import idle_policy
from ..store.idle_notes import note_idle
from .idle import IdleWatch, JobLook
from .saved_files import saved_ago_s

if TYPE_CHECKING:
    from ..protocol.usage import GpuPoint, IdleNote, UsagePoint
    from ..store.directories import Attempt
    from .allocation import Allocation


class IdleLooks:
    """
    Notes in an attempt when its job is idle. It begins when the job does.

    :param allocation: what the job has, on all of its nodes.
    :param now: the time by the clock of ``time.monotonic()``.
    """

    def __init__(self, attempt: Attempt, allocation: Allocation, now: float) -> None:
        request = attempt.request()
        self._watch = IdleWatch(
            idle_policy(request["spec"], request["settings"]), saved_ago_s=partial(saved_ago_s, attempt.job), now=now
        )
        self._attempt = attempt
        self._noted: IdleNote | None = None
        self._progress = attempt.job.at("logs", "progress.jsonl")
        self._gpus = allocation.gpus
        # Schedulers name them only there.
        is_divided = "MIG-" in (allocation.visible or "")
        self._instances = {gpu["index"] for gpu in self._gpus if is_divided or gpu["key"].startswith("MIG-")}

    @property
    def pause_s(self) -> float:
        """How long the pause between two looks should be in the mean, in seconds."""
        return self._watch.pause_s

    def look(self, point: UsagePoint, now: float, is_stopped: bool = False) -> None:
        """
        Take a point into account.

        :param is_stopped: whether a process of the job is stopped.
        """
        told = point.get("gpus", [])
        missing = [None] * (len(self._gpus) - len(told))
        percents = [*map(self._percent, told), *missing]
        memory = [*(gpu.get("memory_bytes") for gpu in told), *missing]
        note = self._watch.look(JobLook(percents, memory, self._reported(), is_stopped), now)
        if note != self._noted:
            self._noted = note
            note_idle(self._attempt.path, note)

    def _percent(self, gpu: GpuPoint) -> float | None:
        percent = gpu.get("percent")
        # Drivers measure no MIG instance by itself, and some say 0 rather than nothing.
        return percent or None if gpu.get("index") in self._instances else percent

    def _reported(self) -> tuple[int, int] | None:
        try:
            # A job may keep its progress elsewhere, and put a link here.
            found = os.stat(self._progress)
        except OSError:
            return None
        return found.st_size, found.st_mtime_ns
