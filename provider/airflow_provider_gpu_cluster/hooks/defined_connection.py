"""Reads an Airflow Connection of a cluster, or says how to make it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk.exceptions import AirflowNotFoundException

from airflow_provider_gpu_cluster.hooks.airflow_outage import connection_of

if TYPE_CHECKING:
    from airflow.sdk import Connection


def defined_connection(conn_id: str) -> Connection:
    """
    Return the connection of a cluster.

    :raises AirflowNotFoundException: it is not defined; the message says how to define it.
    """
    try:
        return connection_of(conn_id)
    except AirflowNotFoundException as error:
        variable = f"AIRFLOW_CONN_{conn_id.upper()}"
        raise AirflowNotFoundException(
            f"{error}. Make a connection of type gpu_cluster with that id: in Airflow's UI under Admin, "
            f"Connections, with `airflow connections add`, or as JSON in the environment variable {variable}. To "
            "try without a cluster, run `python -m airflow_provider_gpu_cluster.sandbox`, which prints one"
        ) from None
