"""
Clear old jobs away every night: their directories on the cluster, and what was kept there for jobs and is of no use.

What is in use stays, however old it is. It is paused until you turn it on; to see first what it would remove, press
**Trigger** and tick **Dry run**.
"""

from __future__ import annotations

# [START gpu_cluster_maintenance]
from airflow.sdk import DAG, Param, task

from airflow_provider_gpu_cluster.hooks.gpu_cluster import GpuClusterHook

PARAMS = {
    "older_than": Param(
        "30d",
        type="string",
        title="Older than",
        description="How long something must have been of no use: 14d, 36h, 90m.",
    ),
    "dry_run": Param(
        False,
        type="boolean",
        title="Dry run",
        description="Remove nothing, and say what would be.",
    ),
    "gpu_cluster_conn_id": Param(
        "gpu_cluster_default",
        type="string",
        minLength=1,
        title="Cluster",
        description="Connection of the cluster.",
    ),
}

with DAG(
    "gpu_cluster_maintenance",
    schedule="@daily",
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=True,
    tags=["gpu"],
    params=PARAMS,
    doc_md=__doc__,
):

    @task
    def clear_old_jobs(params: dict) -> str:
        """Remove what is old, and say in the task's log what that was."""
        with GpuClusterHook(params["gpu_cluster_conn_id"]) as hook:
            report = hook.collect_garbage(params["older_than"], dry_run=params["dry_run"])
        if report["busy"]:
            return "Somebody else is clearing up on the cluster at this moment; nothing was done."
        for job_id in report["jobs"]:
            print("Old job:", job_id)
        for failed in report["failed"]:
            print("Could not be removed:", failed["path"], "-", failed["why"])
        counts = {
            "jobs": len(report["jobs"]),
            "Python environments": len(report["environments"]),
            "cached files": report["cache_entries"],
            "uploads that broke off": report["uploads"],
            "old programs": report["programs"],
        }
        what = ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "nothing"
        done = "Would remove" if report["dry_run"] else "Removed"
        summary = (
            f"{done} {what}: {report['bytes_freed'] / 1e6:.1f} MB. {report['failures']} things could not be removed."
        )
        print(summary)
        return summary

    clear_old_jobs()
# [END gpu_cluster_maintenance]
