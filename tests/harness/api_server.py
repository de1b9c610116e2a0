"""Airflow's login in front of this package's part of the API server, under a base path, in this process."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from airflow.api_fastapi.app import get_auth_manager, init_auth_manager, purge_cached_app
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from airflow.api_fastapi.core_api.app import init_middlewares
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from airflow.utils.types import DagRunType
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import insert

from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.plugins.gpu_cluster import GpuClusterPlugin
from airflow_provider_gpu_cluster.tasks.paths import URL_PREFIX

BASE_PATH = "/some/base"
API = f"{BASE_PATH}{URL_PREFIX}/api"
DAG = "mine"
HANDLE = JobHandle("mine-train-1", "lab", "/jobs/mine-train-1", "host", "2026-01-02T03:04:05+00:00", 1)

EVERYTHING = {
    ("GET", DagAccessEntity.TASK_INSTANCE),
    ("PUT", DagAccessEntity.TASK_INSTANCE),
    ("GET", DagAccessEntity.TASK_LOGS),
}
Rights = set[tuple[str, DagAccessEntity]]


@contextlib.contextmanager
def api_server(patch: pytest.MonkeyPatch, rights: Rights) -> Iterator[TestClient]:
    """
    Yield a client that is not logged in.

    :param rights: what a user may do with the DAG ``mine``; the caller may change them meanwhile. Other DAGs are not
        to be seen.
    """

    def may(self: Any, *, method: str, details: Any = None, access_entity: Any = None, **_: Any) -> bool:
        return details is not None and details.id == DAG and (method, access_entity) in rights

    patch.setattr(SimpleAuthManager, "is_authorized_dag", may)
    patch.setattr(SimpleAuthManager, "is_authorized_connection", lambda self, **_: False)
    with own_part(patch, BASE_PATH) as client:
        yield client


@contextlib.contextmanager
def own_part(patch: pytest.MonkeyPatch, base_path: str = "") -> Iterator[TestClient]:
    """Yield a client of this package's part of the API server, behind Airflow's login, that is not logged in."""
    patch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "not a secret, and long enough for HS512 " * 2)
    purge_cached_app()
    app = FastAPI(root_path=base_path)
    for plugin in GpuClusterPlugin.fastapi_apps:
        app.mount(plugin["url_prefix"], plugin["app"])
    init_auth_manager(app)
    init_middlewares(app)
    with TestClient(app, root_path=base_path) as client:
        yield client
    purge_cached_app()


def token(user: str = "ada") -> str:
    """Return a valid token of a user."""
    return get_auth_manager().generate_jwt(SimpleAuthManagerUser(username=user, role="VIEWER"))


def launched(
    xcom: Any, *, map_index: int = -1, key: str = "return_value", state: str | None = None, dag_id: str = DAG
) -> Callable[..., str]:
    """
    Put a task instance with this XCom into the database.

    :return: a function that returns the address of its job, or of ``what`` below it, with a query.
    """
    task: dict[str, Any] = {"dag_id": dag_id, "run_id": f"manual__{uuid.uuid4()}+00:00", "task_id": "group.train"}
    columns = {**task, "map_index": map_index}
    with create_session() as session:
        run = DagRun(dag_id=dag_id, run_id=task["run_id"], run_type=DagRunType.MANUAL)
        session.add(run)
        session.flush()
        session.execute(
            insert(TaskInstance).values(
                **columns, id=uuid.uuid4(), pool="default_pool", custom_operator_name="", state=state
            )
        )
        for name, value in ({key: xcom} if not isinstance(xcom, Several) else xcom).items():
            if value is not None:
                session.add(XComModel(dag_run_id=run.id, key=name, value=value, **columns))

    def address(what: str = "", **query: Any) -> str:
        path = f"{API}/dags/{dag_id}/dagRuns/{task['run_id']}/taskInstances/{task['task_id']}/job{what}"
        asked = {"map_index": map_index, **query}
        return f"{path}?{'&'.join(f'{name}={value}' for name, value in asked.items())}".replace("+", "%2B")

    return address


class Several(dict[str, Any]):
    """Several XComs by their keys."""
