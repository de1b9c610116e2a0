"""How long Slurm itself lets a job end, where that is less than the job's own grace."""

from __future__ import annotations

from . import commands


def shorter_than(grace_s: float, configuration: str, partitions: str, partition: str | None) -> list[str]:
    """
    Return warnings for a user who tests the connection.

    :param grace_s: of its jobs.
    :param configuration: the output of :func:`.commands.configuration`.
    :param partitions: the output of :func:`.commands.partitions`.
    :param partition: of its jobs; None for the usual one.
    """
    found = []
    kill_wait = _seconds(commands.detail(configuration, "KillWait"))
    if kill_wait is not None and kill_wait < grace_s:
        found.append(
            f"Slurm kills a job {kill_wait:g} s after its own TERM (KillWait), which is sooner than the grace of "
            f"{grace_s:g} s: at a preemption, an scancel by hand and Slurm's own time limit. Cancels and limits of the "
            "provider have the whole grace; use warn_before for the others"
        )
    for line in partitions.splitlines():
        is_it = "Default=YES" in line if partition is None else commands.detail(line, "PartitionName") == partition
        grace_time = _seconds(commands.detail(line, "GraceTime"))
        preempts = commands.detail(line, "PreemptMode") not in (None, "OFF")
        if is_it and preempts and grace_time is not None and grace_time + (kill_wait or 0) < grace_s:
            name = commands.detail(line, "PartitionName")
            found.append(
                f"jobs of partition {name} that are preempted have {grace_time:g} s (GraceTime) and then "
                f"{kill_wait or 0:g} s (KillWait), which is less than the grace of {grace_s:g} s"
            )
    return found


def _seconds(text: str | None) -> float | None:
    return float(text) if text is not None and text.isdigit() else None
