"""What a real Slurm says of jobs that may be launched there."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.gpu_run.engines.slurm import runner
from airflow_provider_gpu_cluster.gpu_run.engines.slurm.engine import SlurmEngine
from airflow_provider_gpu_cluster.gpu_run.engines.wanted import Wanted
from airflow_provider_gpu_cluster.gpu_run.jobs import appraisal
from airflow_provider_gpu_cluster.gpu_run.store.placements import Promise
from tests.gpu_run.engines.slurm.in_process import SlurmRoot
from tests.gpu_run.engines.slurm.test_engine import IN_ANOTHER_JOB
from tests.gpu_run.jobs.test_appraisal import job
from tests.harness.leftovers import kill_everything_under
from tests.servers.slurm import RealSlurm

pytestmark = pytest.mark.xdist_group("slurm")


@pytest.fixture
def root(slurm: RealSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlurmRoot]:
    monkeypatch.setenv("SLURM_CONF", slurm.environment["SLURM_CONF"])
    yield SlurmRoot(tmp_path)
    slurm.end_jobs()
    kill_everything_under(tmp_path)


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that gets the name of each of Slurm's commands that is run."""
    names: list[str] = []
    run = runner.run

    def noting(command: Any, *more: Any, **named: Any) -> Any:
        names.append(command[0])
        return run(command, *more, **named)

    for module in ("prospects", "views", "submitter"):
        monkeypatch.setattr(f"airflow_provider_gpu_cluster.gpu_run.engines.slurm.{module}.run", noting)
    return names


def ask(root: SlurmRoot, *jobs: Any) -> list[Any]:
    engine = SlurmEngine(root.root, root.settings, root.program, 2.0)
    reply = appraisal.answer(root.root, engine, {"jobs": list(jobs), "settings": root.settings})
    value: Any = reply.value
    return list(value["jobs"])


