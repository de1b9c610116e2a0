"""The Slurm engine on a real Slurm, called directly: arrays, many jobs, a Slurm without accounting."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.gpu_run.engines.slurm import views
from airflow_provider_gpu_cluster.gpu_run.errors import Refused
from airflow_provider_gpu_cluster.gpu_run.jobs.cancel import cancel
from airflow_provider_gpu_cluster.gpu_run.jobs.status import statuses
from airflow_provider_gpu_cluster.gpu_run.store.directories import Attempt
from tests.gpu_run.engines.slurm.conftest import INTERVAL_S
from tests.gpu_run.engines.slurm.in_process import SlurmRoot
from tests.gpu_run.supervise.test_foreign_variables import takes_itself_for_a_task
from tests.harness.leftovers import kill_everything_under
from tests.servers.slurm import RealSlurm

pytestmark = pytest.mark.xdist_group("slurm")


def _at(slurm: RealSlurm, folder: Path, patch: pytest.MonkeyPatch) -> Iterator[SlurmRoot]:
    patch.setenv("SLURM_CONF", slurm.environment["SLURM_CONF"])
    yield SlurmRoot(folder)
    slurm.end_jobs()
    kill_everything_under(folder)


@pytest.fixture
def root(slurm: RealSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlurmRoot]:
    yield from _at(slurm, tmp_path, monkeypatch)


@pytest.fixture
def unaccounted(
    slurm_without_accounting: RealSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SlurmRoot]:
    """Return a root on a Slurm without accounting."""
    yield from _at(slurm_without_accounting, tmp_path, monkeypatch)


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Return a function that returns the Slurm commands that were run so far."""
    log, folder = tmp_path / "commands", tmp_path / "bin"
    folder.mkdir()
    log.touch()
    for name in ("sbatch", "squeue", "sacct", "scontrol", "scancel"):
        path = folder / name
        path.write_text(f'#!/bin/sh\necho {name} >> {log}\nexec {shutil.which(name)} "$@"\n')
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return lambda: log.read_text().split()


def states(root: SlurmRoot, job_ids: list[str]) -> dict[str, int]:
    found = [status["state"] for status in statuses(root.root, root.engine, job_ids, 0)]
    return {state: found.count(state) for state in found}


def test_attempts_that_are_launched_together_are_one_array(
    root: SlurmRoot, commands: Callable[[], list[str]], eventually: Callable[..., Any]
) -> None:
    attempts = root.attempts(6, 'echo run >> "$OUTPUT_DIR/runs"; test "${JOB_ID%%[05]}" = "$JOB_ID"')
    ids = [attempt.job.job_id for attempt in attempts]
    root.engine.launch(attempts)
    root.engine.launch(attempts)
    assert commands().count("sbatch") == 1
    eventually(lambda: not set(states(root, ids)) - set(protocol.FINAL_STATES), timeout_s=60)
    for status in statuses(root.root, root.engine, ids, 0):
        failed = status["job_id"][-1] in "05"
        assert status["state"] == (protocol.FAILED if failed else protocol.SUCCEEDED), status
        assert Path(root.job(status["job_id"]).at("outputs", "runs")).read_text() == "run\n"


# -- what a login happens to have ---------------------------------------------------------------------------------

IN_ANOTHER_JOB = {
    "SLURM_ARRAY_JOB_ID": "999",
    "SLURM_ARRAY_TASK_ID": "4",
    "SLURM_JOB_ID": "998",
    "SLURM_STEP_ID": "5",
    "SLURM_NTASKS": "7",
    "SLURM_MEM_PER_CPU": "7000000",
    "SBATCH_GPUS": "2",
    "SBATCH_ARRAY_INX": "0-3",
    "SBATCH_EXCLUSIVE": "1",
    "SBATCH_JOB_NAME": "theirs",
    "SBATCH_EXPORT": "NONE",
    "SBATCH_SIGNAL": "USR1@600",
    "SQUEUE_FORMAT": "%i",
    "SQUEUE_STATES": "PENDING",
    "SACCT_FORMAT": "jobid",
    "SLURM_TIME_FORMAT": "relative",
    "SLURM_CLUSTERS": "elsewhere",
    "PMI_RANK": "3",
    "OMPI_COMM_WORLD_SIZE": "4",
}
SEEN = """
env | grep -E '^(SLURM|SBATCH|PMI|OMPI)' > "$OUTPUT_DIR/all"
srun --ntasks=1 env | grep -E '^SLURM_(PROCID|NTASKS|ARRAY_JOB_ID)=' > "$OUTPUT_DIR/in-step"
mv "$OUTPUT_DIR/all" "$OUTPUT_DIR/seen"
exec sleep 600
"""


