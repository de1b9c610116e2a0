"""
Requests to launch: by a task of Airflow, for an element of an array, or by a person on the host.

Every such request is made here, and so is the record of it in an attempt.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Sequence, cast

if TYPE_CHECKING:
    from .inputs import Input
    from .masks import Masks
    from .placement import Placement
    from .records import AttemptRequest, EnvironmentParts
    from .requests import ArrayPlace, Asker, ElementRequest, PartOfArray, Submit, SubmitRequest
    from .settings import Settings
    from .spec import Spec


def submit_request(
    job_id: str,
    *,
    spec: Spec,
    inputs: list[Input] | None,
    env: dict[str, str],
    run_script: str,
    request_key: str,
    generation: str,
    record: Asker,
    context: dict[str, str],
    elements: Sequence[ElementRequest] = (),
    masks: Masks | None = None,
    part: PartOfArray | None = None,
    placement: Placement | None = None,
) -> SubmitRequest:
    """
    Return a request as :func:`.jobs.submission.submit` takes it, in plain JSON values.

    :param spec: what the job runs and needs.
    :param inputs: its inputs; None when they are staged.
    :param env: the job's own environment variables; they go into no record.
    :param run_script: text of ``run.sh``.
    :param request_key: names one try; the same key gets the same attempt again.
    :param generation: changes when a user asks for a new beginning.
    :param record: who asks.
    :param context: environment variables that tell the job who it is.
    :param elements: makes the job an array.
    :param masks: masks of the job's secrets.
    :param part: which elements of a larger array those are.
    :param placement: the choice of this cluster among several; None if there was none.
    """
    request: SubmitRequest = {
        "job_id": job_id,
        "spec": spec,
        "inputs": inputs,
        "env": env,
        "run_script": run_script,
        "request_key": request_key,
        "generation": generation,
        "record": record,
        "context": context,
    }
    if elements:
        request["elements"] = list(elements)
    if part is not None:
        request["part"] = part
    if masks is not None:
        request["masks"] = masks
    if placement is not None:
        request["placement"] = placement
    return request


def to_be_carried_out(request: SubmitRequest, *, settings: Settings, umask: int, program: str) -> Submit:
    """
    Return a request with the values that are known only on the cluster.

    :param settings: of the cluster.
    :param umask: of the user's login.
    :param program: path of this program.
    """
    asked = cast("Submit", request.copy())
    asked["settings"], asked["umask"], asked["program"] = settings, umask, program
    return asked


def element_requests(request: Submit) -> list[Submit]:
    """Return a request of its own for each element of an array."""
    part: PartOfArray = request.get("part") or {"first": 0, "count": len(request["elements"])}
    common = request.copy()
    del common["elements"]
    common.pop("part", None)
    elements: list[Submit] = [
        {
            **common,
            "job_id": own["job_id"],
            "spec": {**request["spec"], **own["spec"]},
            "env": {**request["env"], **own["env"]},
            "run_script": own["run_script"],
            "array": _place(request["job_id"], index, part),
        }
        for index, own in enumerate(request["elements"], start=part["first"])
    ]
    for element, own in zip(elements, request["elements"]):
        if "masks" in own:
            element["masks"] = own["masks"]
    return elements


def _place(array_id: str, index: int, part: PartOfArray) -> ArrayPlace:
    place: ArrayPlace = {"job_id": array_id, "index": index, "count": part["count"]}
    if part["first"]:
        place["first"] = part["first"]
    return place


def attempt_request(
    request: Submit, *, requested_at: str, host: str, environment: EnvironmentParts | None
) -> AttemptRequest:
    """
    Return the record of a request in the attempt that it has made. It does not contain the job's own variables.

    :param requested_at: when the attempt is made.
    :param host: where.
    :param environment: the parts of its Python environment; None when it needs none.
    """
    record: AttemptRequest = {
        "request_key": request["request_key"],
        "generation": request["generation"],
        "requested_at": requested_at,
        "submitted": request["submitted"] if "submitted" in request else time.time(),
        "by": request["record"],
        "spec": request["spec"],
        "settings": request["settings"],
        "program": request["program"],
        "host": host,
        "umask": request["umask"],
        "context": request.get("context", {}),
        "environment": environment,
    }
    if "array" in request:
        record["array"] = request["array"]
    if "masks" in request:
        record["masks"] = request["masks"]
    if "cwd" in request:
        record["cwd"] = request["cwd"]
    if "waiter" in request:
        record["waiter"] = request["waiter"]
    if "placement" in request:
        record["placement"] = request["placement"]
    return record
