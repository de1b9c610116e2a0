"""Jobs on a real Slurm that go on by themselves after their ends."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.gpu_run.store.directories import Attempt
from tests.gpu_run.engines.slurm.in_process import SlurmRoot
from tests.harness.leftovers import kill_everything_under
from tests.servers.slurm import RealSlurm

pytestmark = pytest.mark.xdist_group("slurm-faults")

Eventually = Callable[..., Any]

# Each attempt says that it begins; the second ends well, and the first as it is told to.
RUN = 'echo "$ATTEMPT" >> "$OUTPUT_DIR/runs"; test "$ATTEMPT" = 1 || exit 0; '
HOLD = f"{RUN} sleep 600"
LARGE = (
    """echo "$ATTEMPT" >> "$OUTPUT_DIR/runs"; exec python3 -c 'import os, time; x = b"x" * (300 << 20); """
    """time.sleep(600 if os.environ["ATTEMPT"] == "1" else 2)'"""
)
RECOVER = {"preempted": 3, "node_failure": 3, "lost": 2, "checkpointed": 3}


@pytest.fixture
def root(slurm: RealSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlurmRoot]:
    monkeypatch.setenv("SLURM_CONF", slurm.environment["SLURM_CONF"])
    yield SlurmRoot(tmp_path)
    for node in ("gpu1", "gpu2"):
        slurm.run("scontrol", "update", f"node={node}", "state=resume")
    slurm.end_jobs()
    kill_everything_under(tmp_path)


def runs(root: SlurmRoot, job_id: str) -> list[str]:
    """Return the attempts of a job that have begun, in their order."""
    path = Path(root.job(job_id).at("outputs", "runs"))
    return path.read_text().split() if path.exists() else []


def record(attempt: Attempt, name: str) -> dict[str, Any]:
    return dict(json.loads(Path(attempt.at(name)).read_text()))


def slurm_job(root: SlurmRoot, job_id: str, number: int = 1) -> str:
    return str(record(root.job(job_id).attempt(number), "claim.json")["slurm_job"])


def all_begin(root: SlurmRoot, jobs: list[str], eventually: Eventually) -> None:
    for job_id in jobs:
        eventually(lambda job_id=job_id: runs(root, job_id), timeout_s=60)  # type: ignore[misc]


def array(root: SlurmRoot, count: int, command: str, **spec: Any) -> list[str]:
    """Launch attempts as an array of Slurm, and return their jobs."""
    attempts = root.attempts(count, command, **spec)
    root.engine.launch(attempts)
    return [attempt.job.job_id for attempt in attempts]


def preempt(slurm: RealSlurm, tmp_path: Path) -> Path:
    """Have Slurm preempt every job of the lower partitions; return the file that lets them have the GPUs again."""
    over = tmp_path / "over"
    script = f"#!/bin/sh\nuntil [ -e {over} ]; do sleep 0.1; done\n"
    slurm.run(
        "sbatch",
        "--nodes=2",
        "--gres=gpu:4",
        "--partition=gpu",
        "--output=/dev/null",
        standard_input=script,
        check=True,
    )
    return over


def followed(root: SlurmRoot, job_id: str, reason: str) -> dict[str, Any]:
    """Return the final status of a job whose first attempt ended for that reason, and whose second ended well."""
    status = root.wait(job_id, timeout_s=90)
    assert (status["state"], status["attempt"]) == (protocol.SUCCEEDED, 2), status
    assert [(past["attempt"], past["reason"]) for past in status["attempts"]] == [(1, reason)]
    assert status["recovered"] == {reason: 1}
    assert runs(root, job_id) == ["1", "2"]
    return status


def test_what_is_preempted_goes_on(root: SlurmRoot, slurm: RealSlurm, tmp_path: Path, eventually: Eventually) -> None:
    spec = {"partition": "scavenger", "recover": RECOVER}
    single = root.submit(HOLD, **spec)
    saves = root.submit(f"{RUN} trap 'exit 0' TERM; sleep 600 & wait", **spec)
    nodes = root.submit(f'test "$NODE_RANK" = 0 || sleep 600; {HOLD}', nodes=2, **spec)
    elements = array(root, 2, HOLD, **spec)
    never = root.submit(HOLD, partition="scavenger", recover={})
    jobs = [single, saves, nodes, *elements]
    all_begin(root, [*jobs, never], eventually)
    over = preempt(slurm, tmp_path)
    for job_id in jobs:
        waiting = eventually(lambda job_id=job_id: waits(root, job_id), timeout_s=60)  # type: ignore[misc]
        assert waiting["message"].startswith("attempt 1 was preempted after "), waiting
    over.touch()
    for job_id in jobs:
        followed(root, job_id, protocol.PREEMPTED)
        assert slurm_job(root, job_id, 2) != slurm_job(root, job_id)
    status = root.wait(never)
    assert (status["state"], status["reason"], runs(root, never)) == (protocol.FAILED, protocol.PREEMPTED, ["1"])


