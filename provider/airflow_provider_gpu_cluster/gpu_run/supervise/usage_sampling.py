"""
What the process does that looks at a running job's use of its GPUs and its host; see :mod:`.usage_sampler`.

After each look it shows what it has seen: a point in ``logs/usage.jsonl``, and the sums in ``usage.json``.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Callable, NamedTuple, Sequence

from ..linux import processes
from ..linux.companion import Ended, Line
from ..linux.tree_use import use_below
from ..store import records
from ..store.restoring import make_folder
from .gpu_looks import GpuLooks
from .usage_points import UsagePoints
from .usage_rhythm import Rhythm
from .usage_summary import UsageSummary

if TYPE_CHECKING:
    from ..protocol.records import LeasedGpu
    from ..protocol.usage import UsagePoint, UsageSoFar
    from ..store.directories import Attempt

BEGIN, END, DONE = "begin", "end", "done"
_LAST_LOOK_S = 0.15
_LONG_S = 3600.0


class Place(NamedTuple):
    """
    What a sampler looks at, and where it shows it.

    :param gpus: of this node.
    :param names: what CUDA_VISIBLE_DEVICES calls them.
    :param cpus: how many processors the job may use here.
    :param points: path of the file of points.
    :param so_far: path of the file of sums.
    :param node: name of the node, for a job on several.
    :param window_s: a time in which it must look several times.
    """

    gpus: Sequence[LeasedGpu]
    names: Sequence[str]
    cpus: int
    points: str
    so_far: str
    node: str = ""
    window_s: float | None = None


class Sampling:
    """
    The looks at one job on one node.

    :param place: what to look at.
    :param line: to the process below which the job runs.
    :param seen: is told each point, with the time by the clock of ``time.monotonic()``.
    """

    def __init__(
        self,
        attempt: Attempt,
        place: Place,
        line: Line,
        seen: Callable[[UsagePoint, float], object] = lambda point, now: None,
    ) -> None:
        self._place = place
        self._line = line
        self._seen = seen
        self._gpus = GpuLooks(place.gpus, place.names)
        self._points = UsagePoints(place.points, lambda: make_folder(attempt.job.path, "logs"))
        self._summary = UsageSummary(place.gpus, place.cpus)
        self._rhythm = Rhythm(place.window_s)
        self._root = 0
        self._began = self._looked_at = 0.0
        self._cpu_s = 0.0
        self._peak_memory = 0
        self._pause_s = 0.0

    def run(self) -> None:
        """Look until the job has ended, or the process below which it runs."""
        with contextlib.suppress(Ended):
            while not self._root:
                words = (self._line.hear(_LONG_S) or "").split()
                if words[:1] == [BEGIN]:
                    self._root = int(words[1])
            self._began = self._looked_at = time.monotonic()
            while not self._look_and_wait():
                pass
            self._look(_LAST_LOOK_S)
            self._line.tell(DONE)

    def _look_and_wait(self) -> bool:
        """Take a sample, and wait until it is time for the next; return whether the job has ended meanwhile."""
        before_s = self._cost_s()
        if self._look():
            return True
        self._pause_s = self._rhythm.pause_s(time.monotonic() - self._began, self._cost_s() - before_s)
        return self._line.hear(self._pause_s) == END

    def _cost_s(self) -> float:
        return time.process_time() + self._gpus.cost_s

    def _look(self, most_s: float | None = None) -> bool:
        """
        Take a sample, and show it; return whether the job has ended meanwhile.

        :param most_s: how long the GPUs may take to answer; None for the usual time.
        """
        is_over = self._gpus.look(self._line, most_s)
        now = time.monotonic()
        past_s = now - self._looked_at
        use = use_below(self._root)
        cpu_s = max(0.0, use.cpu_s - self._cpu_s)
        readings = self._gpus.of_job(set(use.sizes))
        self._summary.source, self._summary.why_not = self._gpus.source, self._gpus.why_not
        gpus = self._summary.add(readings, past_s, cpu_s=cpu_s, written_bytes=use.written_bytes)
        self._looked_at, self._cpu_s = now, max(self._cpu_s, use.cpu_s)
        memory = processes.memory_bytes(use.sizes, above=self._peak_memory)
        self._peak_memory = max(self._peak_memory, memory)
        point: UsagePoint = {"t": round(time.time(), 3), "s": round(past_s, 3)}
        if gpus:
            point["gpus"] = gpus
        point["memory_bytes"] = memory
        if past_s > 0:
            point["cpus"] = round(cpu_s / past_s, 3)
        if use.written_bytes is not None:
            point["written_bytes"] = use.written_bytes
        if self._place.node:
            point["node"] = self._place.node
        self._show(point, now)
        return is_over

    def _show(self, point: UsagePoint, now: float) -> None:
        self._points.add(point)
        so_far: UsageSoFar = {
            "usage": self._summary.usage(),
            "seconds": self._summary.seconds(),
            "last": point,
            "looked_at": now,
            "pause_s": self._pause_s,
        }
        with contextlib.suppress(OSError):
            records.write_json(self._place.so_far, so_far, sync=False)
        self._seen(point, now)
