"""What is done with an array whose elements are on several clusters: each part is asked where it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError
from airflow_provider_gpu_cluster.gpu_run.protocol import array_status
from airflow_provider_gpu_cluster.jobs.array import listed
from airflow_provider_gpu_cluster.jobs.handle import ArrayPart, JobHandle
from airflow_provider_gpu_cluster.jobs.resubmission import resubmit_request
from airflow_provider_gpu_cluster.jobs.status import JobState, JobStatus
from airflow_provider_gpu_cluster.jobs.submission import Submission
from airflow_provider_gpu_cluster.pools.following import current_handle
from airflow_provider_gpu_cluster.transfer.download import CollectedFile

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.cluster import Cluster
    from airflow_provider_gpu_cluster.gpu_run.protocol.status import Status
    from airflow_provider_gpu_cluster.sinks import Sink

OpenCluster = Callable[[str], "Cluster"]
_Value = TypeVar("_Value", int, float, str)


def status_of(handle: JobHandle, open_cluster: OpenCluster, *, tail_bytes: int = 0) -> JobStatus:
    """
    Return the status of the whole array, as a cluster tells it that has all elements.

    :param open_cluster: returns the cluster of a connection.
    :param tail_bytes: how much of the ends of outputs to include, in bytes.
    """
    statuses = [status.to_json() for status in statuses_of_elements(handle, open_cluster)]
    telling = array_status.telling(statuses) if tail_bytes else []
    for index in telling:
        element = handle.element(index)
        size = tail_bytes // array_status.MOST_TAILS
        (told,) = open_cluster(element.gpu_cluster_conn_id).statuses([element.job_id], tail_bytes=size)
        statuses[index]["log_tail"] = told.log_tail
    return JobStatus.from_json(array_status.summary(handle.job_id, statuses))


def statuses_of_elements(handle: JobHandle, open_cluster: OpenCluster) -> list[JobStatus]:
    """Return the statuses of all elements, in their order."""
    return [
        status
        for part in handle.arrays
        for status in open_cluster(part.gpu_cluster_conn_id).statuses([element.job_id for element in part.elements])
    ]


def standing_of(array_id: str, elements: Sequence[JobStatus], *, moved_to: str | None = None) -> JobStatus:
    """
    Return how an array stands on its cluster, for one who keeps its place: from the statuses of its elements.

    It is elsewhere if one of its elements says so, whatever the others have come to.

    :param moved_to: the cluster that has it instead, if its own one was told so.
    """
    states = {element.state for element in elements}
    goes_on = (state for state in (JobState.RUNNING, JobState.UNKNOWN, JobState.QUEUED) if state in states)
    ended = next((state for state in states if state is not JobState.SUCCEEDED), JobState.SUCCEEDED)
    return JobStatus(
        array_id,
        next(goes_on, ended),
        attempt=max((element.attempt for element in elements), default=0),
        orphan_timeout_s=_least(element.orphan_timeout_s for element in elements),
        submitted_at=_least(element.submitted_at for element in elements),
        queue_place=_least(element.queue_place for element in elements),
        expected_start=_least(element.expected_start for element in elements),
        placement=next((element.placement for element in elements if element.placement is not None), None),
        moved_to=moved_to,
        elements=tuple((element.state, element.reason) for element in elements),
    )


def _least(values: Iterable[_Value | None]) -> _Value | None:
    return min((value for value in values if value is not None), default=None)


def cancel(handle: JobHandle, open_cluster: OpenCluster, *, requested_by: str, wait_s: float = 0) -> JobStatus:
    """
    Cancel all parts that can be reached.

    :param wait_s: how long to wait for each to end, in seconds.
    :return: the status of the whole array after that.
    :raises GpuClusterConnectionError: one could not be reached; the others were cancelled.
    """
    unreached: GpuClusterConnectionError | None = None
    arrays = []
    for array in handle.arrays:
        try:
            array = current_handle(array, open_cluster)
            open_cluster(array.gpu_cluster_conn_id).cancel([array.job_id], requested_by=requested_by, wait_s=wait_s)
        except GpuClusterConnectionError as error:
            unreached = unreached or error
        arrays.append(array)
    if unreached is not None:
        raise unreached
    return status_of(handle.with_arrays(arrays), open_cluster)


def resubmit(
    handle: JobHandle,
    open_cluster: OpenCluster,
    *,
    request_key: str,
    env: Mapping[str, Any] | None,
    array: Sequence[Any] | None,
) -> Submission:
    """Start the next attempts of the elements that have ended badly, each where it was, as a cluster does."""
    submissions = []
    for part, one in zip(handle.parts, handle.arrays, strict=True):
        own = None if array is None else listed(array)[part.first : part.first + part.count]
        request = resubmit_request(one.job_id, request_key=request_key, env=env, array=own)
        submissions.append(open_cluster(part.gpu_cluster_conn_id).resubmit(request))
    return as_one(handle, submissions)


def collect(
    handle: JobHandle, open_cluster: OpenCluster, sink: Sink, *, include: Sequence[str], exclude: Sequence[str]
) -> list[CollectedFile]:
    """Download the outputs of all parts, into a folder for each element, named after its index in the whole array."""
    files: list[CollectedFile] = []
    for part, array in zip(handle.parts, handle.arrays, strict=True):
        files += open_cluster(part.gpu_cluster_conn_id).collect(
            array.job_id, sink, include=include, exclude=exclude, part_of=(handle.job_id, part.first)
        )
    return files


def as_one(handle: JobHandle, submissions: Sequence[Submission]) -> Submission:
    """
    Return the submission of a whole array, from those of its parts.

    :param handle: of the whole array.
    """
    elements = [element for one in submissions for element in one.status.elements]
    told: list[Status] = [
        {"job_id": handle.job_id, "state": str(state), "reason": reason} for state, reason in elements
    ]
    status = JobStatus.from_json(array_status.summary(handle.job_id, told))
    attempt = max(one.status.attempt for one in submissions)
    return Submission(
        handle,
        replace(status, attempt=attempt),
        any(one.created for one in submissions),
        sum(one.launched for one in submissions),
        tuple((str(one.status.state), one.status.attempt) for one in submissions),
    )


def handle_of(parts: Sequence[JobHandle]) -> JobHandle:
    """
    Return the handle of a whole array.

    :param parts: the handles of its parts, in the order of their elements.
    """
    if len(parts) == 1:
        return parts[0]
    listed, first = [], 0
    for part in parts:
        count = part.array_size or 0
        listed.append(
            ArrayPart(part.job_id, part.gpu_cluster_conn_id, part.job_dir, part.engine, first=first, count=count)
        )
        first += count
    return replace(parts[0], array_size=first, parts=tuple(listed))