def test_a_job_submitted_from_inside_another_one_is_itself(
    root: SlurmRoot, slurm: RealSlurm, monkeypatch: pytest.MonkeyPatch, eventually: Callable[..., Any]
) -> None:
    with monkeypatch.context() as login:
        for name, value in IN_ANOTHER_JOB.items():
            login.setenv(name, value)
        job_id = root.submit(SEEN, gpus=2)
        job = root.job(job_id)
        eventually(lambda: Path(job.at("outputs", "seen")).exists(), timeout_s=60)
        # No time to wait for what is written elsewhere.
        login.setattr(root.engine, "_visible_s", 0.0)
        assert states(root, [job_id]) == {protocol.RUNNING: 1}
        shown = slurm.run("squeue", "-h", "-r", "-n", f"{job_id}.1", "-o", "%i", env={}, check=True).stdout.split()
        claim = json.loads(Path(root.attempt(job_id).at("claim.json")).read_text())
        assert [claim["slurm_job"]] == shown
        # Even if it called itself by another name, as earlier versions did: it is neither lost, nor left running.
        wrong = {**claim, "slurm_job": "999_4", "unix_time": claim["unix_time"] - 1000}
        Path(root.attempt(job_id).at("claim.json")).write_text(json.dumps(wrong))
        assert states(root, [job_id]) == {protocol.RUNNING: 1}
        assert cancel(root.root, root.engine, [job_id], "ann", 20)[0]["state"] == protocol.CANCELLED
    seen = dict(line.partition("=")[::2] for line in Path(job.at("outputs", "seen")).read_text().splitlines())
    assert (seen["SLURM_JOB_ID"], seen["SLURM_GPUS_ON_NODE"], seen["SLURM_CPUS_ON_NODE"]) == (*shown, "2", "1")
    assert "SLURM_MEM_PER_CPU" not in seen or seen["SLURM_MEM_PER_CPU"] == "100"
    assert not [rule for rule, holds in takes_itself_for_a_task(seen).items() if holds]
    leaked = set(IN_ANOTHER_JOB) - {"SLURM_JOB_ID", "SLURM_MEM_PER_CPU"}
    assert not leaked & set(seen)
    # And what srun starts in it is a task.
    assert Path(job.at("outputs", "in-step")).read_text().split() == ["SLURM_NTASKS=1", "SLURM_PROCID=0"]


# -- warnings -----------------------------------------------------------------------------------------------------


def test_a_warning_is_handed_on_and_ends_nothing(
    root: SlurmRoot, slurm: RealSlurm, eventually: Callable[..., Any]
) -> None:
    traps = "for s in USR1 HUP TERM; do trap \"echo $s >> '$OUTPUT_DIR/heard'\" $s; done; "
    wait = 'until grep -qs {0} "$OUTPUT_DIR/heard"; do touch "$OUTPUT_DIR/ready"; sleep 0.05 || :; done; '
    script = root.submit(
        traps + wait.format("TERM") + "exit 0",
        sbatch_options=["--signal=B:TERM@60"],
    )
    # Without B:, a warning is for the steps, as far as there are any.
    step = root.submit(
        "export TRAPS='for s in USR1; do trap \"echo $s >> $OUTPUT_DIR/heard; exit 0\" $s; done'\n"
        f"srun bash -c 'eval \"$TRAPS\"; {wait.format('TERM')}'",
        sbatch_options=["--signal=USR1@60"],
    )
    no_step = root.submit(traps + wait.format("USR1"), sbatch_options=["--signal=USR1@60"])
    for job_id, numbers in ((script, (10, 1, int(signal.SIGRTMIN) + 16)), (step, (10,)), (no_step, (10,))):
        eventually(Path(root.job(job_id).at("outputs", "ready")).exists, timeout_s=60)
        claim = json.loads(Path(root.attempt(job_id).at("claim.json")).read_text())
        events = Path(root.attempt(job_id).at("events.jsonl"))
        for count, number in enumerate(numbers, 1):
            slurm.run("scancel", "--batch", f"--signal={number}", claim["slurm_job"], check=True)
            eventually(lambda: events.read_text().count("signal_handed_on") == count)  # noqa: B023
    # A shell that is busy carries out its traps in the order of the signals' numbers.
    for job_id, heard in ((script, {"USR1", "HUP", "TERM"}), (step, {"USR1"}), (no_step, {"USR1"})):
        assert root.wait(job_id)["state"] == protocol.SUCCEEDED
        assert set(Path(root.job(job_id).at("outputs", "heard")).read_text().split()) == heard


