"""
The fields of the connection forms beside Airflow's own, in its order and under its headings. Literals alone.

Airflow keeps this order, and makes each section a part of the form that opens by itself. A label says as well what it
belongs to, for who hears it alone or meets it in an error.
"""

from __future__ import annotations

from typing import Any

_TEXT = ["string", "null"]


def connection_form() -> dict[str, dict[str, Any]]:
    """Return the ``conn-fields`` of a cluster's connection."""
    return _form(_SECTIONS)


def pool_form() -> dict[str, dict[str, Any]]:
    """Return the ``conn-fields`` of a pool's connection."""
    return _form(_POOL_SECTIONS)


def _form(sections: tuple[tuple[str, str, _Fields], ...]) -> dict[str, dict[str, Any]]:
    return {
        name: {
            "label": f"{prefix}: {label}",
            "description": description,
            "schema": {"type": _TEXT, "section": section, **schema},
        }
        for prefix, section, fields in sections
        for name, (label, description, schema) in fields.items()
    }


_Fields = dict[str, tuple[str, str, dict[str, Any]]]
# The fields of a section: label, description, and what their schema has besides.

_SSH: _Fields = {
    "private_key": (
        "private key",
        "Text of a key (RSA, ECDSA or Ed25519), with its BEGIN and END lines, in any form of OpenSSH or openssl. "
        "Empty: the key file, else the password, else the agent and the keys in ~/.ssh of the Airflow machines.",
        {"format": "multiline"},
    ),
    "key_file": (
        "private key file",
        "Path of a key on the Airflow machines, instead of the key itself. Never together with it.",
        {},
    ),
    "private_key_passphrase": (
        "passphrase",
        "Only if the private key is encrypted.",
        {"format": "password"},
    ),
    "certificate_file": (
        "certificate",
        "Only if an authority signs your keys: path of its certificate on the Airflow machines. Empty: KEY-cert.pub "
        "beside the key file, if there is one.",
        {},
    ),
    "host_key": (
        "host key",
        "Such as 'ssh-ed25519 AAAA...': the last two words of what 'ssh-keyscan -p PORT HOST' prints; or 'SHA256:...'. "
        "Several are possible. Empty: known_hosts on the Airflow machines must know the host.",
        {},
    ),
    "no_host_key_check": (
        "do not check the host key",
        "Trusts any machine that answers. Only for sandboxes.",
        {"type": ["boolean", "null"], "default": False},
    ),
    "jump_conn_id": (
        "jump host",
        "Only if the cluster is reached through another host: the id of that one's connection, of type ssh or GPU "
        "cluster. Empty: directly, or as ~/.ssh/config says.",
        {},
    ),
    "conn_timeout": (
        "connect timeout (s)",
        "How long to wait for the cluster to answer a new connection.",
        {"type": ["integer", "null"], "minimum": 1, "default": 10},
    ),
    "transfer": (
        "transfer of files",
        "stream: through commands, at full speed. sftp: for clusters whose commands change the bytes or forbid them.",
        {"enum": ["stream", "sftp"], "default": "stream"},
    ),
    "compress": (
        "compress",
        "Slower on all but the slowest networks.",
        {"type": ["boolean", "null"], "default": False},
    ),
}

_CLUSTER: _Fields = {
    "engine": (
        "engine",
        "How jobs run there. host: on this one Linux machine, whose GPUs are leased. slurm: this is a login node of a "
        "Slurm cluster. command: this machine has a launch command of its own. It decides which of the sections below "
        "matters.",
        {"enum": ["host", "slurm", "command"], "default": "host"},
    ),
    "root_dir": (
        "folder for jobs",
        "On the cluster; every job gets its own folder in it. ~, ~user and variables such as $SCRATCH mean what they "
        "mean in a login there. It must be the user's own, and in no folder that everybody can write to.",
        {"default": "~/ml-jobs"},
    ),
    "python": (
        "Python",
        "Path or name of the interpreter there, 3.8 or newer. Empty: python3 from PATH.",
        {},
    ),
    "retention": (
        "retention",
        "How long jobs and cached inputs stay there after their last use, such as 14d, 36h or 90m. Empty: forever.",
        {},
    ),
}

_HOST: _Fields = {
    "virtual_gpus": (
        "virtual GPUs",
        "Pretend to have this many, on a machine without nvidia-smi. Empty: the GPUs that nvidia-smi lists.",
        {"type": ["integer", "null"], "minimum": 1},
    ),
    "lease_dir": (
        "folder for GPU leases",
        "On the cluster; the same for everybody who shares the GPUs. Empty: /var/tmp/gpu-run-leases.",
        {},
    ),
}

