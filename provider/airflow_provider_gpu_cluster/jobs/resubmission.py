"""The request to start the next attempt of a job that has ended badly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_gpu_cluster.jobs.request import JobRequest

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.gpu_run.protocol.requests import ResubmitRequest


def resubmit_request(
    job_id: str, *, request_key: str, env: Any = None, array: Any = None, after: int | None = None
) -> ResubmitRequest:
    """
    Return the request, with the values that no record of the job holds.

    :param request_key: names the try of the task that asks.
    :param env: environment variables of the job, as at its launch.
    :param array: its elements, as at its launch, if it is an array whose elements have variables of their own.
    :param after: number of the attempt that has ended badly; None for whatever is the last one.
    :raises InvalidJobError: a value cannot be used.
    """
    # It stands for what the cluster has recorded.
    given = JobRequest(command="true", env=env, array=array)
    request: ResubmitRequest = {
        "job_id": job_id,
        # A task that launches a job and starts its next attempt asks for two things.
        "request_key": f"{request_key}/resubmit/{after or 'last'}",
        "env": given.variables(),
        "secrets": given.secrets(),
    }
    if array is not None:
        request["elements"] = [element.variables() for element in given.elements()]
    if after is not None:
        request["after"] = after
    return request
