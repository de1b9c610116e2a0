"""What a user may do with a job, so that a page offers nothing that is then refused."""

from __future__ import annotations

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.base_auth_manager import BaseAuthManager
from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
from airflow.models.dag import DagModel

from airflow_provider_gpu_cluster.plugins.job_detail import Rights


def rights_of(user: BaseUser, dag_id: str) -> Rights:
    """Return what a user may do with the jobs of a DAG. Blocks on Airflow's database."""
    manager: BaseAuthManager[BaseUser] = get_auth_manager()
    details = DagDetails(id=dag_id, team_name=DagModel.get_team_name(dag_id))

    def may(method: str, entity: DagAccessEntity) -> bool:
        return manager.is_authorized_dag(method=method, access_entity=entity, details=details, user=user)  # type: ignore[arg-type]

    may_end = may("PUT", DagAccessEntity.TASK_INSTANCE)
    # Airflow's own route that clears tasks asks for the same.
    return Rights(read_log=may("GET", DagAccessEntity.TASK_LOGS), cancel=may_end, clear=may_end)
