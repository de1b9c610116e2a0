"""Inputs on their way to the cluster: only what it lacks, whole or not at all, whatever happens on the way."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paramiko
import pytest
from airflow.sdk.io.store import attach
from fsspec.implementations.memory import MemoryFileSystem

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.connection.connection import Connection
from airflow_provider_gpu_cluster.connection.session import Session
from airflow_provider_gpu_cluster.connection.settings import ClusterSettings
from airflow_provider_gpu_cluster.connection.wire_types import WrongType
from airflow_provider_gpu_cluster.exceptions import (
    ChecksumError,
    GpuClusterConnectionError,
    NoSpaceError,
    SourceError,
)
from airflow_provider_gpu_cluster.sources import Source, UploadSource, folder, parse_sources
from airflow_provider_gpu_cluster.transfer import streams, upload, upload_streams
from tests.conftest import REPOSITORY
from tests.gpu_run.host import processes_with
from tests.harness import jobs
from tests.harness.small_disk import fill, small_disk
from tests.servers.proxy import CutProxy
from tests.servers.sshd import RealSshd

Connect = Callable[..., paramiko.SSHClient]
MB = 1_000_000


def sources(worker: Path, **written: Any) -> tuple[Source, ...]:
    return parse_sources(**{"code": None, "data": None, "models": None, **written}, base_dir=worker)


def stage(cluster: Cluster, job_id: str, worker: Path, **written: Any) -> Path:
    """Stage a job, and return its directory."""
    handle = cluster.stage(job_id, sources(worker, **written), record=jobs.record(task_id=job_id))
    return Path(handle.job_dir)


def files(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if not path.is_dir()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


class Counter:
    """Counts the bytes that go to the server."""

    def __init__(self, proxy: CutProxy) -> None:
        self.bytes = 0
        real = proxy._allow

        def allow(size: int, direction: str) -> tuple[int, bool]:
            self.bytes += size if direction == "up" else 0
            return real(size, direction)

        proxy._allow = allow  # type: ignore[method-assign]

    def take(self) -> int:
        count, self.bytes = self.bytes, 0
        return count


@pytest.fixture
def up(cut_proxy: CutProxy) -> Counter:
    return Counter(cut_proxy)


@pytest.fixture
def far(cluster_settings: ClusterSettings, ssh_connect: Connect, cut_proxy: CutProxy, up: Counter) -> Iterator[Cluster]:
    """Return the cluster through a proxy; the program is there, and what installed it is not counted."""
    with Cluster(cluster_settings, lambda: ssh_connect(cut_proxy.port)) as cluster:
        cluster.check()
        up.take()
        yield cluster


@pytest.fixture
def cache(cluster_settings: ClusterSettings) -> Path:
    return Path(cluster_settings.root_dir) / ".cache"


# -- once --------------------------------------------------------------------------------------------------------


def test_what_the_cluster_has_does_not_travel_again(far: Cluster, tmp_path: Path, up: Counter) -> None:
    large, small = os.urandom(3 * MB), os.urandom(300_000)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "large").write_bytes(large)
    (tmp_path / "d" / "small").write_bytes(small)
    job = stage(far, "first", tmp_path, data="d")
    assert 3.3 * MB < up.take() < 3.5 * MB
    # The same job again, and another.
    stage(far, "first", tmp_path, data="d")
    other = stage(far, "second", tmp_path, data="d")
    assert up.take() < 10_000
    assert files(job / "data") == files(other / "data") == {"d/large": large, "d/small": small}

    # Other names, and one file more.
    (tmp_path / "d").rename(tmp_path / "e")
    (tmp_path / "e" / "large").rename(tmp_path / "e" / "renamed")
    (tmp_path / "e" / "new").write_bytes(b"new")
    third = stage(far, "third", tmp_path, models="e")
    assert up.take() < 10_000
    assert files(third / "models") == {"e/renamed": large, "e/small": small, "e/new": b"new"}


def test_of_thousands_of_files_those_that_changed_travel(far: Cluster, tmp_path: Path, up: Counter) -> None:
    for number in range(2000):
        path = tmp_path / "d" / f"{number % 20}" / f"{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(1000))
    job = stage(far, "first", tmp_path, data="d")
    assert files(job / "data" / "d") == files(tmp_path / "d")
    up.take()
    for number in range(10):
        (tmp_path / "d" / "7" / f"{20 * number + 7}").write_bytes(os.urandom(1000))
    job = stage(far, "second", tmp_path, data="d")
    assert files(job / "data" / "d") == files(tmp_path / "d")
    # What there is has to be said, in about a hundred bytes a file.
    assert up.take() < 250_000


def test_a_job_that_is_staged_again_gets_anew_what_changed_on_either_side(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    for number in range(50):
        (tmp_path / "d" / f"{number}").write_bytes(os.urandom(4000))
    (tmp_path / "d" / "large").write_bytes(os.urandom(3 * MB))
    there = stage(cluster, "job", tmp_path, data="d") / "data" / "d"
    before = {path.name: path.stat().st_ino for path in there.iterdir()}
    # The user changes one, removes one, and the job another.
    (tmp_path / "d" / "1").write_bytes(os.urandom(4000))
    (tmp_path / "d" / "2").unlink()
    (there / "3").write_bytes(b"x" * 4000)
    os.link(there / "4", there.parent.parent / "outputs" / "4")
    (there / "made by the job").write_bytes(b"")
    stage(cluster, "job", tmp_path, data="d")
    assert files(there) == files(tmp_path / "d")
    kept = {path.name for path in there.iterdir() if path.stat().st_ino == before[path.name]}
    assert before.keys() - kept == {"1", "2", "3", "4"}
    assert {path.stat().st_nlink for path in there.iterdir()} == {1}


def test_two_jobs_that_stage_the_same_at_once_send_it_once(
    cluster_settings: ClusterSettings, ssh_connect: Connect, cut_proxy: CutProxy, tmp_path: Path
) -> None:
    """Large and small files, under the same name and under another."""
    with Cluster(cluster_settings, ssh_connect) as cluster:
        cluster.check()
    up = Counter(cut_proxy)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "large").write_bytes(os.urandom(60 * MB))
    for number in range(500):
        (tmp_path / "d" / f"{number}").write_bytes(os.urandom(10_000))
    os.link(tmp_path / "d" / "large", tmp_path / "other")
    failures: list[BaseException] = []

    def run(number: int) -> None:
        try:
            with Cluster(cluster_settings, lambda: ssh_connect(cut_proxy.port)) as cluster:
                job = stage(cluster, f"job-{number}", tmp_path, data="other" if number == 3 else "d")
                if number != 3:
                    assert files(job / "data" / "d") == files(tmp_path / "d")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert up.take() < 1.05 * 65 * MB


def test_objects_of_a_store_travel_once_as_well(
    far: Cluster, up: Counter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows their SHA-256 before they were sent."""
    # Airflow keeps what was attached first for the whole process.
    monkeypatch.setattr("airflow.sdk.io.store._STORE_CACHE", {})
    store = MemoryFileSystem()
    attach(protocol="memory", fs=store)
    large = os.urandom(5 * MB)
    store.pipe("/bucket-of-uploads/d/large", large)
    store.pipe("/bucket-of-uploads/d/small", b"small")
    job = stage(far, "first", tmp_path, data="memory://bucket-of-uploads/d")
    assert files(job / "data") == {"d/large": large, "d/small": b"small"}
    assert up.take() > 5 * MB
    stage(far, "second", tmp_path, data="memory://bucket-of-uploads/d")
    assert up.take() < 10_000
    store.pipe("/bucket-of-uploads/d/small", b"other")
    job = stage(far, "third", tmp_path, data="memory://bucket-of-uploads/d")
    assert up.take() < 10_000
    assert files(job / "data") == {"d/large": large, "d/small": b"other"}


