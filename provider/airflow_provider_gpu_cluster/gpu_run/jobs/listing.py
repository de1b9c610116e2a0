"""The verb ``jobs``: the jobs that wait or run, and whose they are. It counts as no question about them."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from .. import protocol
from ..engines import engine_of
from ..errors import Refused
from ..reply import Reply
from ..store.asked import unasked_s
from ..store.directories import Attempt, JobDirectory, Root
from ..store.job_folders import jobs_of
from ..store.next_attempt import is_followed
from .status import status_or_unknown

if TYPE_CHECKING:
    from ..engines.engine import Engine
    from ..protocol.job_list import JobsCall, JobsReply, ListedJob
    from ..protocol.records import AttemptRequest
    from ..protocol.requests import Asker
    from ..protocol.settings import Settings
    from ..protocol.status import Status

# How long a scheduler may take to answer, in seconds.
_TIMEOUT_S = 20.0
# The end of an id that Airflow's side has derived from a task: it differs after a clear, and the rest does not.
_DIGEST = re.compile(r"-[0-9a-f]{8}\Z")
_TEXTS = ("dag_id", "run_id", "task_id", "airflow_host", "airflow_url", "person", "folder")
_NUMBERS = ("map_index", "try_number")
# What is met where a job has spoilt its records, or is deleting them.
_SPOILT = (Refused, OSError, ValueError, KeyError, TypeError, AttributeError)


def answer(root: Root, engine: Engine, program: str, request: JobsCall) -> Reply:
    """Carry out the verb ``jobs``."""
    return Reply(list_jobs(root, engine, program, request["settings"], request["most"]))


def list_jobs(root: Root, engine: Engine, program: str, settings: Settings, most: int) -> JobsReply:
    """
    Return the jobs that wait or run, each element of an array by itself.

    :param engine: of these settings; jobs of others are looked at by theirs.
    :param most: how many to return.
    """
    listing = _Listing(root, program, {_key(settings): engine})
    jobs: list[ListedJob] = []
    left_out = 0
    for job in jobs_of(root):
        try:
            listed = listing.look_at(job, is_wanted=len(jobs) < most)
        except _SPOILT:
            continue
        if listed is not None and len(jobs) < most:
            jobs.append(listed)
        elif listed is not None:
            left_out += 1
    for listed in jobs:
        newer = listing.newer_than(listed)
        if newer is not None:
            listed["newer"] = newer
    return {"jobs": jobs, "left_out": left_out}


class _Listing:
    def __init__(self, root: Root, program: str, engines: dict[str, Engine]) -> None:
        self._root = root
        self._program = program
        self._engines = engines
        # The jobs whose ids differ in their ends only.
        self._alike: dict[str, list[JobDirectory]] = {}

    def look_at(self, job: JobDirectory, *, is_wanted: bool) -> ListedJob | None:
        """Return what is to be told of a job; None when it has ended, or was not launched."""
        attempts = job.attempts()
        if not attempts:
            return None
        self._alike.setdefault(_stem(job.job_id), []).append(job)
        ended = attempts[-1].ended()
        if ended is not None and not is_followed(ended):
            return None
        status: Status | None = None
        if is_wanted:
            engine = self._engine(attempts[-1].request()["settings"])
            status = status_or_unknown(self._root, engine, job.job_id)
            if status["state"] in protocol.FINAL_STATES:
                return None
        latest = job.attempts()[-1]
        return _listed(latest, latest.request(), status)

    def _engine(self, settings: Settings) -> Engine:
        key = _key(settings)
        if key not in self._engines:
            self._engines[key] = engine_of(self._root, settings, self._program, timeout_s=_TIMEOUT_S)
        return self._engines[key]

    def newer_than(self, listed: ListedJob) -> str | None:
        """Return a job that the same task has launched since, after a clear; None when there is none."""
        own = _generation(listed.get("generation", ""))
        who = _task(listed["by"])
        if own is None or who is None:
            return None
        found: tuple[tuple[int, ...], str] | None = None
        for job in self._alike[_stem(listed["job_id"])]:
            if job.job_id == listed["job_id"]:
                continue
            try:
                request = job.attempts()[-1].request()
                generation = _generation(request["generation"])
                is_newer = generation is not None and generation > own and _task(request["by"]) == who
            except (*_SPOILT, IndexError):
                continue
            if is_newer and generation is not None and (found is None or generation > found[0]):
                found = generation, _array_of(request) or job.job_id
        return None if found is None else found[1]


def _listed(attempt: Attempt, request: AttemptRequest, status: Status | None) -> ListedJob:
    spec = request["spec"]
    listed: ListedJob = {
        "job_id": attempt.job.job_id,
        "state": status["state"] if status is not None else protocol.UNKNOWN,
        "attempt": attempt.number,
        "gpus": int(spec["gpus"]) * int(spec.get("nodes") or 1),
        "by": _sound(request["by"]),
        "generation": str(request["generation"]),
        "submitted_at": str(request["requested_at"]),
    }
    array = _array_of(request)
    if array is not None:
        listed["array"] = array
    if status is not None:
        if isinstance(status.get("started_at"), str):
            listed["started_at"] = str(status["started_at"])
        if isinstance(status.get("host"), str):
            listed["host"] = str(status["host"])
    unasked = unasked_s(attempt.job.path, attempt.path)
    if unasked is not None:
        listed["unasked_s"] = unasked
    return listed


def _sound(by: Any) -> Asker:
    """Return who asked, as far as that is what it should be."""
    texts = {name: by[name] for name in _TEXTS if isinstance(by.get(name), str)}
    numbers = {name: by[name] for name in _NUMBERS if isinstance(by.get(name), int)}
    sound: Any = {**texts, **numbers}
    return sound  # type: ignore[no-any-return]


def _array_of(request: AttemptRequest) -> str | None:
    array = request.get("array")
    return None if array is None else str(array["job_id"])


def _task(by: Asker) -> tuple[Any, ...] | None:
    """Return what names the task instance that asked; None when it was none."""
    return (by["dag_id"], by["run_id"], by["task_id"], by.get("map_index")) if "run_id" in by else None


def _generation(text: str) -> tuple[int, ...] | None:
    try:
        return tuple(map(int, text.split(".")))
    except ValueError:
        return None


def _stem(job_id: str) -> str:
    """Return what is the same in the ids of all jobs that a task has had; elements have an index besides."""
    return _DIGEST.sub("", re.sub(r"_\d+\Z", "", job_id))


def _key(settings: Settings) -> str:
    return json.dumps(settings, sort_keys=True)
