"""
The XComs by which others find a task's job again.

What only this package reads stays in Airflow's database, whatever XCom backend is configured, so that the API server
and the DAG processor can read it without the backend's storage.
"""

from __future__ import annotations

import json
import logging
from types import SimpleNamespace
from typing import Any

from airflow.sdk.bases.xcom import BaseXCom
from airflow.sdk.execution_time.xcom import XCom

from airflow_provider_gpu_cluster.connection.words import words_of
from airflow_provider_gpu_cluster.hooks.airflow_outage import outlast
from airflow_provider_gpu_cluster.tasks.links import KILL_XCOM_KEY, GpuJobLink

log = logging.getLogger(__name__)

# The job's handle, for this package alone.
HANDLE_XCOM_KEY = "gpu_job"
# The same, of a job that a cancel teardown ends; what becomes of the job if that teardown never runs.
TEARDOWN_XCOM_KEY = "gpu_job_cancel_with_run"
# What the table of all jobs needs to know of a launch.
LAUNCH_XCOM_KEY = "gpu_job_launch"
# What only this package, or Airflow's UI, reads.
PLAIN_XCOM_KEYS = frozenset({GpuJobLink().xcom_key, HANDLE_XCOM_KEY, KILL_XCOM_KEY, TEARDOWN_XCOM_KEY, LAUNCH_XCOM_KEY})
# All keys under which a task may have its job's handle. The first is the most likely to be readable.
HANDLE_XCOM_KEYS = (HANDLE_XCOM_KEY, KILL_XCOM_KEY, TEARDOWN_XCOM_KEY, BaseXCom.XCOM_RETURN_KEY)


def push_note(ti: Any, key: str, value: Any) -> None:
    """Push an XCom of a running task; this package's own stay in Airflow's database."""
    if key not in PLAIN_XCOM_KEYS or _is_in_database():
        outlast(lambda: ti.xcom_push(key=key, value=value))
    else:
        outlast(lambda: BaseXCom.set(key, value, **place_of(ti, ti.task_id, ti.map_index)))


def needs_a_note(key: str) -> bool:
    """Return whether a handle under this key may be stored where only workers can read it."""
    return key == BaseXCom.XCOM_RETURN_KEY and not _is_in_database()


def place_of(ti: Any, task_id: str, map_index: int | None) -> dict[str, Any]:
    """Return the arguments by which Airflow finds the XComs of a task of the same run."""
    place = {"dag_id": ti.dag_id, "run_id": ti.run_id, "task_id": task_id}
    return {**place, "map_index": -1 if map_index is None else map_index}


def read_note(stored: Any) -> Any:
    """
    Return the value of an XCom as the database has it, or None if it cannot be read.

    It is read as plain JSON first. Only what is no dict goes through the configured XCom backend, to which it may
    be the place where the value is stored.
    """
    value = stored
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            value = stored
    if isinstance(value, dict) or value is None or _is_in_database():
        return value
    try:
        return XCom.deserialize_value(SimpleNamespace(value=stored))
    except Exception as error:
        # Whatever is wrong with one value must not keep others from being read.
        log.warning("could not read an XCom through %s: %s", XCom.__name__, words_of(error))
        return None


class StoredXCom(BaseXCom):
    """XComs as the database has them; :func:`read_note` reads one."""

    @staticmethod
    def deserialize_value(result: Any) -> Any:
        return result.value


def job_in(value: Any) -> tuple[str, str] | None:
    """Return the connection and the job id that a note or a handle names; None if it names none."""
    if not isinstance(value, dict):
        return None
    conn_id, job_id = value.get("gpu_cluster_conn_id"), value.get("job_id")
    if isinstance(conn_id, str) and isinstance(job_id, str) and conn_id and job_id:
        return conn_id, job_id
    return None


def jobs_in(value: Any) -> list[tuple[str, str]]:
    """Return the same, with all parts of an array that is on several clusters."""
    first = job_in(value)
    if first is None:
        return []
    parts = value.get("parts")
    return list(dict.fromkeys([first, *filter(None, map(job_in, parts if isinstance(parts, list) else ()))]))


def _is_in_database() -> bool:
    """Return whether Airflow stores all XComs in its database as they are."""
    return XCom is BaseXCom
