"""What a cluster is asked to launch, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_gpu_cluster.job import JobHandle, JobStatus, element_id
from airflow_provider_gpu_cluster.spec import JobSpec

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.job_log import Log


@dataclass(frozen=True)
class Submission:
    """
    What came of a submit.

    :param created: whether this call made the attempt, or one of an element; False when it found one.
    :param launched: of an array, how many attempts it made.
    """

    handle: JobHandle
    status: JobStatus
    created: bool
    launched: int = 0

    def tell(self, log: Log, *, cluster: str, duration_s: float) -> None:
        """Say in a task's log that the job was launched, or found."""
        handle, size = self.handle, self.handle.array_size
        what = "GPU job" if size is None else "GPU job array"
        elements = {"elements": size, "launched": self.launched, "found": size - self.launched} if size else {}
        log.info(
            f"{what} launched" if self.created else f"{what} found again; it is not launched twice",
            job_id=handle.job_id,
            cluster=cluster,
            attempt=self.status.attempt,
            state=str(self.status.state),
            job_dir=handle.job_dir,
            duration=round(duration_s, 2),
            **elements,
        )


@dataclass(frozen=True)
class Element:
    """
    What is an element's own, of an array that is submitted.

    :param spec: what it runs and needs.
    :param env: its variables, besides those of all.
    :param run_script: text of its ``run.sh``.
    """

    spec: JobSpec
    env: Mapping[str, str] = field(repr=False)
    run_script: str


def submit_request(
    job_id: str,
    *,
    inputs: Sequence[Mapping[str, Any]] | None,
    spec: JobSpec,
    env: Mapping[str, str],
    run_script: str,
    request_key: str,
    generation: str,
    record: Mapping[str, Any],
    elements: Sequence[Element] = (),
) -> dict[str, Any]:
    """
    Return a request as :func:`.gpu_run.submission.submit` takes it, in plain JSON values.

    :param inputs: its inputs; None when they are staged.
    :param env: the job's own environment variables; they go into no record.
    :param run_script: text of ``run.sh``.
    :param request_key: names one try; with the same key the same attempt comes back.
    :param generation: changes when a user asks for a new beginning.
    :param record: who asks.
    :param elements: makes an array of it.
    """
    request: dict[str, Any] = {
        "job_id": job_id,
        "spec": spec.to_json(),
        "inputs": inputs,
        "env": dict(env),
        "run_script": run_script,
        "request_key": request_key,
        "generation": generation,
        "record": record,
        "context": _context_variables(record),
    }
    if elements:
        request["elements"] = [
            {
                "job_id": element_id(job_id, index),
                "spec": _difference(element.spec.to_json(), request["spec"]),
                "env": dict(element.env),
                "run_script": element.run_script,
            }
            for index, element in enumerate(elements)
        ]
    return request


def _difference(value: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    return {name: item for name, item in value.items() if item != other[name]}


def _context_variables(record: Mapping[str, Any]) -> dict[str, str]:
    """Return the environment variables by which Airflow tells a task who it is."""
    names = {
        "AIRFLOW_CTX_DAG_ID": "dag_id",
        "AIRFLOW_CTX_TASK_ID": "task_id",
        "AIRFLOW_CTX_DAG_RUN_ID": "run_id",
        "AIRFLOW_CTX_TRY_NUMBER": "try_number",
        "AIRFLOW_CTX_MAP_INDEX": "map_index",
    }
    return {name: str(record[key]) for name, key in names.items() if record.get(key) is not None}
