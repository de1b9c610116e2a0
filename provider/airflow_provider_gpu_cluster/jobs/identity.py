"""Who asks for a job: its identity and its record, as a task instance of Airflow gives them."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk import get_current_context, timezone

from airflow_provider_gpu_cluster import __version__
from airflow_provider_gpu_cluster.exceptions import InvalidJobError
from airflow_provider_gpu_cluster.jobs.handle import MAX_JOB_ID_LENGTH

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.gpu_run.protocol.requests import Asker

_MOST_FORERUNNERS = 20


@dataclass(frozen=True)
class JobIdentity:
    """
    What makes a launch the same launch, however often it is asked for.

    :param job_id: the job; the same in every retry of a task, another after a clear.
    :param request_key: one try of one task instance. Asked for twice, it is the same attempt, whatever became
        of it.
    :param generation: changes when a user clears the task (and in every try unless the job is durable).
    :param record: who and what asked, for the job's ``spec.json``.
    """

    job_id: str
    request_key: str
    generation: str
    record: Asker


def identity_of(context: Mapping[str, Any], *, durable: bool = True, job_id: str | None = None) -> JobIdentity:
    """
    Derive the identity of the job that a running task asks for.

    :param context: the task's context.
    :param durable: a retry belongs to the same job. False makes every try a job of its own.
    :param job_id: the job, where it is known already.
    """
    ti = context["ti"]
    # A clear sets max_tries to try_number + retries; a retry leaves it.
    generation = str(ti.max_tries) if durable else f"{ti.max_tries}.{ti.try_number}"
    if job_id is None:
        job_id = _job_id(context, generation)
    return JobIdentity(job_id, _request_key(ti), generation, record_of(context))


def forerunners_of(context: Mapping[str, Any], *, retries: int) -> list[str]:
    """
    Return the ids of all jobs that a task can have had before users cleared it, if it is durable.

    :param retries: of the task: what ``max_tries`` was at first. Each clear has made more of it.
    """
    generations = range(retries, context["ti"].max_tries)
    return [_job_id(context, str(generation)) for generation in generations[-_MOST_FORERUNNERS:]]


def _job_id(context: Mapping[str, Any], generation: str) -> str:
    ti, dag_run = context["ti"], context["dag_run"]
    return make_job_id(
        dag_id=ti.dag_id,
        run_id=ti.run_id,
        task_id=ti.task_id,
        map_index=_map_index(ti),
        generation=generation,
        name=ti.task_id.removesuffix(".stage"),  # in a task group the job is known by the group's name
        run_date=dag_run.logical_date or dag_run.run_after,
    )


def current_identity(*, job_id: str | None = None) -> JobIdentity:
    """
    Derive the identity from the task that is running now, or make one for a job that has a name.

    :raises InvalidJobError: no task is running and no ``job_id`` is given.
    """
    try:
        context = get_current_context()
    except RuntimeError:
        if job_id is None:
            raise InvalidJobError(
                "outside of a running task a job has no identity of its own; give it one with job_id="
            ) from None
        record: Asker = {"airflow_host": socket.gethostname(), "provider_version": __version__}
        return JobIdentity(job_id, uuid.uuid4().hex, "", record)
    return identity_of(context, job_id=job_id)


def record_of(context: Mapping[str, Any]) -> Asker:
    """Say who and what asked for a job, in plain JSON values."""
    ti, dag_run = context["ti"], context["dag_run"]
    bundle = getattr(ti, "bundle_instance", None)
    dag_version = getattr(ti, "dag_version_id", None)
    return {
        "dag_id": ti.dag_id,
        "run_id": ti.run_id,
        "task_id": ti.task_id,
        "map_index": _map_index(ti),
        "try_number": ti.try_number,
        "logical_date": _iso(dag_run.logical_date),
        "triggered_by": getattr(dag_run, "triggering_user_name", None),
        "bundle_name": getattr(bundle, "name", None),
        "bundle_version": getattr(bundle, "version", None),
        "dag_version_id": str(dag_version) if dag_version else None,
        "airflow_host": getattr(ti, "hostname", None) or socket.gethostname(),
        "asked_at": _iso(timezone.utcnow()),
        "provider_version": __version__,
    }


def reader_of(context: Mapping[str, Any]) -> str:
    """
    Name the place up to which a task has shown a job's output, as kept on the cluster.

    It outlives retries, so that no line is shown twice; a clear starts from the first line again.
    """
    ti = context["ti"]
    key = json.dumps([ti.dag_id, ti.run_id, ti.task_id, _map_index(ti), ti.max_tries])
    return "task-" + hashlib.sha256(key.encode()).hexdigest()[:16]


def _request_key(ti: Any) -> str:
    # The id of a task instance is new in every try, and stays when an executor delivers the same try twice.
    return f"{ti.id}/{ti.try_number}"


def _map_index(ti: Any) -> int:
    return -1 if ti.map_index is None else int(ti.map_index)


def _iso(moment: Any) -> str | None:
    return moment.isoformat() if moment is not None else None


def make_job_id(
    *,
    dag_id: str,
    run_id: str,
    task_id: str,
    map_index: int,
    generation: str,
    run_date: datetime,
    name: str | None = None,
) -> str:
    """
    Derive the identity of a job: the same task instance always gets the same one, on any machine and in any retry.

    :param generation: changes when a user clears the task; a retry leaves it.
    :param run_date: the DAG run's date; makes the id readable, and does not take part in the hash.
    :param name: what to call the job in its id, which does not take part in the hash either; by default ``task_id``.
    :return: ``<dag>-<task>-<yyyymmddThhmmss>-<8 hex>``, only ``[A-Za-z0-9._-]``, at most 100 characters.
    """
    key = json.dumps([dag_id, run_id, task_id, map_index, generation])
    digest = hashlib.sha256(key.encode()).hexdigest()[:8]
    stamp = run_date.astimezone(timezone.utc).strftime("%Y%m%dT%H%M%S")
    tail = f"-{stamp}-{digest}"
    head = "-".join(_readable(part) for part in (dag_id, name or task_id))
    return head[: MAX_JOB_ID_LENGTH - len(tail)].rstrip("-._") + tail


def _readable(text: str) -> str:
    """Reduce any text to characters that are safe in a path, a process list and a Slurm job name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("-._") or "x"
