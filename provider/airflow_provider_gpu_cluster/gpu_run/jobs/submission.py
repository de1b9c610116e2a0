"""Turn a request into an attempt: found, or made and queued, but never made twice."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING

from .. import protocol
from ..environments import python_environment
from ..errors import Refused
from ..linux import processes
from ..protocol.acts import JOIN, STAGE, SUBMIT
from ..protocol.placement import order
from ..protocol.submit_request import attempt_request
from ..staging import inputs as staging
from ..store import records
from ..store.acts import note_act
from ..store.budgets import PlannedAttempt, admit, check_budget
from ..store.cancelled_requests import cancelled_request
from ..store.continuing import go_on, next_number
from ..store.directories import Attempt, JobDirectory, Root
from ..store.placed_launches import check_placed, note_launch, note_launched, placed_launch
from ..store.placements import sound_placement
from ..store.settling import settle
from ..store.staging_time import staging_noted, take_staging
from ..store.unfinished import note_unfinished, unfinished_note
from ..store.writing import write_text, writing
from .status import carry_on, status_of

if TYPE_CHECKING:
    from ..engines.engine import Engine
    from ..protocol.inputs import Input
    from ..protocol.ledger import ActLine
    from ..protocol.records import AttemptRequest, JobRecord, OwnerRecord
    from ..protocol.replies import Handle, StageReply, SubmitReply
    from ..protocol.requests import Asker, Caller, StageCall, Submit
    from ..protocol.spec import Spec
    from ..protocol.status import Status


def stage(root: Root, engine: Engine, request: StageCall) -> StageReply:
    """
    Make the job's directory and bring in its inputs, without launching anything.

    :return: ``needs``, the numbers of the inputs that the worker has to send, and the handle.
    """
    job = root.job(request["job_id"])
    job.create()
    latest = latest_attempt(job)
    keep_identity(job, request["record"])
    if latest is None or status_of(latest, engine)["state"] in protocol.FINAL_STATES:
        use_linked(root, request["inputs"])
        with staging_noted(job.path):
            needs = staging.stage(root, job, request["inputs"])
    else:
        # The inputs of a running job are left alone.
        needs = []
    if not needs:
        caller = caller_of(request)
        key = "{} {}".format(caller.get("asked_at") or "", caller.get("try_number", "")).strip()
        note_act(job.path, STAGE, caller=caller, key=key)
    return {"needs": needs, "handle": handle_of(job, engine, None, 0)}


def submit(root: Root, engine: Engine, request: Submit) -> SubmitReply:
    """
    Launch a job, or find what an earlier request for it has launched.

    The same ``request_key`` always gets the same attempt, whatever its state, so that a client can ask again after a
    lost reply. Another key is another try: it joins an attempt that waits or runs, takes the result of one that
    succeeded, and starts the next attempt after one that ended badly. Another ``generation`` (a user cleared the task)
    starts over in any case, but never beside an attempt that has not ended.

    :return: the handle, the status, ``created``; or ``needs``, when the worker has to send inputs first.
    """
    job = root.job(request["job_id"])
    take_placement(request)
    if job.use():
        carry_on(job, engine)
    seen = latest_attempt(job)
    found = existing(job, engine, request)
    if found is None:
        check_not_cancelled(root, request)
        check_placed(root, request)
        engine.check(request["spec"])
        if request["inputs"]:
            # Before they are sent.
            check_budget(root.own, [next_of(job, request)])
        check_not_running(job, engine)
        if request["inputs"] is None:
            check_staged(job)
        else:
            job.create()
            keep_identity(job, request["record"])
            use_linked(root, request["inputs"])
            with staging_noted(job.path):
                needs = staging.stage(root, job, request["inputs"])
            if needs:
                return {"needs": needs}
        check_code(job, request["spec"])
        with placed_launch(root, request), job.lock():
            found = existing(job, engine, request) or newer(job, engine, seen)
            if found is None:
                check_not_cancelled(root, request)
                check_placed(root, request)
                return _created(root, job, engine, request)
    attempt, status = found
    _note_found(attempt, request, status)
    if status["state"] == protocol.QUEUED and attempt.claimed() is None:
        engine.launch([attempt])
    return _reply(job, engine, attempt, status, created=False)


def caller_of(request: StageCall | Submit) -> Caller:
    """Return who makes a request, as far as it says that."""
    said: Caller = {**request["record"], **request.get("caller", {})}
    return said


def note_submitted(attempt: Attempt, request: Submit, later: list[ActLine] | None = None) -> None:
    """
    Note in the audit trail that a request has made an attempt.

    :param later: see :func:`.store.acts.note_act`.
    """
    note_act(
        attempt.job.path,
        request.get("act", SUBMIT),
        caller=caller_of(request),
        attempt=attempt.number,
        key=request["request_key"],
        asked=request,
        later=later,
    )


def _note_found(attempt: Attempt, request: Submit, status: Status) -> None:
    """Note that a request has found an attempt: its own, which it may not have noted before it died, or another's."""
    if attempt.request()["request_key"] == request["request_key"]:
        note_submitted(attempt, request)
        return
    note_act(
        attempt.job.path,
        JOIN,
        caller=caller_of(request),
        attempt=attempt.number,
        key=request["request_key"],
        details=f"it is {status['state']}",
        asked=request,
    )