# -- broken connections ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cuts", "size"), [(6, 60 * MB), pytest.param(20, 200 * MB, marks=pytest.mark.long)])
def test_an_upload_that_is_cut_many_times(
    far: Cluster, tmp_path: Path, cut_proxy: CutProxy, up: Counter, cuts: int, size: int
) -> None:
    (tmp_path / "large").write_bytes(random.Random(7).randbytes(size))
    moments = sorted(random.Random(11).sample(range(size), cuts))
    real = cut_proxy._allow
    passed = 0

    def allow(size: int, direction: str) -> tuple[int, bool]:
        nonlocal passed
        passed += size if direction == "up" else 0
        if moments and passed >= moments[0]:
            moments.pop(0)
            real(size, direction)
            return size // 2, True
        return real(size, direction)

    cut_proxy._allow = allow  # type: ignore[method-assign]
    before = cut_proxy.connections
    job = stage(far, "job", tmp_path, data="large")
    assert (job / "data" / "large").read_bytes() == (tmp_path / "large").read_bytes()
    assert moments == []
    assert cut_proxy.connections - before >= cuts
    assert up.take() < 1.3 * size
    assert leftovers(job.parent / ".cache") == []


def leftovers(cache: Path) -> list[str]:
    return sorted(path.name for path in (cache / "incoming").iterdir())


