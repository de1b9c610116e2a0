"""The connections of type ``gpu_cluster``: those in the metrics, and all that can be found."""

from __future__ import annotations

import os

from airflow.models.connection import Connection
from airflow.secrets.environment_variables import CONN_ENV_PREFIX, EnvironmentVariablesBackend
from airflow.utils.session import create_session
from sqlalchemy import select

from airflow_provider_gpu_cluster import options
from airflow_provider_gpu_cluster.hooks.gpu_cluster import GpuClusterHook


def connection_ids() -> list[str]:
    """
    Return the connections that ``[gpu_cluster] metrics_conn_ids`` names.

    By default, these are all of type ``gpu_cluster`` that can be listed: those in Airflow's database and in the
    environment. A secrets backend can only be asked for one by its name.
    """
    return options.metrics_conn_ids() or sorted({*_in_database(), *_in_environment()})


def all_connection_ids() -> list[str]:
    """Return all connections of type ``gpu_cluster`` that can be listed, and those that the option names besides."""
    return sorted({*options.metrics_conn_ids(), *_in_database(), *_in_environment()})


def _in_database() -> list[str]:
    with create_session() as session:
        return list(session.scalars(select(Connection.conn_id).where(Connection.conn_type == GpuClusterHook.conn_type)))


def _in_environment() -> list[str]:
    backend = EnvironmentVariablesBackend()
    names = [name.removeprefix(CONN_ENV_PREFIX).lower() for name in os.environ if name.startswith(CONN_ENV_PREFIX)]
    return [name for name in names if _is_cluster(backend, name)]


def _is_cluster(backend: EnvironmentVariablesBackend, conn_id: str) -> bool:
    try:
        connection = backend.get_connection(conn_id)
    except Exception:
        # Whatever is wrong with another connection, it is told where that one is used.
        return False
    return connection is not None and connection.conn_type == GpuClusterHook.conn_type
