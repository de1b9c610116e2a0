"""Files on their way between the worker and the cluster: whole, or not at all."""

from __future__ import annotations

import ast
import contextlib
import fcntl
import filecmp
import hashlib
import io
import json
import os
import random
import shlex
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import paramiko
import pytest

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.connection.connection import Connection
from airflow_provider_gpu_cluster.connection.settings import ClusterSettings
from airflow_provider_gpu_cluster.exceptions import (
    CollectError,
    GpuClusterConnectionError,
    GpuClusterProtocolError,
    NoSpaceError,
)
from airflow_provider_gpu_cluster.files.checksums import Checksums, sha256_of
from airflow_provider_gpu_cluster.gpu_run.protocol.files import SMALL
from airflow_provider_gpu_cluster.sinks import LocalSink
from airflow_provider_gpu_cluster.transfer.progress import TransferProgress
from airflow_provider_gpu_cluster.transfer.stream_download import StreamDownload
from tests.harness import jobs
from tests.harness.small_disk import fill, small_disk
from tests.harness.transfers import size_of, transfers
from tests.servers.proxy import CutProxy

Connect = Callable[..., paramiko.SSHClient]

SIZE = 60_000_000


@pytest.fixture
def outputs(cluster: Cluster, cluster_settings: ClusterSettings) -> Path:
    """Return the outputs of a job ``job`` on the cluster, still empty."""
    cluster.stage("job", (), record=jobs.record())
    return Path(cluster_settings.root_dir) / "job" / "outputs"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return the folder on the worker where outputs are collected."""
    return tmp_path / "home"


def collect(cluster: Cluster, home: Path, **patterns: Any) -> list[str]:
    return [file.path for file in cluster.collect("job", LocalSink(home), **patterns)]


def write_random(path: Path, size: int) -> None:
    with open(path, "wb") as file:
        for start in range(0, size, 1 << 20):
            file.write(os.urandom(min(1 << 20, size - start)))


def same(one: Path, other: Path) -> bool:
    return filecmp.cmp(one, other, shallow=False)


def files(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if not path.is_dir()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


# -- home --------------------------------------------------------------------------------------------------------


def test_thousands_of_small_files(cluster: Cluster, outputs: Path, home: Path) -> None:
    for number in range(2000):
        path = outputs / f"{number % 40}" / f"{number}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(str(number) * 10)
    collected = cluster.collect("job", LocalSink(home))
    assert files(home) == files(outputs)
    assert [file.path for file in collected] == sorted(files(outputs))
    assert all(file.sha256 == hashlib.sha256((home / file.path).read_bytes()).hexdigest() for file in collected)


def test_a_large_file_and_an_empty_one(cluster: Cluster, outputs: Path, home: Path) -> None:
    (outputs / "empty").touch()
    with open(outputs / "large", "wb") as file:
        file.truncate(100 << 20)
        file.seek(50 << 20)
        file.write(b"middle")
    large, empty = reversed(cluster.collect("job", LocalSink(home)))
    assert (empty.size, large.size) == (0, 100 << 20)
    assert (home / "empty").read_bytes() == b""
    with open(home / "large", "rb") as file:
        assert sha256_of(file) == (large.sha256, 100 << 20)
        file.seek(50 << 20)
        assert file.read(6) == b"middle"


def test_names_links_and_modes(cluster: Cluster, outputs: Path, home: Path) -> None:
    names = ["a b", "new\nline", "ünï…", "-rf", "'\"$(id)`", "back\\slash", os.fsdecode(b"\xff\xfe"), "n" * 255, "..x"]
    for name in names:
        (outputs / name).write_bytes(os.fsencode(name))
    (outputs / "program").touch(0o755)
    (outputs / "checkpoints").mkdir()
    (outputs / "checkpoints" / "7.pth").write_text("7")
    (outputs / "best.pth").symlink_to("checkpoints/7.pth")
    (outputs / "latest").symlink_to("checkpoints")
    collect(cluster, home)
    assert files(home) == {name: os.fsencode(name) for name in names} | {
        "program": b"",
        "checkpoints/7.pth": b"7",
        "best.pth": b"7",
    }
    assert os.access(home / "program", os.X_OK)
    assert not (home / "best.pth").is_symlink()


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        ([], [], {"metrics.json", "a.pth", "logs/1.txt", "logs/keep/2.txt", "tmp/x"}),
        (["*.pth", "metrics.json"], [], {"metrics.json", "a.pth"}),
        (["logs/"], [], {"logs/1.txt", "logs/keep/2.txt"}),
        (["/logs/*.txt"], [], {"logs/1.txt"}),
        (["**/2.txt"], [], {"logs/keep/2.txt"}),
        ([], ["logs", "tmp/"], {"metrics.json", "a.pth"}),
        ([], ["*", "!metrics.json"], {"metrics.json"}),
        (["logs/"], ["keep/"], {"logs/1.txt"}),
        (["nothing"], [], set()),
    ],
)
def test_patterns_are_those_of_gitignore(
    cluster: Cluster, outputs: Path, home: Path, include: list[str], exclude: list[str], expected: set[str]
) -> None:
    for name in ("metrics.json", "a.pth", "logs/1.txt", "logs/keep/2.txt", "tmp/x"):
        (outputs / name).parent.mkdir(parents=True, exist_ok=True)
        (outputs / name).touch()
    assert set(collect(cluster, home, include=include, exclude=exclude)) == expected
    assert set(files(home)) == expected


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.symlink_to("/etc/passwd"), "is a link to /etc/passwd, which lies outside the job's outputs"),
        (lambda path: path.symlink_to("/etc"), "is a link to /etc, which lies outside the job's outputs"),
        (
            lambda path: path.symlink_to("../../../../x"),
            "is a link to ../../../../x, which lies outside the job's outputs",
        ),
        (lambda path: path.symlink_to("missing"), "is a link to missing, which does not exist"),
        (os.mkfifo, "is no regular file"),
    ],
)
def test_what_is_not_sent_keeps_everything_at_its_place_and_says_what_to_do(
    cluster: Cluster, outputs: Path, home: Path, make: Callable[[Path], Any], words: str
) -> None:
    (outputs / "a").touch()
    make(outputs / "z")
    with pytest.raises(CollectError) as caught:
        collect(cluster, home)
    assert f"the output 'z' {words}; nothing was collected" in str(caught.value)
    assert "leave it out with exclude=['z']" in str(caught.value)
    assert not home.exists()
    assert collect(cluster, home, exclude=["z"]) == ["a"]


@pytest.mark.parametrize("name", ["a[1]", "!b", "#c", "*", "d e ", "f\\g", "sub/[h]"])
def test_a_name_full_of_wildcards_can_be_left_out_as_the_error_says(
    cluster: Cluster, outputs: Path, home: Path, name: str
) -> None:
    (outputs / "sub").mkdir()
    (outputs / name).symlink_to("/etc")
    (outputs / "a1").touch()
    with pytest.raises(CollectError) as caught:
        collect(cluster, home)
    exclude = ast.literal_eval(str(caught.value).rpartition("exclude=")[2])
    assert collect(cluster, home, exclude=exclude) == ["a1"]


def test_a_file_that_is_written_to_meanwhile(cluster: Cluster, outputs: Path, home: Path) -> None:
    """Either what comes is a whole state of the file, or it is refused."""
    (outputs / "log").write_bytes(bytes(40 << 20))
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            with open(outputs / "log", "ab") as file:
                file.write(b"more\n")

    thread = threading.Thread(target=write)
    thread.start()
    try:
        with pytest.raises(CollectError, match=r"output 'log' changed while it was being collected; try again"):
            collect(cluster, home)
    finally:
        stop.set()
        thread.join()
    assert files(home) == {}
    assert collect(cluster, home) == ["log"]


def test_a_file_that_vanishes_meanwhile(cluster: Cluster, outputs: Path, home: Path) -> None:
    (outputs / "a").write_bytes(b"a")
    (outputs / "b").write_bytes(b"b")

    class Sink(LocalSink):
        def check_space(self, sizes: Iterable[int]) -> None:
            (outputs / "b").unlink()

    with pytest.raises(CollectError, match="output 'b' changed while it was being collected; try again"):
        cluster.collect("job", Sink(home))
    assert files(home) == {"a": b"a"}
    assert collect(cluster, home) == ["a"]


def test_collecting_again_replaces_files_at_once(cluster: Cluster, outputs: Path, home: Path) -> None:
    (outputs / "model").write_bytes(b"1" * (8 << 20))
    collect(cluster, home)
    (outputs / "model").write_bytes(b"2" * (8 << 20))
    seen = set()
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            content = (home / "model").read_bytes()
            seen.add((len(content), content[:1], content[-1:]))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        collect(cluster, home)
    finally:
        done.set()
        watcher.join()
    assert seen <= {(8 << 20, b"1", b"1"), (8 << 20, b"2", b"2")}
    assert (home / "model").read_bytes() == b"2" * (8 << 20)


@pytest.mark.parametrize("after", [30_000, 300_000, 3_000_000])
def test_a_connection_that_is_cut_goes_on_where_it_was(
    cluster_settings: ClusterSettings, ssh_connect: Connect, outputs: Path, home: Path, cut_proxy: CutProxy, after: int
) -> None:
    for number in range(200):
        (outputs / f"{number:03}").write_bytes(os.urandom(20_000))
    published: list[str] = []

    class Sink(LocalSink):
        def put(self, path: str, content: memoryview, mode: int) -> None:
            published.append(path)
            super().put(path, content, mode)

    with Cluster(cluster_settings, lambda: ssh_connect(cut_proxy.port)) as cluster:
        cluster.statuses(["job"])
        cut_proxy.cut_after(nbytes=after, direction="down")
        collected = cluster.collect("job", Sink(home))
    assert cut_proxy.connections == 2
    assert [file.path for file in collected] == sorted(files(outputs))
    assert files(home) == files(outputs)
    assert len(published) == 200


# -- once ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cuts", "size"), [(6, SIZE), pytest.param(20, 200_000_000, marks=pytest.mark.long)])
def test_many_cuts_in_one_file(
    cluster_settings: ClusterSettings,
    ssh_connect: Connect,
    outputs: Path,
    home: Path,
    cut_proxy: CutProxy,
    cuts: int,
    size: int,
) -> None:
    """With a second for other tries: what counts is that each connection brings something."""
    write_random(outputs / "model.pth", size)
    points = [random.randrange(size // (2 * cuts), size // (cuts + 2)) for _ in range(cuts)]
    with Cluster(cluster_settings, lambda: ssh_connect(cut_proxy.port), retry_for_s=1) as cluster:
        cluster.statuses(["job"])
        before = cut_proxy.passed["down"]
        cut_proxy.cut_at(points)
        (file,) = cluster.collect("job", LocalSink(home))
    assert cut_proxy.connections == cuts + 1
    assert cut_proxy.passed["down"] - before < 1.3 * size
    assert same(home / "model.pth", outputs / "model.pth")
    with open(home / "model.pth", "rb") as content:
        assert sha256_of(content) == (file.sha256, size)
    assert os.listdir(home) == ["model.pth"]


def test_a_connection_that_brings_nothing_is_given_up(
    cluster_settings: ClusterSettings, ssh_connect: Connect, outputs: Path, home: Path, cut_proxy: CutProxy
) -> None:
    write_random(outputs / "model.pth", 20 << 20)
    partial = break_off(cluster_settings, ssh_connect, home, cut_proxy)
    # What came is kept, and not under its name.
    assert os.listdir(home) == [partial.name]
    assert (outputs / "model.pth").read_bytes().startswith(partial.read_bytes())
    with Cluster(cluster_settings, ssh_connect) as cluster:
        assert collect(cluster, home) == ["model.pth"]
    assert same(home / "model.pth", outputs / "model.pth")


def test_an_interruption_ends_it_at_once_though_something_came(
    cluster_settings: ClusterSettings, ssh_connect: Connect, outputs: Path, home: Path
) -> None:
    write_random(outputs / "model.pth", 50 << 20)
    with Cluster(cluster_settings, ssh_connect) as cluster:

        class Sink(LocalSink):
            def partial(self, path: str, key: str, stamp: str, part: int = 0) -> Any:
                threading.Timer(0.05, cluster.interrupt).start()
                return super().partial(path, key, stamp, part)

        began = time.monotonic()
        with pytest.raises(GpuClusterConnectionError):
            cluster.collect("job", Sink(home))
        assert time.monotonic() - began < 30
        assert not (home / "model.pth").exists()
        assert collect(cluster, home) == ["model.pth"]


KILLED = """
import sys
from airflow_provider_gpu_cluster.hooks.gpu_cluster import GpuClusterHook
with GpuClusterHook() as hook:
    hook.collect("job", sys.argv[1])
