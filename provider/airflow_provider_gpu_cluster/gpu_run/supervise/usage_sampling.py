"""
Looks at a running job's use of its GPUs and its host, by the process of :mod:`.usage_sampler`.

A look at everything shows what was seen: a point in ``logs/usage.jsonl``, and the sums in ``usage.json``. Between two
of them the GPUs alone are looked at, and the point has their means.
"""

from __future__ import annotations

import contextlib
import os
import time
from functools import partial
from typing import TYPE_CHECKING, Callable, NamedTuple, Sequence

from ..linux import processes
from ..linux.tree_use import TreeUse, use_below
from ..store import records
from ..store.restoring import make_folder
from .gpu_looks import GpuLooks
from .usage_points import MOST_POINTS, UsagePoints, mean_of
from .usage_summary import UsageSummary

if TYPE_CHECKING:
    from ..gpus.gpu_reading import GpuReading
    from ..linux.companion import CompanionLine
    from ..protocol.records import LeasedGpu
    from ..protocol.usage import UsagePoint, UsageSoFar
    from ..store.directories import Attempt
    from .usage_rhythm import Rhythm

Seen = Callable[["UsagePoint", float, bool], object]
"""
Is told what each look has seen of the GPUs: as a point, with the time by the clock of ``time.monotonic()``, and
whether a process of the job is stopped.
"""
# A look that is due in a moment is not worth another wait.
_SOON_S = 0.05
_SHOWN_AFTER_S = 0.3


class SampledNode(NamedTuple):
    """
    What a sampler looks at, and where it shows it.

    :param gpus: of this node.
    :param names: what CUDA_VISIBLE_DEVICES calls them.
    :param cpus: how many processors the job may use here.
    :param points: path of the file of points.
    :param so_far: path of the file of sums.
    :param most_points: so many points are kept.
    :param name: name of the node, for a job on several.
    """

    gpus: Sequence[LeasedGpu]
    names: Sequence[str]
    cpus: int
    points: str
    so_far: str
    most_points: int = MOST_POINTS
    name: str = ""


class Sampling:
    """
    The looks at one job on one node.

    :param node: what to look at.
    :param rhythm: when to look.
    :param line: to the process below which the job runs.
    """

    def __init__(self, attempt: Attempt, node: SampledNode, rhythm: Rhythm, line: CompanionLine, seen: Seen) -> None:
        self._node = node
        self._rhythm = rhythm
        self._line = line
        self._seen = seen
        self._gpus = GpuLooks(node.gpus, node.names)
        self._points = UsagePoints(node.points, partial(restore_logs, attempt), node.most_points)
        self._summary = UsageSummary(node.gpus, node.cpus, node.name)
        self._readings: list[GpuReading] = []
        # What was seen of the GPUs since the last look at everything.
        self._gpu_points: list[UsagePoint] = []
        self._use = TreeUse(0.0, None, False, {})
        self._root = 0
        self._began = self._looked_at = self._all_looked_at = self._all_due = 0.0
        self._spent_s = 0.0
        self._last: UsagePoint = {}
        self._peak_memory = 0
        self._progress = attempt.job.at("logs", "progress.jsonl")
        #: How long to wait for the next look.
        self.pause_s = 0.0

    def begin(self, root: int) -> None:
        """
        Begin with the looks.

        :param root: the process below which the job runs.
        """
        self._root = root
        self._began = self._looked_at = self._all_looked_at = self._all_due = time.monotonic()
        self._newly_spent_s()

    def look(self, most_s: float | None = None) -> bool:
        """
        Look at the GPUs, and if it is time at everything.

        :param most_s: for the last look: how long the GPUs may take to answer. None for all others.
        :return: whether the process below which the job runs has said something meanwhile.
        """
        is_last = most_s is not None
        is_told = self._gpus.look(self._line, most_s)
        now = time.monotonic()
        is_due = is_last or now >= self._all_due - _SOON_S
        before = self._use
        if is_due:
            self._use = use_below(self._root)
        self._note_gpus(now, is_last)
        if is_due:
            self._note_all(before, now)
            # A job may begin by deleting everything, and what is new there would keep it from that.
            self._show(now, is_last or now - self._began > _SHOWN_AFTER_S)
        gpu_pause_s = self._rhythm.gpu_pause_s(now - self._began, 0.0 if is_due else self._newly_spent_s())
        self.pause_s = max(0.0, self._all_due - now)
        if self._gpus.can_tell:
            self.pause_s = min(self.pause_s, gpu_pause_s)
        return is_told

    def _note_gpus(self, now: float, is_last: bool) -> None:
        past_s, self._looked_at = now - self._looked_at, now
        readings = self._gpus.of_job(self._use.sizes)
        if is_last:
            # What they did before the end counts for the time before it.
            readings = [reading.at_the_end(before) for reading, before in zip(readings, self._readings or readings)]
        self._readings = readings or self._readings
        self._summary.source, self._summary.why_not = self._gpus.source, self._gpus.why_not
        point: UsagePoint = {"t": round(time.time(), 3), "s": round(past_s, 3)}
        gpus = self._summary.add_gpus(readings, past_s)
        if gpus:
            point["gpus"] = gpus
        self._gpu_points.append(point)
        self._seen(point, now, self._use.is_stopped)

    def _note_all(self, before: TreeUse, now: float) -> None:
        past_s, self._all_looked_at = now - self._all_looked_at, now
        point, self._gpu_points = mean_of(self._gpu_points), []
        cpu_s = max(0.0, self._use.cpu_s - before.cpu_s)
        # Sums get smaller when a process has ended that nobody has waited for.
        self._use = self._use._replace(cpu_s=max(before.cpu_s, self._use.cpu_s))
        self._summary.add_host(past_s, cpu_s=cpu_s, written_bytes=self._use.written_bytes)
        memory = processes.memory_bytes(self._use.sizes, above=self._peak_memory)
        self._peak_memory = max(self._peak_memory, memory)
        point["memory_bytes"] = memory
        if past_s > 0:
            point["cpus"] = round(cpu_s / past_s, 3)
        if self._use.written_bytes is not None:
            point["written_bytes"] = self._use.written_bytes
        # It says when each line of that file was written, which the lines themselves need not say.
        with contextlib.suppress(OSError):
            point["progress_bytes"] = _size(self._progress)
        if self._node.name:
            point["node"] = self._node.name
        self._last = point

    def _show(self, now: float, is_shown: bool) -> None:
        self._points.add(self._last, is_shown=is_shown)
        self._all_due = now + self._rhythm.pause_s(now - self._began, self._newly_spent_s())
        if not is_shown:
            return
        so_far: UsageSoFar = {
            "usage": self._summary.usage(),
            "seconds": self._summary.seconds(),
            "last": self._last,
            "looked_at": now,
            "pause_s": round(self._all_due - now, 3),
        }
        with contextlib.suppress(OSError):
            records.write_json(self._node.so_far, so_far, sync=False)

    def _newly_spent_s(self) -> float:
        """Return the processor time since the last call."""
        before, self._spent_s = self._spent_s, time.process_time() + self._gpus.cost_s
        return self._spent_s - before


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def restore_logs(attempt: Attempt) -> None:
    """Make the folder of a job's logs again if the job has removed it, but not a job that is gone as a whole."""
    if os.path.isdir(attempt.path):
        make_folder(attempt.job.path, "logs")
