"""
An upgrade under jobs that wait, run and have ended: whichever version launched them, the other one knows them.

Each Airflow side puts its own program on the cluster and talks to that one only, so a version never meets another's
wire. What two versions share is what lies on the cluster: the jobs' records, the queue, the GPU leases, the cache; the
verb and the lease by which a dispatcher starts the supervisor of a job that another version launched; and what Airflow
keeps: handles, the arguments of triggers (a request may be in them, as it goes over the wire), and the events that wake
tasks.

None of these has a version of its own. (An attempt's record names the program it is run by, and ``spec.json`` the
version of the provider that asked for it; nothing is decided by them. The mark before each reply has a 1 in it.) The
rule instead: a version may add a field, and copes with records that lack it; readers ignore what they do not
know; what a field means never changes, nor do the names of records, verbs and triggers. The arguments of triggers are
read by newer versions only: a triggerer is upgraded before or with the workers.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.harness.leftovers import processes_under
from tests.upgrade.sides import Side

# They share one process of the old version.
pytestmark = pytest.mark.xdist_group("upgrade")

Eventually = Callable[..., Any]
Handle = dict[str, Any]

PATIENCE_S = 60
FINAL = ("SUCCEEDED", "FAILED", "CANCELLED", "LOST")
# Nothing that a task's log would show otherwise.
EARLY, LATE = "".join(f"step {n} é 漢\n" for n in range(200)), "the end\n"


class Gate:
    """Something that jobs wait for."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.wait = f"until [ -e {path} ]; do sleep 0.2; done"
        """Shell text of a job that waits."""

    def open(self) -> None:
        """Let them go on."""
        self._path.touch()


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "gate")


def wait(eventually: Eventually, side: Side, handle: Handle, *states: str) -> dict[str, Any]:
    """Return a job's status as soon as it is in one of these states, by default in a final one."""

    def found() -> dict[str, Any] | None:
        (status,) = side.statuses([handle])
        return status if status["state"] in (states or FINAL) else None

    status: dict[str, Any] = eventually(found, timeout_s=PATIENCE_S, every_s=0.25)
    return status


def wait_for_element(eventually: Eventually, side: Side, array: Handle, index: int, state: str) -> None:
    def is_there() -> bool:
        return bool(side.statuses([array])[0]["elements"][index][0] == state)

    eventually(is_there, timeout_s=PATIENCE_S, every_s=0.25)


def states(side: Side, *handles: Handle) -> list[str]:
    return [status["state"] for status in side.statuses(list(handles))]


def element(array: Handle, index: int) -> Handle:
    """Return the handle of an element, where both versions find it."""
    return {**array, "job_id": f"{array['job_id']}_{index}", "job_dir": f"{array['job_dir']}_{index}"}


def attempts(handle: Handle) -> list[str]:
    return sorted(os.listdir(Path(handle["job_dir"], ".job", "attempts")))


