"""
Who may ask for what: every route depends on one of these, or filters by :func:`readable_dags`.

Airflow's auth manager decides. What a job has printed, written or is told by its files takes the right to read the
DAG's task logs; what Airflow itself knows of the job, that to read its task instances.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Annotated

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_dag
from airflow.models.dag import DagModel
from fastapi import Depends

may_read_job = Depends(requires_access_dag("GET", DagAccessEntity.TASK_INSTANCE))
may_read_log = Depends(requires_access_dag("GET", DagAccessEntity.TASK_LOGS))
may_end_job = Depends(requires_access_dag("PUT", DagAccessEntity.TASK_INSTANCE))


def readable_dags(user: GetUserDep) -> set[str]:
    """Return the ids of the DAGs that the user may read."""
    return get_auth_manager().get_authorized_dag_ids(user=user, method="GET")


ReadableDags = Annotated[set[str], Depends(readable_dags)]


def readable_logs(user: GetUserDep) -> Callable[[Collection[str]], set[str]]:
    """Return a function that returns of some DAGs those whose logs the user may read."""

    def of(dag_ids: Collection[str]) -> set[str]:
        teams = DagModel.get_dag_id_to_team_name_mapping(list(dag_ids)) if dag_ids else {}
        manager = get_auth_manager()
        return {
            dag_id
            for dag_id in dag_ids
            if manager.is_authorized_dag(
                method="GET",
                access_entity=DagAccessEntity.TASK_LOGS,
                details=DagDetails(id=dag_id, team_name=teams.get(dag_id)),
                user=user,
            )
        }

    return of


ReadableLogs = Annotated[Callable[[Collection[str]], set[str]], Depends(readable_logs)]
