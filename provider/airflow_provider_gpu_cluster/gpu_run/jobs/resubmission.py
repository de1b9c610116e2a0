"""
Start the next attempt of a job that has ended badly, when a task asks for it that has not launched the job.

The request of the first attempt is repeated, as it is recorded here. Only the values of the job's own environment
variables are in no record: whoever asks must bring them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import protocol
from ..errors import Refused
from ..linux import regular_files
from ..protocol.acts import RESUBMIT
from ..protocol.masks import with_more
from ..reply import Reply
from ..store import arrays, records
from . import array_submission, submission
from .status import status_of

if TYPE_CHECKING:
    from ..engines.engine import Engine
    from ..protocol.records import AttemptRequest, JobRecord
    from ..protocol.replies import SubmitReply
    from ..protocol.requests import ElementRequest, ResubmitCall, Submit
    from ..store.directories import JobDirectory, Root

_MOST_SCRIPT_BYTES = 1 << 26


def answer(root: Root, engine: Engine, program: str, request: ResubmitCall) -> Reply:
    """Carry out the verb ``resubmit``."""
    job = root.job(request["job_id"])
    elements = [root.job(job_id) for job_id in arrays.elements_of(job)]
    if elements and not job.attempts():
        return Reply(_resubmit_array(root, engine, program, request, elements))
    return Reply(_resubmit_job(root, engine, program, request, job))


def _resubmit_job(root: Root, engine: Engine, program: str, request: ResubmitCall, job: JobDirectory) -> SubmitReply:
    latest = submission.latest_attempt(job)
    if latest is None:
        raise _not_launched(job)
    asked = _request_of(job, program, request, request["env"])
    after = request.get("after")
    if after is not None and latest.number != after:
        # The next attempt is there already, or somebody has started the job over.
        record = latest.request()
        handle = submission.handle_of(job, engine, record["requested_at"], record["spec"]["gpus"])
        return {"handle": handle, "status": status_of(latest, engine), "created": False}
    if submission.existing(job, engine, asked) is None:
        _complete(asked, job)
    return submission.submit(root, engine, asked)


def _resubmit_array(
    root: Root, engine: Engine, program: str, request: ResubmitCall, jobs: list[JobDirectory]
) -> SubmitReply:
    """Do the same with each element that has ended badly."""
    own = request.get("elements") or [{} for _ in jobs]
    if len(own) != len(jobs):
        raise Refused(
            protocol.BAD_REQUEST,
            "array {} has {} elements, and variables were given for {}; give the array as it was at its launch".format(
                request["job_id"], len(jobs), len(own)
            ),
        )
    asked = [
        _request_of(job, program, request, {**request["env"], **env}, is_element=True) for job, env in zip(jobs, own)
    ]
    for job, one in zip(jobs, asked):
        if submission.existing(job, engine, one) is None:
            _complete(one, job)
    elements: list[ElementRequest] = []
    for job, one in zip(jobs, asked):
        element: ElementRequest = {
            "job_id": job.job_id,
            "spec": one["spec"],
            "env": one["env"],
            "run_script": one["run_script"],
        }
        if "masks" in one:
            element["masks"] = one["masks"]
        elements.append(element)
    whole: Submit = {**asked[0], "job_id": request["job_id"], "env": {}, "elements": elements}
    place = _first_request(jobs[0]).get("array")
    if place is not None:
        whole["part"] = {"first": place["index"], "count": place["count"]}
    return array_submission.submit_array(root, engine, whole)


def _request_of(
    job: JobDirectory, program: str, request: ResubmitCall, env: dict[str, str], *, is_element: bool = False
) -> Submit:
    """Return the request that launched a job, as it is made by this one; a new attempt needs :func:`_complete`."""
    recorded = _first_request(job)
    asked: Submit = {
        "job_id": job.job_id,
        "spec": recorded["spec"],
        "inputs": None,
        "env": env,
        "run_script": "",
        "request_key": request["request_key"],
        "generation": recorded["generation"],
        # The job stays that of the task that launched it.
        "record": recorded["by"],
        "context": recorded.get("context", {}),
        "settings": request["settings"],
        "umask": request["umask"],
        "program": program,
        "caller": request.get("caller", {}),
        "act": RESUBMIT,
    }
    masks = with_more(recorded.get("masks"), request.get("secrets", ()))
    if masks is not None:
        asked["masks"] = masks
    if "placement" in recorded:
        asked["placement"] = recorded["placement"].copy()
        # It may have been put off since.
        asked["placement"].pop("start_by", None)
    if not is_element and "array" in recorded:
        asked["array"] = recorded["array"]
    return asked


def _first_request(job: JobDirectory) -> AttemptRequest:
    """Return the request of the last try's first attempt; those after it may have been given more memory."""
    latest = submission.latest_attempt(job)
    if latest is None:
        raise _not_launched(job)
    request = latest.request()
    first = request.get("recovery", {}).get("first")
    recorded = job.attempt(first).recorded_request() if isinstance(first, int) else None
    return recorded or request


def _not_launched(job: JobDirectory) -> Refused:
    return Refused(
        protocol.NO_SUCH_JOB,
        f"job {job.job_id} was not launched here (or {job.path} was deleted since), so it cannot go on; clear the task "
        "that launches it",
    )


def _complete(asked: Submit, job: JobDirectory) -> None:
    """
    Put into a request what only a new attempt needs.

    :raises Refused: the job was launched with an environment variable that is not given now, or its script is gone.
    """
    record: JobRecord | None = records.read_json(job.spec, records.MOST_BYTES_OF_LISTS)
    names = record["environment_names"] if record and "environment_names" in record else []
    missing = sorted(set(names) - set(asked["env"]))
    if missing:
        raise Refused(
            protocol.BAD_REQUEST,
            "the next attempt of {} needs its environment variables {}, whose values are not kept on the cluster; give "
            "them again, as env= (and array=) of the sensor that has resubmit_on_retry=True".format(
                job.job_id, ", ".join(missing)
            ),
        )
    try:
        script = regular_files.read(job.at("run.sh"), _MOST_SCRIPT_BYTES)
    except OSError as error:
        message = "job {} cannot go on, as its {} cannot be read: {}; clear the task that launches it"
        why = error.strerror or str(error)
        raise Refused(protocol.NO_SUCH_JOB, message.format(job.job_id, job.at("run.sh"), why)) from error
    asked["run_script"] = script.decode("utf-8", "replace")
