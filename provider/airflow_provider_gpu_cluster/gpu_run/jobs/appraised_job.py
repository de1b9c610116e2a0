"""Checks a job that is asked about: its values come from afar, and become arguments of commands and names of files."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Mapping

from .. import protocol
from ..errors import Refused
from ..protocol.appraisal import MOST_JOBS

if TYPE_CHECKING:
    from ..protocol.appraisal import JobToAppraise

_WHOLE = ("gpus", "nodes", "cpus", "memory_bytes")
_NUMBERS = ("time_limit_s", "grace_s", "warn_before_s")
_TEXTS = (
    *("gpu_type", "priority", "partition", "account", "qos", "constraint", "requirements", "setup", "warn_signal"),
)
_LARGEST = 1e18
_MOST_CHARACTERS = 1 << 22
_MOST_SHOWN = 100
_OF_INPUTS = {"upload": ("digest",), "git": ("url",), "cluster": ("path",)}


def checked_jobs(jobs: Any) -> list[JobToAppraise]:
    """
    Return the jobs of a request, if they are some.

    :raises Refused: it says what is wrong.
    """
    if not isinstance(jobs, list):
        raise _bad("jobs", jobs, "a list")
    if len(jobs) > MOST_JOBS:
        raise Refused(
            protocol.BAD_REQUEST, f"{len(jobs):,} jobs are asked about at once, and at most {MOST_JOBS:,} can be"
        )
    for job in jobs:
        _check(job)
    return jobs


def _check(job: Any) -> None:
    if not isinstance(job, dict) or not isinstance(job.get("job_id"), str):
        raise _bad("a job", job, "an object with a job_id")
    spec, inputs = job.get("spec"), job.get("inputs")
    if not isinstance(spec, dict):
        raise _bad("spec", spec, "an object")
    check_spec(spec)
    if inputs is not None and not isinstance(inputs, list):
        raise _bad("inputs", inputs, "a list")
    for wanted in inputs or ():
        _check_input(wanted)
    sizes = job.get("input_bytes", [])
    if not isinstance(sizes, list) or not all(size is None or _is_whole(size) for size in sizes):
        raise _bad("input_bytes", sizes, "a list of whole numbers")
    if not isinstance(job.get("record", {}), dict):
        raise _bad("record", job["record"], "an object")


def check_spec(spec: Mapping[str, Any]) -> None:
    """
    Refuse what can be no job's spec.

    :raises Refused: it says what is wrong.
    """
    for name in _WHOLE:
        value: Any = spec.get(name)
        if value is None and name != "gpus":
            continue
        if not _is_whole(value) or value < 1:
            raise _bad(name, value, "a whole number from 1 up")
    for name in _NUMBERS:
        value = spec.get(name)
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if value is not None and not (is_number and 0 <= value < _LARGEST and math.isfinite(value)):
            raise _bad(name, value, "a number of seconds")
    for name in _TEXTS:
        if spec.get(name) is not None and not _is_text(spec[name]):
            raise _bad(name, spec[name], "text")
    if (spec.get("priority") or "normal") not in protocol.PRIORITIES:
        raise _bad("priority", spec["priority"], f"one of {', '.join(protocol.PRIORITIES)}")
    options = spec.get("sbatch_options")
    if options is not None and not (isinstance(options, list) and all(map(_is_text, options))):
        raise _bad("sbatch_options", options, "a list of words")


def _check_input(wanted: Any) -> None:
    if not isinstance(wanted, dict) or wanted.get("type") not in _OF_INPUTS:
        raise _bad("an input", wanted, f"an object whose type is one of {', '.join(_OF_INPUTS)}")
    for name in ("kind", "name", "written", *_OF_INPUTS[wanted["type"]]):
        if not _is_text(wanted.get(name)):
            raise _bad(f"{name} of an input", wanted.get(name), "text")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _LARGEST


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) < _MOST_CHARACTERS and "\0" not in value


def _bad(name: str, value: Any, what: str) -> Refused:
    shown = repr(value)
    shown = shown if len(shown) < _MOST_SHOWN else shown[:_MOST_SHOWN] + "..."
    return Refused(protocol.BAD_REQUEST, f"{name} is {shown}, and not {what}")
