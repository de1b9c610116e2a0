"""Arrays on a real cluster: one request for many jobs, each launched once and tried again by itself."""

from __future__ import annotations

import contextlib
import itertools
import json
import multiprocessing
import os
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.exceptions import (
    GpuClusterError,
    InvalidJobError,
    JobConflictError,
    NotEnoughGpusError,
    StagingError,
)
from airflow_provider_gpu_cluster.gpu_run.errors import Refused
from airflow_provider_gpu_cluster.gpu_run.gc.collection import collect_garbage
from airflow_provider_gpu_cluster.gpu_run.jobs import array_submission
from airflow_provider_gpu_cluster.gpu_run.store import arrays
from airflow_provider_gpu_cluster.jobs.handle import element_id
from airflow_provider_gpu_cluster.jobs.status import JobState
from airflow_provider_gpu_cluster.sources import parse_sources
from tests.gpu_run.host import Host
from tests.gpu_run.jobs.test_submission import connect_as_worker
from tests.gpu_run.old import DAY, make_job_old
from tests.harness.jobs import record, submit, submit_array, wait

MARK = 'echo "$ARRAY_INDEX $ATTEMPT" >> {runs}'


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Return a file outside every job's directory to which each run of an element appends its index and attempt."""
    path = tmp_path / "runs"
    path.touch()
    return path


def seen(runs: Path) -> Counter[tuple[int, int]]:
    """Return how often each attempt of each element ran."""
    return Counter((int(index), int(attempt)) for index, attempt in map(str.split, runs.read_text().splitlines()))


def once(*attempts: tuple[int, int]) -> dict[tuple[int, int], int]:
    return dict.fromkeys(attempts, 1)


def envs(count: int) -> list[dict[str, str]]:
    return [{"SEED": str(11 * index)} for index in range(count)]


def log_of(cluster: Cluster, job_id: str) -> str:
    return cluster.statuses([job_id], tail_bytes=2000)[0].log_tail


def test_each_element_is_a_job_with_an_index_variables_and_inputs_of_its_own(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "lib").mkdir()
    (tmp_path / "code" / "lib" / "x.sh").write_text("x")
    (tmp_path / "code" / "link").symlink_to("lib/x.sh")
    (tmp_path / "data.bin").write_bytes(b"d" * 2_000_000)
    sources = parse_sources(code="code", data=["data.bin"], models=(), base_dir=tmp_path)
    command = (
        'echo "$JOB_ID $ARRAY_INDEX of $ARRAY_COUNT: $SEED $COMMON"; cat link; echo changed > lib/x.sh; '
        'stat -c %s "$DATA_DIR/data.bin"; echo more >> "$DATA_DIR/data.bin"'
    )
    submission = submit_array(cluster, command, envs(3), sources=sources)
    assert (submission.launched, submission.handle.array_size) == (3, 3)
    status = wait(cluster, "a")
    assert (status.state, status.message) == (JobState.SUCCEEDED, "of 3 elements 3 succeeded")
    for index, element in enumerate(submission.handle.elements):
        assert element.job_id == f"a_{index}"
        expected = f"a_{index} {index} of 3: {11 * index} yes\nx2000000\n"
        assert Path(element.job_dir, "logs/training.log").read_text() == expected
        spec = json.loads(Path(element.job_dir, ".job/spec.json").read_text())
        assert spec["array"] == {"job_id": "a", "index": index, "count": 3}
        assert spec["environment_names"] == ["COMMON", "SEED"]
        inputs = spec["inputs"]
        assert sorted(inputs) == ["code", "data/data.bin"]
        assert Path(element.job_dir, inputs["code"]["checksums"]).exists()
    # What an element does to its inputs, it does to its own.
    assert Path(submission.handle.job_dir, "code/lib/x.sh").read_text() == "x"


def test_the_same_request_again_finds_every_element_whatever_became_of_it(cluster: Cluster, runs: Path) -> None:
    command = f"{MARK.format(runs=runs)}; exit $ARRAY_INDEX"
    submit_array(cluster, command, envs(2))
    assert wait(cluster, "a").state is JobState.FAILED
    again = submit_array(cluster, command, envs(2))
    assert (again.created, again.launched, again.status.state) == (False, 0, JobState.FAILED)
    assert seen(runs) == once((0, 1), (1, 1))