def existing(job: JobDirectory, engine: Engine, request: Submit) -> tuple[Attempt, Status] | None:
    latest = latest_attempt(job)
    if latest is None:
        return None
    if request["inputs"] is not None:
        # Without inputs the job was staged: it belongs to the task that staged it, and another one launches it.
        _check_identity(job, request["record"])
    asked = latest.request()
    status = status_of(latest, engine)
    same_generation = asked["generation"] == request["generation"]
    if "placement" in status and _is_placed_anew(asked, request):
        # The job was moved away from here, and comes back.
        return None
    if (
        asked["request_key"] == request["request_key"]
        or status["state"] not in protocol.FINAL_STATES
        or (same_generation and status["state"] == protocol.SUCCEEDED)
    ):
        return latest, status
    return None


def _is_placed_anew(asked: AttemptRequest, request: Submit) -> bool:
    """Return whether a request is for a later choice of this cluster than an attempt."""
    return "placement" in request and (
        "placement" not in asked or order(request["placement"]) > order(asked["placement"])
    )


def newer(job: JobDirectory, engine: Engine, seen: Attempt | None) -> tuple[Attempt, Status] | None:
    """
    Return the attempt that another try has made since this request began, however it ended.

    Staging can take long, and the sender of this request may be dead by now: it must not add an attempt to theirs.
    """
    latest = latest_attempt(job)
    if latest is None or (seen is not None and latest.number == seen.number):
        return None
    return latest, status_of(latest, engine)


def take_placement(request: Submit) -> None:
    """
    Leave only a placement in a request that makes sense.

    :raises Refused: it makes none.
    """
    if "placement" in request:
        request["placement"] = sound_placement(request["placement"])


def check_not_cancelled(root: Root, request: Submit) -> None:
    """
    Refuse a launch that was cancelled while it was on its way.

    :raises Refused: it was.
    """
    asked = cancelled_request(root, request["job_id"], request["request_key"])
    if asked is not None:
        raise Refused(
            protocol.JOB_CONFLICT,
            "job {} was cancelled by {} before it was launched, and this request launches it no more; another try "
            "can".format(request["job_id"], asked["by"]),
        )


