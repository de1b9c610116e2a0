"""Environment variables of Slurm and of MPI that say something about another job, or about a task that this is none."""

from __future__ import annotations

from typing import Mapping

_OF_A_JOB = (
    "SLURM_",
    "SLURMD_",
    "SBATCH_",
    "SRUN_",
    "SALLOC_",
    "SQUEUE_",
    "SACCT",
    "SCANCEL_",
    "SCONTROL_",
    "SINFO_",
    "SSTAT_",
    "SPRIO_",
    "SPANK_",
    "PMI",
    "OMPI_",
    "PRTE_",
)
# How to reach Slurm and be known to it, and the user's own settings of MPI.
_OF_THE_SITE = ("SLURM_CONF", "SLURM_JWT", "OMPI_MCA_")

# What says which task of a step a process is. SLURM_JOBID and SLURM_NODELIST are old names of variables that stay: by
# them MPI's launchers take themselves for a part of a step.
_OF_A_TASK = {
    "SLURM_DISTRIBUTION",
    "SLURM_GTIDS",
    "SLURM_JOBID",
    "SLURM_LAUNCH_NODE_IPADDR",
    "SLURM_LOCALID",
    "SLURM_NODEID",
    "SLURM_NODELIST",
    "SLURM_NPROCS",
    "SLURM_PROCID",
    "SLURM_TASKS_PER_NODE",
    "SLURM_TASK_PID",
}
_OF_A_STEP = ("SLURM_NTASKS", "SLURM_STEP", "SLURM_SRUN_", "SLURM_CPU_BIND", "SLURM_MEM_BIND")


def without_other_jobs(env: Mapping[str, str]) -> dict[str, str]:
    """
    Return a login's variables without those of a job that it happens to be in.

    They would change what Slurm is asked for and how it answers, and Slurm would hand them on to the new job.
    """
    return {name: value for name, value in env.items() if not _is_of_a_job(name)}


def unused_defaults(env: Mapping[str, str]) -> list[str]:
    """Return the variables by which a login sets what ``sbatch`` asks for, and which jobs do not follow."""
    return sorted(name for name in env if name.startswith("SBATCH_"))


def without_tasks(env: Mapping[str, str]) -> dict[str, str]:
    """
    Return a job's variables without those of Slurm's tasks.

    A job's script is no task that ``srun`` has started, but frameworks take these variables for a sign that it is, and
    then expect as many tasks as GPUs. ``srun`` sets them anew for what it starts.
    """
    return {name: value for name, value in env.items() if name not in _OF_A_TASK and not name.startswith(_OF_A_STEP)}


def _is_of_a_job(name: str) -> bool:
    return name.startswith(_OF_A_JOB) and not name.startswith(_OF_THE_SITE)
