"""What is known of a cluster before anybody has connected to it."""

from __future__ import annotations

from dataclasses import dataclass

# The ways of files, as the connection's field `transfer` calls them.
STREAM, SFTP = TRANSFERS = "stream", "sftp"
# What the program on the cluster is told, by engine.
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
    :param name: the cluster for a person, ``user@host:port``.
    :param root_dir: folder of all jobs on the cluster; ``~`` is the user's home there.
    :param engine: how jobs get to run there: ``host``, ``slurm`` or ``command``.
    :param python: interpreter on the cluster; None takes ``python3`` from the PATH.
    :param virtual_gpus: pretend to have that many GPUs; None asks ``nvidia-smi``.
    :param lease_dir: folder of the GPU leases, shared by all users of the host; None for the usual one.
    :param partition: Slurm partition of jobs that name none; None for Slurm's own default. So with the next three.
    :param account: Slurm account.
    :param qos: Slurm QOS.
    :param constraint: features that Slurm's nodes must have.
    :param sbatch_options: further options of ``sbatch`` for every job.
    :param slurm_interval_s: how often Slurm is asked about all jobs together, in seconds; None for 15.
    :param launch_command: the site's own command that starts a script, with placeholders; of the engine ``command``.
    :param retention_s: how long jobs, and what is kept for them, stay when nobody uses them, in seconds; None for ever.
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
    transfer: str = STREAM

    @property
    def where(self) -> str:
        """The cluster and its connection, as messages begin."""
        return f"cluster {self.name} (connection {self.conn_id})"