@pytest.mark.long
def test_slurm_itself_warns_in_time(root: SlurmRoot) -> None:
    command = 'trap "echo warned; exit 0" USR1; while :; do sleep 0.1 || :; done'
    job_id = root.submit(command, time_limit_s=70, sbatch_options=["--signal=USR1@60"])
    assert root.wait(job_id, timeout_s=180)["state"] == protocol.SUCCEEDED
    assert root.log(job_id) == "warned\n"


# -- arrays -------------------------------------------------------------------------------------------------------


def test_elements_are_cancelled_one_by_one(root: SlurmRoot, eventually: Callable[..., Any]) -> None:
    attempts = root.attempts(3, "sleep 600", gpus=4)
    ids = [attempt.job.job_id for attempt in attempts]
    root.engine.launch(attempts)
    eventually(lambda: states(root, ids) == {protocol.RUNNING: 2, protocol.QUEUED: 1}, timeout_s=60)
    waiting = [status["job_id"] for status in statuses(root.root, root.engine, ids, 0) if status["state"] == "QUEUED"]
    running = next(job_id for job_id in ids if job_id not in waiting)
    found = cancel(root.root, root.engine, [running], "ann", 20)
    assert [status["state"] for status in found] == [protocol.CANCELLED]
    eventually(lambda: states(root, ids) == {protocol.RUNNING: 2, protocol.CANCELLED: 1}, timeout_s=60)


def test_attempts_that_want_different_things_are_different_jobs(
    root: SlurmRoot, commands: Callable[[], list[str]]
) -> None:
    attempts = [*root.attempts(2, "true"), *root.attempts(2, "true", gpus=2), *root.attempts(1, "true", gpus=3)]
    root.engine.launch(attempts)
    assert commands().count("sbatch") == 3


def slurm_arrays(attempts: list[Attempt]) -> list[int]:
    """Return how many of the attempts each job of Slurm has, in the order of their submission."""
    count: dict[int, int] = {}
    for attempt in attempts:
        claim = json.loads(Path(attempt.at("claim.json")).read_text())
        job = int(claim["slurm_job"].partition("_")[0])
        count[job] = count.get(job, 0) + 1
    return [count[job] for job in sorted(count)]


