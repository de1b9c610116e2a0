"""What the clusters of a pool are asked about a job."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.gpu_run.protocol.appraisal import JobToAppraise
    from airflow_provider_gpu_cluster.gpu_run.protocol.requests import Asker
    from airflow_provider_gpu_cluster.gpu_run.protocol.spec import Spec
    from airflow_provider_gpu_cluster.sources import Source


def job_to_appraise(job_id: str, *, spec: Spec, sources: Sequence[Source] | None, record: Asker) -> JobToAppraise:
    """
    Return what to ask about a job.

    :param sources: its inputs; those that are uploaded are read now. None if they are staged.
    :param record: who asks for it.
    """
    job: JobToAppraise = {"job_id": job_id, "spec": spec, "inputs": None, "record": record}
    if sources is not None:
        job["inputs"] = [source.to_json() for source in sources]
        job["input_bytes"] = [_bytes_of(source) for source in sources]
    return job


def _bytes_of(source: Source) -> int | None:
    """Return the size of an upload; None for what comes to the cluster by itself."""
    # Imported late, as it imports what finds files and object stores.
    from airflow_provider_gpu_cluster.sources import UploadSource

    if not isinstance(source, UploadSource):
        return None
    return sum(entry.size for entry in source.manifest if entry.kind == "file")