UPLOAD = """
import json, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import paramiko
from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.connection.settings import ClusterSettings
from tests.transfer.test_upload import stage

asked = json.loads(sys.argv[2])

def connect():
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
    key = paramiko.Ed25519Key(filename=asked["key"])
    client.connect("127.0.0.1", asked["port"], asked["user"], pkey=key, allow_agent=False, look_for_keys=False)
    return client

with Cluster(ClusterSettings(**asked["settings"]), connect) as cluster:
    stage(cluster, asked["job_id"], Path(asked["worker"]), data=asked["data"])
"""


class OtherWorker:
    """Runs uploads in processes of their own, which can be killed."""

    def __init__(self, sshd: RealSshd, settings: ClusterSettings, proxy: CutProxy, folder: Path) -> None:
        self._asked = {
            "key": str(sshd.client_key_file),
            "port": proxy.port,
            "user": settings.name.partition("@")[0],
            "settings": settings.__dict__,
            "worker": str(folder),
        }

    @contextlib.contextmanager
    def stage(self, job_id: str, data: str) -> Iterator[subprocess.Popen[bytes]]:
        asked = json.dumps({**self._asked, "job_id": job_id, "data": data})
        arguments = [sys.executable, "-c", UPLOAD, str(REPOSITORY), asked]
        with subprocess.Popen(arguments, stderr=subprocess.DEVNULL) as process:
            try:
                yield process
            finally:
                process.kill()


@pytest.fixture
def other_worker(sshd: RealSshd, cluster_settings: ClusterSettings, cut_proxy: CutProxy, tmp_path: Path) -> OtherWorker:
    return OtherWorker(sshd, cluster_settings, cut_proxy, tmp_path)


def test_a_worker_that_is_killed_half_way_costs_what_was_on_its_way(
    far: Cluster, other_worker: OtherWorker, tmp_path: Path, up: Counter, cache: Path, eventually: Any
) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "large").write_bytes(os.urandom(60 * MB))
    for number in range(500):
        (tmp_path / "d" / f"{number}").write_bytes(os.urandom(10_000))
    with other_worker.stage("job", "d") as process:
        eventually(lambda: up.bytes > 30 * MB, every_s=0.005)
        process.kill()
    eventually(lambda: not [pid for verb in ("stage", "submit") for pid in processes_with(verb)])
    assert files(cache.parent / "job" / "data") == {}
    sent = up.take()
    assert sent < 60 * MB
    job = stage(far, "job", tmp_path, data="d")
    assert up.take() < 65 * MB - sent + 4 * MB
    assert files(job / "data" / "d") == files(tmp_path / "d")
    assert leftovers(cache) == []


def test_who_waits_for_another_takes_over_when_that_one_dies(
    cluster: Cluster, other_worker: OtherWorker, tmp_path: Path, up: Counter, eventually: Any
) -> None:
    cluster.check()
    (tmp_path / "large").write_bytes(os.urandom(60 * MB))
    with other_worker.stage("first", "large") as process:
        eventually(lambda: up.bytes > 10 * MB, every_s=0.005)
        process.send_signal(signal.SIGSTOP)
        waiting = threading.Thread(target=stage, args=(cluster, "second", tmp_path), kwargs={"data": "large"})
        waiting.start()
        waiting.join(1)
        assert waiting.is_alive()
        process.kill()
        waiting.join(30)
        assert not waiting.is_alive()
    job = Path(cluster.settings.root_dir) / "second"
    assert files(job / "data") == {"large": (tmp_path / "large").read_bytes()}