def test_an_array_is_handed_over_in_pieces_where_slurm_takes_few_jobs(
    root: SlurmRoot, commands: Callable[[], list[str]], eventually: Callable[..., Any]
) -> None:
    # The first waits until the others were cancelled or taken.
    command = 'echo run >> "$OUTPUT_DIR/runs"; until [ -e "$JOB_DIR/../go" ]; do sleep 0.1; done'
    attempts = root.attempts(6, command, qos="three")
    ids = [attempt.job.job_id for attempt in attempts]
    root.engine.launch(attempts)
    assert commands().count("sbatch") == 3
    eventually(lambda: states(root, ids) == {protocol.RUNNING: 3, protocol.QUEUED: 3}, timeout_s=60)
    message = root.status(ids[5])["message"]
    assert "Slurm takes no more jobs of yours now (QOSMaxSubmitJobPerUserLimit" in message
    # Of the part that is not handed over one never runs, and one whose place becomes free is not waited for by all.
    found = cancel(root.root, root.engine, [ids[3], ids[0]], "ann", 20)
    assert [status["state"] for status in found] == [protocol.CANCELLED] * 2
    # Another try joins what waits.
    root.engine.launch(attempts[4:])
    Path(root.root.path, "go").touch()
    eventually(lambda: states(root, ids) == {protocol.SUCCEEDED: 4, protocol.CANCELLED: 2}, timeout_s=60)
    ran = [attempt for attempt in attempts if Path(attempt.job.at("outputs", "runs")).exists()]
    assert [Path(attempt.job.at("outputs", "runs")).read_text() for attempt in ran] == ["run\n"] * 5
    assert slurm_arrays(ran)[0] == 3
    (array,) = {json.loads(Path(attempt.at("slurm.json")).read_text())["array"] for attempt in attempts}
    pieces = json.loads(Path(array, "slurm.json").read_text())["pieces"]
    assert all(piece["ids"] for piece in pieces)
    # A lost reply is found again for each piece.
    Path(array, "slurm.json").write_text(
        json.dumps({"pieces": [{**piece, "ids": [], "asked_at": 1.0} for piece in pieces]})
    )
    os.remove(attempts[5].at("exit.json"))
    os.remove(attempts[5].at("claim.json"))
    count = commands().count("sbatch")
    root.status(ids[5])
    assert json.loads(Path(array, "slurm.json").read_text())["pieces"][-1]["ids"] == pieces[-1]["ids"]
    assert commands().count("sbatch") == count


@pytest.mark.parametrize("spec", [{"qos": "none"}, {"sbatch_options": ["--qos=none"]}])
@pytest.mark.parametrize("count", [1, 3])
def test_what_a_limit_never_lets_through_is_refused(root: SlurmRoot, spec: dict[str, Any], count: int) -> None:
    attempts = root.attempts(count, "true", **spec)
    with pytest.raises(Refused, match="MaxSubmitJobsPerUser=0 is set for the QOS none"):
        root.engine.launch(attempts)
    assert states(root, [attempt.job.job_id for attempt in attempts]) == {protocol.FAILED: count}


def test_an_array_whose_reply_is_lost_is_found(
    root: SlurmRoot, commands: Callable[[], list[str]], eventually: Callable[..., Any]
) -> None:
    attempts = root.attempts(3, 'echo run >> "$OUTPUT_DIR/runs"')
    ids = [attempt.job.job_id for attempt in attempts]
    root.engine.launch(attempts)
    array = json.loads(Path(attempts[0].at("slurm.json")).read_text())["array"]
    Path(array, "slurm.json").write_text('{"asked_at": 1.0}')
    eventually(lambda: states(root, ids) == {protocol.SUCCEEDED: 3}, timeout_s=60)
    assert commands().count("sbatch") == 1


@pytest.mark.parametrize("count", [60, pytest.param(300, marks=pytest.mark.long)])
def test_many_waiting_jobs_cost_one_question_per_interval(
    root: SlurmRoot, slurm: RealSlurm, commands: Callable[[], list[str]], count: int
) -> None:
    attempts = root.attempts(count, "sleep 600", gpus=4)
    slurm.run("scontrol", "update", "partition=gpu", "state=down", check=True)
    try:
        root.engine.launch(attempts)
        ids = [attempt.job.job_id for attempt in attempts]
        asked, began = commands().count("squeue"), time.monotonic()
        for _ in range(5):
            assert states(root, ids) == {protocol.QUEUED: count}
        assert commands().count("squeue") - asked <= (time.monotonic() - began) / INTERVAL_S + 2
    finally:
        slurm.run("scontrol", "update", "partition=gpu", "state=up", check=True)