def test_another_try_runs_again_only_what_failed_and_joins_what_runs(
    cluster: Cluster, runs: Path, tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    gate = tmp_path / "gate"
    command = (
        f'{MARK.format(runs=runs)}; case $ARRAY_INDEX in 1) [ "$ATTEMPT" = 2 ];; '
        f"2) until [ -e {gate} ]; do sleep 0.05; done;; esac"
    )
    submit_array(cluster, command, envs(3))
    wait(cluster, "a_0")
    assert wait(cluster, "a_1").state is JobState.FAILED
    wait(cluster, "a_2", JobState.RUNNING)
    eventually(lambda: len(seen(runs)) == 3)
    again = submit_array(cluster, command, envs(3), request_key="try-2")
    assert (again.created, again.launched) == (True, 1)
    assert wait(cluster, "a_1").attempt == 2
    assert cluster.statuses(["a"])[0].state is JobState.RUNNING
    gate.touch()
    status = wait(cluster, "a")
    assert (status.state, status.attempt) == (JobState.SUCCEEDED, 2)
    assert seen(runs) == once((0, 1), (1, 1), (1, 2), (2, 1))


def test_another_generation_runs_all_again(cluster: Cluster, runs: Path) -> None:
    command = f'{MARK.format(runs=runs)}; ls "$OUTPUT_DIR"; touch "$OUTPUT_DIR/model"'
    submit_array(cluster, command, envs(3))
    wait(cluster, "a")
    # It may have another size then, too.
    again = submit_array(cluster, command, envs(2), request_key="try-2", generation="1")
    assert again.launched == 2
    wait(cluster, "a")
    assert seen(runs) == once((0, 1), (1, 1), (2, 1), (0, 2), (1, 2))
    assert "model" not in log_of(cluster, "a_0")


def test_elements_are_served_in_their_order(cluster: Cluster, runs: Path) -> None:
    submit_array(cluster, MARK.format(runs=runs), envs(12), gpus=4)
    wait(cluster, "a")
    assert [index for index, _ in seen(runs)] == list(range(12))


def test_an_element_that_fails_is_named_with_its_cause_and_last_lines(cluster: Cluster) -> None:
    submit_array(cluster, 'echo "seed $SEED"; [ $ARRAY_INDEX != 1 ] || exit 3', envs(3))
    status = wait(cluster, "a")
    assert (status.state, status.reason, status.exit_code) == (JobState.FAILED, "user_error", 3)
    assert status.message == "of 3 elements 2 succeeded, 1 failed: 1 (user_error: it ended with exit code 3: seed 11)"
    assert status.log_tail == "[1/3] seed 11\n[0/3] seed 0\n[2/3] seed 22\n"
    assert status.elements[1] == (JobState.FAILED, "user_error")


def test_what_the_cluster_can_never_run_is_refused_before_anything_is_made(cluster: Cluster, tmp_path: Path) -> None:
    with pytest.raises(NotEnoughGpusError, match="asks for 5 GPUs"):
        submit_array(cluster, "true", envs(3), gpus=5)
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "train.py").touch()
    sources = parse_sources(code="code", data=(), models=(), base_dir=tmp_path)
    with pytest.raises(InvalidJobError, match=r"has train\.py"):
        submit_array(cluster, None, envs(3), entry_script="trian.py", sources=sources)
    with pytest.raises(StagingError, match="stage it"):
        submit_array(cluster, "true", envs(3), job_id="b", sources=None)
    assert not list(Path(cluster.settings.root_dir).glob("*_*"))


def test_another_number_of_elements_in_a_later_try_is_refused(cluster: Cluster) -> None:
    submit_array(cluster, "true", envs(3))
    wait(cluster, "a")
    with pytest.raises(JobConflictError, match="had 3 elements in an earlier try and has 4 now"):
        submit_array(cluster, "true", envs(4), request_key="try-2")


def test_the_array_of_another_task_is_not_touched(cluster: Cluster) -> None:
    submit_array(cluster, "true", envs(2))
    wait(cluster, "a")
    with pytest.raises(JobConflictError, match="directory of another task's job"):
        submit_array(cluster, "true", envs(2), who=record(task_id="other"), request_key="other")


