"""
What a job on several nodes uses: what the samplers of its nodes have seen, put together.

Each node's sampler writes files of its own into the attempt's folder, and the one beside the supervisor reads them.
"""

from __future__ import annotations

import contextlib
import os
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Sequence, cast

from ..linux import regular_files
from ..store import records
from ..store.used import SO_FAR, used_so_far
from ..store.writing import write_text
from .usage_points import MOST_POINTS
from .usage_sampling import restore_logs
from .usage_summary import IDLE_PERCENT, MOST_GPUS

if TYPE_CHECKING:
    from ..protocol.usage import GpuUsage, Usage, UsagePoint, UsageSoFar
    from ..store.directories import Attempt
    from .usage_rhythm import Rhythm
    from .usage_sampling import Seen

_MOST_BYTES = 1 << 22
# Few, but a curve still.
_LEAST_POINTS = 4
# A network file system may show a file so much later on another node.
_LATE_S = 60.0


def node_files(attempt: Attempt, rank: int) -> tuple[str, str]:
    """Return where the sampler of a node shows its points, and its sums."""
    return attempt.at(f"usage.{rank}.jsonl"), attempt.at(f"usage.{rank}.json")


def points_of_node(nodes: int) -> int:
    """Return how many points each of so many nodes keeps."""
    return max(_LEAST_POINTS, MOST_POINTS // nodes)


class NodesSampling:
    """
    The looks at what the nodes' samplers have seen; see :class:`.usage_sampling.Sampling`.

    :param nodes: how many there are.
    """

    def __init__(self, attempt: Attempt, nodes: int, rhythm: Rhythm, seen: Seen) -> None:
        self._attempt = attempt
        self._nodes = nodes
        self._rhythm = rhythm
        self._seen = seen
        self._began = self._looked_at = 0.0
        self._cost_s = time.process_time()
        self._idle_s: float | None = None
        self._peak_percent = 0.0
        self._shown: list[tuple[int, int] | None] = []
        # When each node's last point was new.
        self._news: dict[int, tuple[float, float]] = {}
        self.pause_s = 0.0

    def begin(self, root: int) -> None:
        """Begin with the looks."""
        self._began = self._looked_at = time.monotonic()

    def look(self, most_s: float | None = None) -> bool:
        """Look at what the nodes have shown so far, and show it as a whole."""
        now = time.monotonic()
        past_s, self._looked_at = now - self._looked_at, now
        # A job can write to its records.
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
            found = [so_far for so_far in map(partial(self._of_node, now), range(self._nodes)) if so_far]
            if found:
                self._show(found, past_s, now)
        self._show_points()
        spent_s, self._cost_s = time.process_time() - self._cost_s, time.process_time()
        self.pause_s = self._rhythm.pause_s(now - self._began, spent_s)
        return False

    def _of_node(self, now: float, rank: int) -> UsageSoFar:
        so_far = used_so_far(self._attempt.path, os.path.basename(node_files(self._attempt, rank)[1]))
        if "usage" not in so_far or "last" not in so_far:
            return {}
        last = so_far["last"]
        if rank not in self._news or self._news[rank][0] != last["t"]:
            self._news[rank] = last["t"], now
        if now - self._news[rank][1] > so_far["pause_s"] + _LATE_S:
            # Nobody knows what its GPUs do now.
            last.pop("gpus", None)
        return so_far

    def _show(self, found: Sequence[UsageSoFar], past_s: float, now: float) -> None:
        point = point_of_all([so_far["last"] for so_far in found], past_s)
        percents = [gpu["percent"] for gpu in point.get("gpus", ()) if "percent" in gpu]
        if percents:
            self._idle_s = (self._idle_s or 0.0) + (past_s if max(percents) < IDLE_PERCENT else 0.0)
            self._peak_percent = max(self._peak_percent, sum(percents) / len(percents))
        usage = usage_of_all([so_far["usage"] for so_far in found])
        if "gpu_mean_percent" in usage:
            usage["gpu_peak_percent"] = round(max(self._peak_percent, usage["gpu_mean_percent"]), 1)
        so_far: UsageSoFar = {
            "usage": usage,
            "seconds": {} if self._idle_s is None else {"idle": round(self._idle_s, 3)},
            "last": point,
            "looked_at": now,
            "pause_s": self.pause_s,
        }
        with contextlib.suppress(OSError):
            records.write_json(self._attempt.at(SO_FAR), so_far, sync=False)
        self._seen(point, now, False)

    def _show_points(self) -> None:
        """Put the nodes' files of points together, if one has changed."""
        paths = [node_files(self._attempt, rank)[0] for rank in range(self._nodes)]
        stamps = [_stamp(path) for path in paths]
        if stamps == self._shown:
            return
        lines: list[bytes] = []
        for path in paths:
            with contextlib.suppress(OSError):
                lines += regular_files.read(path, _MOST_BYTES).split(b"\n")[:-1]
        # Each begins with its time, in seconds since the epoch with as many digits for the next centuries.
        lines.sort()
        text = "".join(line.decode("utf-8", "replace") + "\n" for line in lines)
        path = self._attempt.job.at("logs", "usage.jsonl")
        with contextlib.suppress(OSError):
            try:
                write_text(path, text)
            except OSError:
                restore_logs(self._attempt)
                write_text(path, text)
            self._shown = stamps


def point_of_all(points: Sequence[UsagePoint], past_s: float) -> UsagePoint:
    """Return the last points of all nodes as one."""
    found: UsagePoint = {"t": round(time.time(), 3), "s": round(past_s, 3)}
    gpus = [gpu for point in points for gpu in point.get("gpus", ())]
    if gpus:
        found["gpus"] = gpus
    found.update(cast("UsagePoint", _sums(points, ("memory_bytes", "cpus", "written_bytes"))))
    return found


def usage_of_all(usages: Sequence[Usage]) -> Usage:
    """Return what all nodes have used, without the peak of the mean over their GPUs."""
    found: Usage = {"source": next((one["source"] for one in usages if one.get("source")), "")}
    reasons = list(dict.fromkeys(one["why_not"] for one in usages if one.get("why_not")))
    if reasons:
        found["why_not"] = "; ".join(reasons)
    gpus: list[GpuUsage] = [gpu for one in usages for gpu in one.get("gpus", ())]
    if gpus:
        found["gpus"] = gpus[:MOST_GPUS]
    names = ("samples", "cpus", "cpus_mean", "written_bytes", "gpu_seconds_used", "gpu_seconds_idle", "energy_j")
    found.update(cast("Usage", _sums(usages, names)))
    told = [one for one in usages if one.get("gpus") and "gpu_mean_percent" in one]
    if told:
        count = sum(len(one["gpus"]) for one in told)
        found["gpu_mean_percent"] = round(sum(one["gpu_mean_percent"] * len(one["gpus"]) for one in told) / count, 1)
    return found


def _sums(values: Sequence[Any], names: Sequence[str]) -> dict[str, Any]:
    """Return the sums of those values that at least one has."""
    told = {name: [value[name] for value in values if name in value] for name in names}
    return {name: round(sum(some), 3) for name, some in told.items() if some}


def _stamp(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