def check_not_running(job: JobDirectory, engine: Engine) -> None:
    """
    Refuse to launch a job beside itself if it has deleted its own directory, and so its records.

    :raises Refused: it still holds its GPUs.
    """
    if job.attempts():
        return
    try:
        still_runs = engine.still_runs(job.job_id)
    except Refused:
        # A scheduler that does not answer now must not keep a job from waiting for it.
        return
    if still_runs:
        raise Refused(
            protocol.JOB_CONFLICT,
            f"job {job.job_id} runs, but its directory {job.path} is gone; wait for its end, or end its processes",
        )


def latest_attempt(job: JobDirectory) -> Attempt | None:
    attempts = job.attempts()
    return attempts[-1] if attempts else None


def _created(root: Root, job: JobDirectory, engine: Engine, request: Submit) -> SubmitReply:
    """Make the next attempt and launch it; call under the job's lock."""
    admission = admit(root.own, [next_of(job, request)])
    note_launch(root, request)
    attempt = add_attempt(job, engine, request, why_held=admission.held.get(job.path, ""))
    try:
        engine.launch([attempt])
    finally:
        note_launched(root, request)
        note_submitted(attempt, request)
    status = status_of(attempt, engine)
    if admission.remark:
        status["notes"] = [*status.get("notes", ()), admission.remark]
    return _reply(job, engine, attempt, status, created=True)


def next_of(job: JobDirectory, request: Submit) -> PlannedAttempt:
    """Return the attempt that a request would make now."""
    return PlannedAttempt(job.path, next_number(job), request)


def add_attempt(job: JobDirectory, engine: Engine, request: Submit, *, why_held: str = "") -> Attempt:
    """
    Make the next attempt; call under the job's lock.

    :param why_held: why it must wait for its budget of GPU-hours; empty if it may start.
    """
    before = latest_attempt(job)
    # As long as its outputs are there.
    settle(job)
    if before is not None and before.request()["generation"] != request["generation"]:
        # A user asked for a new beginning: outputs of the earlier job must not look like those of this one.
        with writing(job.path):
            if os.path.isdir(job.at("outputs")) and not os.path.exists(before.at("outputs")):
                os.rename(job.at("outputs"), before.at("outputs"))
            os.makedirs(job.at("outputs"), exist_ok=True)
    if before is not None:
        # An older version of this program may have ended it.
        before.forget_secrets()
        _put_logs_aside(job, before.number)
    record = attempt_request(
        request,
        requested_at=records.now(),
        host=processes.hostname(),
        environment=python_environment.wanted(
            request["spec"].get("requirements"),
            request["spec"].get("setup", ""),
            request["settings"].get("python"),
            job.at("code"),
        ),
    )
    record["interpreter"] = sys.executable
    if why_held:
        record["over_budget"] = why_held
    if record["environment"] is not None:
        record["environment"]["interpreter"] = sys.executable
    with writing(job.path):
        write_text(job.at("run.sh"), _script(request))
        os.chmod(job.at("run.sh"), 0o700)
    _describe(job, engine, request)
    number = next_number(job)
    go_on(job, record, number)
    attempt = job.add_attempt(number, record, request["env"])
    if attempt is None:
        raise Refused(protocol.JOB_CONFLICT, f"attempt {number} of {job.job_id} was made by another request")
    take_staging(job.path, attempt.path)
    note_unfinished(job.path, number, unfinished_note(record, is_held=bool(why_held)))
    attempt.event("requested", by=request["record"], request_key=request["request_key"])
    return attempt


def _script(request: Submit) -> str:
    if "placement" not in request:
        return request["run_script"]
    from ..supervise.start_check import with_check

    return with_check(request["run_script"], request["program"])


def _describe(job: JobDirectory, engine: Engine, request: Submit) -> None:
    """Write a description of the job for people."""
    record: JobRecord = {
        "job_id": job.job_id,
        "by": request["record"],
        "spec": request["spec"],
        "environment_names": sorted(request["env"]),
        "engine": engine.name,
        "inputs": records.read_json(job.at(".job", "inputs.json"), records.MOST_BYTES_OF_LISTS) or {},
    }
    if "array" in request:
        record["array"] = request["array"]
    records.write_json(job.spec, record)


