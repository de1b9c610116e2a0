"""Reads a pool of clusters from what a DAG or a connection names."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowNotFoundException

from airflow_provider_gpu_cluster.connection.settings import ClusterSettings
from airflow_provider_gpu_cluster.exceptions import GpuClusterSetupError
from airflow_provider_gpu_cluster.hooks.airflow_outage import connection_of
from airflow_provider_gpu_cluster.hooks.defined_connection import defined_connection
from airflow_provider_gpu_cluster.hooks.fields import POOL_FIELDS, Fields
from airflow_provider_gpu_cluster.hooks.settings import DEFAULT_PORT
from airflow_provider_gpu_cluster.jobs.parameter_checks import connection_ids
from airflow_provider_gpu_cluster.pools.offer import Member
from airflow_provider_gpu_cluster.pools.pool import POLICIES, SOONEST, Policy, Pool

if TYPE_CHECKING:
    from airflow.sdk import Connection

POOL_TYPE = "gpu_cluster_pool"
# Connections of Airflow's own type work as those of this provider do.
CLUSTER_TYPES = ("gpu_cluster", "ssh")
_MEMBERS_VALID = (
    'ids of connections with commas between them, such as "gpu01, gpu02", a list of them, or an object of weights, '
    'such as {"gpu01": 2, "slurm-a": 1}'
)


def pool_of(gpu_cluster_conn_id: str | Sequence[str], policy: Policy | None = None) -> Pool | None:
    """
    Return the pool that an operator's ``gpu_cluster_conn_id`` names; None for one cluster.

    :param gpu_cluster_conn_id: id of a connection, or a list of such, also as text.
    :param policy: how a cluster is chosen; None for the pool connection's, which is ``soonest``.
    :raises InvalidJobError: it is no id, and no list of ids.
    :raises GpuClusterSetupError: a connection cannot be used in a pool.
    :raises AirflowNotFoundException: it is one id, and there is no such connection.
    """
    ids = connection_ids(gpu_cluster_conn_id)
    if ids is None:
        return None
    if isinstance(ids, str):
        return pool_in(defined_connection(ids), policy)
    where = f"gpu_cluster_conn_id={ids}"
    return Pool(_members(dict.fromkeys(ids), where), policy or SOONEST)


def pool_in(connection: Connection, policy: Policy | None = None) -> Pool | None:
    """
    Return the pool that a connection describes; None if it describes one cluster.

    :raises GpuClusterSetupError: a field of it, or a connection that it names, cannot be used.
    """
    if connection.conn_type != POOL_TYPE:
        return None
    fields = Fields(connection)
    fields.refuse_unknown(POOL_FIELDS)
    if connection.host:
        raise fields.bad(
            "host", connection.host, "empty: a pool has no host, its members have connections of their own"
        )
    weights = _weights(fields)
    own_policy = fields.one_of("policy", POLICIES)
    where = f"connection {fields.conn_id}: field members"
    return Pool(_members(weights, where), policy or own_policy or SOONEST, conn_id=fields.conn_id)


def member_ids(connection: Connection) -> list[str]:
    """
    Return the connections that a pool's connection names, whatever there is of them; none for another connection.

    :raises GpuClusterSetupError: its field cannot be used.
    """
    return list(_weights(Fields(connection))) if connection.conn_type == POOL_TYPE else []


def is_pool(gpu_cluster_conn_id: str | Sequence[str]) -> bool:
    """
    Return whether a ``gpu_cluster_conn_id`` names a pool, whose members need not all be usable.

    A connection that is not defined is none; whoever uses it says more.
    """
    ids = connection_ids(gpu_cluster_conn_id)
    if not isinstance(ids, str):
        return ids is not None
    try:
        return connection_of(ids).conn_type == POOL_TYPE
    except AirflowNotFoundException:
        return False


def _weights(fields: Fields) -> dict[str, float | None]:
    """Return the weight of each member; None for that of its own connection."""
    value = fields.given("members")
    if isinstance(value, str) and value.strip()[:1] in ("[", "{"):
        try:
            value = json.loads(value)
        except ValueError:
            raise fields.bad("members", value, _MEMBERS_VALID) from None
    if isinstance(value, dict):
        weights = {conn_id.strip(): _weight(fields, conn_id, weight) for conn_id, weight in value.items()}
        names = [conn_id.strip() for conn_id in value]
    else:
        names = _names(fields, value)
        weights = dict.fromkeys(names)
    if not names or not all(names):
        raise fields.bad("members", fields.given("members"), f"{_MEMBERS_VALID}; a pool has at least one member")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise GpuClusterSetupError(
            f"connection {fields.conn_id}: field members names {', '.join(twice)} more than once; name each once"
        )
    return weights


def _names(fields: Fields, value: Any) -> list[str]:
    if isinstance(value, str):
        return [name.strip() for name in value.replace("\n", ",").split(",") if name.strip()]
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise fields.bad("members", value, _MEMBERS_VALID)
    return [name.strip() for name in value]


def _weight(fields: Fields, conn_id: str, value: Any) -> float | None:
    if value is None:
        return None
    try:
        weight = float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        weight = float("nan")
    if not 0 < weight < float("inf"):
        raise GpuClusterSetupError(
            f"connection {fields.conn_id}: field members gives {conn_id} the weight {value!r}; it must be a number "
            "above 0, or null for that of its connection. To use a cluster no more, take it off the members"
        )
    return weight


def _members(weights: Mapping[str, float | None], where: str) -> tuple[Member, ...]:
    """Return the members of a pool, with what their own connections say of them."""
    members = []
    places: dict[tuple[object, ...], str] = {}
    for conn_id, weight in weights.items():
        connection = _connection(conn_id, where)
        fields = Fields(connection)
        # To one cluster under two names, a job would be launched under one and taken back under the other.
        place = (
            (connection.host or "").lower(),
            connection.port or DEFAULT_PORT,
            connection.login,
            fields.text("root_dir") or ClusterSettings.root_dir,
        )
        if place in places:
            raise GpuClusterSetupError(
                f"{where} names {places[place]!r} and {conn_id!r}, which are connections to the same host, as the same "
                "user, with the same root_dir: that is one cluster; name one of them"
            )
        places[place] = conn_id
        own_weight = fields.above_zero("weight") or ClusterSettings.weight
        members.append(Member(conn_id, weight or own_weight, fields.price("price_per_gpu_hour")))
    return tuple(members)


def _connection(conn_id: str, where: str) -> Connection:
    """Return the connection of a member."""
    try:
        connection = connection_of(conn_id)
    except AirflowNotFoundException:
        raise GpuClusterSetupError(
            f"{where} names {conn_id!r}, and Airflow has no connection with that id; make it, with the type "
            "gpu_cluster, or correct the name"
        ) from None
    if connection.conn_type == POOL_TYPE:
        raise GpuClusterSetupError(
            f"{where} names {conn_id!r}, which is a pool itself, and a pool has no pools in it; name the members of "
            f"{conn_id} instead"
        )
    if connection.conn_type not in CLUSTER_TYPES:
        raise GpuClusterSetupError(
            f"{where} names {conn_id!r}, whose connection is of type {connection.conn_type}; a member must be of type "
            "gpu_cluster"
        )
    return connection
