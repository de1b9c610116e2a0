"""The request with which a trigger launches a job, if a trigger can."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_gpu_cluster.jobs.identity import JobIdentity
from airflow_provider_gpu_cluster.jobs.request import JobRequest
from airflow_provider_gpu_cluster.jobs.submission import submit_request

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.gpu_run.protocol.requests import SubmitRequest
    from airflow_provider_gpu_cluster.sources import Source

# MySQL has 64 KiB for a trigger's arguments, and Airflow's encoding and encryption make them half as long again.
_MOST_BYTES = 32_000


def request_for_trigger(
    request: JobRequest, identity: JobIdentity, *, base_dir: Path, staged: bool
) -> SubmitRequest | None:
    """
    Return the request with which a trigger can launch a job; None when only a worker can.

    Only a worker can send files, launch an array, or send a request that is too long to store with a trigger.

    :param staged: the job's sources are already on the cluster.
    :raises InvalidJobError: a value cannot be used.
    """
    if request.array is not None:
        return None
    sources: Sequence[Source] = () if staged else request.sources(base_dir=base_dir)
    if _need_a_worker(sources):
        return None
    inputs = None if staged else [source.to_json() for source in sources]
    arguments = request.launch_arguments(identity, base_dir=base_dir, staged=staged)
    asked = submit_request(identity.job_id, inputs=inputs, **arguments)
    return asked if len(json.dumps(asked)) <= _MOST_BYTES else None


def _need_a_worker(sources: Sequence[Source]) -> bool:
    if not sources:
        return False
    from airflow_provider_gpu_cluster.sources import UploadSource

    return any(isinstance(source, UploadSource) for source in sources)
