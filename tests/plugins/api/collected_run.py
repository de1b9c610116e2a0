"""A run in Airflow's database whose job was launched, and perhaps collected."""

from __future__ import annotations

import uuid
from typing import Any

from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from airflow.utils.types import DagRunType
from sqlalchemy import insert

from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from tests.harness.api_server import API, DAG

_TASK = "group.train"


def job_address(handle: JobHandle, **collected: Any) -> str:
    """
    Let a task have launched a job, and return the address of the job.

    :param collected: what a task of the same run has returned that collects.
    """
    run_id = f"manual__{uuid.uuid4()}"
    tasks = ((_TASK, "SubmitGpuJobOperator", handle.to_json()), ("collect", "CollectGpuJobOperator", collected))
    with create_session() as session:
        run = DagRun(dag_id=DAG, run_id=run_id, run_type=DagRunType.MANUAL)
        session.add(run)
        session.flush()
        for task_id, operator, value in tasks:
            task = {"dag_id": DAG, "run_id": run_id, "task_id": task_id, "map_index": -1}
            columns = {"id": uuid.uuid4(), "pool": "default_pool", "custom_operator_name": "", "operator": operator}
            session.execute(insert(TaskInstance).values(**task, **columns))
            if value:
                session.add(XComModel(dag_run_id=run.id, key="return_value", value=value, **task))
    return f"{API}/dags/{DAG}/dagRuns/{run_id}/taskInstances/{_TASK}/job"