def test_an_array_of_a_staged_job_takes_what_was_staged(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "train.py").write_text("import os; print(os.environ['SEED'])")
    repository = tmp_path / "repo"
    subprocess.run(["git", "init", "-q", str(repository)], check=True)
    (repository / "m.txt").write_text("m")
    git = ["git", "-C", str(repository), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run([*git, "add", "m.txt"], check=True)
    subprocess.run([*git, "commit", "-qm", "x"], check=True)
    (tmp_path / "linked.csv").write_text("1,2")
    sources = parse_sources(
        code="code", data=[f"cluster:{tmp_path}/linked.csv"], models=[f"git+file://{repository}"], base_dir=tmp_path
    )
    handle = cluster.stage("a", sources, record=record(task_id="stage"))
    submit_array(
        cluster,
        None,
        envs(2),
        entry_script="train.py",
        sources=None,
        who=record(task_id="submit"),
    )
    assert wait(cluster, "a").state is JobState.SUCCEEDED
    assert log_of(cluster, "a_1") == "11\n"
    element = Path(handle.job_dir).parent / "a_1"
    assert (element / "data/linked.csv").readlink() == tmp_path / "linked.csv"
    notes = [json.loads((folder / ".job/inputs.json").read_text()) for folder in (Path(handle.job_dir), element)]
    (commit,) = {facts["commit"] for note in notes for facts in note.values() if "commit" in facts}
    assert len(commit) == 40


def test_cancelling_the_array_cancels_what_waits_and_what_runs_and_leaves_what_has_ended(cluster: Cluster) -> None:
    submit_array(cluster, "[ $ARRAY_INDEX = 0 ] || exec sleep 60", envs(4), gpus=2)
    wait(cluster, "a_0")
    wait(cluster, "a_1", JobState.RUNNING)
    status = cluster.cancel(["a"], requested_by="test", wait_s=10)[0]
    assert (status.state, status.reason) == (JobState.CANCELLED, "cancelled")
    states = [str(one.state) for one in cluster.statuses([f"a_{index}" for index in range(4)])]
    assert states == ["SUCCEEDED", "CANCELLED", "CANCELLED", "CANCELLED"]


def array_request(host: Host, **changes: Any) -> Any:
    """Return a request for an array of two, as the command line gives it to the program."""
    return {
        "job_id": "a",
        "inputs": [],
        "env": {},
        "run_script": "",
        "request_key": "1",
        "generation": "0",
        "record": {"dag_id": "dag"},
        "settings": host.settings,
        "program": host.program,
        "umask": 0o022,
        "context": {},
        "spec": {"gpus": 1, "priority": "normal", "grace_s": 1.0, "setup": ""},
        "elements": [
            {"job_id": f"a_{index}", "spec": {}, "env": {}, "run_script": "#!/bin/sh\ntrue\n"} for index in range(2)
        ],
        **changes,
    }


def test_what_is_cancelled_while_it_is_being_launched_is_not_launched(cluster_folder: Path) -> None:
    host = Host(cluster_folder)
    request = array_request(host)
    # The request has come, and its inputs are being sent.
    request["cancelled"] = arrays.last_cancellation(host.job("a"))
    host.job("a").create()
    arrays.note_cancellation(host.job("a"), "ada")
    with pytest.raises(Refused, match="cancelled by ada while it was being launched"):
        array_submission.submit_array(host.root, host.engine, request)
    assert not host.job("a_0").attempts()
    # Who asks afterwards does so in spite of it.
    assert array_submission.submit_array(host.root, host.engine, array_request(host))["launched"] == 2
    for job_id in ("a_0", "a_1"):
        host.wait(job_id)


def test_an_array_is_cleared_away_after_its_elements(cluster_folder: Path) -> None:
    host = Host(cluster_folder)
    array_submission.submit_array(host.root, host.engine, array_request(host))
    for job_id in ("a_0", "a_1"):
        host.wait(job_id)
    make_job_old(host, "a")
    make_job_old(host, "a_0")

    def collect() -> list[str]:
        jobs: list[str] = collect_garbage(host.root, host.settings, host.program, 14 * DAY, dry_run=False)["jobs"]
        return jobs

    assert collect() == ["a_0"]
    make_job_old(host, "a_1")
    collect()
    collect()
    assert not any(host.job(job_id).exists() for job_id in ("a", "a_0", "a_1"))


def test_a_hundred_elements_wait_in_one_line_and_are_cancelled_in_one_call(cluster: Cluster, runs: Path) -> None:
    blocker = submit(cluster, "sleep 60", gpus=4).handle.job_id
    wait(cluster, blocker, JobState.RUNNING)
    submission = submit_array(cluster, MARK.format(runs=runs), envs(100))
    assert (submission.launched, submission.status.message) == (100, "of 100 elements 100 wait")
    again = submit_array(cluster, MARK.format(runs=runs), envs(100), request_key="try-2")
    assert again.launched == 0
    cluster.cancel(["a", blocker], requested_by="test", wait_s=10)
    assert cluster.statuses(["a"])[0].message.startswith("of 100 elements 100 were cancelled: 0, 1, 2")
    assert not seen(runs)


def test_ids_of_elements_are_job_ids_however_long_that_of_the_array_is() -> None:
    long = "x" * 91 + "-1a2b3c4d"
    assert element_id("a-1a2b3c4d", 7) == "a-1a2b3c4d_7"
    assert len(element_id(long, 999)) == 100
    assert element_id(long, 999).endswith("-1a2b3c4d_999")
    assert len({element_id(long, index) for index in range(1000)}) == 1000


def _submit_in_child(settings: Any, sshd: Any, port: int, runs: Path, code: Path) -> None:
    """Be a worker that submits an array with files, through a proxy that stops the clock for it."""
    with Cluster(settings, lambda: connect_as_worker(settings, sshd, port)) as cluster:
        sources = parse_sources(code=str(code), data=(), models=(), base_dir=code)
        submit_array(cluster, MARK.format(runs=runs), envs(3), sources=sources, request_key=f"try-{os.getpid()}")


# Each time later by a part of the time before it: on a slow machine, a submit has no more moments to die in.
@pytest.mark.parametrize("growth", [1.7, pytest.param(1.04, marks=pytest.mark.long)])
def test_a_worker_killed_at_any_moment_of_a_submit_and_retried_runs_each_element_once(
    cluster_settings: Any, ssh_connect: Any, sshd: Any, cut_proxy: Any, runs: Path, tmp_path: Path, growth: float
) -> None:
    code = tmp_path / "code"
    code.mkdir()
    # Every packet takes a moment, so that each step of the protocol is long enough to die in.
    cut_proxy.delay_s = 0.01
    context = multiprocessing.get_context("fork")
    killed, finished = 0, False
    root = Path(cluster_settings.root_dir)
    rounds = itertools.count()
    while not finished:
        # What the cluster has been sent before would not be sent again.
        (code / "train.py").write_bytes(os.urandom(200_000))
        worker = context.Process(target=_submit_in_child, args=(cluster_settings, sshd, cut_proxy.port, runs, code))
        worker.start()
        worker.join(0.1 * growth**killed)
        finished = worker.exitcode is not None
        if not finished:
            assert worker.pid is not None
            os.kill(worker.pid, signal.SIGKILL)
            worker.join()
            killed += 1
        with Cluster(cluster_settings, ssh_connect) as cluster:
            sources = parse_sources(code=str(code), data=(), models=(), base_dir=code)
            submit_array(cluster, MARK.format(runs=runs), envs(3), sources=sources, request_key="retry")
            assert wait(cluster, "a").state is JobState.SUCCEEDED
        assert seen(runs) == once((0, 1), (1, 1), (2, 1)), f"after {killed} kills"
        # The next round is a new array in place of this one.
        runs.write_text("")
        number = next(rounds)
        for name in ("a", "a_0", "a_1", "a_2"):
            os.rename(root / name, root / f"{name}.{number}")
    assert killed >= 3


def test_a_program_killed_on_the_cluster_while_it_makes_the_elements_is_made_good_by_the_next_try(
    cluster_settings: Any, ssh_connect: Any, runs: Path, eventually: Callable[..., Any]
) -> None:
    root = Path(cluster_settings.root_dir)
    command = MARK.format(runs=runs)

    def submit_once(request_key: str) -> None:
        with contextlib.suppress(GpuClusterError), Cluster(cluster_settings, ssh_connect, retry_for_s=0) as cluster:
            submit_array(cluster, command, envs(24), request_key=request_key)

    with Cluster(cluster_settings, ssh_connect) as cluster:
        cluster.check()
        # Of some elements there is a directory, of some an attempt as well, and of some neither, when it dies.
        for kind, count in (("a_*", 4), ("a_*", 20), ("a_*/.job/attempts/1", 4), ("a_*/.job/attempts/1", 16)):
            worker = threading.Thread(target=submit_once, args=(f"{kind} {count}",))
            worker.start()
            eventually(lambda kind=kind, count=count: len(list(root.glob(kind))) >= count, every_s=0.001)
            _kill_submits(root)
            worker.join()
        submit_array(cluster, command, envs(24), request_key="retry")
        assert wait(cluster, "a", timeout_s=60).state is JobState.SUCCEEDED
    assert seen(runs) == once(*((index, 1) for index in range(24)))


def _kill_submits(root: Path) -> None:
    """Kill the programs that carry out a submit for this root."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().split(b"\0")
            if words[-2:-1] == [b"submit"] and any(word.startswith(os.fsencode(root)) for word in words):
                os.kill(int(path.parent.name), signal.SIGKILL)
