"""Jobs on a real Slurm that go on by themselves after their ends."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.gpu_run.jobs.cancel import cancel
from airflow_provider_gpu_cluster.gpu_run.store.directories import Attempt
from tests.gpu_run.engines.slurm.accounts import check_accounts
from tests.gpu_run.engines.slurm.in_process import SlurmRoot
from tests.gpu_run.host import is_alive
from tests.harness.leftovers import kill_everything_under
from tests.servers.slurm import RealSlurm

pytestmark = pytest.mark.xdist_group("slurm-faults")

Eventually = Callable[..., Any]

# Each attempt says that it begins; the second ends well, and the first as it is told to.
RUN = 'echo "$ATTEMPT" >> "$OUTPUT_DIR/runs"; test "$ATTEMPT" = 1 || exit 0; '
HOLD = f"{RUN} sleep 600"
ON_TWO = f'if [ "$NODE_RANK" = 1 ]; then test "$ATTEMPT" = 2 || sleep 600; exit 0; fi; {HOLD}'
LARGE = (
    """echo "$ATTEMPT" >> "$OUTPUT_DIR/runs"; exec python3 -c 'import os, time; x = b"x" * (300 << 20); """
    """time.sleep(600 if os.environ["ATTEMPT"] == "1" else 1)'"""
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
        eventually(lambda job_id=job_id: runs(root, job_id), timeout_s=60)


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
    # Not if it was ended before it could write that.
    assert runs(root, job_id) in (["1", "2"], ["2"])
    return status


def waits(root: SlurmRoot, job_id: str) -> dict[str, Any] | None:
    """Return the status of a job whose second attempt is in Slurm's queue."""
    status = root.status(job_id)
    assert status["state"] not in protocol.FINAL_STATES, status
    is_there = status["attempt"] == 2 and re.search(r"\bjob [\d_]+: ", status["message"])
    return status if status["state"] == protocol.QUEUED and is_there else None


def start_again(root: SlurmRoot, slurm: RealSlurm, jobs: list[str], eventually: Eventually) -> None:
    """Have Slurm start what it has requeued, which without this it does after two minutes."""
    for job in [slurm_job(root, job_id) for job_id in jobs]:
        shown = ("squeue", "-h", "-t", "all", "-j", job, "-o", "%T %r")
        eventually(lambda shown=shown: slurm.run(*shown).stdout == "PENDING BeginTime\n")
        # Its nodes tell the runs of a job apart by the second in which they begin.
        time.sleep(1)
        slurm.run("scontrol", "update", f"jobid={job}", "StartTime=now", check=True)


REQUEUE = {"sbatch_options": ["--requeue"]}


@pytest.fixture
def without_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no compute node reach Slurm, except for what it runs."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sbatch", "squeue", "sacct", "scontrol", "scancel"):
        path = folder / name
        path.write_text(
            "#!/bin/sh\ncase $(tr '\\0' ' ' < /proc/$PPID/cmdline) in *supervise-slurm*)\n"
            f'echo "Access/permission denied" >&2; exit 1;; esac\nexec {shutil.which(name)} "$@"\n'
        )
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


@pytest.mark.parametrize(
    ("requeued", "is_seen"),
    [
        ("array", True),
        pytest.param("nothing", True, marks=pytest.mark.long),
        pytest.param("all", True, marks=pytest.mark.long),
        pytest.param("all", False, marks=pytest.mark.long),
    ],
)
@pytest.mark.parametrize("nodes_reach_slurm", [True, pytest.param(False, marks=pytest.mark.long)])
def test_what_is_preempted_goes_on(
    root: SlurmRoot,
    slurm: RealSlurm,
    tmp_path: Path,
    eventually: Eventually,
    request: pytest.FixtureRequest,
    requeued: str,
    is_seen: bool,
    nodes_reach_slurm: bool,
) -> None:
    if not nodes_reach_slurm:
        request.getfixturevalue("without_slurm")
    spec: dict[str, Any] = {"partition": "scavenger", "recover": RECOVER, **(REQUEUE if requeued == "all" else {})}
    of_array: dict[str, Any] = {**spec, **(REQUEUE if requeued == "array" else {})}
    nodes = root.submit(ON_TWO, nodes=2, **spec)
    single = root.submit(f"{RUN} trap 'exit 0' TERM; sleep 600 & wait", **spec)
    elements = array(root, 2, HOLD, **of_array)
    never = root.submit(HOLD, **{**of_array, "recover": {}})
    jobs = [nodes, single, *elements]
    all_begin(root, [*jobs, never], eventually)
    over = preempt(slurm, tmp_path)
    if is_seen:
        for job_id in jobs:
            waiting = eventually(lambda job_id=job_id: waits(root, job_id), timeout_s=60)
            assert waiting["message"].startswith("attempt 1 was preempted after "), waiting
        # What waits to go on is cancelled like anything else that waits.
        unwanted = jobs.pop()
        assert cancel(root.root, root.engine, [unwanted], "ann", 20)[0]["state"] == protocol.CANCELLED
    else:
        pids = [record(root.job(job_id).attempt(1), "claim.json")["pid"] for job_id in [never, *jobs]]
        eventually(lambda: not any(map(is_alive, pids)), timeout_s=60)
    over.touch()
    same = {"nothing": [], "array": [elements[0]], "all": jobs}[requeued]
    start_again(root, slurm, same, eventually)
    for job_id in jobs:
        followed(root, job_id, protocol.PREEMPTED)
        assert (slurm_job(root, job_id, 2) == slurm_job(root, job_id)) is (job_id in same)
    status = root.wait(never)
    assert (status["state"], status["reason"], runs(root, never)) == (protocol.FAILED, protocol.PREEMPTED, ["1"])
    if is_seen:
        assert (root.status(unwanted)["state"], runs(root, unwanted)) == (protocol.CANCELLED, ["1"])
    # Nothing is left in the queue besides.
    eventually(lambda: not slurm.run("squeue", "-h", "-t", "PD,R,CG", "-o", "%i").stdout)
    if nodes_reach_slurm:
        check_accounts(root, slurm)


