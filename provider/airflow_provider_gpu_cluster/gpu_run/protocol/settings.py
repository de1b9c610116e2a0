"""The part of every request that describes the cluster to the program."""

from __future__ import annotations

from typing import Mapping, Sequence, TypedDict


class Settings(TypedDict, total=False):
    """
    The engine of a cluster, and its settings. None leaves the choice to the engine.

    :param conn_id: the connection that describes the cluster.
    :param engine: ``host``, ``slurm`` or ``command``.
    :param python: interpreter of the jobs.
    :param retention_s: how long unused things are kept, in seconds; None keeps them without a limit.
    :param grace_s: how long a job may take to end after it was asked to, for jobs that say nothing.
    :param orphan_timeout_s: after how long a job is ended about which nobody asks, for jobs that say nothing.
    :param min_gpu_utilization: GPU use in percent below which a job is idle, for jobs that say nothing.
    :param utilization_window_s: over how long that is looked at, in seconds.
    :param on_idle: what is done about an idle job: ``warn`` or ``cancel``.
    :param gpu_hours_budget: GPU-hours a month, by ``dag:NAME``, ``user:NAME``, ``owner:NAME`` (``*`` for each) or
        ``all``.
    :param over_budget: what becomes of a job beyond it: ``refuse`` or ``wait``.
    :param virtual_gpus: of the host engine: pretend to have that many GPUs.
    :param lease_dir: of the host engine: folder of the GPU leases.
    :param partition: of Slurm, for jobs that name none; the same applies to the next three.
    :param sbatch_options: of Slurm: further options of ``sbatch`` for every job.
    :param slurm_interval_s: of Slurm: how often it is asked about all jobs together, in seconds.
    :param launch_command: of the command engine: the site's own launcher.
    """

    conn_id: str
    engine: str
    python: str | None
    retention_s: float | None
    grace_s: float | None
    orphan_timeout_s: float | None
    min_gpu_utilization: float | None
    utilization_window_s: float | None
    on_idle: str | None
    gpu_hours_budget: Mapping[str, float] | None
    over_budget: str | None
    virtual_gpus: int | None
    lease_dir: str | None
    partition: str | None
    account: str | None
    qos: str | None
    constraint: str | None
    sbatch_options: Sequence[str] | None
    slurm_interval_s: float | None
    launch_command: str | None
