"""Collects the outputs of a job, and what of them goes into XCom."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import structlog

from airflow_provider_gpu_cluster.gpu_run.protocol.masks import hidden_in
from airflow_provider_gpu_cluster.hooks.given_job import handle_of, job_id_of
from airflow_provider_gpu_cluster.jobs.metrics import MAX_METRICS_BYTES, METRICS_FILE, parse_metrics

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.hooks.array_in_parts import ArrayInParts
    from airflow_provider_gpu_cluster.hooks.given_job import Job
    from airflow_provider_gpu_cluster.hooks.whole_job import WholeJob
    from airflow_provider_gpu_cluster.sinks import Sink

log = structlog.get_logger(__name__)


def collect(
    job: Job, at: WholeJob | ArrayInParts, sink: Sink, *, include: Sequence[str], exclude: Sequence[str]
) -> dict[str, Any]:
    """
    Download a job's outputs, and return what :meth:`.GpuClusterHook.collect` returns.

    :param at: where the job is.
    """
    files = [
        {"path": file.path, "size": file.size, "sha256": file.sha256}
        for file in at.collect(sink, include=include, exclude=exclude)
    ]
    handle = handle_of(job)
    if handle is None or handle.array_size is None:
        paths = {job_id_of(job): METRICS_FILE}
    else:
        paths = {element.job_id: f"{index}/{METRICS_FILE}" for index, element in enumerate(handle.elements)}
    found = _without_secrets(dict(zip(paths, _metrics(sink, files, list(paths.values())), strict=True)), at)
    return {
        "job_id": job_id_of(job),
        "destination": str(sink),
        "files": files,
        "metrics": found[0] if handle is None or handle.array_size is None else found,
    }


def _metrics(sink: Sink, files: list[dict[str, Any]], paths: list[str]) -> list[Any]:
    sizes = {file["path"]: file["size"] for file in files}
    room = MAX_METRICS_BYTES
    metrics = []
    for path in paths:
        room -= sizes.get(path, 0)
        if path in sizes and room < 0:
            log.warning("metrics.json is too large for XCom and stays in its file", path=path, size=sizes[path])
        metrics.append(_metrics_in(sink, path) if path in sizes and room >= 0 else None)
    return metrics


def _metrics_in(sink: Sink, path: str) -> Any:
    try:
        return parse_metrics(sink.read(path))
    except ValueError as error:
        log.warning("metrics.json is not JSON and stays in its file", path=path, error=str(error))
        return None


def _without_secrets(metrics: dict[str, Any], at: WholeJob | ArrayInParts) -> list[Any]:
    """Hide what Airflow masks in the jobs' logs: metrics go into XCom, which everybody can read."""
    given = [job_id for job_id, value in metrics.items() if isinstance(value, (str, list, dict))]
    masks = {status.job_id: status.masks for status in at.statuses_of(given)} if given else {}
    return [hidden_in(value, masks.get(job_id)) for job_id, value in metrics.items()]
