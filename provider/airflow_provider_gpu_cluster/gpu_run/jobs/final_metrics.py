"""The verb ``read-metrics``: what a job has left in its ``metrics.json``, as names and values."""

from __future__ import annotations

import json
import math
import os
from typing import TYPE_CHECKING, Any, Iterator

from ..outputs.folder import OutputsFolder, Unsendable
from ..protocol.looks import MOST_METRICS
from ..protocol.masks import hidden_in
from ..reply import Reply
from .hiding import masks_of

if TYPE_CHECKING:
    from ..protocol.looks import ReadMetricsReply, ReadMetricsRequest
    from ..store.directories import JobDirectory, Root

_FILE = "metrics.json"
_MOST_BYTES = 1 << 20
_MOST_CHARACTERS = 200
_DEEPEST = 8
# What a browser can tell apart from its neighbours.
_LARGEST = 1 << 53


def answer(root: Root, request: ReadMetricsRequest) -> Reply:
    """Carry out the verb ``read-metrics``."""
    return Reply(final_metrics(root, root.job(request["job_id"])))


def final_metrics(root: Root, job: JobDirectory, most: int = MOST_METRICS) -> ReadMetricsReply:
    """
    Return what a job has left in its ``metrics.json``; nothing if there is no such file.

    :raises Refused: there is no such job.
    """
    try:
        fd, found = OutputsFolder(root, job.job_id).open(_FILE)
    except Unsendable as error:
        is_there = os.path.lexists(job.at("outputs", _FILE))
        return {"problem": f"{_FILE} {error}"} if is_there else {}
    with os.fdopen(fd, "rb") as file:
        content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        return {"problem": f"{_FILE} has {found.st_size:,} bytes, more than {_MOST_BYTES:,}"}
    try:
        # Hidden before anything is cut.
        value = hidden_in(json.loads(content), masks_of(job))
        metrics: dict[str, Any] = {}
        count = 0
        for name, item in _leaves(value, "", _DEEPEST):
            count += 1
            if count <= most:
                metrics[name[:_MOST_CHARACTERS]] = item
    except (ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)[:_MOST_CHARACTERS]
        return {"problem": f"{_FILE} is not JSON: {why}"}
    if not isinstance(value, dict):
        return {"problem": f"{_FILE} holds no JSON object"}
    return {"metrics": metrics, "count": count}


def _leaves(value: Any, name: str, depth: int) -> Iterator[tuple[str, Any]]:
    """Yield the values in an object and in the objects in it; lists are left out."""
    if isinstance(value, dict) and depth:
        for key, item in value.items():
            yield from _leaves(item, f"{name}.{key}" if name else key, depth - 1)
    elif isinstance(value, str):
        yield name, value[:_MOST_CHARACTERS]
    elif isinstance(value, bool):
        yield name, value
    elif isinstance(value, (int, float)):
        yield name, _number(value)


def _number(value: float) -> Any:
    """Return a number as JSON can hold it; what no JSON can hold as a text."""
    if isinstance(value, int):
        return value if abs(value) < _LARGEST else _number(_as_float(value))
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _as_float(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