def test_without_accounting_a_job_that_slurm_has_forgotten_is_lost(
    unaccounted: SlurmRoot, slurm_without_accounting: RealSlurm, eventually: Callable[..., Any]
) -> None:
    slurm = slurm_without_accounting
    slurm.configure(min_job_age_s=2)
    job_id = unaccounted.submit("sleep 600")
    eventually(lambda: states(unaccounted, [job_id]) == {protocol.RUNNING: 1})
    # Its GPUs are in no list of what is allocated.
    assert [(job["job_id"], job["gpus"]) for job in unaccounted.engine.overview()["jobs"]] == [(job_id, 1)]
    claim = json.loads(Path(unaccounted.attempt(job_id).at("claim.json")).read_text())
    guard = int(Path(f"/proc/{claim['pid']}/stat").read_text().rpartition(")")[2].split()[1])
    for pid in (guard, claim["pid"]):
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: not slurm.run("squeue", "-h", "-t", "all").stdout, timeout_s=60)
    eventually(lambda: states(unaccounted, [job_id]) == {protocol.LOST: 1})
    slurm.configure()


def test_without_accounting_jobs_run_as_well(
    unaccounted: SlurmRoot, monkeypatch: pytest.MonkeyPatch, eventually: Callable[..., Any]
) -> None:
    job_id = unaccounted.submit("true", gpus=2, gpu_type="3090")
    eventually(lambda: states(unaccounted, [job_id]) == {protocol.SUCCEEDED: 1})
    eventually(lambda: unaccounted.engine.capacity()["free_gpus"] == 8)
    assert {gpu["type"] for gpu in unaccounted.engine.capacity()["gpus"]} == {"3090"}
    monkeypatch.setenv("SBATCH_ACCOUNT", "vision")
    unused, kill_wait, accounting = unaccounted.engine.warnings()
    assert unused.startswith("The login sets SBATCH_ACCOUNT, which no job follows")
    assert kill_wait.startswith(
        "Slurm kills a job 8 s after its own TERM (KillWait), which is sooner than the grace of 30"
    )
    assert accounting.startswith("Slurm keeps no accounting here")


def test_an_array_larger_than_slurm_s_becomes_several(unaccounted: SlurmRoot, eventually: Callable[..., Any]) -> None:
    attempts = unaccounted.attempts(6, "true")
    unaccounted.engine.launch(attempts)
    ids = [attempt.job.job_id for attempt in attempts]
    eventually(lambda: states(unaccounted, ids) == {protocol.SUCCEEDED: 6}, timeout_s=60)
    assert slurm_arrays(attempts) == [4, 2]


@pytest.mark.parametrize(
    ("word", "state", "reason"),
    [
        ("TIMEOUT", protocol.FAILED, protocol.TIME_LIMIT),
        ("DEADLINE", protocol.FAILED, protocol.TIME_LIMIT),
        ("BOOT_FAIL", protocol.FAILED, protocol.NODE_FAILURE),
        ("OUT_OF_MEMORY", protocol.FAILED, protocol.OUT_OF_MEMORY),
    ],
)
def test_an_end_by_slurm_s_word_alone(
    root: SlurmRoot,
    monkeypatch: pytest.MonkeyPatch,
    eventually: Callable[..., Any],
    word: str,
    state: str,
    reason: str,
) -> None:
    job_id = root.submit("sleep 600")
    eventually(lambda: states(root, [job_id]) == {protocol.RUNNING: 1})
    known = views.View.jobs
    monkeypatch.setattr(
        views.View, "jobs", lambda self, *names: [row._replace(state=word) for row in known(self, *names)]
    )
    eventually(lambda: states(root, [job_id]) == {state: 1})
    status = root.status(job_id)
    assert (status["reason"], status["host"], status["gpus"]) == (reason, "gpu1", [0])


def test_a_word_that_is_not_known_is_no_end(
    root: SlurmRoot, monkeypatch: pytest.MonkeyPatch, eventually: Callable[..., Any]
) -> None:
    job_id = root.submit("sleep 600")
    known = views.View.jobs

    def odd(self: Any, *arguments: Any) -> Any:
        return [row._replace(state="TELEPORTED") for row in known(self, *arguments)]

    monkeypatch.setattr(views.View, "jobs", odd)
    eventually(lambda: states(root, [job_id]) == {protocol.UNKNOWN: 1})
    assert "TELEPORTED, which is an unknown word here" in root.status(job_id)["message"]