def test_what_fits_and_when_it_could_start(
    root: SlurmRoot, slurm: RealSlurm, asked: list[str], eventually: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, typed, no_type, wide, memory, long, qos, held, later = ask(
        root,
        job(),
        job(gpu_type="A1"),
        job(gpu_type="h100"),
        job(nodes=3),
        job(memory_bytes=1 << 50),
        job(time_limit_s=2 * 86400.0),
        job(qos="none"),
        job(sbatch_options=["--hold"]),
        job(sbatch_options=["--begin=now+1000"]),
    )
    for found in (plain, typed):
        assert (found["fits"], found["gpus"], found["free_gpus"]) == (True, 8, 8)
        assert (found["starts_in_s"], found["start_known_by"]) == (0, "test-only")
    assert "no GPUs here are of type 'h100'; Slurm knows a100" in no_type["why_not"]
    for found in (wide, memory):
        assert found["why_not"] == "Slurm refuses the job: Requested node configuration is not available"
    assert "minutes, and its partition gpu gives a job 1,440; lower time_limit" in long["why_not"]
    assert "MaxSubmitJobsPerUser=0 is set for the QOS none" in qos["why_not"]
    assert not [found for found in (no_type, wide, memory, long, qos) if found["fits"] or "is_passing" in found]
    assert (held["fits"], "starts_in_s" in held) == (True, False)
    assert 900 < later["starts_in_s"] <= 1000

    # All are in use, and one waits.
    for number in range(3):
        root.submit("exec sleep 600", job_id=f"three-{number}", gpus=4, qos="three", time_limit_s=400.0)
    eventually(lambda: "gpu1" in slurm.run("squeue", "-h", "-t", "PD", "-o", "%Y").stdout, timeout_s=60)
    # As often as the view is asked anew.
    eventually(lambda: "starts_in_s" in ask(root, job("three-2", gpus=4))[0], timeout_s=60)
    asked.clear()
    *many, waits, three = ask(
        root,
        *(job(f"new-{number}", time_limit_s=60.0) for number in range(100)),
        job("three-2", gpus=4),
        job(qos="three"),
    )
    # Once for those that are alike, and once for the other QOS.
    assert (asked.count("sinfo"), asked.count("sbatch")) == (1, 2)
    assert asked.count("squeue") <= 1
    assert many[0] == many[99]
    assert (many[0]["free_gpus"], many[0]["start_known_by"]) == (0, "test-only")
    assert (waits["placed"]["status"]["state"], waits["start_known_by"]) == (protocol.QUEUED, "squeue --start")
    # By Slurm's own plan, before which the others cannot start.
    assert 300 < waits["starts_in_s"] < many[0]["starts_in_s"] < 3600
    assert (three["fits"], "starts_in_s" in three) == (True, False)
    assert "Slurm takes no more jobs of yours now: QOSMaxSubmitJobPerUserLimit" in three["remark"]
    assert "MaxSubmitJobsPerUser=3 is set for the QOS three" in three["remark"]

    # What the login happens to have, and its own time zone.
    with monkeypatch.context() as login:
        for name, value in {**IN_ANOTHER_JOB, "TZ": "Asia/Tokyo", "LC_ALL": "de_DE.UTF-8"}.items():
            login.setenv(name, value)
        time.tzset()
        (leaked,) = ask(root, job(time_limit_s=60.0))
    time.tzset()
    assert abs(leaked["starts_in_s"] - many[0]["starts_in_s"]) < 120


def test_nodes_that_take_no_jobs_now(root: SlurmRoot, slurm: RealSlurm) -> None:
    slurm.run("scontrol", "update", "nodename=gpu1", "state=drain", "reason=test", check=True)
    try:
        drained, memory, other = ask(
            root, job(partition="lone"), job(partition="lone", memory_bytes=1 << 50), job(gpus=4)
        )
        slurm.run("scontrol", "update", "partitionname=lone", "state=inactive", check=True)
        (inactive,) = ask(root, job(partition="lone"))
    finally:
        slurm.run("scontrol", "update", "partitionname=lone", "state=up", check=True)
        slurm.run("scontrol", "update", "nodename=gpu1", "state=resume", check=True)
    # It would be taken, and wait.
    assert (drained["fits"], "starts_in_s" in drained, drained["gpus"]) == (True, False, 0)
    assert "not available; nodes that take no jobs now: gpu1" in drained["remark"]
    assert not memory["fits"]
    assert (other["starts_in_s"], other["free_gpus"]) == (0, 4)
    assert (inactive["fits"], inactive["is_passing"]) == (False, True)
    assert "Required partition not available" in inactive["why_not"]


def test_what_is_promised_counts_as_taken(root: SlurmRoot) -> None:
    engine, wanted = root.engine, [Wanted({"gpus": 4, "nodes": 2}), Wanted({"gpus": 1, "gpu_type": "a100"})]
    all_of_them, one = engine.prospects(wanted, [Promise("other", 4, None)], within_s=20.0)
    assert (all_of_them["free_gpus"], "starts_in_s" in all_of_them) == (4, False)
    assert "of 8 GPUs that are free, 4 are promised" in all_of_them["remark"]
    assert one["starts_in_s"] == 0


@pytest.mark.parametrize("slow", ["sinfo", "sbatch"])
def test_a_silent_slurm_costs_a_moment(
    root: SlurmRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow: str
) -> None:
    # This stands for a controller that does not answer.
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sinfo", "sbatch", "squeue"):
        (folder / name).write_text(
            "#!/bin/sh\nexec sleep 60\n" if name == slow else f'#!/bin/sh\nexec {shutil.which(name)} "$@"\n'
        )
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    began = time.monotonic()
    found = root.engine.prospects([Wanted({"gpus": 1}), Wanted({"gpus": 2})], [], within_s=0.5)
    assert time.monotonic() - began < 20
    for one in found:
        if slow == "sinfo":
            assert (one["fits"], one["is_passing"]) == (False, True)
            assert "sinfo gave no answer in 0.5 s" in one["why_not"]
        else:
            assert (one["fits"], one["free_gpus"], "starts_in_s" in one) == (True, 8, False)
            assert "Slurm has not said when it could start: sbatch gave no answer" in one["remark"]


def test_no_slurm_here(root: SlurmRoot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(runner, "_FOLDERS", ("/nowhere",))
    (found,) = ask(root, job())
    assert not found["fits"]
    assert "there is no sinfo on" in found["why_not"]
