"""Clearing away: old jobs go, whatever they have left behind; what is in use stays, however old it looks."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.gpu_run.environments import python_environment
from airflow_provider_gpu_cluster.gpu_run.gc import old_jobs, old_programs
from airflow_provider_gpu_cluster.gpu_run.gc.collection import collect_garbage
from airflow_provider_gpu_cluster.gpu_run.gc.trash import Trash
from airflow_provider_gpu_cluster.gpu_run.jobs import submission
from airflow_provider_gpu_cluster.gpu_run.jobs.cancel import cancel
from airflow_provider_gpu_cluster.gpu_run.protocol.records import Claim, EnvironmentParts
from airflow_provider_gpu_cluster.gpu_run.protocol.replies import GcReport
from airflow_provider_gpu_cluster.gpu_run.protocol.settings import Settings
from airflow_provider_gpu_cluster.gpu_run.store.directories import Root
from airflow_provider_gpu_cluster.sources import UploadSource, parse_sources
from tests.gpu_run.attempts import first_attempt, preempt, waits_forever
from tests.gpu_run.host import NOBODY, Host, as_other_user
from tests.gpu_run.old import DAY, make_job_old, make_old
from tests.gpu_run.staging import receiver
from tests.harness.patience import PATIENCE_S

as_root = pytest.mark.skipif(os.getuid() != 0 and os.environ.get("CI") != "true", reason="only root can be two users")

NOTHING = {
    "older_than_s": 14 * DAY,
    "dry_run": False,
    "busy": False,
    "jobs": [],
    "environments": [],
    "cache_entries": 0,
    "uploads": 0,
    "programs": 0,
    "bytes_freed": 0,
    "failed": [],
    "failures": 0,
}


def collect(host: Host, older_than_s: float = 14 * DAY, *, dry_run: bool = False) -> GcReport:
    return collect_garbage(host.root, host.settings, host.program, older_than_s, dry_run=dry_run)


def ended(host: Host, command: str = "true", *, days_ago: float = 100, **more: Any) -> str:
    """Return a job that has ended some days ago."""
    job_id = host.submit(command, **more)
    host.wait(job_id)
    while host.engine.still_runs(job_id):
        # The guard lets go of it a moment after the end.
        time.sleep(0.01)
    make_job_old(host, job_id, days_ago * DAY)
    return job_id


def staged(host: Host, job_id: str, *, days_ago: float = 100) -> str:
    """Return a job that was staged some days ago and never launched."""
    request: Any = {"job_id": job_id, "inputs": [], "record": {"dag_id": "dag"}}
    submission.stage(host.root, host.engine, request)
    make_job_old(host, job_id, days_ago * DAY)
    return job_id


def there(host: Host) -> set[str]:
    """Return the jobs that are there."""
    return {name for name in os.listdir(host.root.path) if not name.startswith(".")}


def trash(host: Host) -> list[str]:
    folders = [Path(host.root.own, "trash"), Path(host.root.cache, "trash")]
    return [str(path) for folder in folders if folder.exists() for path in folder.iterdir()]


# -- jobs ------------------------------------------------------------------------------------------------------------


def test_old_jobs_go_and_young_ones_stay(host: Host) -> None:
    old = ended(host, "head -c 1000000 /dev/urandom > $OUTPUT_DIR/model; exit 1", days_ago=15)
    young = ended(host, days_ago=13)
    new = ended(host, days_ago=0)
    report = collect(host)
    assert report["jobs"] == [old]
    assert 1_000_000 < report["bytes_freed"] < 1_200_000
    assert report["failures"] == 0
    assert there(host) == {young, new}
    assert trash(host) == []
    assert collect(host) == NOTHING


def test_a_dry_run_removes_nothing(host: Host, eventually: Callable[..., Any]) -> None:
    old = ended(host, "head -c 1000000 /dev/urandom > $OUTPUT_DIR/model")
    # It takes what has started out of the line, soon.
    eventually(lambda: not host.processes("dispatch"))
    fill_cache(host, days_ago=100)
    before = everything(host)
    report = collect(host, dry_run=True)
    assert everything(host) == before
    assert report["dry_run"] is True
    really = collect(host)
    assert really["jobs"] == [old]
    assert {**really, "dry_run": True} == report
    assert really["cache_entries"]
    assert really["uploads"]
    assert really["programs"]
    assert really["environments"]


def everything(host: Host) -> dict[str, float]:
    paths = Path(host.root.path).rglob("*")
    return {str(path): path.lstat().st_mtime for path in paths if path.name not in ("gc.lock", ".gpu-run")}


def test_a_running_job_stays_however_old_it_looks(host: Host) -> None:
    job = host.submit("sleep 1000")
    host.wait(job, state="RUNNING")
    make_job_old(host, job)
    assert collect(host, 0.001)["jobs"] == []
    assert host.status(job)["state"] == "RUNNING"


def test_a_running_job_that_forges_its_own_end_stays(host: Host) -> None:
    job = host.submit("sleep 1000")
    host.wait(job, state="RUNNING")
    Path(host.attempt(job).at("exit.json")).write_text(
        '{"state": "SUCCEEDED", "ended_at": "1980-01-01T00:00:00+00:00"}'
    )
    make_job_old(host, job)
    assert collect(host)["jobs"] == []
    # Nor does it help to forge the claim as well: the lease speaks for it.
    claim = Path(host.attempt(job).at("claim.json"))
    claim.write_text(json.dumps({**json.loads(claim.read_text()), "by": "cancel"}))
    make_job_old(host, job)
    assert collect(host)["jobs"] == []
    assert there(host) == {job}


def test_a_running_job_that_deletes_its_records_stays(host: Host) -> None:
    job = host.submit("rm -rf $JOB_DIR/.job/attempts; echo gone; sleep 1000")
    deadline = time.monotonic() + 20
    while not os.path.exists(host.job(job).at("logs", "training.log")) or not host.log(job):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    make_old(host.job(job).path)
    assert collect(host)["jobs"] == []
    assert there(host) == {job}


def test_a_waiting_job_stays_and_runs(host: Host) -> None:
    blocker = host.submit("sleep 1000", gpus=4)
    host.wait(blocker, state="RUNNING")
    waiting = host.submit("true")
    make_job_old(host, waiting)
    assert collect(host)["jobs"] == []
    os.kill(host.status(blocker)["pid"], signal.SIGTERM)
    assert host.wait(waiting)["state"] == "SUCCEEDED"


def test_a_job_of_another_host_stays(host: Host) -> None:
    """Homes are shared by hosts; what runs on another cannot be seen from here."""
    job = ended(host)
    attempt = host.attempt(job)
    os.unlink(attempt.at("exit.json"))
    claim = Path(attempt.at("claim.json"))
    claim.write_text(json.dumps({**json.loads(claim.read_text()), "host": "elsewhere"}))
    make_job_old(host, job)
    assert collect(host)["jobs"] == []
    assert host.status(job)["state"] == "UNKNOWN"


def test_a_job_whose_supervisor_was_killed_has_ended_when_that_is_found(host: Host) -> None:
    job = ended(host)
    os.unlink(host.attempt(job).at("exit.json"))
    make_job_old(host, job)
    assert collect(host)["jobs"] == []
    end = host.attempt(job).ended()
    assert end is not None
    assert end["state"] == "LOST"
    make_job_old(host, job)
    assert collect(host)["jobs"] == [job]


def test_a_job_that_goes_on_by_itself_stays_however_long_ago_its_attempt_ended(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits_forever(monkeypatch)
    attempt = first_attempt(host, "job")
    older = Path(host.root.own, "0" * 64 + ".pyz")
    older.write_text("the program that its attempts are run by")
    request = json.loads(Path(attempt.at("request.json")).read_text())
    Path(attempt.at("request.json")).write_text(json.dumps({**request, "program": str(older)}))
    preempt(attempt)
    for attempts in (1, 2):
        make_job_old(host, "job")
        make_old(older)
        # First nobody has made the next attempt, then it waits.
        assert len(attempt.job.attempts()) == attempts
        assert (collect(host)["jobs"], there(host), older.exists()) == ([], {"job"}, True)
        assert host.status("job")["state"] == "QUEUED"
    cancel(host.root, host.engine, ["job"], "the test", 0)
    make_job_old(host, "job")
    report = collect(host)
    assert (report["jobs"], report["programs"], older.exists()) == (["job"], 1, False)


def test_the_latest_attempt_counts(host: Host) -> None:
    job = ended(host, "exit 1")
    host.submit("true", job_id=job, request_key="2")
    assert host.wait(job)["attempt"] == 2
    assert collect(host)["jobs"] == []
    make_job_old(host, job)
    assert collect(host)["jobs"] == [job]


def test_whoever_asks_for_an_old_job_keeps_it(host: Host) -> None:
    job = ended(host)
    host.submit("true", job_id=job)
    assert host.attempt(job).number == 1
    assert collect(host)["jobs"] == []
    # However short the retention is, a request has an hour to come to its end.
    make_old(host.job(job).at(".job", "lock"), 3000)
    assert collect(host, 1)["jobs"] == []
    make_old(host.job(job).at(".job", "lock"), 4000)
    assert collect(host, 1)["jobs"] == [job]


def test_a_short_retention_takes_a_job_that_has_just_ended(host: Host) -> None:
    job = ended(host, days_ago=0)
    assert collect(host, 0.001)["jobs"] == [job]


def test_a_staged_job_stays_as_long_as_an_ended_one(host: Host) -> None:
    old, young = staged(host, "old", days_ago=15), staged(host, "young", days_ago=13)
    new = staged(host, "new", days_ago=0)
    assert collect(host)["jobs"] == [old]
    assert there(host) == {young, new}
    assert collect(host, 1)["jobs"] == [young]


def test_a_job_that_is_being_staged_stays(host: Host) -> None:
    job = staged(host, "staged")
    folder = Path(host.job(job).at(".job", "incoming-abc"))
    folder.mkdir()
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        make_job_old(host, job)
        assert collect(host)["jobs"] == []
    # Whoever did it is dead now.
    assert collect(host)["jobs"] == [job]


def test_a_job_with_a_request_in_progress_stays(host: Host) -> None:
    job = ended(host)
    with host.job(job).lock():
        assert collect(host)["jobs"] == []
    assert collect(host)["jobs"] == [job]


def test_a_job_that_another_works_with_stays(host: Host, tmp_path: Path) -> None:
    source = ended(host, "echo model > $OUTPUT_DIR/model")
    alias = tmp_path / "alias"
    alias.symlink_to(host.root.path)
    wanted = {"type": "cluster", "kind": "models", "name": "model", "written": "x"}
    wanted["path"] = f"{alias}/{source}/outputs/model"
    request: Any = {"job_id": "user", "inputs": [wanted], "record": {"dag_id": "dag"}}
    submission.stage(host.root, host.engine, request)
    make_job_old(host, source)
    assert collect(host)["jobs"] == []
    user = host.submit("sleep 1000", job_id="user")
    host.wait(user, state="RUNNING")
    make_job_old(host, user)
    assert collect(host)["jobs"] == []
    os.kill(host.status(user)["pid"], signal.SIGTERM)
    host.wait(user)
    assert collect(host)["jobs"] == [source]


def test_a_job_that_another_is_given_at_the_last_moment_stays(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    source = ended(host)
    wanted = {"type": "cluster", "kind": "data", "name": "x", "written": "x", "path": host.job(source).at("outputs")}
    request: Any = {"job_id": "user", "inputs": [wanted], "record": {"dag_id": "dag"}}

    def late(self: Any, job: Any) -> bool:
        submission.stage(host.root, host.engine, request)
        return False

    monkeypatch.setattr(old_jobs.Needs, "are_in", late)
    assert collect(host)["jobs"] == []
    assert os.path.isdir(host.job("user").at("data", "x"))


def test_what_is_no_job_is_left_alone(host: Host, tmp_path: Path) -> None:
    root = Path(host.root.path)
    job = ended(host)
    (root / "notes.txt").write_text("mine")
    (root / "folder" / "outputs").mkdir(parents=True)
    (root / "a b").mkdir()
    (root / "a b" / ".job").mkdir()
    (root / "file" / "x").mkdir(parents=True)
    (root / "file" / ".job").write_text("")
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / ".job").mkdir(parents=True)
    (root / "link").symlink_to(elsewhere)
    (root / "half").mkdir()
    (root / "half" / ".job").symlink_to(elsewhere)
    for path in root.iterdir():
        if not path.name.startswith("."):
            make_old(path)
    make_job_old(host, job)
    assert collect(host)["jobs"] == [job]
    assert there(host) == {"notes.txt", "folder", "a b", "file", "link", "half"}
    assert elsewhere.exists()


@pytest.mark.parametrize(
    "content", ["", "[]", "null", '{"state": "LOST", "ended_at": 7}', '{"state": "LOST"}', '{"state": 7}', "{" * 10000]
)
def test_records_with_anything_in_them(host: Host, content: str) -> None:
    """A record that cannot be read is no proof of an end; one that tells no time has its own."""
    spoilt = ("exit.json", "request.json", "claim.json", "environment.json", "inputs.json")
    at = {name: host.submit("true") for name in spoilt}
    other = host.submit("true")
    for job in (*at.values(), other):
        host.wait(job)
        while host.engine.still_runs(job):
            time.sleep(0.01)
        make_job_old(host, job)
    for name, job in at.items():
        folder = host.job(job).at(".job") if name == "inputs.json" else host.attempt(job).path
        Path(folder, name).write_text(content)
        make_old(host.job(job).path)
    report = collect(host)
    removed, failed = set(report["jobs"]), {one["path"]: one["why"] for one in report["failed"]}
    assert {other, at["inputs.json"]} <= removed
    assert (at["exit.json"] in removed) == ("LOST" in content)
    assert there(host) == {*at.values(), other} - removed
    assert set(failed) == {host.job(job).path for job in there(host)}
    assert all(why.startswith("it is not removed: ") for why in failed.values())


def test_what_jobs_leave_behind(host: Host, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("stays")
    job = ended(host)
    outputs = Path(host.job(job).at("outputs"))
    (outputs / "link").symlink_to(outside)
    (outputs / "file link").symlink_to(outside / "precious")
    (outputs / "circle").symlink_to(outputs)
    os.link(outside / "precious", outputs / "second name")
    os.mkfifo(outputs / "pipe")
    with socket.socket(socket.AF_UNIX) as bound:
        folder = os.open(outputs, os.O_RDONLY)
        bound.bind(f"/proc/self/fd/{folder}/socket")
        os.close(folder)
    (outputs / os.fsdecode(b"not \xff text")).write_text("x")
    (outputs / ("n" * 255)).mkdir()
    (outputs / "a\nb").mkdir()
    make_deep(outputs, 3000)
    assert collect(host)["jobs"] == [job]
    assert trash(host) == []
    assert (outside / "precious").read_text() == "stays"


def make_deep(folder: Path, levels: int) -> None:
    """Make folders in folders, so many that the path to the last is longer than any path may be."""
    fd = os.open(folder, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("deeper", dir_fd=fd)
        below = os.open("deeper", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=fd))
    os.close(fd)


def test_a_full_disk_is_no_obstacle(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where not even a folder can be made, to clear up is what helps."""
    jobs = [ended(host, "mkdir -p $OUTPUT_DIR/in/folders; touch $OUTPUT_DIR/in/file") for _ in range(2)]

    def full(path: str, *arguments: Any, **options: Any) -> None:
        if not os.path.isdir(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    Path(host.root.own, f"{A}.pyz").touch()
    make_old(Path(host.root.own, f"{A}.pyz"))
    monkeypatch.setattr(os, "makedirs", full)
    report = collect(host)
    assert report["jobs"] == jobs
    assert report["programs"] == 1
    assert report["failures"] == 0
    assert [name for name in os.listdir(host.root.own) if "trash" in name] == []
    assert there(host) == set()


def test_what_an_interrupted_one_has_left_goes(host: Host) -> None:
    left = Path(host.root.own, "trash", "abc-job", "outputs")
    left.mkdir(parents=True)
    (left / "model").write_bytes(os.urandom(100_000))
    cache = Path(host.root.cache, "trash", "abc", "lib")
    cache.mkdir(parents=True)
    assert collect(host)["bytes_freed"] > 100_000
    assert trash(host) == []


def test_two_at_once(host: Host) -> None:
    job = ended(host)
    with open(Path(host.root.own, "gc.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert collect(host) == {**NOTHING, "busy": True}
    assert collect(host)["jobs"] == [job]


# -- another user, and an ordinary one -------------------------------------------------------------------------------


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Return a folder that other users can enter, which pytest's own is not."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        yield Path(folder)


def job_of_now(root: Root, job_id: str) -> Path:
    """Make a job that has ended long ago, without running anything."""
    job = root.job(job_id)
    job.create()
    request: Any = {"requested_at": "2000-01-01T00:00:00+00:00", "settings": {}, "program": ""}
    attempt = job.add_attempt(1, request, {})
    assert attempt is not None
    attempt.claim(cast(Claim, {"by": "cancel"}))
    attempt.finish(protocol.CANCELLED, protocol.REASON_CANCELLED, "")
    Path(attempt.at("exit.json")).write_text('{"state": "CANCELLED", "ended_at": "2000-01-01T00:00:00+00:00"}')
    make_old(job.path)
    return Path(job.path)


def collect_in(root: Root) -> GcReport:
    os.makedirs(root.own, exist_ok=True)
    settings: Settings = {"lease_dir": os.path.join(root.path, "no leases")}
    return collect_garbage(root, settings, os.path.join(root.own, "program.pyz"), DAY)


@as_root
def test_folders_that_their_user_may_not_write_to(open_folder: Path) -> None:
    def other() -> list[Any]:
        root = Root(str(open_folder / "jobs"))
        job = job_of_now(root, "job")
        for name, mode in (("readonly/in/readonly", 0o500), ("closed/in/closed", 0), ("unreadable/x", 0o300)):
            folder = job / "outputs" / name
            folder.mkdir(parents=True)
            (folder / "file").write_text("x")
            for path in (folder, folder.parent, folder.parent.parent):
                if path != job / "outputs":
                    path.chmod(mode)
        (job / ".job" / "lock").chmod(0o400)
        (job / "outputs").chmod(0o500)
        make_old(job / ".job")
        job.chmod(0o500)
        report = collect_in(root)
        return [report["jobs"], report["failed"], os.path.lexists(job), os.listdir(os.path.join(root.own, "trash"))]

    assert as_other_user(other) == [["job"], [], False, []]


@as_root
def test_files_of_other_users_are_reported_and_keep_nothing_else(open_folder: Path) -> None:
    """A container that ran as root leaves such files behind."""
    root = Root(str(open_folder / "jobs"))

    def other() -> None:
        for job_id in ("first", "second"):
            job_of_now(root, job_id)

    as_other_user(other)
    theirs = Path(root.path, "first", "outputs", "by root")
    theirs.mkdir()
    (theirs / "file").write_text("x")
    (theirs.parent / "empty, by root").mkdir()
    (theirs.parent / "file by root").write_text("x")
    make_old(theirs.parent)

    report = as_other_user(lambda: collect_in(root))
    assert report["jobs"] == ["first", "second"]
    (failed,) = report["failed"]
    assert failed["path"].endswith("first/outputs/by root")
    assert failed["why"] == "Permission denied"
    assert not Path(root.path, "first").exists()
    # And again the next time, as long as nobody has helped.
    assert as_other_user(lambda: collect_in(root))["failures"] >= 1
    for path in Path(root.own, "trash").rglob("by root"):
        os.chown(path, NOBODY, NOBODY)
    assert as_other_user(lambda: collect_in(root))["failures"] == 0
    assert os.listdir(os.path.join(root.own, "trash")) == []


@as_root
def test_jobs_of_other_users_are_not_ours_to_remove(host: Host) -> None:
    job = ended(host)
    os.chown(host.job(job).path, NOBODY, NOBODY)
    assert collect(host) == NOTHING
    assert there(host) == {job}


# -- beside a launch -------------------------------------------------------------------------------------------------


def test_a_launch_that_comes_before_the_last_look(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    job = ended(host)
    looks = []

    def is_old(self: Any, seen: Any) -> bool:
        looks.append(seen.job_id)
        if len(looks) == 1:
            host.submit("sleep 1000", job_id=job, request_key="2", generation="0")
            # Its first attempt has succeeded, so this has found it.
            return True
        return really(self, seen)

    really = old_jobs.OldJobs.is_old
    monkeypatch.setattr(old_jobs.OldJobs, "is_old", is_old)
    assert collect(host)["jobs"] == []
    assert looks == [job, job]
    assert there(host) == {job}


def test_a_launch_that_comes_while_the_directory_goes(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    job = ended(host, "exit 1")
    launches: list[threading.Thread] = []
    take = Trash.take

    def late(self: Trash, path: str) -> str:
        if os.path.basename(path) == job:
            launches.append(threading.Thread(target=host.submit, args=("echo anew",), kwargs={"job_id": job}))
            launches[0].start()
            time.sleep(0.3)  # it waits for the lock of the directory that goes now
        return take(self, path)

    monkeypatch.setattr(Trash, "take", late)
    assert collect(host)["jobs"] == [job]
    launches[0].join()
    assert host.wait(job)["state"] == "SUCCEEDED"
    assert host.attempt(job).number == 1
    assert host.log(job) == "anew\n"


@pytest.mark.parametrize("is_staged", [False, True], ids=["submit", "stage and submit"])
def test_launches_beside_it(host: Host, is_staged: bool) -> None:
    """Real processes that begin at the same moment: no launch fails, and no launched job is lost."""
    for number in range(5):
        job = f"race-{number}"
        ended(host, "exit 1", job_id=job)
        request: dict[str, Any] = {
            "job_id": job,
            "inputs": [],
            "env": {},
            "run_script": "#!/bin/bash\necho again\n",
            "request_key": "2",
            "generation": "0",
            "record": {"dag_id": "dag"},
            "context": {},
            "spec": {"gpus": 1, "priority": "normal", "grace_s": 1.0, "setup": ""},
        }
        Path(host.job(job).at(".job", "owner.json")).write_text(json.dumps({"by": {"dag_id": "dag"}}))
        make_job_old(host, job)
        collection = start(host, "gc", {"older_than_s": DAY, "dry_run": False}, delay_s=number * 0.01)
        if is_staged:
            answer(start(host, "stage", request))
            request["inputs"] = None
        launched = answer(start(host, "submit", request))
        report = answer(collection)
        assert launched["created"] is True
        assert report["failures"] == 0
        status = host.wait(job)
        assert status["state"] == "SUCCEEDED"
        assert status["attempt"] == (1 if report["jobs"] else 2)
    assert there(host) == {f"race-{number}" for number in range(5)}


def start(host: Host, verb: str, request: dict[str, Any], *, delay_s: float = 0) -> subprocess.Popen[bytes]:
    script = 'sleep "$1"; exec "$2" -I -S "$3" "$4"'
    command = ["sh", "-c", script, "sh", str(delay_s), sys.executable, host.program, verb]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    with process.stdin:
        process.stdin.write(json.dumps({**request, "settings": host.settings}).encode() + b"\n")
    return process


def answer(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    assert process.stdout is not None
    with process.stdout:
        text = process.stdout.read()
    process.wait()
    reply = json.loads(text.split(protocol.REPLY_MARK + b"\n")[1])
    assert "ok" in reply, reply
    value: dict[str, Any] = reply["ok"]
    return value


# -- the cache -------------------------------------------------------------------------------------------------------

A, B = "ab" * 32, "cd" * 32
KEY = "0123456789abcdef0123"
PACK = "0123456789abcdef" * 2


def fill_cache(host: Host, *, days_ago: float) -> dict[str, Path]:
    cache = Path(host.root.cache)
    paths = {
        "content": cache / "contents" / A[:2] / A[2:],
        "manifest": cache / "manifests" / f"{A}.json",
        "tag": cache / "tags" / f"tag-{A}",
        "dangling": cache / "tags" / f"tag-{B}",
        "pack": cache / "packs" / f"{PACK}.data",
        "index": cache / "packs" / f"{PACK}.index",
        "orphan": cache / "packs" / f"{PACK[::-1]}.data",
        "part": cache / "incoming" / B,
        "ranges": cache / "incoming" / f"{B}.ranges",
        "lock": cache / "incoming" / f"{B}.lock",
        "draft": cache / "incoming" / "1234.tmp",
        "environment": cache / "environments" / KEY,
        "program": Path(host.root.own) / f"{A}.pyz",
        "unpacked": Path(host.root.own) / A,
    }
    for name, path in paths.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if name == "environment":
            (path / "bin").mkdir(parents=True)
            (path / "bin" / "python").symlink_to(sys.executable)
            (path / "built.json").write_text(json.dumps({"path": str(path), "key": KEY, "group": "g"}))
            Path(f"{path}.lock").touch()
        elif name == "unpacked":
            path.mkdir()
            (path / "__main__.py").write_text("")
        elif name in ("tag", "dangling"):
            key = path.name.partition("-")[2]
            path.symlink_to(f"../contents/{key[:2]}/{key[2:]}")
        else:
            path.write_bytes(os.urandom(5000))
    paths["content"].chmod(0o400)
    for path in paths.values():
        make_old(path, days_ago * DAY)
    return paths


def left(paths: dict[str, Path]) -> set[str]:
    return {name for name, path in paths.items() if os.path.lexists(path)}


def test_what_no_job_was_given_for_long_goes(host: Host) -> None:
    paths = fill_cache(host, days_ago=15)
    report = collect(host)
    assert left(paths) == set()
    # A pack counts as one.
    assert report["cache_entries"] == 6
    # With its list of ranges and its lock, and a draft.
    assert report["uploads"] == 4
    assert report["environments"] == [KEY]
    assert report["programs"] == 1
    assert report["bytes_freed"] >= 6 * 4096
    assert trash(host) == []
    assert not os.path.exists(f"{paths['environment']}.lock")
    assert collect(host) == NOTHING


def test_what_was_of_use_since_stays(host: Host) -> None:
    paths = fill_cache(host, days_ago=13)
    collect(host)
    # What is no content and leads to none is of no use at any age: a part nobody has gone on with for a day, too.
    assert left(paths) == {
        "content",
        "manifest",
        "tag",
        "pack",
        "index",
        "environment",
        "program",
        "unpacked",
    }


def test_parts_of_today_stay_as_does_a_short_retention(host: Host) -> None:
    paths = fill_cache(host, days_ago=0.5)
    collect(host)
    assert {"part", "ranges", "lock"} <= left(paths)
    assert "draft" not in left(paths)
    collect(host, 6 * 3600)
    assert not {"part", "ranges", "lock"} & left(paths)


def test_use_of_a_content_is_noted_once_an_hour_only(host: Host) -> None:
    paths = fill_cache(host, days_ago=1)
    collect(host, DAY - 1800)
    assert {"content", "manifest", "tag", "pack", "index"} <= left(paths)
    collect(host, DAY - 4000)
    assert not {"content", "manifest", "tag", "pack", "index"} & left(paths)


def test_what_was_sent_goes_and_can_be_sent_again(host: Host, tmp_path: Path) -> None:
    """What uploads really leave in the cache."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "large").write_bytes(os.urandom(2_000_000))
    (tmp_path / "d" / "small").write_bytes(b"small")
    (source,) = parse_sources(code=None, data="d", models=None, base_dir=tmp_path)
    assert isinstance(source, UploadSource)

    def stage(job_id: str) -> list[int]:
        job = host.job(job_id)
        needs = receiver.stage(job, [source.to_json()], [source])
        assert Path(job.at("data", "d", "small")).read_bytes() == b"small"
        return needs

    assert stage("first") == [0]
    make_old(host.root.cache, 15 * DAY)
    assert stage("second") == []
    # Only its use was noted, so all of it stays.
    assert collect(host)["cache_entries"] == 0
    assert stage("third") == []
    make_old(host.root.cache, 15 * DAY)
    assert collect(host)["cache_entries"] == 3
    assert [path for path in Path(host.root.cache).rglob("*") if path.is_file()] == []
    assert stage("fourth") == [0]


@pytest.mark.parametrize(("name", "how"), [("lock", fcntl.LOCK_EX), ("part", fcntl.LOCK_SH)])
def test_a_part_that_somebody_receives_stays(host: Host, name: str, how: int) -> None:
    paths = fill_cache(host, days_ago=100)
    with open(paths[name]) as file:
        fcntl.flock(file, how)
        collect(host)
        assert {"part", "ranges", "lock"} <= left(paths)
    collect(host)
    assert not {"part", "ranges", "lock"} & left(paths)


def test_what_the_cache_does_not_know_is_left_alone(host: Host, tmp_path: Path) -> None:
    fill_cache(host, days_ago=100)
    cache = Path(host.root.cache)
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / ("1" * 62)).write_text("")
    strange = [
        cache / "contents" / "notes.txt",
        cache / "contents" / A[:2] / "README",
        cache / "manifests" / "other",
        cache / "other",
        cache / "environments" / "mine",
    ]
    for path in strange:
        path.write_text("")
    (cache / "contents" / "ff").symlink_to(precious)
    (cache / "contents" / A[:2] / ("2" * 62)).mkdir()
    (cache / "contents" / A[:2] / ("3" * 62)).symlink_to(precious)
    make_old(cache)
    make_old(precious)
    report = collect(host)
    assert report["failures"] == 0
    assert all(path.exists() for path in strange)
    assert (precious / ("1" * 62)).exists()
    assert (cache / "contents" / A[:2] / ("2" * 62)).exists()


def test_an_environment_that_a_job_runs_in_stays(host: Host) -> None:
    path = fill_cache(host, days_ago=100)["environment"]
    job = host.submit("sleep 1000")
    host.wait(job, state="RUNNING")
    Path(host.attempt(job).at("environment.json")).write_text(json.dumps({"path": str(path)}))
    assert collect(host)["environments"] == []
    os.kill(host.status(job)["pid"], signal.SIGTERM)
    host.wait(job)
    assert collect(host)["environments"] == [KEY]


@pytest.mark.parametrize("is_known", [True, False])
def test_an_environment_that_a_job_waits_for_stays(host: Host, is_known: bool) -> None:
    """One that was built before it was noted for whom it does stays as long as any job waits for one."""
    path = fill_cache(host, days_ago=100)["environment"]
    blocker = host.submit("sleep 1000", gpus=4)
    host.wait(blocker, state="RUNNING")
    waiting = host.submit("true")
    parts: EnvironmentParts = {"requirements": "x", "includes": {}, "private": None, "setup": "", "python": None}
    record = Path(host.attempt(waiting).at("request.json"))
    record.write_text(json.dumps({**json.loads(record.read_text()), "environment": parts}))
    mark = path / "built.json"
    group = {"group": python_environment.group(parts)} if is_known else {}
    mark.write_text(json.dumps({"path": str(path), "key": KEY, **group}))
    make_old(path)
    assert collect(host)["environments"] == []
    mark.write_text(json.dumps({"path": str(path), "key": KEY, "group": "another"}))
    make_old(path)
    assert collect(host)["environments"] == [KEY]


def test_an_environment_that_is_being_built_stays(host: Host) -> None:
    path = fill_cache(host, days_ago=100)["environment"]
    (path / "built.json").unlink()
    make_old(path)
    with open(f"{path}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert collect(host, dry_run=True)["environments"] == []
        assert collect(host)["environments"] == []
    # The build was killed.
    assert collect(host)["environments"] == [KEY]


# -- programs --------------------------------------------------------------------------------------------------------


def test_programs_that_somebody_uses_stay(host: Host) -> None:
    own = Path(host.root.own)
    names = {name: digit * 64 for name, digit in zip(("waiting", "process", "command", "nobody"), "1234", strict=True)}
    for name in names.values():
        (own / f"{name}.pyz").write_text("")
        (own / name).mkdir()
        make_old(own / f"{name}.pyz")
        make_old(own / name)
    (own / "gpu-run").symlink_to(f"{names['command']}.pyz")
    blocker = host.submit("sleep 1000", gpus=4)
    host.wait(blocker, state="RUNNING")
    waiting = host.submit("true")
    record = Path(host.attempt(waiting).at("request.json"))
    program = str(own / f"{names['waiting']}.pyz")
    record.write_text(json.dumps({**json.loads(record.read_text()), "program": program}))
    make_old(host.program)
    code = [sys.executable, "-c", "import sys; sys.stdin.read()", str(own / f"{names['process']}.pyz")]
    process = subprocess.Popen(code, stdin=subprocess.PIPE)
    try:
        assert collect(host)["programs"] == 1
    finally:
        process.communicate()
    there = {path.name for path in own.iterdir() if path.name[:64] in names.values()}
    kept = [names[name] for name in ("waiting", "process", "command")]
    assert there == {*kept, *(f"{name}.pyz" for name in kept)}
    assert Path(host.program).exists()


def test_a_program_that_is_started_at_the_last_moment_stays(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    path = fill_cache(host, days_ago=100)["program"]
    looks: list[set[str]] = [set(), {A}]
    monkeypatch.setattr(old_programs, "in_processes", lambda: looks.pop(0))
    assert collect(host)["programs"] == 0
    assert path.exists()


def test_drafts_of_the_dead_go(host: Host) -> None:
    own = Path(host.root.own)
    (own / "queue" / "0123").mkdir(parents=True)
    drafts = [f".{A}.pyz.0123.tmp", "pool.json.0123.tmp", f"{A}.abcdefgh", "gpu-run." + "0" * 32, "queue/0123/w.tmp"]
    for name in drafts:
        (own / name).touch()
        make_old(own / name, 3500)
    collect(host)
    assert all((own / name).exists() for name in drafts)
    for name in drafts:
        make_old(own / name, 3700)
    collect(host)
    assert not any((own / name).exists() for name in drafts)


# -- a person's command ----------------------------------------------------------------------------------------------


def gpu_run(host: Host, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-S", host.program, "gc", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)


def test_a_person_clears_old_jobs_away(host: Host) -> None:
    job = ended(host)
    kept = ended(host, days_ago=1)
    done = gpu_run(host, "--older-than", "14d", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == job
    assert "would remove 1 jobs, 0 environments, 0 cache entries" in done.stdout
    assert there(host) == {job, kept}
    done = gpu_run(host, "--older-than=14d")
    assert done.stdout.splitlines()[0] == job
    assert "removed 1 jobs" in done.stdout
    assert there(host) == {kept}


def test_a_person_is_told_of_another_one_at_work(host: Host) -> None:
    with open(Path(host.root.own, "gc.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = gpu_run(host, "--older-than", "14d")
    assert done.returncode == 2
    assert "another 'gpu-run gc' is at work" in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dry-run"], "the following arguments are required: --older-than"),
        (["--older-than", "2w"], "argument --older-than: '2w' is not a duration such as 14d, 36h, 90m"),
        (["--older-than", "0"], "argument --older-than: '0' is not a duration"),
        (["--older-than", "14d", "job"], "unrecognized arguments: job"),
    ],
)
def test_options_that_make_no_sense(host: Host, options: list[str], message: str) -> None:
    done = gpu_run(host, *options)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_it_gives_signs_of_life(host: Host) -> None:
    """Deleting takes long where there is much to delete; the other side hears that it goes on."""
    job = ended(host)
    with open(Path(host.lease_dir, "mutex"), "w") as mutex:
        # It cannot be told who holds leases, so nothing goes; and to find that out takes five seconds, once.
        fcntl.flock(mutex, fcntl.LOCK_EX)
        process = start(host, "gc", {"older_than_s": DAY, "dry_run": False})
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
        report = answer(process)
    assert report["jobs"] == []
    assert "has kept" in report["failed"][0]["why"]
    assert collect(host)["jobs"] == [job]
