"""Which clusters a user sees: those whose connections they may read, and those where a DAG of theirs has jobs."""

from __future__ import annotations

import contextlib
from collections.abc import Collection

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.base_auth_manager import ResourceMethod
from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from airflow.models.connection import Connection
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from sqlalchemy import select
from sqlalchemy.orm import Session

from airflow_provider_gpu_cluster.job_table.migrated import what_is_missing
from airflow_provider_gpu_cluster.job_table.queries import connections_of
from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.plugins.cluster_view import Viewer
from airflow_provider_gpu_cluster.plugins.listed_connections import all_connection_ids
from airflow_provider_gpu_cluster.tasks.job_notes import PLAIN_XCOM_KEYS, read_note

_MOST_JOBS = 200


def viewers(user: BaseUser, dags: Collection[str]) -> dict[str, Viewer]:
    """
    Return what a user may see of each cluster, by its connection. Blocks on Airflow's database.

    :param dags: the DAGs that they may read.
    """
    conn_ids = set(all_connection_ids())
    readable = _permitted(user, "GET", conn_ids)
    editable = _permitted(user, "PUT", readable)
    used = (conn_ids - readable) and conn_ids & _used_by(dags)
    seen = {conn_id: Viewer(dags, sees_all=True, may_test=conn_id in editable) for conn_id in readable}
    seen.update((conn_id, Viewer(dags, sees_all=False)) for conn_id in used - readable)
    return dict(sorted(seen.items()))


def _permitted(user: BaseUser, method: ResourceMethod, conn_ids: set[str]) -> set[str]:
    # Those of the environment belong to no team.
    teams = dict.fromkeys(conn_ids, None) | Connection.get_conn_id_to_team_name_mapping(list(conn_ids))
    permitted: set[str] = set()
    for team in set(teams.values()):
        of_team = {conn_id for conn_id, name in teams.items() if name == team}
        permitted |= get_auth_manager().filter_authorized_connections(
            conn_ids=of_team, user=user, method=method, team_name=team
        )
    return permitted


def _used_by(dags: Collection[str]) -> set[str]:
    """Return the connections at which some DAGs have jobs."""
    with create_session() as session:
        used = set() if what_is_missing(session) else connections_of(session, dags)
        return used | _of_latest(session, dags)


def _of_latest(session: Session, dags: Collection[str]) -> set[str]:
    """Return those of the latest jobs, of which the table of jobs may not know yet."""
    latest = (
        select(XComModel.dag_id, XComModel.value)
        .where(XComModel.key.in_(PLAIN_XCOM_KEYS))
        .order_by(XComModel.timestamp.desc())
        .limit(_MOST_JOBS)
    )
    used: set[str] = set()
    for dag_id, value in session.execute(latest):
        if dag_id in dags:
            with contextlib.suppress(ValueError, RecursionError):
                used.update(JobHandle.from_json(read_note(value)).conn_ids)
    return used
