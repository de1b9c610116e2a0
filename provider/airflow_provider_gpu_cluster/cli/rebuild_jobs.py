"""The command ``airflow gpu-cluster rebuild-jobs``."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace
from typing import Any

from airflow.utils.session import create_session
from sqlalchemy import select

from airflow_provider_gpu_cluster.connection.words import words_of
from airflow_provider_gpu_cluster.job_table.filling import ClusterToAsk, Filling, request_to, write_answer
from airflow_provider_gpu_cluster.job_table.launches import launches_by_runs
from airflow_provider_gpu_cluster.job_table.migrated import what_is_missing
from airflow_provider_gpu_cluster.job_table.recording import write
from airflow_provider_gpu_cluster.job_table.tables import jobs
from airflow_provider_gpu_cluster.plugins.cluster_access import cluster_of
from airflow_provider_gpu_cluster.plugins.listed_connections import all_connection_ids, clusters_of

_AT_ONCE = 200
# How long to try to reach a cluster.
RETRY_FOR_S = 30.0


def rebuild_jobs(args: Namespace) -> None:
    """Fill the table from all of its sources."""
    with create_session() as session:
        problem = what_is_missing(session)
    if problem is not None:
        raise SystemExit(problem)
    count = 0
    for _, facts in launches_by_runs():
        write(facts)
        count += len(facts)
    print(f"{count} jobs in what launches have left in Airflow")
    failed = [conn_id for conn_id in clusters_of(args.conn_id or ()) or _conn_ids() if not _read_ledger(conn_id)]
    if failed:
        raise SystemExit(f"not read: {', '.join(failed)}; to run this again reads what is missing")


def _conn_ids() -> list[str]:
    """Return the connections that can be listed, and those that jobs name."""
    with create_session() as session:
        return sorted({*all_connection_ids(), *session.scalars(select(jobs.c.conn_id).distinct())})


def _read_ledger(conn_id: str) -> bool:
    """Read a cluster's ledger from its begin; return whether that was possible."""
    count, is_all, is_begin = 0, False, True
    try:
        with cluster_of(conn_id) as cluster:
            while not is_all:
                request: Any = request_to(ClusterToAsk(conn_id, ()), from_begin=is_begin)
                answer = cluster.session.retrying_for(RETRY_FOR_S).call("read-ledger", request)
                write_answer(conn_id, answer)
                count, is_all, is_begin = count + len(answer["lines"]), answer["is_all"], False
            print(f"{conn_id}: {count} ends of attempts in its ledger")
            for unfinished in _unfinished(conn_id):
                write_answer(
                    conn_id, cluster.session.retrying_for(RETRY_FOR_S).call("read-ledger", request_to(unfinished))
                )
    except Exception as error:
        print(f"{conn_id}: {words_of(error)}")
        return False
    return True


def _unfinished(conn_id: str) -> list[ClusterToAsk]:
    """Return the jobs of a cluster that have not ended, as far as the table knows, some at a time."""
    _, clusters = Filling("rebuild").clusters()
    of_it = [cluster for cluster in clusters if cluster.conn_id == conn_id]
    return [
        replace(cluster, job_ids=cluster.job_ids[start : start + _AT_ONCE])
        for cluster in of_it
        for start in range(0, len(cluster.job_ids), _AT_ONCE)
    ]
