"""Leases: whole GPUs that nobody else has, all or none, whoever the users are and whatever lies in the folder."""

from __future__ import annotations

import fcntl
import itertools
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.gpu_run.errors import Refused
from airflow_provider_gpu_cluster.gpu_run.gpus import leases as leases_module
from airflow_provider_gpu_cluster.gpu_run.gpus.allocator import Allocator
from airflow_provider_gpu_cluster.gpu_run.gpus.inventory import Gpu, find_gpus
from airflow_provider_gpu_cluster.gpu_run.gpus.leases import Leases
from airflow_provider_gpu_cluster.gpu_run.gpus.queue import HostQueue, live_queued_jobs
from airflow_provider_gpu_cluster.gpu_run.gpus.schedule import Holder, QueuedJob, Slot
from airflow_provider_gpu_cluster.gpu_run.linux import locks
from tests.gpu_run.host import Host, as_other_user
from tests.harness.small_disk import fill, small_disk

GPUS = find_gpus(4)
HOLDER = Holder("train", "ann", 100.0, None)

as_root = pytest.mark.skipif(os.getuid() != 0 and os.environ.get("CI") != "true", reason="only root can be two users")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that all users of this machine can reach."""
    path = Path(tempfile.mkdtemp(prefix="gpu-run-leases-"))
    path.chmod(0o755)
    yield path / "leases"
    shutil.rmtree(path)


@pytest.fixture
def leases(folder: Path) -> Leases:
    return Leases(str(folder))


def take(leases: Leases, gpu: Gpu, holder: Holder = HOLDER) -> int | None:
    with leases.mutex():
        return leases.take(gpu, holder)


def slots(leases: Leases) -> list[Slot]:
    with leases.mutex():
        return leases.slots(GPUS, {})


def notes(leases: Leases) -> list[str]:
    return [slot.note for slot in slots(leases)]


def ticket(job_id: str, count: int, owner: str, submitted: float = 0.0) -> QueuedJob:
    return QueuedJob(job_id, 1, submitted, count, None, None, owner)


# -- who has a GPU ---------------------------------------------------------------------------------------------------


def test_a_gpu_is_one_holders_until_the_file_is_closed(leases: Leases) -> None:
    fd = take(leases, GPUS[1])
    assert fd is not None
    assert take(leases, GPUS[1]) is None
    assert notes(leases) == ["", "train (ann)", "", ""]
    os.close(fd)
    assert notes(leases) == ["", "", "", ""]


def test_a_lease_dies_with_its_last_process_however_that_dies(leases: Leases) -> None:
    fd = take(leases, GPUS[0])
    assert fd is not None
    with subprocess.Popen(["sleep", "100"], pass_fds=[fd]) as heir:
        os.close(fd)
        assert notes(leases)[0] == "train (ann)"
        heir.kill()
    assert notes(leases)[0] == ""


def test_when_a_lease_ends_is_known_from_the_time_limit_until_that_is_over(leases: Leases) -> None:
    future, past = time.time() + 60, time.time() - 60
    held = [take(leases, GPUS[0], HOLDER._replace(until=future)), take(leases, GPUS[1], HOLDER._replace(until=past))]
    assert [slot.free_at for slot in slots(leases)] == [future, float("inf"), 0, 0]
    for fd in held:
        assert fd is not None
        os.close(fd)


def test_all_or_none(leases: Leases) -> None:
    """Somebody who does not keep to the mutex takes a GPU in the worst moment."""
    allocator = Allocator(leases, 4, "me")
    allocator.grant([])
    real = Leases.take

    def take_and_lose(self: Leases, gpu: Gpu, holder: Holder) -> int | None:
        return None if gpu.number == 2 else real(self, gpu, holder)

    before = open_files()
    Leases.take = take_and_lose  # type: ignore[method-assign]
    try:
        grants, _ = allocator.grant([ticket("big", 4, "me")])
    finally:
        Leases.take = real  # type: ignore[method-assign]
    assert not grants
    assert open_files() == before
    assert notes(leases) == ["", "", "", ""]


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_looking_leaves_no_file_open(leases: Leases) -> None:
    allocator = Allocator(leases, 4, "me")
    held = take(leases, GPUS[0])
    assert held is not None
    waiting = ticket("big", 4, "me")
    allocator.grant([waiting])
    before = open_files()
    for _ in range(20):
        allocator.grant([waiting])
        leases.held_by("x")
    assert open_files() == before
    os.close(held)


def test_a_job_that_holds_a_lease_is_found_by_its_id(leases: Leases) -> None:
    fd = take(leases, GPUS[3])
    assert fd is not None
    assert leases.held_by("train")
    assert not leases.held_by("other")
    os.close(fd)
    assert not leases.held_by("train")


# -- files that vanish -----------------------------------------------------------------------------------------------


def test_a_lease_whose_file_was_removed_is_made_again(leases: Leases, folder: Path) -> None:
    fd = take(leases, GPUS[0])
    assert fd is not None
    (folder / "gpu-virtual-0").unlink()
    again = leases.keep(GPUS[0].key, fd)
    assert take(leases, GPUS[0]) is None
    assert notes(leases)[0] == "train (ann)"
    assert leases.keep(GPUS[0].key, again) == again
    os.close(fd)
    os.close(again)


def test_a_lease_whose_folder_was_removed_is_made_again(leases: Leases, folder: Path) -> None:
    fd = take(leases, GPUS[0])
    assert fd is not None
    shutil.rmtree(folder)
    again = leases.keep(GPUS[0].key, fd)
    assert notes(leases)[0] == "train (ann)"
    os.close(fd)
    os.close(again)


def test_a_lease_that_somebody_else_was_quicker_to_make_again_is_left_to_them(leases: Leases, folder: Path) -> None:
    fd = take(leases, GPUS[0])
    (folder / "gpu-virtual-0").unlink()
    thief = take(leases, GPUS[0], HOLDER._replace(job_id="thief"))
    assert fd is not None
    assert thief is not None
    assert leases.keep(GPUS[0].key, fd) == fd
    assert notes(leases)[0] == "thief (ann)"
    os.close(fd)
    os.close(thief)


def test_lease_files_in_use_look_new_to_cleaners(leases: Leases, folder: Path) -> None:
    fd = take(leases, GPUS[0])
    assert fd is not None
    os.utime(folder / "gpu-virtual-0", (0, 0))
    leases.keep(GPUS[0].key, fd)
    assert time.time() - (folder / "gpu-virtual-0").stat().st_mtime < 60
    os.close(fd)


def test_a_running_job_makes_its_lease_again(cluster_folder: Path, eventually: Any) -> None:
    host = Host(cluster_folder)
    job = host.submit("sleep 100", gpus=1)
    host.wait(job, state="RUNNING")
    shutil.rmtree(cluster_folder / "leases")
    eventually(lambda: job in notes(Leases(str(cluster_folder / "leases")))[0])


def test_a_dispatcher_whose_queue_file_was_removed_goes_on(leases: Leases, folder: Path) -> None:
    held = take(leases, GPUS[0])
    assert held is not None
    allocator = Allocator(leases, 1, "me")
    waiting = ticket("waits", 1, "me")
    assert not allocator.grant([waiting])[0]
    (folder / "queue-me").unlink()
    assert not allocator.grant([waiting])[0]
    with leases.mutex():
        assert leases.queued_jobs() == [waiting]
    shutil.rmtree(folder)
    allocator.grant([waiting])
    os.close(held)
    assert (folder / "queue-me").exists() or allocator.grant([waiting])[0]


# -- the queue of the host -------------------------------------------------------------------------------------------


def test_who_came_first_at_another_dispatcher_goes_first(leases: Leases) -> None:
    mine, theirs = Allocator(leases, 4, "me"), Allocator(leases, 4, "them")
    held = take(leases, GPUS[0])
    assert held is not None
    big, small = ticket("big", 4, "them", submitted=1), ticket("small", 1, "me", submitted=2)
    assert not theirs.grant([big])[0]
    grants, waits = mine.grant([small])
    assert not grants
    assert waits[small].place == 2
    os.close(held)
    assert not mine.grant([small])[0]
    grants, _ = theirs.grant([big])
    assert len(grants[big].fds) == 4
    for fd in grants[big].fds:
        os.close(fd)
    assert mine.grant([small])[0]


def test_the_queue_of_a_dead_dispatcher_counts_for_nothing_and_goes(leases: Leases, folder: Path) -> None:
    queue = HostQueue(str(folder), "dead")
    with leases.mutex():
        queue.publish([ticket("x", 4, "dead")])
        assert len(leases.queued_jobs()) == 1
        fd = queue._fd
        assert fd is not None
        os.close(fd)  # as the kernel does
        queue._fd = None
        assert leases.queued_jobs() == []
    assert not (folder / "queue-dead").exists()


def test_the_queue_of_a_stopped_dispatcher_counts_for_nothing(leases: Leases, folder: Path) -> None:
    queue = HostQueue(str(folder), "stopped")
    with leases.mutex():
        queue.publish([ticket("x", 4, "stopped")])
        os.utime(folder / "queue-stopped", (time.time() - 100, time.time() - 100))
        assert leases.queued_jobs() == []
        queue.publish([ticket("x", 4, "stopped")])
        assert len(leases.queued_jobs()) == 1
    queue.close()


def test_a_name_that_is_taken_is_refused(leases: Leases, folder: Path) -> None:
    queue, second = HostQueue(str(folder), "me"), HostQueue(str(folder), "me")
    with leases.mutex():
        queue.publish([])
        with pytest.raises(Refused, match="another process has locked"):
            second.publish([])
    queue.close()


GARBAGE = [
    "",
    "{",
    "[]",
    "null",
    "[[1]]",
    "[[[], {}, [], {}, [], {}, []]]",
    '[["x", 9, 0, 1, null, null, "x"]]',
    '[["x", 1, NaN, 1, null, null, "x"]]',
    '[["x", 1, 0, -1, null, null, "x"]]',
    '[["x", 1, 0, 1, {}, "soon", "x"]]',
    '{"job_id": "x"}',
    '{"job_id": "x", "user": "y", "since": 0, "until": "soon"}',
    '{"job_id": ["x"], "user": null, "since": {}, "until": 1e400}',
    "[" * 5000,
    "\0\xff",
]


@pytest.mark.parametrize("text", GARBAGE)
def test_garbage_in_shared_files_stops_nobody(leases: Leases, folder: Path, text: str) -> None:
    leases.make_folder()
    held = []
    for name in ("gpu-virtual-0", "queue-x"):
        (folder / name).write_bytes(text.encode("latin-1"))
        fd = locks.lock(str(folder / name), shared=True)
        assert fd is not None
        held.append(fd)
    grants, _ = Allocator(leases, 4, "me").grant([ticket("mine", 3, "me")])
    assert [[gpu.number for gpu in grant.gpus] for grant in grants.values()] == [[1, 2, 3]]
    for fd in held:
        os.close(fd)


def test_what_others_call_their_jobs_cannot_break_a_message(leases: Leases) -> None:
    fd = take(leases, GPUS[0], HOLDER._replace(job_id="x\n\x1b[31mroot: all is well" + "y" * 5000))
    assert fd is not None
    assert notes(leases)[0].isprintable()
    assert len(notes(leases)[0]) < 200
    os.close(fd)


@pytest.mark.parametrize("kind", ["folder", "pipe", "link", "socketless link"])
def test_what_is_no_file_makes_its_gpu_unavailable_and_no_other(leases: Leases, folder: Path, kind: str) -> None:
    leases.make_folder()
    path = folder / "gpu-virtual-0"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/etc/passwd" if kind == "link" else "nowhere")
    grants, _ = Allocator(leases, 4, "me").grant([ticket("mine", 3, "me")])
    assert len(grants) == 1
    assert Path("/etc/passwd").stat().st_size > 0


def test_a_locked_pipe_or_a_huge_file_of_another_user_holds_nobody_up(leases: Leases, folder: Path) -> None:
    """Whoever reads what a lock's holder has written must not wait for a pipe, nor read without end."""
    leases.make_folder()
    fds = []
    for name in ("gpu-virtual-0", "queue-x"):
        os.mkfifo(folder / name)
        fds.append(os.open(folder / name, os.O_RDWR))
    for name in ("gpu-virtual-1", "queue-y"):
        fds.append(os.open(folder / name, os.O_RDWR | os.O_CREAT))
        os.truncate(fds[-1], 1 << 40)
    for fd in fds:
        fcntl.flock(fd, fcntl.LOCK_EX)
    signal.alarm(20)
    try:
        grants, _ = Allocator(leases, 4, "me").grant([ticket("mine", 2, "me")])
        assert len(grants) == 1
        assert (
            notes(leases)[0] == f"a lease file that cannot be opened ({folder}/gpu-virtual-0 is a pipe, and not a file)"
        )
        assert notes(leases)[1] == "an unnamed job (unknown user)"
    finally:
        signal.alarm(0)
        for fd in fds:
            os.close(fd)