def in_common(ours: list[dict[str, Any]], others: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what some statuses say under names that others have as well."""
    return [{name: one[name] for name in one.keys() & other.keys()} for one, other in zip(ours, others, strict=True)]


def programs(handle: Handle) -> list[Path]:
    return sorted(Path(handle["job_dir"]).parent.glob(".gpu-run/*.pyz"))


def commands_of(folder: Path, verb: str) -> list[list[str]]:
    """Return the command lines of the cluster's live processes of that verb."""
    found = []
    for pid in processes_under(folder):
        # It may have ended since.
        with contextlib.suppress(OSError):
            found.append(Path(f"/proc/{pid}/cmdline").read_text().split("\0"))
    return [command for command in found if verb in command]


def assert_program_is_of(side: Side, program: Path) -> None:
    """Check that the program on the cluster was made of that side's files."""
    with zipfile.ZipFile(program) as archive:
        names = [name for name in archive.namelist() if name.startswith("gpu_run/")]
        assert names
        for name in names:
            assert archive.read(name) == Path(side.package(), name).read_bytes()


@pytest.mark.parametrize(
    ("sides", "engine"),
    [("old before new", "host"), ("new before old", "host"), ("old before new", "command")],
    indirect=["sides"],
)
def test_jobs_are_found_followed_cancelled_collected_and_cleared(
    sides: tuple[Side, Side],
    connect: Callable[[str], str],
    engine: str,
    gate: Gate,
    cluster_folder: Path,
    tmp_path: Path,
    eventually: Eventually,
) -> None:
    launcher, other = sides
    conn_id = connect(engine)
    # At last all four GPUs are in use.
    good = launcher.submit(conn_id, "good", command='echo 0.25 > "$CHECKPOINT_DIR/last.pth"')
    bad = launcher.submit(conn_id, "bad", command="echo no such luck >&2; exit 3")
    each = f'case $N in 0) echo $N > "$OUTPUT_DIR/n";; 1) exit 4;; 2) {gate.wait}; echo $N > "$OUTPUT_DIR/n";; esac'
    array = launcher.submit(conn_id, "array", command=each, array=[{"N": str(n)} for n in range(3)])
    for handle in (good, bad):
        wait(eventually, launcher, handle)
    for index, state in enumerate(["SUCCEEDED", "FAILED", "RUNNING"]):
        wait_for_element(eventually, launcher, array, index, state)
    running = launcher.submit(conn_id, "running", command=f"printf '{EARLY}'; {gate.wait}; printf '{LATE}'", gpus=2)
    doomed = launcher.submit(conn_id, "doomed", command="sleep 600")
    for handle in (running, doomed):
        wait(eventually, launcher, handle, "RUNNING")
    waiting = launcher.submit(conn_id, "waiting", command="true", gpus=4)
    (program,) = programs(good)
    assert_program_is_of(launcher, program)

    everything = [good, bad, array, running, doomed, waiting]
    assert states(other, *everything) == ["SUCCEEDED", "FAILED", "RUNNING", "RUNNING", "RUNNING", "QUEUED"]
    ended = [good, bad, element(array, 0), element(array, 1)]
    ours, others = launcher.statuses(ended), other.statuses(ended)
    assert in_common(ours, others) == in_common(others, ours)
    assert (others[1]["reason"], others[1]["exit_code"]) == ("user_error", 3)
    assert others[1]["log_tail"] == "no such luck\n"
    assert [state for state, _ in other.statuses([array])[0]["elements"]] == ["SUCCEEDED", "FAILED", "RUNNING"]

    for handle in (waiting, doomed):
        status = other.cancel(handle)
        assert (status["state"], status["reason"]) == ("CANCELLED", "cancelled")
    assert states(launcher, waiting, doomed, running) == ["CANCELLED", "CANCELLED", "RUNNING"]
    assert attempts(waiting) == attempts(doomed) == ["1"]

    with ThreadPoolExecutor(1) as thread:
        following = thread.submit(other.follow, running)
        eventually(lambda: following.done() or commands_of(cluster_folder, "watch"), timeout_s=PATIENCE_S)
        gate.open()
        followed = following.result(PATIENCE_S)
    shown = "".join(f"{line}\n" for line in followed["lines"])
    assert shown == EARLY + LATE == Path(running["job_dir"], "logs", "training.log").read_text()
    assert (followed["event"]["status"]["state"], followed["event"]["error"]) == ("SUCCEEDED", None)

    status = wait(eventually, other, array)
    assert (status["state"], [state for state, _ in status["elements"]]) == (
        "FAILED",
        ["SUCCEEDED", "FAILED", "SUCCEEDED"],
    )
    eventually(lambda: other.capacity(conn_id)["waiting_jobs"] == 0, timeout_s=PATIENCE_S, every_s=0.25)
    assert {"checkpoints/last.pth", "SUCCESS", "status.txt"} <= collected(other, good, tmp_path / "home").keys()
    assert {"0/n", "2/n", "1/FAILED"} <= collected(other, array, tmp_path / "home of all").keys()

    # It gets all GPUs: none of the others has left a lease.
    held = launcher.submit(conn_id, "held", command="sleep 600", gpus=4)
    wait(eventually, launcher, held, "RUNNING")
    gone = [good, bad, running, doomed, waiting, *(element(array, index) for index in range(3))]
    cleared: list[str] = []

    def clear() -> bool:
        report = other.collect_garbage(conn_id, 0.001)
        assert not report["failed"]
        cleared.extend(report["jobs"])
        # Right after its end a job is still in use, by its supervisor.
        return not any(os.path.exists(handle["job_dir"]) for handle in gone)

    eventually(clear, timeout_s=PATIENCE_S, every_s=0.25)
    assert sorted(cleared) == sorted(handle["job_id"] for handle in gone)
    assert states(launcher, held) == ["RUNNING"]
    assert other.cancel(held)["state"] == "CANCELLED"


def collected(side: Side, handle: Handle, home: Path) -> dict[str, str]:
    """Collect a job's outputs, and return their checksums, which are right, here and there."""
    files = {file["path"]: file["sha256"] for file in side.collect(handle, str(home))["files"]}
    for path, sha256 in files.items():
        folder, below = Path(handle["job_dir"]), path
        if handle.get("array_size"):
            index, below = path.split("/", 1)
            folder = Path(element(handle, int(index))["job_dir"])
        for place in (home / path, folder / "outputs" / below):
            assert hashlib.sha256(place.read_bytes()).hexdigest() == sha256
    return files


def test_tries_of_a_task_are_attempts_of_one_job_across_an_upgrade(
    sides: tuple[Side, Side], connect: Callable[[str], str], gate: Gate, tmp_path: Path, eventually: Eventually
) -> None:
    launcher, other = sides
    conn_id = connect("host")
    code = tmp_path / "code"
    code.mkdir()
    (code / "train.sh").write_text('echo "$ATTEMPT" >> "$OUTPUT_DIR/runs"\ntest "$ATTEMPT" = 2\n')
    counted = 'echo "$ATTEMPT" >> "$OUTPUT_DIR/runs"; '
    tasks: dict[str, dict[str, Any]] = {
        "done": {"command": counted},
        "running": {"command": counted + gate.wait},
        "failed": {"code": str(code), "entry_script": "train.sh"},
        "array": {"command": counted + 'test "$ATTEMPT" = "$N"', "array": [{"N": "1"}, {"N": "2"}]},
    }
    handles = {task_id: launcher.submit(conn_id, task_id, **parameters) for task_id, parameters in tasks.items()}
    staged = launcher.stage(conn_id, "staged", code=str(code))
    for task_id, state in (("done", "SUCCEEDED"), ("running", "RUNNING"), ("failed", "FAILED"), ("array", "FAILED")):
        wait(eventually, launcher, handles[task_id], state)

    # The same try, whose worker was upgraded before it knew what became of its launch.
    again = {task_id: other.submit(conn_id, task_id, **parameters) for task_id, parameters in tasks.items()}
    assert again == handles
    # The next try of each: it takes the result, joins, or begins the next attempt.
    for task_id, parameters in tasks.items():
        assert other.submit(conn_id, task_id, try_number=2, **parameters)["job_dir"] == handles[task_id]["job_dir"]
    assert states(other, staged) == ["UNKNOWN"]
    handles["launched"] = other.submit(conn_id, "launched", job=staged, entry_script="train.sh")
    assert handles["launched"]["job_dir"] == staged["job_dir"]
    gate.open()
    ends = {task_id: wait(eventually, launcher, handle)["state"] for task_id, handle in handles.items()}
    # The one that was staged has had its first attempt only.
    assert ends == {**dict.fromkeys(tasks, "SUCCEEDED"), "launched": "FAILED"}
    runs = {**handles, "first": element(handles["array"], 0), "second": element(handles["array"], 1)}
    del runs["array"]
    assert {name: Path(handle["job_dir"], "outputs", "runs").read_text().split() for name, handle in runs.items()} == {
        "done": ["1"],
        "running": ["1"],
        "failed": ["1", "2"],
        "launched": ["1"],
        "first": ["1"],
        "second": ["1", "2"],
    }
    assert {name: attempts(handle) for name, handle in runs.items() if len(attempts(handle)) > 1} == {
        "failed": ["1", "2"],
        "second": ["1", "2"],
    }


def test_jobs_of_both_stand_in_one_queue_and_share_no_gpu(
    sides: tuple[Side, Side], connect: Callable[[str], str], cluster_folder: Path, gate: Gate, eventually: Eventually
) -> None:
    launcher, other = sides
    conn_id = connect("host")
    ledger = cluster_folder / "ledger"
    first = launcher.submit(conn_id, "first", command=gate.wait, gpus=4)
    wait(eventually, launcher, first, "RUNNING")
    # Those with three GPUs run one after the other, and what comes later beside others.
    sizes = [3, 3, 3, 1, 1, 2, 1, 2]
    handles = []
    for number, gpus in enumerate(sizes):
        note = f'echo "{{}} {number} $CUDA_VISIBLE_DEVICES" >> {ledger}'
        side = (launcher, other)[number % 2]
        command = f"{note.format('start')}; sleep 0.2; {note.format('end')}"
        handles.append(side.submit(conn_id, f"job-{number}", command=command, gpus=gpus))
    assert states(other, first, *handles) == ["RUNNING"] + ["QUEUED"] * len(sizes)
    (dispatcher,) = commands_of(cluster_folder, "dispatch")
    # It is of the side that was first to have a job wait, and serves those of the other as well.
    request = json.loads(Path(handles[0]["job_dir"], ".job", "attempts", "1", "request.json").read_text())
    assert request["program"] in dispatcher
    gate.open()
    for handle in handles:
        assert wait(eventually, other, handle)["state"] == "SUCCEEDED"

    used: dict[str, str] = {}
    starts = []
    for line in ledger.read_text().splitlines():
        event, job, indexes = line.split()
        assert len(indexes.split(",")) == sizes[int(job)]
        for gpu in indexes.split(","):
            if event == "start":
                assert used.setdefault(gpu, job) == job, f"GPU {gpu} is given twice:\n{ledger.read_text()}"
            else:
                del used[gpu]
        starts += [int(job)] if event == "start" else []
    assert [number for number in starts if sizes[number] == 3] == [0, 1, 2]
    assert (sorted(starts), used) == (list(range(len(sizes))), {})


@pytest.mark.parametrize(
    ("launch_from_trigger", "command", "end"),
    [
        pytest.param(False, "echo hi; exit 3", "GpuJobFailed", id="launched by a worker, fails"),
        pytest.param(True, "echo hi", None, id="launched by a trigger, succeeds"),
    ],
)
def test_what_airflow_keeps_of_a_deferred_task_is_understood(
    old: Side, new: Side, connect: Callable[[str], str], launch_from_trigger: bool, command: str, end: str | None
) -> None:
    """The triggerer is upgraded while it waits, and the worker that goes on may be of either version."""
    conn_id = connect("host")
    task = {"command": command, "launch_from_trigger": launch_from_trigger}
    kept = old.defer(conn_id, "train", **task)
    assert (kept["arguments"]["job"] is None) == launch_from_trigger
    fired = new.run_trigger(kept["trigger"], kept["arguments"])
    assert fired["lines"] == ["hi"]
    fired_by_old = old.run_trigger(kept["trigger"], {**kept["arguments"], "reader": "another"})
    assert fired_by_old["lines"] == ["hi"]
    for side, event in ((new, fired), (old, fired), (new, fired_by_old)):
        result = side.resume(conn_id, "train", method=kept["method"], event=event["event"], **task)
        # A newer version returns what the job has used as well.
        assert result == end if end else event["event"]["handle"].items() <= result.items()
    handle = fired["event"]["handle"]
    assert states(old, handle) == states(new, handle) == ["FAILED" if end else "SUCCEEDED"]


def test_an_older_version_reads_and_ends_jobs_that_go_on_by_themselves(
    old: Side, new: Side, connect: Callable[[str], str], gate: Gate, eventually: Eventually
) -> None:
    """It knows nothing of them, and counts places in the output by the latest attempt."""
    conn_id = connect("host")
    recover = {"recover": {"checkpointed": 5}}
    once = 'echo "attempt $ATTEMPT"; touch "$CHECKPOINT_DIR/a"; [ "$ATTEMPT" = 2 ] || exit 85'
    handle = new.submit(conn_id, "good", command=f"{once}; {gate.wait}; echo done", **recover)
    doomed = new.submit(conn_id, "doomed", command='[ "$ATTEMPT" = 2 ] || exit 85; sleep 600', **recover)
    eventually(lambda: attempts(doomed) == ["1", "2"], timeout_s=PATIENCE_S)
    # It waits, or it is about to run.
    assert old.cancel(doomed)["state"] == "CANCELLED"
    eventually(lambda: attempts(handle) == ["1", "2"], timeout_s=PATIENCE_S)
    assert states(old, handle)[0] in ("QUEUED", "RUNNING")
    gate.open()
    log = Path(handle["job_dir"], "logs", "training.log")
    followed = old.follow(handle)
    assert (followed["event"]["status"]["state"], followed["event"]["error"]) == ("SUCCEEDED", None)
    assert followed["lines"] == log.read_text().splitlines()
    assert [line for line in followed["lines"] if "gpu-run" not in line] == ["attempt 1", "attempt 2", "done"]
    # The same reader, after the upgrade.
    assert new.follow(handle)["lines"] == []
    assert states(new, handle, doomed) == ["SUCCEEDED", "CANCELLED"]
    assert attempts(doomed) == ["1", "2"]
