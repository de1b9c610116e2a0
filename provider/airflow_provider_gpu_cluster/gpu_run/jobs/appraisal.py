"""The verb ``appraise``: whether jobs fit this cluster, when they could start, and what has to be sent for that."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, Mapping, Sequence, cast

from .. import protocol
from ..engines.wanted import Wanted, unfit
from ..errors import Refused
from ..ledger.ledger import Ledger
from ..ledger.speed import received_per_s
from ..protocol.appraisal import BUDGET
from ..reply import Reply
from ..staging.lacking import Lacking
from ..store.budget_limits import begin_of_next_month
from ..store.budgets import PlannedAttempt, why_it_would_wait
from ..store.placements import Promise, promises
from .appraised_job import check_spec, checked_jobs
from .placed_jobs import placed
from .status import words_of

if TYPE_CHECKING:
    from ..engines.engine import Engine
    from ..protocol.appraisal import Appraisal, AppraiseReply, JobToAppraise, Prospect
    from ..protocol.placement import Placed
    from ..protocol.requests import Submit
    from ..protocol.settings import Settings
    from ..protocol.spec import Spec
    from ..store.directories import Root
    from ..store.placements import Promise

# What of a spec decides whether, where and when a job can start.
_DECISIVE = (
    *("gpus", "gpu_type", "nodes", "cpus", "memory_bytes", "time_limit_s", "grace_s", "priority"),
    *("partition", "account", "qos", "constraint", "sbatch_options", "warn_before_s", "warn_signal"),
)
# How long the looks at jobs that are here already may take together, in seconds.
_LOOKS_S = 2.0
# How long a scheduler's answers may take, and those looks before it; how long they may take at least.
_ANSWERS_S = 3.0
_LEAST_S = 1.0


def answer(root: Root, engine: Engine, request: Mapping[str, Any]) -> Reply:
    """Carry out the verb ``appraise``."""
    jobs = checked_jobs(request.get("jobs"))
    caller = request.get("caller")
    return Reply(appraise(root, engine, jobs, request["settings"], caller if isinstance(caller, dict) else {}))


def appraise(
    root: Root, engine: Engine, jobs: Sequence[JobToAppraise], settings: Settings, caller: Mapping[str, Any]
) -> AppraiseReply:
    """
    Tell of each job whether it fits, when it could start, and what has to be sent for that.

    Nothing about any job is changed, and nobody has asked for it.

    :param caller: who asks.
    :raises Refused: an id is none.
    """
    began = time.monotonic()
    known = _known(root, engine, [job["job_id"] for job in jobs])
    left_s = max(_LEAST_S, _ANSWERS_S - (time.monotonic() - began))
    prospects = _prospects(root, engine, jobs, known, left_s)
    lacking = _Lacks(root, settings)
    budgets = _Budgets(root, settings, caller)
    found: list[Appraisal] = []
    for job, prospect in zip(jobs, prospects):
        appraisal = cast("Appraisal", dict(prospect))
        try:
            lacking.tell(job, appraisal)
            if not _waits_or_runs(known.get(job["job_id"])):
                budgets.tell(job, appraisal)
        except Refused as refusal:
            if refusal.code == protocol.BAD_REQUEST:
                raise
            if appraisal["fits"]:
                appraisal.update(cast("Appraisal", unfit(refusal)))
        if job["job_id"] in known:
            appraisal["placed"] = known[job["job_id"]]
        found.append(appraisal)
    return {"jobs": found, "now": time.time()}


def is_free_now(root: Root, engine: Engine, spec: Spec, *, promised: Sequence[Promise]) -> bool:
    """
    Return whether a job could start at once, beside the queue and what is promised; True where that cannot be known.

    :param promised: GPUs, to other jobs.
    :raises Refused: it is no job's spec.
    """
    check_spec(spec)
    (prospect,) = engine.prospects([Wanted(spec)], promised, within_s=_ANSWERS_S)
    if "starts_in_s" in prospect:
        return prospect["starts_in_s"] == 0
    return prospect["fits"] and "free_gpus" not in prospect


def _known(root: Root, engine: Engine, job_ids: Sequence[str]) -> dict[str, Placed]:
    """Return what is known of those of the jobs of which anything is."""
    found: dict[str, Placed] = {}
    until = time.monotonic() + _LOOKS_S
    for job_id in job_ids:
        if job_id in found:
            continue
        # Nobody may take it for a job of which nothing is here.
        why_not = "" if time.monotonic() < until else "there was no time to look at it"
        try:
            known = {} if why_not else placed(root, engine, job_id)
        except Refused as refusal:
            if refusal.code == protocol.BAD_REQUEST:
                raise
            why_not = refusal.message
        except OSError as error:
            why_not = words_of(error)
        if why_not:
            known = {"status": {"job_id": job_id, "state": protocol.UNKNOWN, "message": why_not}}
        if known:
            found[job_id] = known
    return found


def _waits_or_runs(known: Placed | None) -> bool:
    return known is not None and known.get("status", {}).get("state") in (protocol.QUEUED, protocol.RUNNING)


def _prospects(
    root: Root, engine: Engine, jobs: Sequence[JobToAppraise], known: Mapping[str, Placed], within_s: float
) -> list[Prospect]:
    """Ask the engine once about all jobs that need the same, and about each that waits here already."""
    wanted: dict[str, Wanted] = {}
    keys = []
    promised = promises(root)
    ids = {promise.job_id for promise in promised}
    for job in jobs:
        job_id, spec = job["job_id"], job["spec"]
        status = known.get(job_id, {}).get("status")
        if status is not None and status["state"] != protocol.QUEUED:
            status = None
        is_itself = status is not None or job_id in ids
        key = json.dumps([job_id if is_itself else "", *(spec.get(name) for name in _DECISIVE)])
        wanted.setdefault(key, Wanted(spec, job_id if is_itself else "", status))
        keys.append(key)
    prospects = dict(zip(wanted, engine.prospects(list(wanted.values()), promised, within_s=within_s)))
    return [prospects[key] for key in keys]


class _Lacks:
    """Tells what has to be sent for jobs."""

    def __init__(self, root: Root, settings: Settings) -> None:
        self._root = root
        self._python = settings.get("python")
        self._lacking = Lacking(root)
        self._bytes_per_s = received_per_s(Ledger(root.own))

    def tell(self, job: JobToAppraise, appraisal: Appraisal) -> None:
        """
        Add to an appraisal.

        :raises Refused: a source is not here, or there is no room.
        """
        here, inputs = self._root.job(job["job_id"]), job["inputs"]
        if self._bytes_per_s is not None:
            appraisal["bytes_per_s"] = round(self._bytes_per_s, 1)
        self._lacking.check(here, inputs)
        uploads = self._lacking.uploads(here, inputs or (), job.get("input_bytes", ()))
        missing = [upload.missing for upload in uploads]
        if None not in missing:
            appraisal["missing_bytes"] = sum(cast("list[int]", missing))
        is_built = self._lacking.is_environment_built(here, job["spec"], inputs, self._python)
        if is_built is not None:
            appraisal["is_environment_built"] = is_built
        self._lacking.check_room(uploads)


class _Budgets:
    """Tells of jobs whose budget of GPU-hours is used up; of those that count alike it is looked at once."""

    def __init__(self, root: Root, settings: Settings, caller: Mapping[str, Any]) -> None:
        self._root = root
        self._settings = settings
        self._caller = caller
        self._known: dict[str, str | Refused] = {}

    def tell(self, job: JobToAppraise, appraisal: Appraisal) -> None:
        """
        Add to an appraisal.

        :raises Refused: a budget is used up, and the job would be refused.
        """
        record = job.get("record", {})
        request = {"spec": job["spec"], "settings": self._settings, "record": record, "caller": self._caller}
        spec = job["spec"]
        key = json.dumps([spec["gpus"], spec.get("nodes"), spec.get("time_limit_s"), record])
        if key not in self._known:
            planned = PlannedAttempt(self._root.job(job["job_id"]).path, 0, cast("Submit", request))
            try:
                self._known[key] = why_it_would_wait(self._root.own, planned)
            except Refused as refusal:
                self._known[key] = refusal
        why = self._known[key]
        if isinstance(why, Refused):
            raise why
        if why and appraisal["fits"]:
            now = time.time()
            appraisal["remark"] = why
            appraisal["starts_in_s"] = round(begin_of_next_month(now).timestamp() - now, 3)
            appraisal["start_known_by"] = BUDGET
