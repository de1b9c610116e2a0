"""The connections of clusters: those in the metrics, and all that can be found."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from airflow.models.connection import Connection
from airflow.sdk import BaseHook
from airflow.secrets.environment_variables import CONN_ENV_PREFIX, EnvironmentVariablesBackend
from airflow.utils.session import create_session
from sqlalchemy import select

from airflow_provider_gpu_cluster import options
from airflow_provider_gpu_cluster.hooks.gpu_cluster import GpuClusterHook
from airflow_provider_gpu_cluster.hooks.pools import POOL_TYPE, member_ids

_TYPES = (GpuClusterHook.conn_type, POOL_TYPE)
# A secrets backend is not asked again for each look at a page.
_KEPT_S = 60.0


@dataclass(frozen=True)
class _Kind:
    """What a connection is; it has no type if it cannot be read, and members if it is a pool."""

    conn_type: str | None = None
    members: tuple[str, ...] = ()
    read_at: float = field(default_factory=time.monotonic)


_kinds: dict[str, _Kind] = {}


def connection_ids() -> list[str]:
    """
    Return the connections that ``[gpu_cluster] metrics_conn_ids`` names, and for a pool those of its members.

    By default, these are all of type ``gpu_cluster`` that can be listed: those in Airflow's database and in the
    environment, and members of the pools there. A secrets backend can only be asked for one by its name.
    """
    named = options.metrics_conn_ids()
    return clusters_of(named) if named else sorted(_listed())


def all_connection_ids() -> list[str]:
    """Return all connections of clusters that can be listed, and those that the option names besides."""
    return sorted({*clusters_of(options.metrics_conn_ids()), *_listed()})


def clusters_of(named: Iterable[str]) -> list[str]:
    """Return some connections, with the members of a pool in its place; each once."""
    return list(dict.fromkeys(one for conn_id in named for one in _kind_of(conn_id).members or (conn_id,)))


def _listed() -> set[str]:
    found = {**_in_database(), **_in_environment()}
    clusters = {conn_id for conn_id, conn_type in found.items() if conn_type == GpuClusterHook.conn_type}
    members = {member for conn_id in found.keys() - clusters for member in _kind_of(conn_id).members}
    # What is no cluster for these pages would only be told as an error.
    return clusters | {one for one in members - clusters if _kind_of(one).conn_type == GpuClusterHook.conn_type}


def _in_database() -> dict[str, str]:
    """Return the type of each connection that is a cluster or a pool."""
    query = select(Connection.conn_id, Connection.conn_type).where(Connection.conn_type.in_(_TYPES))
    with create_session() as session:
        return {row.conn_id: row.conn_type for row in session.execute(query)}


def _in_environment() -> dict[str, str]:
    backend = EnvironmentVariablesBackend()
    names = [name.removeprefix(CONN_ENV_PREFIX).lower() for name in os.environ if name.startswith(CONN_ENV_PREFIX)]
    types = {name: _type_in(backend, name) for name in names}
    return {name: conn_type for name, conn_type in types.items() if conn_type in _TYPES}


def _type_in(backend: EnvironmentVariablesBackend, conn_id: str) -> str:
    try:
        connection = backend.get_connection(conn_id)
    except Exception:
        # Whatever is wrong with another connection, it is told where that one is used.
        return ""
    return "" if connection is None else connection.conn_type or ""


def _kind_of(conn_id: str) -> _Kind:
    kind = _kinds.get(conn_id)
    if kind is None or time.monotonic() - kind.read_at > _KEPT_S:
        kind = _kinds[conn_id] = _read_kind(conn_id)
    return kind


def _read_kind(conn_id: str) -> _Kind:
    try:
        connection = BaseHook.get_connection(conn_id)
        return _Kind(connection.conn_type, tuple(member_ids(connection)))
    except Exception:
        # As above.
        return _Kind()