def waits(root: SlurmRoot, job_id: str) -> dict[str, Any] | None:
    """Return the status of a job whose second attempt is in Slurm's queue."""
    status = root.status(job_id)
    assert status["state"] not in protocol.FINAL_STATES, status
    is_queued = status["state"] == protocol.QUEUED and status["attempt"] == 2 and "job " in status["message"]
    return status if is_queued else None


@pytest.mark.parametrize("is_seen", [True, False])
def test_what_slurm_itself_requeues_goes_on_as_the_same_job(
    root: SlurmRoot, slurm: RealSlurm, eventually: Eventually, is_seen: bool
) -> None:
    spec = {"sbatch_options": ["--requeue"], "recover": RECOVER}
    single, saves = root.submit(HOLD, **spec), root.submit(f"{RUN} trap 'exit 0' TERM; sleep 600 & wait", **spec)
    elements = array(root, 2, HOLD, **spec)
    nodes = root.submit(f'test "$NODE_RANK" = 0 || exit 0; {HOLD}', nodes=2, **spec)
    never = root.submit(HOLD, sbatch_options=["--requeue"], recover={})
    jobs = [single, saves, elements[0], nodes]
    all_begin(root, [*jobs, elements[1], never], eventually)
    slurm_jobs = [slurm_job(root, job_id) for job_id in [*jobs, never]]
    slurm.run("scontrol", "requeue", ",".join(slurm_jobs), check=True)
    # Slurm tells the runs of a job apart by the second they began in.
    eventually(lambda: slurm.run("squeue", "-h", "-r", "-t", "PD", "-o", "%i").stdout.count("\n") >= 5 - is_seen)
    if is_seen:
        for job_id in jobs:
            eventually(lambda job_id=job_id: waits(root, job_id), timeout_s=60)  # type: ignore[misc]
    time.sleep(2)
    for job in slurm_jobs:
        # As it would after two minutes. What nothing follows is gone already.
        slurm.run("scontrol", "update", f"jobid={job}", "StartTime=now")
    for job_id in jobs:
        followed(root, job_id, protocol.PREEMPTED)
        assert slurm_job(root, job_id, 2) == slurm_job(root, job_id)
    status = root.wait(never)
    assert (status["reason"], runs(root, never)) == (protocol.PREEMPTED, ["1"])
    assert runs(root, elements[1]) == ["1"]
    # Nothing is left in the queue besides.
    eventually(lambda: len(slurm.run("squeue", "-h", "-t", "PD,R,CG", "-o", "%i").stdout.split()) == 1)


def test_after_a_node_failure_it_goes_on_elsewhere(root: SlurmRoot, slurm: RealSlurm, eventually: Eventually) -> None:
    spec = {"recover": RECOVER, "time_limit_s": 600}
    single = root.submit(HOLD, sbatch_options=["--exclude=gpu2"], **spec)
    lone = root.submit(HOLD, partition="lone", **spec)
    requeued = root.submit(HOLD, sbatch_options=["--requeue"], **spec)
    all_begin(root, [single, lone, requeued], eventually)
    slurm.run("scontrol", "update", "node=gpu1", "state=down", "reason=test", check=True)
    for job_id in (single, lone, requeued):
        eventually(lambda job_id=job_id: waits(root, job_id), timeout_s=60)  # type: ignore[misc]
    slurm.run("scontrol", "update", "node=gpu1", "state=resume", check=True)
    # It may not run where its user does not want it, so its first node is taken again.
    assert followed(root, single, protocol.NODE_FAILURE)["host"] == "gpu1"
    assert followed(root, lone, protocol.NODE_FAILURE)["host"] == "gpu1"
