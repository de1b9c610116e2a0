"""Outlasts an outage of Airflow's API server, which has the connections, and what tasks leave and remember."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import structlog
import tenacity
from airflow.sdk import BaseHook, Connection
from airflow.sdk.exceptions import AirflowNotFoundException, AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import GetConnection

log = structlog.get_logger(__name__)

T = TypeVar("T")

# Airflow itself tries each request five times, which takes about a quarter of a minute.
OUTLAST_S = 300.0
_LONGEST_PAUSE_S = 15.0


def is_outage(error: BaseException) -> bool:
    """Return whether an error says that Airflow's API server did not answer, or failed."""
    if not isinstance(error, AirflowRuntimeError) or error.error.error is not ErrorType.API_SERVER_ERROR:
        return False
    status_code = (error.error.detail or {}).get("status_code")
    return not isinstance(status_code, int) or status_code >= 500


def outlast(call: Callable[[], T]) -> T:
    """Call something that needs Airflow's API server, again and again during an outage of it."""
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(is_outage),
        wait=tenacity.wait_random_exponential(multiplier=1, max=_LONGEST_PAUSE_S),
        stop=tenacity.stop_after_delay(OUTLAST_S),
        before_sleep=_tell,
        reraise=True,
    )
    return retrying(call)


def connection_of(conn_id: str) -> Connection:
    """
    Return an Airflow connection.

    :raises AirflowNotFoundException: it is not defined.
    """
    return outlast(lambda: _connection_of(conn_id))


def _connection_of(conn_id: str) -> Connection:
    try:
        return BaseHook.get_connection(conn_id)
    except AirflowNotFoundException:
        # Airflow says so, too, if its API server cannot be asked.
        _ask_api_server(conn_id)
        raise


def _ask_api_server(conn_id: str) -> None:
    """Ask for a connection without Airflow's own handling of errors; a process without an API server asks nobody."""
    supervisor: Any = getattr(task_runner, "SUPERVISOR_COMMS", None)
    if supervisor is None:
        return
    try:
        supervisor.send(GetConnection(conn_id=conn_id))
    except AirflowRuntimeError as error:
        if is_outage(error):
            raise


def _tell(state: tenacity.RetryCallState) -> None:
    if state.attempt_number == 1 and state.outcome is not None:
        log.warning("Airflow's API server does not answer; trying again", error=str(state.outcome.exception()))
