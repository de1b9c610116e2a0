"""What a ledger and Slurm's accounting say about the same runs of jobs."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import Any, NamedTuple

from airflow_provider_gpu_cluster.gpu_run.ledger.ledger import Ledger
from airflow_provider_gpu_cluster.gpu_run.store.settling import settle_all
from tests.gpu_run.engines.slurm.in_process import SlurmRoot
from tests.harness.patience import PATIENCE_S
from tests.servers.slurm import RealSlurm

# Slurm counts whole seconds, and takes a moment to see that a job has ended.
_APART_S = 2.0


class Run(NamedTuple):
    """A run of a job that is over."""

    gpu_seconds: float
    gpus: int


def check_accounts(root: SlurmRoot, slurm: RealSlurm) -> None:
    """Check that a ledger has the runs that Slurm has, each with as many GPUs for as long."""
    deadline = time.monotonic() + PATIENCE_S
    # The accounting learns of an end a moment later.
    while not _agree(ours := _in_ledger(root), theirs := _in_slurm(root, slurm)):
        assert time.monotonic() < deadline, (ours, theirs)
        time.sleep(0.5)
    assert ours


def _agree(ours: dict[str, list[Run]], theirs: dict[str, list[Run]]) -> bool:
    return all(len(runs) == len(theirs.get(job, ())) and _match(runs, theirs[job]) for job, runs in ours.items())


def _match(ours: list[Run], theirs: list[Run]) -> bool:
    """Return whether each run is in both; now and then Slurm has no time at all for a run that it has requeued."""
    timed = [run for run in theirs if run.gpu_seconds or len(theirs) == 1]
    left = list(ours)
    for run in timed:
        alike = next((one for one in left if _are_alike(one, run)), None)
        if alike is None:
            return False
        left.remove(alike)
    return len(timed) > 0


def _are_alike(ours: Run, theirs: Run) -> bool:
    return ours.gpus == theirs.gpus and abs(ours.gpu_seconds - theirs.gpu_seconds) <= _APART_S * ours.gpus


def _in_ledger(root: SlurmRoot) -> dict[str, list[Run]]:
    """Return the attempts that have begun and are over, by Slurm's id of the job of each."""
    assert settle_all(root.root, wait_s=PATIENCE_S)
    found: dict[str, list[Run]] = defaultdict(list)
    for line in Ledger(root.root.own).lines(kinds=("end",)):
        claim: Any = root.job(line["job_id"]).attempt(line["attempt"]).claimed()
        if "slurm_job" in claim:
            found[claim["slurm_job"]].append(Run(line["gpu_seconds"], line["gpus"]))
        else:
            assert (line["gpu_seconds"], line["gpus"]) == (0, 0), line
    return {job: sorted(runs) for job, runs in found.items()}


def _in_slurm(root: SlurmRoot, slurm: RealSlurm) -> dict[str, list[Run]]:
    fields = "--format=JobID,ElapsedRaw,AllocTRES,Start,End,WorkDir"
    told = slurm.run("sacct", "-n", "-X", "-P", "--duplicates", "--starttime=now-1hours", fields, check=True)
    found: dict[str, list[Run]] = defaultdict(list)
    for text in told.stdout.splitlines():
        job, elapsed, resources, start, end, folder = text.split("|")
        gpus = int(dict(part.split("=") for part in resources.split(",") if part).get("gres/gpu", 0))
        if folder.startswith(root.root.path) and "Unknown" not in (start, end):
            found[job].append(Run(float(elapsed) * gpus, gpus))
    return {job: sorted(runs) for job, runs in found.items()}
