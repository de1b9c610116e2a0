"""The request to launch a job, and its result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypedDict, cast

from airflow_provider_gpu_cluster.gpu_run.protocol.submit_request import submit_request as submit_request_of
from airflow_provider_gpu_cluster.jobs.handle import JobHandle, element_id
from airflow_provider_gpu_cluster.jobs.spec import JobSpec
from airflow_provider_gpu_cluster.jobs.status import JobStatus

if TYPE_CHECKING:
    from typing_extensions import NotRequired, Unpack

    from airflow_provider_gpu_cluster.gpu_run.protocol.inputs import Input
    from airflow_provider_gpu_cluster.gpu_run.protocol.masks import Masks
    from airflow_provider_gpu_cluster.gpu_run.protocol.placement import Placement
    from airflow_provider_gpu_cluster.gpu_run.protocol.requests import Asker, ElementRequest, PartOfArray, SubmitRequest
    from airflow_provider_gpu_cluster.gpu_run.protocol.spec import Spec, SpecPart


@dataclass(frozen=True)
class Submission:
    """
    The result of a submit.

    :param created: whether this call made an attempt, of the job or of an element; False if it only found one.
    :param launched: for an array, how many attempts this call made.
    :param parts: for an array on several clusters, the state of each part, and the number of its latest attempt.
    """

    handle: JobHandle
    status: JobStatus
    created: bool
    launched: int = 0
    parts: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Element:
    """
    What differs in one element of a submitted array.

    :param spec: what it runs and needs.
    :param env: its environment variables, besides the common ones.
    :param run_script: text of its ``run.sh``.
    :param masks: masks of all of its secrets.
    """

    spec: JobSpec
    env: Mapping[str, str] = field(repr=False)
    run_script: str
    masks: Masks | None = None


class LaunchArguments(TypedDict):
    """
    What :func:`submit_request` takes besides the job's id and its inputs.

    :param env: the job's own environment variables; they are written into no record.
    :param run_script: text of ``run.sh``.
    :param request_key: identifies one try; the same key returns the same attempt.
    :param generation: changes when a user starts the job over.
    :param record: who asks.
    :param elements: the elements, if the job is an array.
    :param masks: masks of the job's secrets.
    :param part: which elements of a larger array those are.
    :param placement: the choice of this cluster among several, if there was one.
    """

    spec: JobSpec
    env: Mapping[str, str]
    run_script: str
    request_key: str
    generation: str
    record: Asker
    elements: NotRequired[Sequence[Element]]
    masks: NotRequired[Masks | None]
    part: NotRequired[PartOfArray | None]
    placement: NotRequired[Placement | None]


def submit_request(job_id: str, *, inputs: Sequence[Input] | None, **asked: Unpack[LaunchArguments]) -> SubmitRequest:
    """
    Return the request to launch a task's job; see :func:`.gpu_run.protocol.submit_request.submit_request`.

    :param inputs: its inputs; None if they are already staged.
    """
    common = asked["spec"].to_json()
    elements = enumerate(asked.get("elements", ()))
    return submit_request_of(
        job_id,
        spec=common,
        inputs=None if inputs is None else list(inputs),
        env=dict(asked["env"]),
        run_script=asked["run_script"],
        request_key=asked["request_key"],
        generation=asked["generation"],
        record=asked["record"],
        context=_context_variables(asked["record"]),
        elements=[_element(element, element_id(job_id, index), common) for index, element in elements],
        masks=asked.get("masks"),
        part=asked.get("part"),
        placement=asked.get("placement"),
    )


def _element(element: Element, job_id: str, common: Spec) -> ElementRequest:
    request: ElementRequest = {
        "job_id": job_id,
        "spec": _difference(element.spec.to_json(), common),
        "env": dict(element.env),
        "run_script": element.run_script,
    }
    if element.masks is not None:
        request["masks"] = element.masks
    return request


def _difference(value: Spec, other: Spec) -> SpecPart:
    return cast("SpecPart", {name: item for name, item in value.items() if item != other.get(name)})


def _context_variables(record: Asker) -> dict[str, str]:
    """Return the environment variables with which Airflow identifies a task."""
    names = {
        "AIRFLOW_CTX_DAG_ID": "dag_id",
        "AIRFLOW_CTX_TASK_ID": "task_id",
        "AIRFLOW_CTX_DAG_RUN_ID": "run_id",
        "AIRFLOW_CTX_TRY_NUMBER": "try_number",
        "AIRFLOW_CTX_MAP_INDEX": "map_index",
    }
    said = {name: record.get(key) for name, key in names.items()}
    return {name: str(value) for name, value in said.items() if value is not None}
