"""The settings of a cluster, known before connecting to it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

# How files travel, in the words of the connection's field `transfer`.
STREAM, SFTP = TRANSFERS = "stream", "sftp"
# The settings that the program on the cluster receives, whatever its engine, and those for one engine.
COMMON_SETTINGS = (
    "conn_id",
    "engine",
    "python",
    "retention_s",
    "grace_s",
    "orphan_timeout_s",
    "min_gpu_utilization",
    "utilization_window_s",
    "on_idle",
    "gpu_hours_budget",
    "over_budget",
)
ENGINE_SETTINGS = {
    "host": ("virtual_gpus", "lease_dir"),
    "slurm": ("partition", "account", "qos", "constraint", "sbatch_options", "slurm_interval_s"),
    "command": ("launch_command",),
}


@dataclass(frozen=True)
class ClusterSettings:
    """
    What a connection says about a cluster, besides how to log in.

    :param conn_id: Airflow connection.
    :param name: readable name of the cluster, ``user@host:port``.
    :param root_dir: folder of all jobs on the cluster; ``~`` is the user's home there, and variables are those
        of a login there.
    :param engine: how the cluster runs jobs: ``host``, ``slurm`` or ``command``.
    :param python: interpreter on the cluster; None takes ``python3`` from the PATH.
    :param virtual_gpus: pretend to have that many GPUs; None asks ``nvidia-smi``.
    :param lease_dir: folder of the GPU leases, shared by all users of the host; None for the default one.
    :param partition: Slurm partition of jobs that name none; None for Slurm's own default. Likewise the next three.
    :param account: Slurm account.
    :param qos: Slurm QOS.
    :param constraint: features that Slurm's nodes must have.
    :param sbatch_options: further options of ``sbatch`` for every job.
    :param slurm_interval_s: how often Slurm is asked about all jobs together, in seconds; None for 15.
    :param launch_command: the site's own command that starts a script, with placeholders; for the engine ``command``.
    :param retention_s: how long unused jobs and cached files stay, in seconds; None for forever.
    :param grace_s: how long a job may take to end after it was asked to, in seconds; None for 30.
    :param orphan_timeout_s: after how long a job is ended about which nobody asks, in seconds; None for never.
    :param min_gpu_utilization: GPU use in percent below which a job is idle; None for 5, 0 for never.
    :param utilization_window_s: over how long that is looked at, in seconds; None for half an hour.
    :param on_idle: what is done about an idle job: ``warn`` or ``cancel``; None for ``warn``.
    :param gpu_hours_budget: GPU-hours a month, such as ``{"dag:nightly": 40, "user:*": 200}``; None for no limit.
    :param over_budget: what becomes of a job beyond it: ``refuse`` or ``wait``; None for ``refuse``.
    :param weight: how much the cluster is preferred in a pool: an expected wait counts divided by it.
    :param price_per_gpu_hour: in the currency that all clusters of a pool share; None if it is not given.
    :param read_at: when the connection was read, in seconds since the epoch.
    :param transfer: how the bytes of files travel: ``stream``, through the channels of commands, or ``sftp``.
    """

    conn_id: str
    name: str
    root_dir: str = "~/ml-jobs"
    engine: str = "host"
    python: str | None = None
    virtual_gpus: int | None = None
    lease_dir: str | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    sbatch_options: tuple[str, ...] = ()
    slurm_interval_s: float | None = None
    launch_command: str | None = None
    retention_s: float | None = None
    grace_s: float | None = None
    orphan_timeout_s: float | None = None
    min_gpu_utilization: float | None = None
    utilization_window_s: float | None = None
    on_idle: str | None = None
    gpu_hours_budget: Mapping[str, float] | None = None
    over_budget: str | None = None
    transfer: str = STREAM
    weight: float = 1.0
    price_per_gpu_hour: float | None = None
    read_at: float = field(default_factory=time.time, compare=False)

    @property
    def where(self) -> str:
        """The cluster and its connection, for the beginning of messages."""
        return f"cluster {self.name} (connection {self.conn_id})"
