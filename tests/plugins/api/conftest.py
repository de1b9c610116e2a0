"""Airflow's own login in front of the plugin's routes, for a user who may read the logs of the DAG ``mine``."""

from __future__ import annotations

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
from airflow.utils.db import initdb
from airflow.utils.session import create_session
from airflow.utils.types import DagRunType
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import insert

from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.plugins.gpu_cluster import GpuClusterPlugin

DAG_ID = "mine"
TASK_ID = "group.train"


@pytest.fixture(scope="session")
def database() -> None:
    """Make Airflow's tables."""
    initdb()


@pytest.fixture
def browser(monkeypatch: pytest.MonkeyPatch, database: None) -> Iterator[TestClient]:
    """Return a browser in which that user has logged in."""

    def may(self: SimpleAuthManager, *, details: Any = None, access_entity: Any = None, **_: Any) -> bool:
        return details is not None and details.id == DAG_ID and access_entity is DagAccessEntity.TASK_LOGS

    monkeypatch.setattr(SimpleAuthManager, "is_authorized_dag", may)
    monkeypatch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "not a secret, and long enough for HS512 " * 2)
    purge_cached_app()
    app = FastAPI()
    for plugin in GpuClusterPlugin.fastapi_apps:
        app.mount(plugin["url_prefix"], plugin["app"])
    init_auth_manager(app)
    init_middlewares(app)
    with TestClient(app) as client:
        user = SimpleAuthManagerUser(username="ada", role="VIEWER")
        client.cookies.set("_token", get_auth_manager().generate_jwt(user))
        yield client
    purge_cached_app()


@pytest.fixture
def launched(database: None) -> Callable[..., str]:
    """Return a function that lets a task have launched a job, and returns the address of the job's routes."""

    def launch(handle: JobHandle, **collected: Any) -> str:
        run_id = f"manual__{uuid.uuid4()}+00:00"
        with create_session() as session:
            run = DagRun(dag_id=DAG_ID, run_id=run_id, run_type=DagRunType.MANUAL)
            session.add(run)
            session.flush()
            for task_id, operator, value in (
                (TASK_ID, "SubmitGpuJobOperator", handle.to_json()),
                ("collect", "CollectGpuJobOperator", collected),
            ):
                task = {"dag_id": DAG_ID, "run_id": run_id, "task_id": task_id, "map_index": -1}
                columns = {"id": uuid.uuid4(), "pool": "default_pool", "custom_operator_name": "", "operator": operator}
                session.execute(insert(TaskInstance).values(**task, **columns))
                if value:
                    session.add(XComModel(dag_run_id=run.id, key="return_value", value=value, **task))
        return f"/gpu-cluster/api/dags/{DAG_ID}/dagRuns/{run_id}/taskInstances/{TASK_ID}/job"

    return launch