# -- a long line -------------------------------------------------------------------------------------------------


@pytest.fixture
def long_line(cut_proxy: CutProxy, far: Cluster, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Make the round trip 40 ms, and return a list that receives over how many connections uploads go."""
    cut_proxy.delay_s = 0.02
    # The kernel sees the way to the proxy only.
    monkeypatch.setattr(Connection, "round_trip_s", 0.04)
    counts: list[int] = []

    def streams_for(round_trip_s: float, size: int) -> int:
        counts.append(streams.streams_for(round_trip_s, size))
        return counts[-1]

    monkeypatch.setattr(upload, "streams_for", streams_for)
    return counts


def test_a_long_line_is_filled_over_several_connections(
    far: Cluster, long_line: list[int], tmp_path: Path, up: Counter
) -> None:
    (tmp_path / "d").mkdir()
    for number, size in enumerate([10 * MB, 3 * MB, *range(1000, 1100)]):
        (tmp_path / "d" / f"{number}").write_bytes(os.urandom(size))
    job = stage(far, "job", tmp_path, data="d")
    assert files(job / "data" / "d") == files(tmp_path / "d")
    assert long_line == [3]
    assert up.take() < 1.05 * 13 * MB
    assert leftovers(job.parent / ".cache") == []


def test_connections_that_are_not_to_be_had_are_done_without(
    far: Cluster, long_line: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a server that takes no more; and one that breaks in the middle leaves its piece to the others."""
    real = upload_streams.open_stream
    count = 0

    @contextlib.contextmanager
    def open_stream(session: Session) -> Iterator[tuple[Any, Any]]:
        nonlocal count
        count += 1
        number = count
        if number > 2:
            raise GpuClusterConnectionError("it takes no more")
        with real(session) as (stream, out):
            if number == 1:
                # It breaks when it has sent half a piece.
                written = []

                class Breaking:
                    def write(self, data: bytes) -> int:
                        written.append(len(data))
                        if sum(written) > 3 * MB:
                            raise OSError("Socket is closed")
                        return int(out.write(data))

                    def flush(self) -> None:
                        out.flush()

                yield stream, Breaking()
            else:
                yield stream, out

    monkeypatch.setattr(upload_streams, "open_stream", open_stream)
    (tmp_path / "large").write_bytes(os.urandom(20 * MB))
    job = stage(far, "job", tmp_path, data="large")
    assert files(job / "data") == {"large": (tmp_path / "large").read_bytes()}
    assert long_line[0] == 4
    assert count >= 3
    assert leftovers(job.parent / ".cache") == []


@pytest.mark.parametrize(
    ("round_trip_s", "size", "count"),
    [
        (0.001, 10**9, 1),
        (0.02, 10**9, 4),
        (0.019, 10**9, 1),
        (0.05, 10**9, 8),
        (0.3, 10**12, 8),
        (0.05, 10**6, 1),
        (0.05, 10**7, 2),
        (0.05, 0, 1),
    ],
)
def test_how_many_connections(round_trip_s: float, size: int, count: int) -> None:
    assert streams.streams_for(round_trip_s, size) == count


# -- files of a job are its own ----------------------------------------------------------------------------------


def test_a_job_that_writes_into_its_inputs_changes_no_other(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "large").write_bytes(b"1" * (2 << 20))
    (tmp_path / "d" / "small").write_bytes(b"2")
    first = stage(cluster, "first", tmp_path, data="d")
    for name in ("large", "small"):
        with open(first / "data" / "d" / name, "r+b") as file:
            file.write(b"changed")
    second = stage(cluster, "second", tmp_path, data="d")
    assert files(second / "data" / "d") == files(tmp_path / "d")
    # The same job again has what it has made of them.
    stage(cluster, "first", tmp_path, data="d")
    assert (first / "data" / "d" / "small").read_bytes() == b"changed"


def test_a_content_that_the_disk_has_damaged_is_found_and_sent_anew(
    far: Cluster, tmp_path: Path, cache: Path, up: Counter
) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "large").write_bytes(os.urandom(2 * MB))
    for number in range(100):
        (tmp_path / "d" / f"{number}").write_bytes(os.urandom(1000))
    stage(far, "first", tmp_path, data="d")
    up.take()
    damaged = [path for path in [*(cache / "contents").rglob("*"), *(cache / "packs").glob("*.data")] if path.is_file()]
    assert len(damaged) == 2
    for number, path in enumerate(damaged):
        path.chmod(0o600)
        with open(path, "r+b") as file:
            file.seek(1000)
            byte = file.read(1)
            file.seek(1000)
            file.write(bytes([byte[0] ^ 1]))
        job = stage(far, f"again-{number}", tmp_path, data="d")
        assert files(job / "data" / "d") == files(tmp_path / "d")
    # Of the small ones only the one that was damaged.
    assert 2 * MB < up.take() < 2.1 * MB
    job = stage(far, "last", tmp_path, data="d")
    assert files(job / "data" / "d") == files(tmp_path / "d")
    assert up.take() < 20_000


