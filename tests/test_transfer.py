"""Files on their way between the worker and the cluster: whole, or not at all."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paramiko
import pytest

from airflow_provider_gpu_cluster.cluster import Cluster, ClusterSettings
from airflow_provider_gpu_cluster.download import receive_files
from airflow_provider_gpu_cluster.exceptions import (
    CollectError,
    GpuClusterConnectionError,
    NoSpaceError,
)
from airflow_provider_gpu_cluster.sinks import LocalSink
from airflow_provider_gpu_cluster.sources.source import sha256_of
from tests import jobs
from tests.proxy import CutProxy
from tests.small_disk import small_disk

Connect = Callable[..., paramiko.SSHClient]


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


def files(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if not path.is_dir()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


# -- home --------------------------------------------------------------------------------------------------------


def test_thousands_of_small_files(cluster: Cluster, outputs: Path, home: Path):
    for number in range(2000):
        path = outputs / f"{number % 40}" / f"{number}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(str(number) * 10)
    collected = cluster.collect("job", LocalSink(home))
    assert files(home) == files(outputs)
    assert [file.path for file in collected] == sorted(files(outputs))
    assert all(file.sha256 == hashlib.sha256((home / file.path).read_bytes()).hexdigest() for file in collected)


def test_a_large_file_and_an_empty_one(cluster: Cluster, outputs: Path, home: Path):
    (outputs / "empty").touch()
    with open(outputs / "large", "wb") as file:
        file.truncate(300 << 20)
        file.seek(150 << 20)
        file.write(b"middle")
    large, empty = reversed(cluster.collect("job", LocalSink(home)))
    assert (empty.size, large.size) == (0, 300 << 20)
    assert (home / "empty").read_bytes() == b""
    with open(home / "large", "rb") as file:
        assert sha256_of(file) == (large.sha256, 300 << 20)
        file.seek(150 << 20)
        assert file.read(6) == b"middle"


def test_names_links_and_modes(cluster: Cluster, outputs: Path, home: Path):
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
):
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
):
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
):
    (outputs / "sub").mkdir()
    (outputs / name).symlink_to("/etc")
    (outputs / "a1").touch()
    with pytest.raises(CollectError) as caught:
        collect(cluster, home)
    exclude = ast.literal_eval(str(caught.value).rpartition("exclude=")[2])
    assert collect(cluster, home, exclude=exclude) == ["a1"]


def test_a_file_that_is_written_to_meanwhile(cluster: Cluster, outputs: Path, home: Path):
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
        with pytest.raises(CollectError, match=r"output 'log' changed while it was being read; try again"):
            collect(cluster, home)
    finally:
        stop.set()
        thread.join()
    assert files(home) == {}
    assert collect(cluster, home) == ["log"]


def test_collecting_again_replaces_files_at_once(cluster: Cluster, outputs: Path, home: Path):
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
):
    for number in range(200):
        (outputs / f"{number:03}").write_bytes(os.urandom(20_000))
    published: list[str] = []

    class Sink(LocalSink):
        def file(self, path: str, size: int, mode: int) -> Any:
            published.append(path)
            return super().file(path, size, mode)

    with Cluster(cluster_settings, lambda: ssh_connect(cut_proxy.port)) as cluster:
        cluster.statuses(["job"])
        cut_proxy.cut_after(nbytes=after, direction="down")
        collected = cluster.collect("job", Sink(home))
    assert cut_proxy.connections == 2
    assert [file.path for file in collected] == sorted(files(outputs))
    assert files(home) == files(outputs)
    # What had arrived did not come again; one file was in the middle of its way.
    assert len(published) <= 201


def test_what_the_worker_cannot_store(cluster: Cluster, outputs: Path, tmp_path: Path):
    (outputs / "large").write_bytes(bytes(4 << 20))
    with small_disk(tmp_path / "disk", 512) as disk:
        with pytest.raises(NoSpaceError, match="on the side that collects"):
            collect(cluster, disk / "home")
        assert files(disk) == {}
    # That was no fault of the connection.
    assert cluster.statuses(["job"])


# -- what a cluster that is not to be trusted may send ----------------------------------------------------------


def receive(home: Path, *lines: Any, wanted: set[str] = frozenset({"a", "b"})) -> list[str]:  # type: ignore[assignment]
    data = b"".join(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines)
    return [file.path for file in receive_files(io.BytesIO(data), LocalSink(home), wanted, "job")]


def sent(path: str, content: bytes = b"evil", **changes: Any) -> list[Any]:
    header = {"path": path, "kind": "file", "size": len(content), "mode": 0o644, **changes}
    return [header, content, {"sha256": hashlib.sha256(content).hexdigest()}]


def test_what_was_asked_for_is_taken(home: Path):
    assert receive(home, *sent("a"), *sent("b", b""), {"end": 2}) == ["a", "b"]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        pytest.param([*sent("c"), {"end": 1}], "'c' changed", id="not asked for"),
        pytest.param([*sent("../a"), {"end": 1}], "'../a' changed", id="climbs out"),
        pytest.param([*sent("/etc/passwd"), {"end": 1}], "'/etc/passwd' changed", id="absolute"),
        pytest.param([*sent("a"), *sent("a"), {"end": 2}], "'a' changed", id="twice"),
        pytest.param([{"path": "a", "kind": "link", "target": "/etc"}, {"end": 1}], "'a' changed", id="a link"),
        pytest.param([{"path": "a", "kind": "gone"}, {"end": 1}], "'a' changed", id="gone"),
        pytest.param([{"path": "a", "kind": "unreadable"}, {"end": 1}], "'a' cannot be read", id="unreadable"),
        pytest.param([{"end": 0}], r"did not send \['a', 'b'\]", id="nothing"),
        pytest.param([*sent("a"), {"end": 1}], r"did not send \['b'\]", id="not all"),
        pytest.param([*sent("a"), {"end": 7}], "1 entries arrived of 7", id="wrong count"),
        pytest.param(sent("a", size=-1), "garbled", id="negative size"),
        pytest.param(sent("a", size=1e9), "garbled", id="size is no whole number"),
        pytest.param([b"\x00" * 70000], "garbled", id="zeros"),
        pytest.param([sent("a")[0], b"evil", {"sha256": "0" * 64}], "SHA-256 differs", id="wrong checksum"),
        pytest.param([sent("a")[0], b"evil", {}], "SHA-256 differs", id="no checksum"),
        pytest.param([sent("a")[0], b"evil", {"fault": "changed"}], "'a' changed", id="changed"),
    ],
)
def test_anything_else_is_refused(tmp_path: Path, home: Path, lines: list[Any], words: str):
    with pytest.raises(CollectError, match=words):
        receive(home, *lines)
    assert set(files(tmp_path)) <= {"home/a"}


@pytest.mark.parametrize("length", [0, 10, 60, 61, 100])
def test_a_stream_that_breaks_off_is_a_broken_connection(home: Path, length: int):
    whole = b"".join(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in sent("a"))
    with pytest.raises(GpuClusterConnectionError):
        receive(home, whole[:length])
    assert files(home) == {}
