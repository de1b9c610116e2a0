"""What every request tells the program of the cluster that it is for."""

from __future__ import annotations

from typing import Sequence, TypedDict


class Settings(TypedDict, total=False):
    """
    The engine of a cluster, and what it needs to know. What is None is left to the engine.

    :param engine: ``host``, ``slurm`` or ``command``.
    :param python: interpreter of the jobs.
    :param retention_s: how long what nobody uses is kept, in seconds; None for ever.
    :param virtual_gpus: of the host engine: pretend to have that many GPUs.
    :param lease_dir: of the host engine: folder of the GPU leases.
    :param partition: of Slurm, for jobs that name none; so with the next three.
    :param sbatch_options: of Slurm: further options of ``sbatch`` for every job.
    :param slurm_interval_s: of Slurm: how often it is asked about all jobs together, in seconds.
    :param launch_command: of the command engine: the site's own launcher.
    """

    engine: str
    python: str | None
    retention_s: float | None
    virtual_gpus: int | None
    lease_dir: str | None
    partition: str | None
    account: str | None
    qos: str | None
    constraint: str | None
    sbatch_options: Sequence[str] | None
    slurm_interval_s: float | None
    launch_command: str | None
