"""A job's identity, and the record of who asked for it, both derived from a task instance."""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import json
import re
import socket
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow.sdk import get_current_context, timezone
from airflow.sdk.configuration import conf

from airflow_provider_gpu_cluster import __version__
from airflow_provider_gpu_cluster.exceptions import InvalidJobError
from airflow_provider_gpu_cluster.jobs.handle import MAX_JOB_ID_LENGTH, checked_job_id

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.gpu_run.protocol.requests import Asker, Caller

_MOST_FORERUNNERS = 20
_OF_A_CALLER = (
    "dag_id",
    "run_id",
    "task_id",
    "map_index",
    "try_number",
    "triggered_by",
    "owner",
    "airflow_host",
)


@dataclass(frozen=True)
class JobIdentity:
    """
    What identifies a launch, so that repeated requests are the same launch.

    :param job_id: the job; the same in every retry of a task, a new one after a clear.
    :param request_key: one try of one task instance. A repeated request returns the same attempt, whatever its
        state.
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
    :param durable: a retry belongs to the same job. False makes every try a separate job.
    :param job_id: the job, if it is already known.
    :raises InvalidJobError: that is no job id.
    """
    ti = context["ti"]
    # A clear sets max_tries to try_number + retries; a retry does not change it.
    generation = str(ti.max_tries) if durable else f"{ti.max_tries}.{ti.try_number}"
    job_id = _job_id(context, generation) if job_id is None else checked_job_id(job_id)
    return JobIdentity(job_id, _request_key(ti), generation, record_of(context))


def forerunners_of(context: Mapping[str, Any], *, retries: int) -> list[str]:
    """
    Return the ids of all jobs that a durable task may have had before users cleared it.

    :param retries: the task's retries, which is the first value of ``max_tries``. Each clear has increased it.
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
    Derive the identity from the running task, or make one for a job with a given id.

    :raises InvalidJobError: no task is running, and no ``job_id`` is given; or that is no job id.
    """
    try:
        context = get_current_context()
    except RuntimeError:
        if job_id is None:
            raise InvalidJobError(
                "outside of a running task a job has no identity of its own; give it one with job_id="
            ) from None
        record: Asker = {"airflow_host": socket.gethostname(), "provider_version": __version__}
        return JobIdentity(checked_job_id(job_id), uuid.uuid4().hex, "", record)
    return identity_of(context, job_id=job_id)


def record_of(context: Mapping[str, Any]) -> Asker:
    """Return who and what asked for a job, as plain JSON values."""
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
        "owner": getattr(context.get("task"), "owner", None),
        "bundle_name": getattr(bundle, "name", None),
        "bundle_version": getattr(bundle, "version", None),
        "dag_version_id": str(dag_version) if dag_version else None,
        "airflow_host": getattr(ti, "hostname", None) or socket.gethostname(),
        "airflow_url": airflow_url(),
        "asked_at": _iso(timezone.utcnow()),
        "provider_version": __version__,
    }


def current_caller() -> Caller:
    """Return who asks something of a cluster: the running task, or the person who runs this process."""
    caller: Caller = {"airflow_host": socket.gethostname()}
    # It is for people; whatever keeps it from being known, the cluster can be asked.
    with contextlib.suppress(Exception):
        try:
            record = record_of(get_current_context())
        except RuntimeError:
            caller["person"] = getpass.getuser()
        else:
            caller.update({name: record[name] for name in _OF_A_CALLER})  # type: ignore[literal-required, typeddict-item]
    return caller


def requester_of(context: Mapping[str, Any]) -> str:
    """Return which task asks something of a cluster, in words for a job's record."""
    ti = context["ti"]
    return f"Airflow task {ti.dag_id}.{ti.task_id}, run {ti.run_id}"


def current_requester() -> str:
    """Return who asks something of a cluster: the task that runs here, if one does."""
    try:
        context = get_current_context()
    except RuntimeError:
        return "Airflow"
    return requester_of(context)


def airflow_url() -> str | None:
    """Return the address of this Airflow, by which others are told from it; None if ``[api] base_url`` names none."""
    url: str = (conf.get("api", "base_url", fallback="") or "").rstrip("/")
    host = urlsplit(url).hostname
    # Every Airflow on a machine of its own may have this address.
    return None if host is None or host == "localhost" or host.startswith("127.") or host == "::1" else url


def reader_of(context: Mapping[str, Any]) -> str:
    """
    Return the name under which the cluster remembers how much of a job's output a task has shown.

    The name survives retries, so that no line is shown twice; after a clear, output starts from the first line again.
    """
    ti = context["ti"]
    key = json.dumps([ti.dag_id, ti.run_id, ti.task_id, _map_index(ti), ti.max_tries])
    return "task-" + hashlib.sha256(key.encode()).hexdigest()[:16]


def _request_key(ti: Any) -> str:
    # The id of a task instance is new in every try, but the same if an executor delivers the same try twice.
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

    :param generation: changes when a user clears the task; a retry does not change it.
    :param run_date: the DAG run's date; makes the id readable, and is not part of the hash.
    :param name: name of the job in its id, not part of the hash either; by default ``task_id``.
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
