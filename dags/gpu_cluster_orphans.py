"""
Find the GPU jobs that run on although their task in Airflow is over, and end them if you want that.

It reports, and ends nothing, unless **Cancel them** is ticked. It is paused until you turn it on; press **Trigger** to
look once.
"""

from __future__ import annotations

# [START gpu_cluster_orphans]
from airflow.sdk import DAG, Param, task

from airflow_provider_gpu_cluster.exceptions import GpuClusterError
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
    "older_than": Param(
        "1h",
        type="string",
        title="Unasked for",
        description="Only jobs about which nobody has asked for so long: 90m, 36h, 14d.",
    ),
    "cancel": Param(
        False,
        type="boolean",
        title="Cancel them",
        description="End these jobs. Otherwise they are only reported.",
    ),
}

with DAG(
    "gpu_cluster_orphans",
    schedule="@daily",
    catchup=False,
    max_active_runs=1,
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
    def look_for_orphans(gpu_cluster_conn_id: str, params: dict) -> list[str]:
        """Report the jobs of a cluster that nothing waits for any more, and return their ids."""
        with GpuClusterHook(gpu_cluster_conn_id) as hook:
            orphans = hook.orphans(params["older_than"])
            for orphan in orphans:
                print("Orphaned job:", orphan)
                if params["cancel"]:
                    try:
                        print("It is", hook.cancel(orphan.job_id).state, "now.")
                    except GpuClusterError as error:
                        print("It could not be cancelled:", error)
        print(f"{len(orphans)} jobs with {sum(orphan.gpus for orphan in orphans)} GPUs on {gpu_cluster_conn_id}.")
        return [orphan.job_id for orphan in orphans]

    look_for_orphans.expand(gpu_cluster_conn_id=clusters())
# [END gpu_cluster_orphans]
