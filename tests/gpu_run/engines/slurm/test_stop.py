"""Jobs on a real Slurm that are stopped: by a cancel, by Slurm itself, on one node and on several."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from airflow_provider_gpu_cluster.gpu_run.engines.slurm import kill_wait
from airflow_provider_gpu_cluster.gpu_run.engines.slurm.warning_signal import WARNS
from airflow_provider_gpu_cluster.gpu_run.jobs import interrupt
from airflow_provider_gpu_cluster.gpu_run.jobs.cancel import cancel
from tests.gpu_run.engines.slurm.in_process import SlurmRoot
from tests.gpu_run.supervise.test_stop import CODE, FORMS
from tests.harness.leftovers import kill_everything_under
from tests.servers.slurm import RealSlurm

pytestmark = pytest.mark.xdist_group("slurm")

COMMAND = FORMS["command of several lines"]
# With nothing beside it that dies of the TERM that Slurm sends to every process.
ALONE = f"{CODE['train.py']}".replace("for _ in range(2)", "for _ in range(0)")


@pytest.fixture
def root(slurm: RealSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlurmRoot]:
    monkeypatch.setenv("SLURM_CONF", slurm.environment["SLURM_CONF"])
    yield SlurmRoot(tmp_path)
    slurm.end_jobs()
    kill_everything_under(tmp_path)


def test_a_job_is_told_to_end_alone_whoever_tells_it(
    root: SlurmRoot, slurm: RealSlurm, eventually: Callable[..., object]
) -> None:
    env = {"SAVES_FOR_S": "2.2"}
    cancelled = root.submit(COMMAND, code=CODE, env=env, grace_s=30)
    by_slurm = root.submit(COMMAND, code={"train.py": ALONE}, env=env, grace_s=30, sbatch_options=["--partition=gpu"])
    rehearsed = root.submit(COMMAND, code=CODE, env={"SAVES_FOR_S": "0"}, grace_s=0.5, warn_before_s=600)
    # On the other node, since the four jobs beside it fill the first.
    elsewhere = ["--nodelist=gpu2"]
    with_srun = "srun python3 train.py || true\necho goes on"
    step = root.submit(with_srun, code=CODE, env=env, grace_s=30, sbatch_options=elsewhere)
    nodes = root.submit(COMMAND, code=CODE, env=env, grace_s=30, nodes=2)
    for job, count in ((cancelled, 1), (by_slurm, 1), (rehearsed, 1), (step, 1), (nodes, 2)):
        log = Path(root.job(job).at("logs", "training.log"))
        eventually(lambda log=log, count=count: log.exists() and log.read_text().count("ready\n") == count)
    claims = {job: json.loads(Path(root.attempt(job).at("claim.json")).read_text()) for job in (by_slurm, rehearsed)}
    cancel(root.root, root.engine, [cancelled, step], "ann", 0)
    slurm.run("scancel", claims[by_slurm]["slurm_job"], check=True)
    # As Slurm does it at a preemption, where it may.
    slurm.run("scancel", "--batch", f"--signal={WARNS}", claims[rehearsed]["slurm_job"], check=True)
    said = interrupt.interrupt(root.root, nodes, "checkpoint", by="ann", name=os.urandom(4).hex())
    assert said.startswith("USR1 was sent to srun")
    eventually(lambda: root.log(nodes).count("warned\n") == 2)
    cancel(root.root, root.engine, [nodes], "ann", 0)
    eventually(lambda: "warned\n" in root.log(rehearsed))
    said = interrupt.interrupt(root.root, rehearsed, "preempted", by="ann", name=os.urandom(4).hex())
    assert said.startswith("USR1 was sent; TERM follows in ")
    status = root.wait(cancelled)
    assert (status["state"], status["exit_code"], status["message"]) == ("CANCELLED", 3, "cancelled by ann")
    assert root.log(cancelled) == "begins\nready\nsaved\n"
    status = root.wait(step)
    assert (status["state"], status["exit_code"]) == ("CANCELLED", 3)
    assert [line for line in root.log(step).splitlines() if not line.startswith("srun")] == ["ready", "saved"]
    status = root.wait(by_slurm)
    assert (status["state"], status["exit_code"]) == ("CANCELLED", 3)
    assert status["message"].startswith("it was cancelled in Slurm")
    assert [line for line in root.log(by_slurm).splitlines() if "Terminated" not in line] == [
        "begins",
        "ready",
        "saved",
    ]
    status = root.wait(rehearsed)
    assert (status["reason"], status["message"]) == ("preempted", "its preemption was rehearsed by ann")
    assert root.log(rehearsed).startswith("begins\nready\nwarned\n")
    assert root.log(rehearsed).endswith("saved\n")
    status = root.wait(nodes)
    assert (status["state"], status["exit_code"], status["message"]) == ("CANCELLED", 3, "cancelled by ann")
    lines = [line for line in root.log(nodes).splitlines() if not line.startswith("srun")]
    assert sorted(lines) == sorted(["begins", "ready", "warned", "saved"] * 2)


def test_a_shorter_time_of_slurm_s_own_is_told() -> None:
    configuration = "KillWait                = 30 sec\nMinJobAge = 300 sec\n"
    partitions = (
        "PartitionName=gpu AllowGroups=ALL Default=YES GraceTime=0 PreemptMode=OFF\n"
        "PartitionName=spot AllowGroups=ALL Default=NO GraceTime=60 PreemptMode=CANCEL\n"
    )
    assert kill_wait.shorter_than(30, configuration, partitions, None) == []
    (said,) = kill_wait.shorter_than(31, configuration, partitions, "gpu")
    assert said.startswith(
        "Slurm kills a job 30 s after its own TERM (KillWait), which is sooner than the grace of 31 s"
    )
    assert len(kill_wait.shorter_than(90, configuration, partitions, "spot")) == 1
    assert kill_wait.shorter_than(91, configuration, partitions, "spot")[1] == (
        "jobs of partition spot that are preempted have 60 s (GraceTime) and then 30 s (KillWait), which is less than "
        "the grace of 91 s"
    )
    assert kill_wait.shorter_than(30, "", "nonsense", "spot") == []
