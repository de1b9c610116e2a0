"""Whose jobs under a root are: what is told about those that wait or run."""

from __future__ import annotations

import contextlib
import json
import os
from itertools import islice
from typing import TYPE_CHECKING, Any, Iterator, Sequence

from ..errors import Refused
from ..linux import regular_files
from ..store.directories import Attempt, Root
from ..store.unfinished import unfinished_ids

if TYPE_CHECKING:
    from ..protocol.overview import OverviewJob, OverviewNode
    from ..protocol.requests import Asker

_TEXTS = ("dag_id", "run_id", "task_id", "triggered_by", "owner", "person")
_MOST_CHARACTERS = 250
_MOST_POINT_BYTES = 1 << 14
# What is met where a job has spoilt its records, or is deleting them.
SPOILT = (Refused, OSError, ValueError, KeyError, TypeError, AttributeError, IndexError)


def own_attempts(root: Root, most: int) -> Iterator[Attempt]:
    """Yield the attempts under a root that wait or run, as their notes say; at most so many."""
    for job_id, number in islice(unfinished_ids(root.path), most):
        with contextlib.suppress(Refused):
            attempt = root.job(job_id).attempt(number)
            if os.path.isdir(attempt.path) and attempt.ended() is None:
                yield attempt


def tell_whose(listed: OverviewJob, attempt: Attempt) -> None:
    """Add to what is told of a job who has asked for it."""
    listed["job_id"] = attempt.job.job_id
    listed["by"] = {}
    with contextlib.suppress(*SPOILT):
        request = attempt.request()
        listed["by"] = sound_asker(request["by"])
        listed["element"] = int(request["array"]["index"])


def tell_usage(nodes: Sequence[OverviewNode], place: int, attempt: Attempt) -> None:
    """
    Add to the GPUs of a running job what its last sample says of them.

    :param place: of the job in the list of jobs.
    """
    with contextlib.suppress(*SPOILT):
        lines = regular_files.read_end(attempt.job.at("logs", "usage.jsonl"), _MOST_POINT_BYTES).splitlines()
        points = json.loads(lines[-1])["gpus"]
        for node in nodes:
            mine = [gpu for gpu in node["gpus"] if gpu.get("job") == place]
            theirs = [point for point in points if point.get("host", node["name"]).split(".")[0] == node["name"]]
            for gpu, point in zip(mine, theirs):
                if isinstance(point.get("percent"), (int, float)):
                    gpu["percent"] = min(100.0, max(0.0, float(point["percent"])))
                if isinstance(point.get("memory_bytes"), int):
                    gpu["used_mb"] = point["memory_bytes"] >> 20


def sound_asker(by: Any) -> Asker:
    """Return who asked, as far as that is what it should be."""
    sound: Any = {name: by[name][:_MOST_CHARACTERS] for name in _TEXTS if isinstance(by.get(name), str)}
    if isinstance(by.get("map_index"), int):
        sound["map_index"] = by["map_index"]
    return sound  # type: ignore[no-any-return]