_SLURM: _Fields = {
    "partition": ("partition", "For jobs that name none. Empty: Slurm's default.", {}),
    "account": ("account", "For jobs that name none. Empty: the user's default.", {}),
    "qos": ("QOS", "For jobs that name none. Empty: the account's default.", {}),
    "constraint": (
        "constraint",
        "Features that nodes must have, such as a100&nvlink, for jobs that name none. Empty: any node.",
        {},
    ),
    "sbatch_options": (
        "options of sbatch",
        "Further options for every job, such as --reservation=maintenance. Empty: none.",
        {},
    ),
    "slurm_interval": (
        "interval (s)",
        "How often Slurm is asked for the states of all jobs, in one call.",
        {"type": ["number", "null"], "exclusiveMinimum": 0, "default": 15},
    ),
}

_LAUNCHER: _Fields = {
    "launch_command": (
        "launch command",
        "The site's own command, which prints a process id, such as gpu-run --gpus {gpus} --memory {memory} {script}. "
        "Required with the engine command, and an error with any other.",
        {},
    ),
}

_JOBS: _Fields = {
    "grace": (
        "grace",
        "How long a job may take to save and end after it was asked to, such as 30s or 5m. Empty: 30s.",
        {},
    ),
    "orphan_timeout": (
        "orphan timeout",
        "After how long a running job is ended about which nobody asks any more, such as 6h. Empty: never.",
        {},
    ),
    "min_gpu_utilization": (
        "idle below (% GPU use)",
        "A job that uses its GPUs less than this in the mean over the window is idle. 0: never. Empty: 5.",
        {"type": ["number", "null"], "minimum": 0, "maximum": 100},
    ),
    "utilization_window": (
        "idle window",
        "Over how long the use of GPUs is looked at, such as 30m or 2h. Empty: 30m.",
        {},
    ),
    "on_idle": (
        "when idle",
        "warn: the task's log says so. cancel: such jobs are also ended after the whole window, with reason idle. "
        "Empty: warn.",
        {"enum": ["warn", "cancel"]},
    ),
}

_BUDGET: _Fields = {
    "gpu_hours_budget": (
        "GPU-hours a month",
        'Of a DAG, a user or an owner, as JSON: {"dag:nightly": 40, "user:*": 200}. * is each of them, \'all\' is '
        "everybody together. Empty: no limit.",
        {"format": "multiline"},
    ),
    "over_budget": (
        "beyond it",
        "Only with a budget. refuse: a submit fails and says both numbers. wait: the job stays QUEUED until the budget "
        "allows it. Empty: refuse.",
        {"enum": ["refuse", "wait"]},
    ),
}

_IN_A_POOL: _Fields = {
    "weight": (
        "weight",
        "How much this cluster is preferred where one of several is chosen: the wait that is expected on it counts "
        "divided by this. 2 makes 20 minutes count as 10.",
        {"type": ["number", "null"], "exclusiveMinimum": 0, "default": 1},
    ),
    "price_per_gpu_hour": (
        "price of a GPU-hour",
        "A number, in the currency that all clusters of a pool share; by it the policy 'cheapest' chooses, and the "
        "task's log shows it. 0: free. Empty: not known, and dearer than any.",
        {"type": ["number", "null"], "minimum": 0},
    ),
}

_SECTIONS = (
    ("SSH", "SSH: how to log in", _SSH),
    ("Cluster", "Cluster: how and where jobs run", _CLUSTER),
    ("Host", "Host: only for the engine host", _HOST),
    ("Slurm", "Slurm: only for the engine slurm", _SLURM),
    ("Launcher", "Launcher: only for the engine command", _LAUNCHER),
    ("Jobs", "Jobs: what applies to those that say nothing else", _JOBS),
    ("Budget", "Budget: GPU-hours", _BUDGET),
    ("Pool", "Pool: only where one of several clusters is chosen", _IN_A_POOL),
)

_MEMBERS: _Fields = {
    "members": (
        "members",
        "Ids of the connections of the clusters, the preferred first, with commas between them: gpu01, gpu02, slurm-a. "
        'Or, as JSON, with the weight of each: {"gpu01": 2, "slurm-a": 1}; null is the weight of its connection. '
        "Required.",
        {"format": "multiline"},
    ),
    "policy": (
        "policy",
        "How one of them is chosen for a job that names no policy. soonest: where it is expected to start first. "
        "cheapest: by the price of a GPU-hour. in_order: the first that answers and can run it.",
        {"enum": ["soonest", "cheapest", "in_order"], "default": "soonest"},
    ),
}

_POOL_SECTIONS = (("Pool", "Pool: clusters of which one is chosen for each job", _MEMBERS),)
