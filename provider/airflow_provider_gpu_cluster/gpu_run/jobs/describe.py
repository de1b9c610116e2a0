"""The verb ``describe-job``: a job's status, and what is known of it besides. It counts as no question about it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, cast

from .. import protocol
from ..errors import Refused
from ..linux import regular_files
from ..protocol.masks import hidden_in
from ..reply import Reply
from ..store import arrays, records
from ..store.claims import run_facts
from .audit import audit
from .final_metrics import final_metrics
from .hiding import masks_of
from .status import status_or_unknown

if TYPE_CHECKING:
    from ..engines.engine import Engine
    from ..protocol.description import CodeVersion, DescribedAttempt, DescribeRequest, Description
    from ..store.directories import Attempt, JobDirectory, Root

_MOST_SCRIPT_BYTES = 1 << 16
_MOST_CHARACTERS = 2000
_MOST_ACTS = 200
_MOST_ATTEMPTS = 100
_MOST_NAMES = 1000
_MOST_INPUTS = 200
_OF_ATTEMPT = (
    "started_at",
    "ended_at",
    "state",
    "reason",
    "kind",
    "message",
    "remedy",
    "host",
    "exit_code",
    "signal",
    "gpu_seconds",
)
# What is met where a job has spoilt its records, or is deleting them.
_SPOILT = (OSError, ValueError, KeyError, TypeError, AttributeError)


def answer(root: Root, engine: Engine, request: DescribeRequest) -> Reply:
    """Carry out the verb ``describe-job``."""
    return Reply(describe(root, engine, request["job_id"]))


def describe(root: Root, engine: Engine, job_id: str) -> Description:
    """
    Return what is known of a job, or of an array. Whatever the job has made of its records, the rest is told.

    :raises Refused: it is no job id.
    """
    job = root.job(job_id)
    found: Description = {
        "status": status_or_unknown(root, engine, job_id, counts=False),
        "spec": {},
        "script": "",
        "code": [],
        "env_names": [],
        "attempts": [],
        "acts": _acts(root, job_id),
        "metrics": {},
        "problem": "",
    }
    if found["status"]["state"] in protocol.FINAL_STATES and job.attempts():
        _add_metrics(found, root, job)
    # An array has no script; its elements differ in arguments and variables alone.
    described = _first_element(root, job) or job
    try:
        told: Any = {
            **_recorded(described),
            "script": _script(described),
            "attempts": [_attempt(attempt) for attempt in job.attempts()[-_MOST_ATTEMPTS:]],
        }
        found.update(hidden_in(told, masks_of(described)))
    except Refused as refusal:
        found["problem"] = refusal.message
    except _SPOILT as error:
        found["problem"] = f"a record of it cannot be read: {error}"[:_MOST_CHARACTERS]
    found["status"].pop("masks", None)
    return found


def _add_metrics(found: Description, root: Root, job: JobDirectory) -> None:
    with contextlib.suppress(Refused, OSError):
        told = final_metrics(root, job)
        found["metrics"], found["problem"] = told.get("metrics", {}), told.get("problem", "")


def _first_element(root: Root, job: JobDirectory) -> JobDirectory | None:
    with contextlib.suppress(Refused, *_SPOILT):
        for element in arrays.elements_of(job)[:1]:
            return root.job(element)
    return None


def _acts(root: Root, job_id: str) -> Any:
    with contextlib.suppress(Refused, OSError):
        return audit(root, job_id)["acts"][-_MOST_ACTS:]
    return []


def _recorded(job: JobDirectory) -> dict[str, Any]:
    record: Any = records.read_json(job.spec, records.MOST_BYTES_OF_LISTS) or {}
    spec = {str(name): _bounded(value) for name, value in dict(record.get("spec") or {}).items()}
    names = list(record.get("environment_names") or ())[:_MOST_NAMES]
    inputs = dict(record.get("inputs") or {})
    return {
        "spec": spec,
        "env_names": [str(name)[:_MOST_CHARACTERS] for name in names],
        "code": [_input(str(place), facts) for place, facts in sorted(inputs.items())[:_MOST_INPUTS]],
    }


def _bounded(value: Any) -> Any:
    if isinstance(value, str):
        return value[: 10 * _MOST_CHARACTERS]
    if isinstance(value, list):
        return [_bounded(one) for one in value[:_MOST_NAMES]]
    if isinstance(value, dict):
        return {str(name): _bounded(one) for name, one in list(value.items())[:_MOST_NAMES]}
    return value


def _input(place: str, facts: Any) -> CodeVersion:
    told: dict[str, Any] = {
        "place": place[:_MOST_CHARACTERS],
        "source": str(facts.get("written", ""))[:_MOST_CHARACTERS],
    }
    identity = facts.get("identity")
    if isinstance(identity, list) and identity[:1] == ["upload"] and isinstance(identity[1], str):
        told["checksum"] = identity[1]
    if isinstance(facts.get("commit"), str):
        told["commit"] = facts["commit"]
    told.update({name: facts[name] for name in ("files", "bytes") if type(facts.get(name)) is int})
    return cast("CodeVersion", told)


def _script(job: JobDirectory) -> str:
    try:
        fd = regular_files.open_to_read(job.at("run.sh"))
    except FileNotFoundError:
        return ""
    with open(fd, "rb") as file:
        return file.read(_MOST_SCRIPT_BYTES).decode("utf-8", "replace")


def _attempt(attempt: Attempt) -> DescribedAttempt:
    told: dict[str, Any] = {"attempt": attempt.number}
    # A record that the job has spoilt says nothing of the other attempts.
    with contextlib.suppress(*_SPOILT):
        ended: Any = attempt.ended()
        if ended is None:
            claim = attempt.claimed()
            told["state"] = protocol.QUEUED
            if claim is not None and claim["by"] == "supervisor":
                facts = run_facts(claim)
                told.update({"state": protocol.RUNNING, "started_at": facts["started_at"], "host": facts["host"]})
        else:
            told.update({name: _bounded(ended[name]) for name in _OF_ATTEMPT if ended.get(name) is not None})
            checkpoint = ended.get("next", {}).get("recovery", {}).get("checkpoint")
            if isinstance(checkpoint, str):
                told["checkpoint"] = checkpoint
    return cast("DescribedAttempt", told)
