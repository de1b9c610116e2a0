"""The provider's description for Airflow's provider manager. A literal, read before Airflow's configuration exists."""

from __future__ import annotations

from typing import Any

from airflow_provider_gpu_cluster.connection_form import connection_form, pool_form


def get_provider_info() -> dict[str, Any]:
    """Describe the provider; see ``airflow/provider_info.schema.json``."""
    return {
        "package-name": "airflow-provider-gpu-cluster",
        "name": "GPU cluster",
        "description": "Run GPU jobs on clusters that can only be reached by SSH.",
        "hooks": [
            {
                "integration-name": "GPU cluster",
                "python-modules": [
                    "airflow_provider_gpu_cluster.hooks.gpu_cluster",
                    "airflow_provider_gpu_cluster.hooks.gpu_cluster_pool",
                ],
            }
        ],
        "operators": [
            {
                "integration-name": "GPU cluster",
                "python-modules": ["airflow_provider_gpu_cluster.operators.gpu_job"],
            }
        ],
        "sensors": [
            {
                "integration-name": "GPU cluster",
                "python-modules": ["airflow_provider_gpu_cluster.sensors.gpu_job"],
            }
        ],
        "triggers": [
            {
                "integration-name": "GPU cluster",
                "python-modules": ["airflow_provider_gpu_cluster.triggers.gpu_job"],
            }
        ],
        "cli": ["airflow_provider_gpu_cluster.cli.commands.commands"],
        "db-managers": ["airflow_provider_gpu_cluster.job_table.db_manager.GpuClusterDBManager"],
        "config": {
            "gpu_cluster": {
                "description": "Options of the GPU cluster provider.",
                "options": {
                    "metrics_token": {
                        "description": "Token with which Prometheus may read /gpu-cluster/metrics, as in "
                        "'Authorization: Bearer TOKEN'. Without it, only a login of Airflow may that can read "
                        "connections. Read when the API server starts.",
                        "version_added": None,
                        "type": "string",
                        "sensitive": True,
                        "example": "6b0c2f1e9d",
                        "default": None,
                    },
                    "keep_jobs_days": {
                        "description": "After how many days rows of the table of all GPU jobs are deleted, by the time "
                        "of their submit. 0: never.",
                        "version_added": None,
                        "type": "float",
                        "example": "365",
                        "default": "0",
                    },
                    "metrics_conn_ids": {
                        "description": "Ids of the connections, separated by commas, whose clusters are in "
                        "/gpu-cluster/metrics. By default all of type gpu_cluster that are in Airflow's database or in "
                        "environment variables of the API server; those of a secrets backend are only found when they "
                        "are named here. A pool stands for its members. Those are on the page of clusters as well.",
                        "version_added": None,
                        "type": "string",
                        "example": "gpu_cluster_default,lab",
                        "default": "",
                    },
                },
            },
        },
        "notifications": ["airflow_provider_gpu_cluster.notifications.gpu_job.GpuJobNotifier"],
        "extra-links": ["airflow_provider_gpu_cluster.tasks.links.GpuJobLink"],
        "connection-types": [
            {
                "connection-type": "gpu_cluster",
                "hook-class-name": "airflow_provider_gpu_cluster.hooks.gpu_cluster.GpuClusterHook",
                "hook-name": "GPU cluster",
                "ui-field-behaviour": {
                    "hidden-fields": ["schema"],
                    "relabeling": {"login": "User name"},
                    "placeholders": {"host": "gpu01.example.org", "port": "22", "login": "me"},
                },
                "conn-fields": connection_form(),
            },
            {
                "connection-type": "gpu_cluster_pool",
                "hook-class-name": "airflow_provider_gpu_cluster.hooks.gpu_cluster_pool.GpuClusterPoolHook",
                "hook-name": "GPU cluster pool",
                "ui-field-behaviour": {"hidden-fields": ["host", "schema", "login", "password", "port"]},
                "conn-fields": pool_form(),
            },
        ],
    }
