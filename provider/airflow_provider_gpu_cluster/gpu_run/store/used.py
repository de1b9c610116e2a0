"""What is known of an attempt's use of its GPUs, its host, and of time: from its sampler, and from its records."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, Any

from . import records
from .staging_time import NOTE, staging_s

if TYPE_CHECKING:
    from ..protocol.records import EndFacts, Environment
    from ..protocol.usage import Seconds, UsageSoFar

SO_FAR = "usage.json"
_MOST_BYTES = 1 << 16
# How much longer than it means to a sampler may take for its next look.
_LATE_S = 15.0


def used_so_far(attempt: str, name: str = SO_FAR) -> UsageSoFar:
    """
    Return what an attempt has used until its last sample; nothing where there is none, or the job has spoilt it.

    :param attempt: the attempt's folder.
    :param name: of another file there, with the use of one node.
    """
    found: Any = _read(os.path.join(attempt, name))
    so_far: UsageSoFar = {}
    if isinstance(found.get("usage"), dict):
        so_far["usage"] = found["usage"]
    if isinstance(found.get("seconds"), dict):
        so_far["seconds"] = found["seconds"]
    if isinstance(found.get("last"), dict) and all(
        isinstance(found.get(name), (int, float)) for name in ("looked_at", "pause_s")
    ):
        so_far["last"], so_far["looked_at"], so_far["pause_s"] = found["last"], found["looked_at"], found["pause_s"]
    return so_far


def gpu_percent(attempt: str) -> float | None:
    """
    Return how busy the busiest GPU of an attempt on this host was lately; None where its sampler does not say it.

    :param attempt: the attempt's folder.
    """
    so_far = used_so_far(attempt)
    if "last" not in so_far or time.monotonic() > so_far["looked_at"] + so_far["pause_s"] + _LATE_S:
        return None
    gpus: Any = so_far["last"].get("gpus")
    with contextlib.suppress(TypeError, AttributeError, ValueError):
        return max(float(gpu["percent"]) for gpu in gpus if "percent" in gpu)
    return None


def seconds_of(attempt: str, facts: EndFacts, so_far: UsageSoFar, now: str) -> Seconds:
    """
    Return how long each part of an attempt took, as far as its records say it.

    :param attempt: the attempt's folder.
    :param facts: when it was submitted, leased, started and ended.
    :param now: the end of what has begun and not ended.
    """
    seconds: Seconds = {}
    submitted, leased, started = facts.get("submitted_at"), facts.get("leased_at"), facts.get("started_at")
    # What is in the records may be of the job's making.
    with contextlib.suppress(ValueError, TypeError):
        if submitted and leased:
            seconds["queued"] = _between(submitted, leased)
        if started:
            seconds["running"] = _between(started, facts.get("ended_at") or now)
    environment: Environment = _read(os.path.join(attempt, "environment.json"))
    if isinstance(environment.get("seconds"), (int, float)):
        seconds["building"] = round(environment["seconds"], 3)
    staging = staging_s(os.path.join(attempt, NOTE))
    if staging:
        seconds["staging"] = staging
    idle = (so_far.get("seconds") or {}).get("idle")
    if isinstance(idle, (int, float)):
        seconds["idle"] = min(idle, seconds.get("running", idle))
    return seconds


def _between(start: str, end: str) -> float:
    # The clock may have been set back.
    return max(0.0, round(records.seconds_between(start, end), 3))


def _read(path: str) -> Any:
    with contextlib.suppress(OSError, ValueError):
        return records.read_json(path, _MOST_BYTES) or {}
    return {}