"""


def arrived(home: Path) -> int:
    """Return how much of the largest file has come."""
    sizes = [0]
    for path in home.glob(".gpu-collect-*"):
        with contextlib.suppress(FileNotFoundError):
            sizes.append(path.stat().st_size)
    return max(sizes)


def test_a_worker_that_is_killed_half_way(
    cluster_settings: ClusterSettings,
    gpu_cluster_conn: dict[str, Any],
    ssh_connect: Connect,
    outputs: Path,
    home: Path,
    cut_proxy: CutProxy,
    eventually: Callable[..., Any],
) -> None:
    write_random(outputs / "model.pth", SIZE)
    for number in range(100):
        (outputs / f"{number}").write_bytes(os.urandom(10_000))
    env = {**os.environ, "AIRFLOW_CONN_GPU_CLUSTER_DEFAULT": json.dumps({**gpu_cluster_conn, "port": cut_proxy.port})}
    worker = subprocess.Popen([sys.executable, "-c", KILLED, str(home)], env=env)
    try:
        # On a busy machine it takes Airflow long to start.
        eventually(lambda: arrived(home) > SIZE // 4, timeout_s=90, every_s=0.005)
    finally:
        worker.kill()
        worker.wait()
    before_the_end = arrived(home)
    assert before_the_end < SIZE
    with Cluster(cluster_settings, lambda: ssh_connect(cut_proxy.port)) as cluster:
        cluster.statuses(["job"])
        before = cut_proxy.passed["down"]
        collected = cluster.collect("job", LocalSink(home))
    assert cut_proxy.passed["down"] - before < (SIZE - before_the_end) * 1.02 + 200_000
    assert len(collected) == 101
    assert {file.path: file.sha256 for file in collected} == {
        name: hashlib.sha256(content).hexdigest() for name, content in files(outputs).items()
    }
    assert files(home) == files(outputs)


def test_what_is_there_is_not_fetched_again(
    cluster_settings: ClusterSettings, ssh_connect: Connect, outputs: Path, home: Path, cut_proxy: CutProxy
) -> None:
    for number in range(20):
        (outputs / f"{number}").write_bytes(os.urandom(100_000))
    write_random(outputs / "large", 5 << 20)
    with Cluster(cluster_settings, lambda: ssh_connect(cut_proxy.port)) as cluster:
        first = cluster.collect("job", LocalSink(home))
        inodes = {path.name: path.stat().st_ino for path in home.iterdir()}
        before = cut_proxy.passed["down"]
        assert cluster.collect("job", LocalSink(home)) == first
        assert cut_proxy.passed["down"] - before < 50_000
        assert {path.name: path.stat().st_ino for path in home.iterdir()} == inodes
        # Another content of the same size, on either side.
        (outputs / "7").write_bytes(os.urandom(100_000))
        (home / "large").write_bytes(bytes(5 << 20))
        cluster.collect("job", LocalSink(home))
    assert files(home) == files(outputs)
    changed = {path.name for path in home.iterdir() if path.stat().st_ino != inodes[path.name]}
    assert changed == {"7", "large"}


def test_two_collects_at_once_into_one_folder(
    cluster_settings: ClusterSettings, ssh_connect: Connect, outputs: Path, home: Path
) -> None:
    write_random(outputs / "model.pth", 40 << 20)
    found: list[Any] = []

    def one() -> None:
        with Cluster(cluster_settings, ssh_connect) as cluster:
            found.append(cluster.collect("job", LocalSink(home)))

    threads = [threading.Thread(target=one) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    assert found[0] == found[1] == found[2]
    assert same(home / "model.pth", outputs / "model.pth")
    assert os.listdir(home) == ["model.pth"]


def test_a_file_that_became_another_between_two_tries(
    cluster_settings: ClusterSettings, ssh_connect: Connect, outputs: Path, home: Path, cut_proxy: CutProxy
) -> None:
    write_random(outputs / "model.pth", 20 << 20)
    break_off(cluster_settings, ssh_connect, home, cut_proxy)
    write_random(outputs / "new", 20 << 20)
    (outputs / "new").replace(outputs / "model.pth")
    with Cluster(cluster_settings, ssh_connect) as cluster:
        assert collect(cluster, home) == ["model.pth"]
    assert same(home / "model.pth", outputs / "model.pth")
    assert os.listdir(home) == ["model.pth"]


def test_what_was_damaged_on_the_workers_disk_is_found_and_fetched_anew(
    cluster_settings: ClusterSettings, ssh_connect: Connect, outputs: Path, home: Path, cut_proxy: CutProxy
) -> None:
    write_random(outputs / "model.pth", 20 << 20)
    partial = break_off(cluster_settings, ssh_connect, home, cut_proxy)
    with open(partial, "r+b") as file:
        file.seek(1 << 20)
        file.write(b"damaged")
    with Cluster(cluster_settings, ssh_connect) as cluster:
        with pytest.raises(CollectError, match=r"'model\.pth' did not arrive as it was sent: its SHA-256 differs"):
            collect(cluster, home)
        assert os.listdir(home) == []
        assert collect(cluster, home) == ["model.pth"]
    assert same(home / "model.pth", outputs / "model.pth")


def test_what_another_collect_works_on_is_left_to_it(
    cluster_settings: ClusterSettings, ssh_connect: Connect, outputs: Path, home: Path, cut_proxy: CutProxy
) -> None:
    write_random(outputs / "model.pth", 20 << 20)
    partial = break_off(cluster_settings, ssh_connect, home, cut_proxy)
    with Cluster(cluster_settings, ssh_connect) as cluster, open(partial, "r+b") as others:
        fcntl.flock(others, fcntl.LOCK_EX)
        size = partial.stat().st_size
        assert collect(cluster, home) == ["model.pth"]
        assert partial.stat().st_size == size
    assert same(home / "model.pth", outputs / "model.pth")
    assert sorted(os.listdir(home)) == sorted([partial.name, "model.pth"])


def break_off(settings: ClusterSettings, ssh_connect: Connect, home: Path, proxy: CutProxy) -> Path:
    """Collect until something came of the one large file, and return what it is kept in."""

    def connect() -> paramiko.SSHClient:
        if proxy.connections:
            raise ConnectionRefusedError("no second connection")
        return ssh_connect(proxy.port)

    with Cluster(settings, connect, retry_for_s=1) as cluster:
        cluster.statuses(["job"])
        proxy.cut_after(nbytes=8 << 20, direction="down")
        with pytest.raises(GpuClusterConnectionError, match="no second connection"):
            cluster.collect("job", LocalSink(home))
    (partial,) = home.iterdir()
    assert partial.stat().st_size > 2 << 20
    return partial


def test_holes_stay_holes(
    cluster_settings: ClusterSettings, ssh_connect: Connect, outputs: Path, home: Path, cut_proxy: CutProxy
) -> None:
    with open(outputs / "sparse", "wb") as file:
        file.truncate(400_000_000)
        file.seek(200_000_000)
        file.write(b"middle")
    with Cluster(cluster_settings, lambda: ssh_connect(cut_proxy.port)) as cluster:
        (found,) = cluster.collect("job", LocalSink(home))
    assert cut_proxy.passed["down"] < 100_000
    assert (home / "sparse").stat().st_size == found.size == 400_000_000
    assert (home / "sparse").stat().st_blocks * 512 < 1 << 20
    with open(home / "sparse", "rb") as file:
        assert sha256_of(file)[0] == found.sha256
        file.seek(200_000_000)
        assert file.read(6) == b"middle"


def test_a_collect_is_one_command(cluster: Cluster, outputs: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(1500):
        (outputs / f"{number}").write_bytes(b"%d" % number)
    verbs: list[str] = []
    start = Connection.start

    def note(connection: Connection, command: str, **how: bool) -> paramiko.Channel:
        verbs.append(shlex.split(command)[-1].split()[-1])
        return start(connection, command, **how)

    monkeypatch.setattr(Connection, "start", note)
    assert len(collect(cluster, home)) == 1500
    assert verbs == ["send"]
    # All are there now, and the cluster says so in one line.
    (outputs / "7").write_bytes(b"8")
    assert len(collect(cluster, home)) == 1500
    assert verbs == ["send", "send"]
    assert files(home) == files(outputs)


def test_small_messages_do_not_wait_for_an_acknowledgement_where_much_is_received(
    cluster: Cluster, outputs: Path, tmp_path: Path
) -> None:
    def sends_at_once() -> bool:
        transport = cluster.session.connection._transport
        assert transport is not None
        assert isinstance(transport.sock, socket.socket)
        return bool(transport.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    cluster.statuses([])
    assert not sends_at_once()
    collect(cluster, tmp_path / "home")
    assert sends_at_once()


def test_what_does_not_fit_is_told_before_anything_is_sent(cluster: Cluster, outputs: Path, tmp_path: Path) -> None:
    write_random(outputs / "large", 4 << 20)
    (outputs / "small").write_bytes(b"small")
    with small_disk(tmp_path / "disk", 512) as disk:
        with pytest.raises(NoSpaceError, match=r"4\.2 MB are to be collected, and 0\.5 MB are free on the disk of"):
            collect(cluster, disk / "home")
        assert files(disk) == {}
        assert collect(cluster, disk / "home", exclude=["large"]) == ["small"]
        with open(outputs / "large", "wb") as file:
            file.truncate(4 << 20)
        # A file of holes needs no room.
        assert collect(cluster, disk / "home", exclude=["small"]) == ["large"]


def test_a_disk_that_becomes_full_on_the_way(cluster: Cluster, outputs: Path, tmp_path: Path) -> None:
    write_random(outputs / "large", 8 << 20)
    with small_disk(tmp_path / "disk", 10 << 10) as disk:

        class Sink(LocalSink):
            def partial(self, path: str, key: str, stamp: str, part: int = 0) -> Any:
                fill(disk, leave_kb=3 << 10)
                return super().partial(path, key, stamp, part)

        with pytest.raises(NoSpaceError, match="No space left on device on the side that collects; make room"):
            cluster.collect("job", Sink(disk / "home"))
        (partial,) = (disk / "home").iterdir()
        assert partial.stat().st_size > 2 << 20
        assert (outputs / "large").read_bytes().startswith(partial.read_bytes())
        (disk / "filler").unlink()
        assert collect(cluster, disk / "home") == ["large"]
        assert same(disk / "home" / "large", outputs / "large")
    # That was no fault of the connection.
    assert cluster.statuses(["job"])


# -- a long line -------------------------------------------------------------------------------------------------


@pytest.fixture
def long_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the line pass for one of 40 ms."""
    monkeypatch.setattr(Connection, "round_trip_s", 0.04)


