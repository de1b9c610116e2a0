"""The provider's description for Airflow's provider manager. A literal, read before Airflow's configuration exists."""

from __future__ import annotations

from typing import Any

_TEXT = {"type": ["string", "null"]}
_SECRET = {"type": ["string", "null"], "format": "password"}


def get_provider_info() -> dict[str, Any]:
    """Describe the provider; see ``airflow/provider_info.schema.json``."""
    return {
        "package-name": "airflow-provider-gpu-cluster",
        "name": "GPU cluster",
        "description": "Run GPU jobs on clusters that can only be reached by SSH.",
        "hooks": [
            {
                "integration-name": "GPU cluster",
                "python-modules": ["airflow_provider_gpu_cluster.hooks.gpu_cluster"],
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
                    "metrics_conn_ids": {
                        "description": "Ids of the connections, separated by commas, whose clusters are in "
                        "/gpu-cluster/metrics. By default all of type gpu_cluster that are in Airflow's database or in "
                        "environment variables of the API server; those of a secrets backend are only found when they "
                        "are named here.",
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
                "conn-fields": {
                    "private_key": {
                        "label": "Private key",
                        "description": "Text of a key (RSA, ECDSA or Ed25519), with its BEGIN and END lines, in any "
                        "form that OpenSSH or openssl writes.",
                        "schema": {"type": ["string", "null"], "format": "multiline"},
                    },
                    "key_file": {
                        "label": "Private key file",
                        "description": "Path of a key file on the Airflow workers, instead of the key itself.",
                        "schema": _TEXT,
                    },
                    "private_key_passphrase": {
                        "label": "Passphrase of the private key",
                        "description": "Only if the private key is encrypted.",
                        "schema": _SECRET,
                    },
                    "certificate_file": {
                        "label": "Certificate of the private key",
                        "description": "Path of a KEY-cert.pub on the Airflow workers. Not needed beside the key file.",
                        "schema": _TEXT,
                    },
                    "jump_conn_id": {
                        "label": "Jump host",
                        "description": "Connection (of type ssh or GPU cluster) of a host through which this one is "
                        "reached.",
                        "schema": _TEXT,
                    },
                    "host_key": {
                        "label": "Host key of the cluster",
                        "description": "Such as 'ssh-ed25519 AAAA...': the last two words of what "
                        "'ssh-keyscan -p PORT HOST' prints; or 'SHA256:...'. Several are possible. Without it, "
                        "known_hosts must know the host.",
                        "schema": _TEXT,
                    },
                    "no_host_key_check": {
                        "label": "Do not check the host key",
                        "description": "Trusts any machine that answers. Only for sandboxes.",
                        "schema": {"type": ["boolean", "null"], "default": False},
                    },
                    "root_dir": {
                        "label": "Directory for jobs",
                        "description": "On the cluster. Every job gets its own directory in it. ~, ~user and variables "
                        "such as $SCRATCH mean what they mean in a login there. It must be the user's own, and in no "
                        "folder that everybody can write to.",
                        "schema": {"type": ["string", "null"], "default": "~/ml-jobs"},
                    },
                    "engine": {
                        "label": "Engine",
                        "description": "host: one Linux machine without a scheduler, whose GPUs are leased. slurm: a "
                        "login node of a Slurm cluster. command: a machine with its own launch command.",
                        "schema": {"type": ["string", "null"], "enum": ["host", "slurm", "command"], "default": "host"},
                    },
                    "launch_command": {
                        "label": "Launch command",
                        "description": "For the engine 'command': the site's own command, which prints a process id, "
                        "such as gpu-run --gpus {gpus} --memory {memory} {script}",
                        "schema": _TEXT,
                    },
                    "partition": {
                        "label": "Slurm partition",
                        "description": "For jobs that name none. Empty: Slurm's own default.",
                        "schema": _TEXT,
                    },
                    "account": {
                        "label": "Slurm account",
                        "description": "For jobs that name none. Empty: the user's default.",
                        "schema": _TEXT,
                    },
                    "qos": {
                        "label": "Slurm QOS",
                        "description": "For jobs that name none. Empty: the account's default.",
                        "schema": _TEXT,
                    },
                    "constraint": {
                        "label": "Slurm constraint",
                        "description": "Features that nodes must have, such as a100&nvlink, for jobs that name none.",
                        "schema": _TEXT,
                    },
                    "sbatch_options": {
                        "label": "Options of sbatch",
                        "description": "Further options for every job, such as --reservation=maintenance.",
                        "schema": _TEXT,
                    },
                    "slurm_interval": {
                        "label": "Slurm interval (s)",
                        "description": "How often Slurm is asked for the states of all jobs, in one call.",
                        "schema": {"type": ["number", "null"], "exclusiveMinimum": 0, "default": 15},
                    },
                    "python": {
                        "label": "Python on the cluster",
                        "description": "Interpreter that runs there, 3.8 or newer. Empty: python3 from PATH.",
                        "schema": _TEXT,
                    },
                    "virtual_gpus": {
                        "label": "Virtual GPUs",
                        "description": "Pretend to have this many GPUs, on a machine without nvidia-smi.",
                        "schema": {"type": ["integer", "null"], "minimum": 1},
                    },
                    "lease_dir": {
                        "label": "Directory for GPU leases",
                        "description": "On the cluster, shared by its users. Empty: /var/tmp/gpu-run-leases.",
                        "schema": _TEXT,
                    },
                    "retention": {
                        "label": "Retention",
                        "description": "How long jobs and cached inputs stay on the cluster after their last use, such "
                        "as 14d, 36h or 90m. Empty: forever.",
                        "schema": _TEXT,
                    },
                    "grace": {
                        "label": "Grace",
                        "description": "How long a job may take to save and end after it was asked to, such as 30s or "
                        "5m, for jobs that say nothing. Empty: 30s.",
                        "schema": _TEXT,
                    },
                    "orphan_timeout": {
                        "label": "Orphan timeout",
                        "description": "After how long a running job is ended about which nobody asks any more, such "
                        "as 6h, for jobs that say nothing. Empty: never.",
                        "schema": _TEXT,
                    },
                    "min_gpu_utilization": {
                        "label": "Idle below (% GPU use)",
                        "description": "A job that uses its GPUs less than this in the mean over the window is idle, "
                        "for jobs that say nothing. 0: never. Empty: 5.",
                        "schema": {"type": ["number", "null"], "minimum": 0, "maximum": 100},
                    },
                    "utilization_window": {
                        "label": "Idle window",
                        "description": "Over how long the use of GPUs is looked at, such as 30m or 2h. Empty: 30m.",
                        "schema": _TEXT,
                    },
                    "on_idle": {
                        "label": "Idle jobs",
                        "description": "warn: the task's log says so. cancel: they are also ended after the whole "
                        "window, with reason idle. Empty: warn.",
                        "schema": {"type": ["string", "null"], "enum": ["warn", "cancel"]},
                    },
                    "gpu_hours_budget": {
                        "label": "GPU-hours a month",
                        "description": 'Of a DAG, a user or an owner, as JSON: {"dag:nightly": 40, "user:*": 200}. * '
                        "is each of them, 'all' is everybody together. Empty: no limit.",
                        "schema": {"type": ["string", "null"], "format": "multiline"},
                    },
                    "over_budget": {
                        "label": "Beyond that budget",
                        "description": "refuse: a submit fails and says both numbers. wait: the job stays QUEUED until "
                        "the budget allows it. Empty: refuse.",
                        "schema": {"type": ["string", "null"], "enum": ["refuse", "wait"]},
                    },
                    "transfer": {
                        "label": "Transfer",
                        "description": "How the bytes of files travel. stream: through commands, at full speed. sftp: "
                        "for clusters whose commands change or forbid them.",
                        "schema": {"type": ["string", "null"], "enum": ["stream", "sftp"], "default": "stream"},
                    },
                    "conn_timeout": {
                        "label": "Connect timeout (s)",
                        "description": "How long to wait for the cluster to answer a new connection.",
                        "schema": {"type": ["integer", "null"], "minimum": 1, "default": 10},
                    },
                    "compress": {
                        "label": "Compress the connection",
                        "description": "Slower on all but the slowest networks.",
                        "schema": {"type": ["boolean", "null"], "default": False},
                    },
                },
            }
        ],
    }
