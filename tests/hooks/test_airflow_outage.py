"""Outages of Airflow's API server, as a task sees them."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from airflow.sdk import Connection
from airflow.sdk.exceptions import AirflowNotFoundException, AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import ErrorResponse, GetConnection

from airflow_provider_gpu_cluster.hooks import airflow_outage
from airflow_provider_gpu_cluster.hooks.airflow_outage import connection_of, is_outage, outlast


def error(kind: ErrorType, detail: Any = None) -> AirflowRuntimeError:
    return AirflowRuntimeError(ErrorResponse(error=kind, detail=detail))


AWAY = error(ErrorType.API_SERVER_ERROR, {"status_code": None, "message": "Connection refused"})


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the pauses that are made, without making them."""
    made: list[float] = []
    monkeypatch.setattr(time, "sleep", made.append)
    return made


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (AWAY, True),
        (error(ErrorType.API_SERVER_ERROR, None), True),
        (error(ErrorType.API_SERVER_ERROR, {"status_code": 503}), True),
        (error(ErrorType.API_SERVER_ERROR, {"status_code": 404}), False),
        (error(ErrorType.API_SERVER_ERROR, {"status_code": 409}), False),
        (error(ErrorType.CONNECTION_NOT_FOUND), False),
        (error(ErrorType.PERMISSION_DENIED), False),
        (ValueError("x"), False),
    ],
)
def test_what_is_an_outage(told: BaseException, expected: bool) -> None:
    assert is_outage(told) is expected


def test_it_is_outlasted(pauses: list[float]) -> None:
    answers: list[Any] = [AWAY, AWAY, "here"]

    def call() -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    assert outlast(call) == "here"
    assert len(pauses) == 2


def test_not_for_ever(pauses: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(airflow_outage, "OUTLAST_S", 0.0)
    with pytest.raises(AirflowRuntimeError, match="Connection refused"):
        outlast(lambda: (_ for _ in ()).throw(AWAY))


class Supervisor:
    """Stands for the process that passes a task's requests on to the API server."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)

    def send(self, message: Any) -> Any:
        assert isinstance(message, GetConnection)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.mark.usefixtures("pauses")
@pytest.mark.parametrize("outages", [0, 3])
def test_a_connection_that_is_not_defined_is_told_from_one_that_cannot_be_asked_for(
    outages: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = Supervisor(*[AWAY] * outages, ErrorResponse(error=ErrorType.CONNECTION_NOT_FOUND))
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", supervisor, raising=False)
    # Airflow's own backend of connections takes every error for "not here".
    monkeypatch.setattr("airflow.sdk.execution_time.supervisor.ensure_secrets_backend_loaded", list)
    with pytest.raises(AirflowNotFoundException):
        connection_of("not_there")
    assert supervisor.answers == []


def test_a_connection_is_read_when_the_outage_is_over(pauses: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", Supervisor(*[AWAY] * 9), raising=False)

    def come_back(pause: float) -> None:
        pauses.append(pause)
        monkeypatch.setenv("AIRFLOW_CONN_COMES_BACK", json.dumps({"conn_type": "gpu_cluster", "host": "h"}))

    monkeypatch.setattr(time, "sleep", come_back)
    found: Connection = connection_of("comes_back")
    assert found.host == "h"
    assert len(pauses) == 1