def test_a_long_line_is_filled_over_several_connections(
    long_line: None,
    cluster_settings: ClusterSettings,
    ssh_connect: Connect,
    outputs: Path,
    home: Path,
    cut_proxy: CutProxy,
    eventually: Callable[..., Any],
) -> None:
    write_random(outputs / "large", 50_000_001)
    write_random(outputs / "medium", 9_000_000)
    (outputs / "small").write_bytes(b"small")
    with open(outputs / "sparse", "wb") as file:
        file.truncate(40 << 20)
        file.seek(20 << 20)
        file.write(b"middle")
    with Cluster(cluster_settings, lambda: ssh_connect(cut_proxy.port)) as cluster:
        assert collect(cluster, home) == ["large", "medium", "small", "sparse"]
    for name in ("large", "medium", "small", "sparse"):
        assert same(home / name, outputs / name)
    assert cut_proxy.connections == 8
    assert cut_proxy.passed["down"] < 1.02 * 59_000_000
    assert (home / "sparse").stat().st_blocks * 512 < 1 << 20
    assert sorted(os.listdir(home)) == ["large", "medium", "small", "sparse"]
    # One line, whatever came over which connection.
    (line,) = eventually(lambda: transfers(cluster_settings.root_dir, "out"))
    assert (line["job_id"], line["bytes"]) == ("job", size_of(outputs))