def _put_logs_aside(job: JobDirectory, number: int) -> None:
    """Add the number of an ended attempt to the names of its logs, so that the next attempt's begin empty."""
    for name in ("training.log", "error.log", "progress.jsonl", "usage.jsonl"):
        stem, suffix = os.path.splitext(name)
        with contextlib.suppress(FileNotFoundError), writing(job.path):
            os.rename(job.at("logs", name), job.at("logs", f"{stem}.attempt-{number}{suffix}"))


def _reply(job: JobDirectory, engine: Engine, attempt: Attempt, status: Status, created: bool) -> SubmitReply:
    request = attempt.request()
    handle = handle_of(job, engine, request["requested_at"], request["spec"]["gpus"])
    return {"handle": handle, "status": status, "created": created}


def handle_of(job: JobDirectory, engine: Engine, submitted_at: str | None, gpus: int) -> Handle:
    return {
        "job_id": job.job_id,
        "job_dir": job.path,
        "engine": engine.name,
        "submitted_at": submitted_at,
        "gpus": gpus,
    }


_IDENTITY = ("dag_id", "run_id", "task_id", "map_index")


def keep_identity(job: JobDirectory, record: Asker, *, is_staged: bool = False) -> None:
    """
    Note which task this directory belongs to, or find that it belongs to another.

    :param is_staged: whether it may belong to a task that has staged the job for this one.
    """
    owner: OwnerRecord = {"job_id": job.job_id, "by": record}
    with writing(job.path):
        if not records.create_json(job.at(".job", "owner.json"), owner) and not is_staged:
            _check_identity(job, record)


def _check_identity(job: JobDirectory, record: Asker) -> None:
    """
    Refuse a job whose directory another task has made.

    :raises Refused: two tasks have the same job id.
    """
    noted: OwnerRecord | None = records.read_json(job.at(".job", "owner.json"))
    owner: Asker = noted.get("by", {}) if noted else {}
    mine, theirs = ([who.get(name) for name in _IDENTITY] for who in (record, owner))
    if mine != theirs:
        raise Refused(
            protocol.JOB_CONFLICT,
            "{} is the directory of another task's job ({}); rename the task, or remove that directory".format(
                job.path, ", ".join(f"{name}={owner.get(name)}" for name in _IDENTITY)
            ),
        )


def use_linked(root: Root, inputs: list[Input]) -> None:
    """Note the use of jobs whose outputs become inputs of another, before links lead to those outputs."""
    for wanted in inputs:
        if wanted["type"] == "cluster":
            path = os.path.relpath(os.path.realpath(os.path.expanduser(wanted["path"])), os.path.realpath(root.path))
            with contextlib.suppress(Refused):
                root.job(path.split(os.sep)[0]).use()


def check_staged(job: JobDirectory) -> None:
    """
    Refuse to launch a staged job whose directory does not exist.

    :raises Refused: it was deleted, or never staged.
    """
    if not job.exists():
        raise Refused(
            protocol.NOT_STAGED,
            f"job {job.job_id} was to be launched as staged, but there is no {job.path}; stage it (again) first",
        )
    job.create()


def check_code(job: JobDirectory, spec: Spec) -> None:
    """
    Refuse an entry script that is not in the code.

    :raises Refused: the message says what the code contains instead.
    """
    script = spec.get("entry_script")
    if script is None or os.path.isfile(job.at("code", script)):
        return
    there: list[str] = sorted(os.listdir(job.at("code")))
    if there:
        has = "which has {}".format(", ".join(there[:10]) + (", ..." if len(there) > 10 else ""))
    else:
        has = "which is empty: was anything given as code?"
    raise Refused(
        protocol.ENTRY_SCRIPT_MISSING, f"the entry script {script!r} is not in the code of {job.job_id}, {has}"
    )
