"""
Report each month how many GPU-hours were used on each cluster, by whom and by which DAG.

It reads the ledgers of the clusters. It is paused until you turn it on; press **Trigger** to see the last 30 days.
"""

from __future__ import annotations

# [START gpu_hours_report]
from airflow.sdk import DAG, Param, task

from airflow_provider_gpu_cluster.hooks.gpu_cluster import GpuClusterHook

PARAMS = {
    "gpu_cluster_conn_ids": Param(
        ["gpu_cluster_default"],
        type="array",
        items={"type": "string", "minLength": 1},
        minItems=1,
        title="Clusters",
        description="Connections of the clusters, one in each line.",
    ),
}

with DAG(
    "gpu_hours_report",
    schedule="@monthly",
    catchup=False,
    is_paused_upon_creation=True,
    tags=["gpu"],
    params=PARAMS,
    doc_md=__doc__,
):

    @task
    def clusters(params: dict) -> list[str]:
        """Return the connections to look at."""
        return params["gpu_cluster_conn_ids"]

    @task
    def report(gpu_cluster_conn_id: str, dag_run=None) -> dict[str, list[dict]]:
        """Print what was used in the month that has ended, or in the last 30 days, and return it."""
        since, until = "30d", None
        if dag_run.run_type == "scheduled":
            since, until = dag_run.run_after.subtract(months=1), dag_run.run_after
        with GpuClusterHook(gpu_cluster_conn_id) as hook:
            found = {by: hook.usage(since, by, until=until) for by in ("user", "dag", "reason")}
        for by, rows in found.items():
            print(f"{gpu_cluster_conn_id}, by {by}:")
            for row in rows:
                used = row["used_gpu_hours"] / row["measured_gpu_hours"] if row["measured_gpu_hours"] else None
                print(
                    f"  {row['key'] or '-'}: {row['gpu_hours']:.1f} GPU-hours in {row['jobs']} jobs",
                    "" if used is None else f"({used:.0%} used)",
                )
        return found

    report.expand(gpu_cluster_conn_id=clusters())
# [END gpu_hours_report]