def test_pieces_that_came_are_not_fetched_again(
    long_line: None,
    cluster_settings: ClusterSettings,
    ssh_connect: Connect,
    outputs: Path,
    home: Path,
    cut_proxy: CutProxy,
) -> None:
    """One connection after the other breaks; what has come over any of them counts."""
    write_random(outputs / "large", 50_000_000)
    with Cluster(cluster_settings, lambda: ssh_connect(cut_proxy.port)) as cluster:
        cluster.statuses([])
        cut_proxy.cut_after(nbytes=8_000_000, direction="down", times=4)
        assert collect(cluster, home) == ["large"]
    assert same(home / "large", outputs / "large")
    assert cut_proxy.passed["down"] < 1.3 * 50_000_000
    assert os.listdir(home) == ["large"]


def test_a_file_that_changes_while_pieces_of_it_come(
    long_line: None, cluster: Cluster, outputs: Path, home: Path
) -> None:
    write_random(outputs / "large", 40_000_000)

    class Sink(LocalSink):
        def partial(self, path: str, key: str, stamp: str, part: int = 0) -> Any:
            write_random(outputs / "large", 40_000_000)
            return super().partial(path, key, stamp, part)

    with pytest.raises(CollectError, match="changed while it was being collected"):
        cluster.collect("job", Sink(home))
    assert not (home / "large").exists()
    assert collect(cluster, home) == ["large"]
    assert same(home / "large", outputs / "large")
    assert os.listdir(home) == ["large"]