def test_other_ends(root: SlurmRoot, slurm: RealSlurm, eventually: Eventually, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONDA_PREFIX", "/opt/conda")
    recover: dict[str, Any] = {**RECOVER, "time_limit": 1, "out_of_memory": [1, 8.0]}
    elsewhere: dict[str, Any] = {"recover": recover, "sbatch_options": ["--nodelist=gpu2"]}
    sizes: dict[str, Any] = {"memory_bytes": 100 << 20, "sbatch_options": ["--nodelist=gpu2", "--mem=2G"]}
    free = root.submit(HOLD, recover=recover)
    bound = root.submit(HOLD, recover=recover, sbatch_options=["--exclude=gpu2"])
    lone = root.submit(HOLD, recover=recover, partition="lone")
    # Its node submits it with what the login once gave it.
    given = "env | grep -E '^(PATH|HOME|CONDA_PREFIX|LC_ALL)=' | sort; ulimit -a; umask"
    given = f'{{ {given}; }} > "$OUTPUT_DIR/given.$ATTEMPT"; '
    saved = root.submit(f"{given}{RUN} exit 85", checkpoint_exit_code=85, **elsewhere)
    # Its own job counts as long as it has not quite ended.
    limited = root.submit(f"{RUN} exit 85", checkpoint_exit_code=85, qos="single", **elsewhere)
    late = root.submit(HOLD, time_limit_s=0.5, **elsewhere)
    lost = root.submit(HOLD, **elsewhere)
    large = root.submit(LARGE, recover=recover, **sizes)
    too_large = root.submit(LARGE, recover={"out_of_memory": [2, 1e6]}, **sizes)
    all_begin(root, [free, bound, lone, lost], eventually)
    claim = record(root.attempt(lost), "claim.json")
    guard = int(Path(f"/proc/{claim['pid']}/stat").read_text().rpartition(")")[2].split()[1])
    for pid in (guard, claim["pid"]):
        os.kill(pid, signal.SIGKILL)
    # A node that is only down comes back by itself.
    for state in ("drain", "down"):
        slurm.run("scontrol", "update", "node=gpu1", f"state={state}", "reason=test", check=True)
    messages = {
        job_id: eventually(lambda job_id=job_id: waits(root, job_id), timeout_s=60)["message"]
        for job_id in (bound, lone)
    }
    slurm.run("scontrol", "update", "node=gpu1", "state=resume")
    for job_id, message in messages.items():
        assert message.startswith("attempt 1 was ended by a failure of its node after "), message
        assert message.endswith("it may run on gpu1 again, as there is no other node for it"), message
        assert followed(root, job_id, protocol.NODE_FAILURE)["host"] == "gpu1"
    assert followed(root, free, protocol.NODE_FAILURE)["host"] == "gpu2"
    for job_id in (saved, limited):
        followed(root, job_id, protocol.CHECKPOINTED)
    first, second = (Path(root.job(saved).at("outputs", f"given.{number}")).read_text() for number in (1, 2))
    assert "CONDA_PREFIX=/opt/conda\n" in first
    assert first == second
    followed(root, late, protocol.TIME_LIMIT)
    followed(root, lost, protocol.REASON_LOST)
    followed(root, large, protocol.OUT_OF_MEMORY)
    status = root.wait(too_large)
    assert (status["state"], status["reason"], status["attempt"]) == (protocol.FAILED, protocol.OUT_OF_MEMORY, 2)
    assert "Slurm refuses attempt 2: Memory specification can not be satisfied" in status["message"]
    assert status["message"].startswith("attempt 1 ran out of host memory after ")
    check_accounts(root, slurm)


@pytest.mark.long
def test_a_preemption_with_grace_is_told_to_the_steps_alone(
    root: SlurmRoot, slurm: RealSlurm, tmp_path: Path, eventually: Eventually
) -> None:
    """What is told to end saves, and ends well, before Slurm has ended the job itself."""
    spec: dict[str, Any] = {"partition": "spot", "recover": RECOVER}
    saves = "trap 'exit 0' TERM; sleep 600 & wait"
    nodes = root.submit(
        f'echo "$ATTEMPT" >> "$OUTPUT_DIR/runs"; test "$ATTEMPT" = 2 || {{ {saves}; }}', nodes=2, **spec
    )
    step = root.submit(f"{RUN} srun bash -c '{saves.replace(chr(39), chr(34))}'", **spec)
    plain = root.submit(HOLD, **spec)
    all_begin(root, [nodes, step, plain], eventually)
    over = preempt(slurm, tmp_path)
    for job_id in (nodes, step, plain):
        eventually(lambda job_id=job_id: waits(root, job_id), timeout_s=60)
    over.touch()
    for job_id in (step, plain):
        followed(root, job_id, protocol.PREEMPTED)
    status = root.wait(nodes, timeout_s=60)
    assert (status["state"], status["recovered"]) == (protocol.SUCCEEDED, {protocol.PREEMPTED: 1})


@pytest.mark.long
def test_a_node_whose_daemon_is_gone_stops_what_it_still_runs(
    root: SlurmRoot, slurm: RealSlurm, eventually: Eventually
) -> None:
    job_id = root.submit(HOLD, recover=RECOVER)
    # What is told to end there ends with exit code 0.
    nodes = root.submit(ON_TWO, nodes=2, recover=RECOVER)
    all_begin(root, [job_id, nodes], eventually)
    claim = record(root.attempt(job_id), "claim.json")
    slurm.configure(slurmd_timeout_s=5)
    try:
        slurm.stop_node("gpu1")
        eventually(lambda: root.status(job_id)["attempt"] == 2, timeout_s=120)
        # Slurm cannot end it there, as it cannot reach that node.
        eventually(lambda: not is_alive(claim["pid"]), timeout_s=20)
        assert followed(root, job_id, protocol.NODE_FAILURE)["host"] == "gpu2"
        assert '"ended_by_another"' in Path(root.job(job_id).attempt(1).at("events.jsonl")).read_text()
        eventually(lambda: root.status(nodes)["attempt"] == 2, timeout_s=60)
        request = json.loads(Path(root.job(nodes).attempt(2).at("request.json")).read_text())
        assert request["recovery"]["exclude_nodes"] == ["gpu1"]
    finally:
        slurm.configure()
        slurm.start_node("gpu1")
        eventually(
            lambda: slurm.run("sinfo", "-h", "-N", "-n", "gpu1", "-o", "%T").stdout.startswith("idle"), timeout_s=60
        )


@pytest.mark.long
def test_a_job_that_slurm_requeues_after_a_node_failure_is_kept_off_that_node(
    root: SlurmRoot, slurm: RealSlurm, eventually: Eventually
) -> None:
    spec: dict[str, Any] = {"recover": RECOVER, "sbatch_options": ["--requeue"]}
    single, lone = root.submit(HOLD, **spec), root.submit(HOLD, partition="lone", **spec)
    nodes = root.submit(ON_TWO, nodes=2, **spec)
    jobs = [single, lone, nodes]
    all_begin(root, jobs, eventually)
    for state in ("drain", "down"):
        slurm.run("scontrol", "update", "node=gpu1", f"state={state}", "reason=test", check=True)
    for job_id in jobs:
        eventually(lambda job_id=job_id: waits(root, job_id), timeout_s=60)
    shown = "scontrol", "show", "job"
    eventually(lambda: "ExcNodeList=gpu1" in slurm.run(*shown, slurm_job(root, single)).stdout)
    assert "ExcNodeList=gpu1" not in slurm.run(*shown, slurm_job(root, lone)).stdout
    assert "ExcNodeList=gpu1" not in slurm.run(*shown, slurm_job(root, nodes)).stdout
    slurm.run("scontrol", "update", "node=gpu1", "state=resume")
    start_again(root, slurm, jobs, eventually)
    for job_id in jobs:
        followed(root, job_id, protocol.NODE_FAILURE)
        assert slurm_job(root, job_id, 2) == slurm_job(root, job_id)
    check_accounts(root, slurm)


@pytest.mark.long
def test_the_controller_is_down_when_an_attempt_ends(root: SlurmRoot, slurm: RealSlurm, eventually: Eventually) -> None:
    command = f'{RUN} until [ -e "$OUTPUT_DIR/go" ]; do sleep 0.1; done; exit 85'
    job_id = root.submit(command, checkpoint_exit_code=85, recover=RECOVER)
    all_begin(root, [job_id], eventually)
    slurm.stop_controller()
    try:
        Path(root.job(job_id).at("outputs", "go")).touch()
        waiting = eventually(lambda: (status := root.status(job_id))["attempt"] == 2 and status, timeout_s=60)
        assert waiting["state"] == protocol.QUEUED, waiting
        pid = record(root.job(job_id).attempt(1), "claim.json")["pid"]
        eventually(lambda: not is_alive(pid))
    finally:
        slurm.start_controller()
    followed(root, job_id, protocol.CHECKPOINTED)
    eventually(lambda: not slurm.run("squeue", "-h", "-t", "PD,R,CG", "-o", "%i").stdout, timeout_s=60)
