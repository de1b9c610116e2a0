"""
Who may ask for what: every route depends on one of these, or filters by :func:`readable_dags`.

Airflow's auth manager decides. What a job has printed, written or is told by its files takes the right to read the
DAG's task logs; what Airflow itself knows of the job, that to read its task instances.
"""

from __future__ import annotations

from typing import Annotated

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_dag
from fastapi import Depends

may_read_job = Depends(requires_access_dag("GET", DagAccessEntity.TASK_INSTANCE))
may_read_log = Depends(requires_access_dag("GET", DagAccessEntity.TASK_LOGS))
may_end_job = Depends(requires_access_dag("PUT", DagAccessEntity.TASK_INSTANCE))


def readable_dags(user: GetUserDep) -> set[str]:
    """Return the ids of the DAGs that the user may read."""
    return get_auth_manager().get_authorized_dag_ids(user=user, method="GET")


ReadableDags = Annotated[set[str], Depends(readable_dags)]