# -- what a cluster that is not to be trusted may send ----------------------------------------------------------


ENTRIES: list[Any] = [
    {"path": "a", "kind": "file", "size": 4, "mode": 0o644},
    {"path": "b", "kind": "file", "size": SMALL, "mode": 0o644, "stamp": "1"},
]


def lines_of(*lines: Any) -> bytes:
    return b"".join(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines)


def receive(home: Path, *lines: Any, entries: list[Any] = ENTRIES) -> list[str]:
    download = StreamDownload("job", entries, LocalSink(home), Checksums(None))
    download.request()
    with TransferProgress("outputs", 0) as progress:
        download.receive(io.BytesIO(lines_of(*lines)), progress)
    return sorted(file.path for file in download.collected)


def small(number: Any = 0, content: bytes = b"evil", **changes: Any) -> list[Any]:
    row = {"number": number, "size": len(content), "mode": 0o644, "sha256": hashlib.sha256(content).hexdigest()}
    return [{"small": [list({**row, **changes}.values())]}, content]


def large(number: Any = 1, content: bytes = b"evil" * (SMALL // 4), **changes: Any) -> list[Any]:
    size = len(content)
    header = {"file": number, "size": size, "mode": 0o644, "stamp": "1", "at": 0, "until": size, **changes}
    return [header, {"data": len(content)}, content, {"sha256": hashlib.sha256(content).hexdigest()}]


BEGUN = large()[0]


def test_what_was_asked_for_is_taken(home: Path) -> None:
    assert receive(home, *small(), {}, *large(), {"end": 2}) == ["a", "b"]
    assert files(home) == {"a": b"evil", "b": b"evil" * (SMALL // 4)}


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        pytest.param(small(2), "garbled at 2", id="not asked for"),
        pytest.param(small(-1), "garbled", id="a negative number"),
        pytest.param(small(True), "garbled", id="a number that is none"),
        pytest.param(small("../a"), "garbled", id="a path"),
        pytest.param([*small(), *small()], "garbled at 0", id="twice"),
        pytest.param([*large(), *large()], "garbled at 1", id="a large one twice"),
        pytest.param([{"end": 0}], r"did not send \['a', 'b'\]", id="nothing"),
        pytest.param([*small(), {"end": 2}], r"did not send \['b'\]", id="not all"),
        pytest.param(small(size=-1), "garbled", id="negative size"),
        pytest.param(small(size=1e9), "garbled", id="size is no whole number"),
        pytest.param(small(size=1 << 40), "garbled", id="more than is sent at once"),
        pytest.param([{"small": [[0, 0, 0, "x"]] * 1000}], "garbled", id="too many at once"),
        pytest.param([{"small": 7}], "garbled", id="no list"),
        pytest.param([{"small": [7]}], "garbled", id="no rows"),
        pytest.param(small(sha256="0" * 64), "SHA-256 differs", id="wrong checksum"),
        pytest.param(small(sha256=None), "garbled", id="no checksum"),
        pytest.param([b"\x00" * 70000], "garbled", id="zeros"),
        pytest.param([{"path": "a", "kind": "link", "target": "/etc"}], "garbled", id="a link"),
        pytest.param([{"file": 0, "fault": "is\x1b[2J gone"}], r"'a' is\?\[2J gone; try again", id="gone"),
        pytest.param(large(at=1), "garbled", id="from where nobody asked"),
        pytest.param(large(until=SMALL + 1), "garbled", id="to where there is nothing"),
        pytest.param(large(size=-1), "garbled", id="negative size of a large one"),
        pytest.param(large(stamp=1), "garbled", id="no stamp"),
        pytest.param([BEGUN, {"data": SMALL + 1}], "garbled", id="more data than there is"),
        pytest.param([BEGUN, {"data": 0}], "garbled", id="no data"),
        pytest.param([BEGUN, {"zeros": SMALL + 1}], "garbled", id="more zeros than there are"),
        pytest.param([BEGUN, {"zeros": -1}], "garbled", id="negative zeros"),
        pytest.param([BEGUN, {"what": 1}], "garbled", id="neither data nor end"),
        pytest.param([BEGUN, {"fault": "changed"}], "'b' changed; try again", id="changed"),
        pytest.param([BEGUN, {"sha256": "0" * 64}], "SHA-256 differs", id="nothing came"),
        pytest.param([*large()[:3], {"sha256": "0" * 64}], "SHA-256 differs", id="wrong checksum of a large one"),
        pytest.param([*large()[:3], {"sha256": 7}], "SHA-256 differs", id="no checksum of a large one"),
    ],
)
def test_anything_else_is_refused(tmp_path: Path, home: Path, lines: list[Any], words: str) -> None:
    error = GpuClusterProtocolError if "garbled" in words else CollectError
    with pytest.raises(error, match=words):
        receive(home, *lines)
    names = {name for name in files(tmp_path) if ".gpu-collect-" not in name}
    assert names <= {"home/a", "home/b"}


@pytest.mark.parametrize("path", ["../a", "/etc/passwd", "x/../../a", "", "a\0b"])
@pytest.mark.parametrize("size", [4, SMALL])
def test_a_listing_that_leads_out_is_refused(tmp_path: Path, home: Path, path: str, size: int) -> None:
    entry = {"path": path, "kind": "file", "size": size, "mode": 0o644}
    with pytest.raises(CollectError, match="leaves the outputs folder"):
        receive(home, *small(), {"end": 1}, entries=[{**entry, "size": 4}])
    with pytest.raises(CollectError, match="leaves the outputs folder"):
        receive(home, *large(0), entries=[{**entry, "stamp": "1"}])
    assert files(tmp_path) == {}


@pytest.mark.parametrize(
    "change", [{"path": 7}, {"size": -1}, {"size": "4"}, {"mode": None}, {"needs": 0.5}, {"stamp": 1}]
)
def test_a_listing_that_is_none_is_refused(home: Path, change: dict[str, Any]) -> None:
    with pytest.raises(GpuClusterProtocolError, match="list of outputs is garbled"):
        receive(home, *small(), entries=[{**ENTRIES[1], **change}])


@pytest.mark.parametrize("what", [small(), large()])
@pytest.mark.parametrize("length", [0, 10, 60, 90])
def test_a_stream_that_breaks_off_is_a_broken_connection(home: Path, what: list[Any], length: int) -> None:
    with pytest.raises(GpuClusterConnectionError):
        receive(home, lines_of(*what)[:length])
    assert not (home / "a").exists()
    assert not (home / "b").exists()


def test_every_byte_that_came_is_kept(home: Path) -> None:
    for length, kept in ((0, []), (100, [100]), (70_000, [70_000])):
        whole = lines_of(*large()[:2])
        with pytest.raises(GpuClusterConnectionError):
            receive(home, whole + bytes(length))
        assert [path.stat().st_size for path in home.iterdir()] == kept
