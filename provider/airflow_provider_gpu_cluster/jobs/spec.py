"""What a job runs and what it needs: the checked values, as they go to the cluster."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.gpu_run.protocol.spec import Spec


@dataclass(frozen=True)
class JobSpec:
    """
    What a job runs and what it needs. The values are checked where they are parsed (see :mod:`.jobs.parameters`).

    :param entry_script: path of the script to run, relative to the code; None when ``command`` is given.
    :param script_args: arguments of the entry script.
    :param command: shell text to run instead of an entry script.
    :param gpus: number of whole GPUs.
    :param gpu_type: only GPUs whose name contains this text, compared without case; None for any.
    :param cpus: CPU cores; None leaves it to the cluster.
    :param memory_bytes: limit on host memory; None for no limit.
    :param time_limit_s: limit on the run time in seconds; None for no limit.
    :param priority: ``high``, ``normal`` or ``low``.
    :param nodes: how many nodes it runs on, with ``gpus``, ``cpus`` and ``memory_bytes`` on each.
    :param partition: Slurm partition; None for the connection's. So with the next three.
    :param account: Slurm account.
    :param qos: Slurm QOS.
    :param constraint: features that Slurm's nodes must have.
    :param sbatch_options: further options of ``sbatch``, after the connection's.
    :param requirements: text of a requirements file; None takes ``requirements.txt`` from the code if it is there.
    :param setup: shell lines to run first, such as ``module load cuda``.
    :param grace_s: seconds between TERM and KILL when the job is stopped.
    """

    entry_script: str | None = None
    script_args: tuple[str, ...] = ()
    command: str | None = None
    gpus: int = 1
    gpu_type: str | None = None
    cpus: int | None = None
    memory_bytes: int | None = None
    time_limit_s: float | None = None
    priority: str = "normal"
    nodes: int = 1
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    sbatch_options: tuple[str, ...] = ()
    requirements: str | None = None
    setup: str = ""
    grace_s: float = 10.0

    def to_json(self) -> Spec:
        """Return the spec as plain JSON values."""
        spec = cast("Spec", asdict(self))
        spec["script_args"], spec["sbatch_options"] = list(self.script_args), list(self.sbatch_options)
        return spec