# -- the folder ------------------------------------------------------------------------------------------------------


def test_everything_is_open_to_all_users_from_the_first_moment(leases: Leases, folder: Path) -> None:
    before = os.umask(0o077)
    try:
        fd = take(leases, GPUS[0])
    finally:
        os.umask(before)
    assert fd is not None
    os.close(fd)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o1777
    assert stat.S_IMODE((folder / "gpu-virtual-0").stat().st_mode) == 0o666
    assert stat.S_IMODE((folder / "mutex").stat().st_mode) == 0o666


def test_a_file_in_the_place_of_the_folder_is_named(leases: Leases, folder: Path) -> None:
    folder.write_text("")
    with pytest.raises(Refused, match=f"{folder} is no folder that .* may write to"):
        leases.make_folder()


def test_a_link_in_the_place_of_the_folder_is_not_followed(leases: Leases, folder: Path) -> None:
    folder.symlink_to("/tmp")
    with pytest.raises(Refused, match="is no folder"):
        leases.make_folder()


def test_a_folder_that_cannot_be_made_says_why() -> None:
    with pytest.raises(Refused, match="/nowhere/leases cannot be made: No such file"):
        Leases("/nowhere/leases").make_folder()


def test_a_stopped_process_that_holds_the_mutex_is_named(
    leases: Leases, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases_module, "MUTEX_S", 0.3)
    leases.make_folder()
    text = (
        "import fcntl, sys; file = open(sys.argv[1], 'w'); fcntl.flock(file, 2); print('locked', flush=True); input()"
    )
    command = [sys.executable, "-c", text, str(folder / "mutex")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"locked\n"
        os.kill(other.pid, signal.SIGSTOP)
        with pytest.raises(Refused, match=f"process {other.pid} has kept .*mutex locked"), leases.mutex(0.3):
            pass
        other.kill()
    with leases.mutex():
        pass


def test_a_mutex_that_is_removed_while_it_is_held_hinders_nobody(leases: Leases, folder: Path) -> None:
    with leases.mutex():
        (folder / "mutex").unlink()
        with leases.mutex(0.5):
            assert (folder / "mutex").exists()


def test_a_full_disk_costs_a_lease_only_its_name(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 64) as disk:
        leases = Leases(str(disk / "leases"))
        allocator = Allocator(leases, 4, "me")
        fill(disk)
        grants, _ = allocator.grant([ticket("mine", 2, "me")])
        assert len(grants) == 1
        assert notes(leases)[:2] == ["an unnamed job (unknown user)"] * 2
        for grant in grants.values():
            for fd in grant.fds:
                os.close(fd)
        allocator.close()


# -- two users -------------------------------------------------------------------------------------------------------


@as_root
def test_two_users_share_the_gpus(leases: Leases) -> None:
    fd = take(leases, GPUS[0])
    assert fd is not None

    def other() -> list[Any]:
        os.umask(0o077)
        held = [take(leases, gpu, Holder("theirs", "bob", 0, None)) for gpu in GPUS[:2]]
        return [held[0], held[1] is not None, notes(leases)]

    assert as_other_user(other) == [None, True, ["train (ann)", "theirs (bob)", "", ""]]
    # The other user's process has ended. Its file is there, and free for everybody.
    assert notes(leases) == ["train (ann)", "", "", ""]
    again = take(leases, GPUS[1])
    assert again is not None
    os.close(fd)
    os.close(again)


@as_root
def test_another_users_dead_queue_is_no_hindrance(leases: Leases, folder: Path) -> None:
    def other() -> None:
        os.umask(0o077)
        queue = HostQueue(str(folder), "theirs")
        with leases.mutex():
            queue.publish([ticket("x", 4, "theirs")])
        os.close(1 if queue._fd is None else queue._fd)

    leases.make_folder()
    as_other_user(other)
    assert (folder / "queue-theirs").exists()

    def third() -> list[QueuedJob]:
        with leases.mutex():
            return live_queued_jobs(str(folder))

    os.chown(folder / "queue-theirs", 12345, 12345)
    assert as_other_user(third) == []
    assert (folder / "queue-theirs").exists()  # the folder's sticky bit keeps it for its owner


@as_root
def test_a_folder_of_somebody_who_does_not_share_is_named(leases: Leases, folder: Path) -> None:
    folder.mkdir(mode=0o700)
    with pytest.raises(RuntimeError, match=r"Refused: .* is no folder that .* may write to.*chmod 1777"):
        as_other_user(leases.make_folder)


@as_root
def test_a_lease_file_that_others_may_not_open_makes_only_its_gpu_unavailable(leases: Leases, folder: Path) -> None:
    leases.make_folder()
    (folder / "gpu-virtual-0").write_text("")
    (folder / "gpu-virtual-0").chmod(0o600)

    def other() -> tuple[int, str]:
        allocator = Allocator(leases, 4, "them")
        grants, _ = allocator.grant([ticket("theirs", 3, "them")])
        return len(grants), notes(leases)[0]

    granted, note = as_other_user(other)
    assert granted == 1
    assert "a lease file that cannot be opened" in note


@as_root
def test_a_mutex_that_others_may_not_open_is_named(leases: Leases, folder: Path) -> None:
    leases.make_folder()
    (folder / "mutex").write_text("")
    (folder / "mutex").chmod(0o600)

    def other() -> None:
        with leases.mutex():
            pass

    with pytest.raises(RuntimeError, match="mutex cannot be opened: Permission denied"):
        as_other_user(other)


def test_files_of_others_are_never_opened_to_be_made(leases: Leases, monkeypatch: pytest.MonkeyPatch) -> None:
    """With ``fs.protected_regular`` the kernel would refuse that, even to root."""
    with leases.mutex():
        pass
    real, flags = os.open, []

    def spy(path: Any, mode: int, *more: Any, **named: Any) -> int:
        flags.append(mode)
        return real(path, mode, *more, **named)

    monkeypatch.setattr(os, "open", spy)
    with leases.mutex():
        pass
    assert flags
    assert not any(mode & os.O_CREAT for mode in flags)


# -- many at once ----------------------------------------------------------------------------------------------------


def test_in_a_storm_of_jobs_from_two_controllers_no_gpu_is_ever_given_twice(
    cluster_folder: Path, eventually: Callable[..., Any]
) -> None:
    hosts = [Host(cluster_folder, name=name) for name in ("ann", "bob")]
    busy = cluster_folder / "busy"
    busy.mkdir()
    # A job takes a mark of each of its GPUs, and fails if it is not the only one that does.
    command = f"""
        set -e
        for gpu in ${{CUDA_VISIBLE_DEVICES//,/ }}; do mkdir {busy}/$gpu; done
        sleep 0.02
        for gpu in ${{CUDA_VISIBLE_DEVICES//,/ }}; do rmdir {busy}/$gpu; done
    """
    jobs = [
        (
            host,
            host.submit(command, gpus=(1, 2, 1, 3, 1, 4)[number % 6], priority=("normal", "low", "high")[number % 3]),
        )
        for number in range(20)
        for host in hosts
    ]
    intervals: dict[int, list[tuple[str, str]]] = {}
    for host, job in jobs:
        status = host.wait(job, timeout_s=90)
        assert status["state"] == "SUCCEEDED", host.log(job)
        assert len(host.job(job).attempts()) == 1
        for gpu in status["gpus"]:
            intervals.setdefault(gpu, []).append((status["started_at"], status["ended_at"]))
    for used in intervals.values():
        used.sort()
        assert all(end <= start for (_, end), (start, _) in itertools.pairwise(used))
    assert sorted(intervals) == [0, 1, 2, 3]
    # The last guards clear them a moment after the end.
    eventually(lambda: notes(Leases(str(cluster_folder / "leases"))) == ["", "", "", ""])


def test_locks_survive_no_removal_between_open_and_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is removed in the moment between the two would give a lock that nobody else sees."""
    path = tmp_path / "gpu-x"
    real = fcntl.flock
    removed: list[Path] = []

    def flock(fd: int, how: int) -> None:
        if not removed:
            removed.append(path)
            path.unlink()
        real(fd, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    fd = locks.lock(str(path))
    assert fd is not None
    assert locks.is_current(fd, str(path))
    os.close(fd)