@pytest.mark.parametrize("how", ["cut short", "emptied", "removed"])
@pytest.mark.parametrize("which", ["contents/*/*", "packs/*.data", "packs/*.index", "manifests/*"])
def test_whatever_happens_to_the_cache_is_mended(
    far: Cluster, tmp_path: Path, cache: Path, which: str, how: str
) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "large").write_bytes(os.urandom(2 * MB))
    (tmp_path / "d" / "small").write_bytes(b"small")
    stage(far, "first", tmp_path, data="d")
    (path,) = cache.glob(which)
    path.chmod(0o600)
    if how == "removed":
        path.unlink()
    else:
        os.truncate(path, 0 if how == "emptied" else path.stat().st_size // 2)
    job = stage(far, "second", tmp_path, data="d")
    assert files(job / "data" / "d") == files(tmp_path / "d")


def test_holes_stay_holes(far: Cluster, tmp_path: Path, up: Counter) -> None:
    with open(tmp_path / "sparse", "wb") as file:
        file.write(b"start")
        file.seek(100 * MB)
        file.write(b"middle")
        file.truncate(200 * MB)
    job = stage(far, "job", tmp_path, data="sparse")
    assert up.take() < 100_000
    staged = job / "data" / "sparse"
    assert staged.stat().st_size == 200 * MB
    assert staged.stat().st_blocks * 512 < MB
    with open(staged, "rb") as file:
        assert file.read(6) == b"start\0"
        file.seek(100 * MB)
        assert file.read(7) == b"middle\0"


# -- what cannot be sent -----------------------------------------------------------------------------------------


def test_what_does_not_fit_is_not_begun(
    cluster_settings: ClusterSettings, ssh_connect: Connect, tmp_path: Path
) -> None:
    (tmp_path / "data.bin").write_bytes(os.urandom(30 * MB))
    with small_disk(tmp_path / "disk", 20_000) as disk:
        settings = ClusterSettings(**{**cluster_settings.__dict__, "root_dir": str(disk)})
        with Cluster(settings, ssh_connect) as cluster:
            with pytest.raises(
                NoSpaceError, match=r"data\.bin needs 60\.0 MB in .*, and there is room for 1\d\.\d MB;"
            ):
                stage(cluster, "job", tmp_path, data="data.bin")
            assert files(disk / "job" / "data") == {}
            assert leftovers(disk / ".cache") == []
            (tmp_path / "data.bin").write_bytes(os.urandom(1 * MB))
            stage(cluster, "job", tmp_path, data="data.bin")


def test_a_disk_that_fills_up_on_the_way(
    cluster_settings: ClusterSettings, ssh_connect: Connect, cut_proxy: CutProxy, tmp_path: Path, eventually: Any
) -> None:
    (tmp_path / "large").write_bytes(os.urandom(30 * MB))
    up = Counter(cut_proxy)
    with small_disk(tmp_path / "disk", 80_000) as disk:
        settings = ClusterSettings(**{**cluster_settings.__dict__, "root_dir": str(disk)})
        with Cluster(settings, lambda: ssh_connect(cut_proxy.port)) as cluster:
            cluster.check()
            up.take()

            def fill_up() -> None:
                eventually(lambda: up.bytes > 10 * MB, every_s=0.002)
                fill(disk)

            filling = threading.Thread(target=fill_up)
            filling.start()
            with pytest.raises(NoSpaceError, match=r"no space left on the disk of .*: 0\.0 MB free"):
                stage(cluster, "job", tmp_path, data="large")
            filling.join()
            sent = up.take()
            assert files(disk / "job" / "data") == {}
            (disk / "filler").unlink()
            job = stage(cluster, "job", tmp_path, data="large")
            assert up.take() < 30 * MB - sent + 10 * MB
            assert files(job / "data") == {"large": (tmp_path / "large").read_bytes()}


@pytest.mark.parametrize("size", [100, 3 * MB])
def test_a_file_that_changes_between_its_checksum_and_its_sending(
    cluster: Cluster, tmp_path: Path, size: int, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data.bin").write_bytes(b"1" * size)
    wanted = sources(tmp_path, data="data.bin")
    wanted[0].to_json()
    (tmp_path / "data.bin").write_bytes(b"2" * size)
    with pytest.raises(ChecksumError, match="changed while it was being read or sent"):
        cluster.stage("job", wanted, record=jobs.record())
    # One that changes when it is open already is found out by the cluster.
    with monkeypatch.context() as patch:
        patch.setattr(folder, "stamp_of", lambda status: "always the same")
        wanted = sources(tmp_path, data="data.bin")
        wanted[0].to_json()
        (tmp_path / "data.bin").write_bytes(b"3" * size)
        with pytest.raises(ChecksumError, match=r"'data\.bin' is not what its checksum says"):
            cluster.stage("job", wanted, record=jobs.record())
    assert leftovers(cache) == []
    (tmp_path / "data.bin").unlink()
    with pytest.raises(SourceError, match="cannot read"):
        cluster.stage("job", wanted, record=jobs.record())
    # The connection is none the worse for it.
    (tmp_path / "data.bin").write_bytes(b"4" * size)
    job = stage(cluster, "task", tmp_path, data="data.bin")
    assert files(job / "data") == {"data.bin": b"4" * size}


def test_a_file_that_cannot_be_read_to_its_end_does_not_leave_both_sides_waiting(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Bad(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError(5, "Input/output error")

    (tmp_path / "data.bin").write_bytes(bytes(1 << 20))
    wanted = sources(tmp_path, data="data.bin")
    (source,) = wanted
    assert isinstance(source, UploadSource)
    (entry,) = source.manifest
    monkeypatch.setattr(type(entry.open), "__call__", lambda self: Bad())
    began = time.monotonic()
    with pytest.raises(SourceError, match=r"'data\.bin' cannot be read: .*Input/output error"):
        cluster.stage("job", wanted, record=jobs.record())
    assert time.monotonic() - began < 30


def test_a_cluster_that_asks_for_what_was_not_offered_gets_nothing(tmp_path: Path) -> None:
    (tmp_path / "d").write_bytes(b"x")
    (source,) = sources(tmp_path, data="d")
    assert isinstance(source, UploadSource)

    class Near(Connection):
        round_trip_s = 0.0

    session = Session(Near(ClusterSettings(conn_id="gpu", name="me@gpu1"), paramiko.SSHClient))
    for want in (["0" * 64, [[0, 1]]], ["/etc/passwd", [[0, 1]]]):
        said = b"".join(json.dumps(line).encode() + b"\n" for line in ({"want": [want]}, {"send": 1}))
        out = io.BytesIO()
        with pytest.raises(WrongType, match="was not offered"):
            upload.Upload([source], session).converse({"needs": [0]}, io.BytesIO(said), out)
        assert json.loads(out.getvalue()) == {"rows": [source.rows]}
