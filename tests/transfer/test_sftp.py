"""Files that go by SFTP, where the bytes of commands cannot be trusted: whole or not at all, as with a stream."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import random
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import paramiko
import pytest
from airflow.sdk.io.store import attach
from fsspec.implementations.memory import MemoryFileSystem

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.connection.settings import ClusterSettings
from airflow_provider_gpu_cluster.connection.sftp import PipelinedFile
from airflow_provider_gpu_cluster.connection.sftp_small_files import read_small_files
from airflow_provider_gpu_cluster.exceptions import (
    ChecksumError,
    CollectError,
    GpuClusterConnectionError,
    NoSpaceError,
)
from airflow_provider_gpu_cluster.files.checksums import open_checksums
from airflow_provider_gpu_cluster.gpu_run.errors import Refused
from airflow_provider_gpu_cluster.gpu_run.staging.spool import SpooledStream
from airflow_provider_gpu_cluster.sinks import LocalSink
from airflow_provider_gpu_cluster.transfer import sftp_download, sftp_upload, upload
from tests.harness import jobs
from tests.harness.small_disk import fill, small_disk
from tests.harness.transfers import size_of, transfers
from tests.servers.proxy import CutProxy
from tests.servers.sshd import RealSshd
from tests.transfer.test_transfer import files, same, write_random
from tests.transfer.test_upload import Counter, stage

Connect = Callable[..., paramiko.SSHClient]
MB = 1_000_000

NAMES = ["a b", "new\nline", "ünï…", "-rf", "'\"$(id)`", "back\\slash", os.fsdecode(b"\xff\xfe"), "n" * 255, "..x"]


@pytest.fixture
def cluster_settings(cluster_settings: ClusterSettings) -> ClusterSettings:
    return replace(cluster_settings, transfer="sftp")


@pytest.fixture
def far(cluster_settings: ClusterSettings, ssh_connect: Connect, cut_proxy: CutProxy) -> Iterator[Cluster]:
    """Return the cluster through a proxy, with a second for other tries; the program is there."""
    with Cluster(cluster_settings, lambda: ssh_connect(cut_proxy.port), retry_for_s=1) as cluster:
        cluster.check()
        yield cluster


@pytest.fixture
def outputs(cluster: Cluster, cluster_settings: ClusterSettings) -> Path:
    """Return the outputs of a job ``job`` on the cluster, still empty."""
    cluster.stage("job", (), record=jobs.record())
    return Path(cluster_settings.root_dir) / "job" / "outputs"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def collect(cluster: Cluster, home: Path, **patterns: Any) -> list[str]:
    return [file.path for file in cluster.collect("job", LocalSink(home), **patterns)]


def make_files(folder: Path) -> None:
    """Make many small files, large ones, empty ones, and some with odd names."""
    folder.mkdir(exist_ok=True)
    for number in range(600):
        path = folder / f"{number % 7}" / f"{number}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(os.urandom(number))
    for name in NAMES:
        (folder / name).write_bytes(os.fsencode(name))
    (folder / os.fsdecode(b"large \xfe\n")).write_bytes(os.urandom(20 * MB))
    (folder / "one MiB").write_bytes(os.urandom(1 << 20))
    (folder / "program").touch(0o755)


def leftovers(root: str) -> list[str]:
    return os.listdir(Path(root) / ".cache" / "incoming")


# -- both ways ---------------------------------------------------------------------------------------------------


def test_files_of_all_kinds_to_the_cluster(cluster: Cluster, tmp_path: Path) -> None:
    make_files(tmp_path / "d")
    job = stage(cluster, "job", tmp_path, data="d")
    assert files(job / "data" / "d") == files(tmp_path / "d")
    assert os.access(job / "data" / "d" / "program", os.X_OK)
    assert leftovers(cluster.settings.root_dir) == []
    (line,) = transfers(cluster.settings.root_dir, "in")
    assert (line["job_id"], line["bytes"]) == ("job", size_of(tmp_path / "d"))


def test_files_of_all_kinds_home(cluster: Cluster, outputs: Path, home: Path, eventually: Callable[..., Any]) -> None:
    make_files(outputs)
    collected = cluster.collect("job", LocalSink(home))
    assert files(home) == files(outputs)
    assert os.access(home / "program", os.X_OK)
    assert all(file.sha256 == hashlib.sha256((home / file.path).read_bytes()).hexdigest() for file in collected)
    assert cluster.collect("job", LocalSink(home)) == collected
    (line,) = eventually(lambda: transfers(cluster.settings.root_dir, "out"))
    assert (line["job_id"], line["bytes"]) == ("job", size_of(outputs))
    assert 0 < line["seconds"] < 60


def test_commands_carry_no_bytes_of_files(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But lines of JSON, in both directions."""
    from airflow_provider_gpu_cluster.connection import channel

    sent: list[bytes] = []
    write, read = channel._Writer.write, channel.ChannelFile.readinto

    def noted_write(self: Any, data: bytes) -> int:
        sent.append(bytes(data))
        return write(self, data)

    def noted_read(self: Any, buffer: Any) -> int:
        count = read(self, buffer)
        sent.append(bytes(buffer[:count]))
        return count

    monkeypatch.setattr(channel._Writer, "write", noted_write)
    monkeypatch.setattr(channel.ChannelFile, "readinto", noted_read)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "large").write_bytes(os.urandom(20 * MB))
    (tmp_path / "d" / "small").write_bytes(os.urandom(1000))
    job = stage(cluster, "job", tmp_path, data="d")
    shutil.copytree(job / "data" / "d", job / "outputs" / "d")
    assert collect(cluster, tmp_path / "home") == ["d/large", "d/small"]
    assert b"".join(sent).isascii()
    assert sum(map(len, sent)) < 20_000


@pytest.mark.parametrize("root", ["~", "~/", ""])
def test_a_root_in_the_home_directory(
    cluster_settings: ClusterSettings, ssh_connect: Connect, tmp_path: Path, root: str
) -> None:
    name = f"gpu-cluster-test-{uuid.uuid4().hex}"
    # A root that is the home itself would leave its traces there.
    settings = replace(cluster_settings, root_dir=f"{root.rstrip('/') + '/' if root else ''}{name}/jobs ü")
    try:
        with Cluster(settings, ssh_connect) as cluster:
            (tmp_path / "large").write_bytes(os.urandom(3 * MB))
            job = stage(cluster, "job", tmp_path, data="large")
            assert job.parent == Path.home() / name / "jobs ü"
            shutil.copy(job / "data" / "large", job / "outputs" / "large")
            assert collect(cluster, tmp_path / "home") == ["large"]
        assert same(tmp_path / "home" / "large", tmp_path / "large")
    finally:
        shutil.rmtree(Path.home() / name, ignore_errors=True)


def test_objects_of_a_store(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody knows their SHA-256 before they were sent."""
    monkeypatch.setattr("airflow.sdk.io.store._STORE_CACHE", {})
    store = MemoryFileSystem()
    attach(protocol="memory", fs=store)
    large = os.urandom(20 * MB)
    store.pipe("/bucket-by-sftp/d/large", large)
    store.pipe("/bucket-by-sftp/d/small", b"small")
    job = stage(cluster, "job", tmp_path, data="memory://bucket-by-sftp/d")
    assert files(job / "data") == {"d/large": large, "d/small": b"small"}


def test_what_is_zero_lands_as_a_hole(cluster: Cluster, outputs: Path, home: Path) -> None:
    with open(outputs / "sparse", "wb") as file:
        file.truncate(100 << 20)
        file.seek(50 << 20)
        file.write(b"middle")
    collect(cluster, home)
    assert same(home / "sparse", outputs / "sparse")
    assert (home / "sparse").stat().st_blocks * 512 < 1 << 20


def test_a_long_line_is_filled_over_several_connections(
    far: Cluster, cut_proxy: CutProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload, "streams_for", lambda round_trip_s, size: 3)
    before = cut_proxy.connections
    (tmp_path / "large").write_bytes(os.urandom(60 * MB))
    job = stage(far, "job", tmp_path, data="large")
    assert same(job / "data" / "large", tmp_path / "large")
    assert cut_proxy.connections - before == 2
    assert leftovers(far.settings.root_dir) == []


# -- broken connections ------------------------------------------------------------------------------------------


def test_an_upload_that_is_cut_goes_on_where_it_was(far: Cluster, tmp_path: Path, cut_proxy: CutProxy) -> None:
    size = 60 * MB
    (tmp_path / "large").write_bytes(random.Random(3).randbytes(size))
    up = Counter(cut_proxy)
    before = cut_proxy.connections
    cut_proxy.cut_after(nbytes=15 * MB, direction="up", times=4)
    job = stage(far, "job", tmp_path, data="large")
    assert leftovers(far.settings.root_dir) == []
    assert same(job / "data" / "large", tmp_path / "large")
    assert cut_proxy.connections - before == 4
    lines = transfers(far.settings.root_dir, "in")
    assert len(lines) == 5
    assert sum(line["bytes"] for line in lines) == size
    # Of what was on its way a spool file is lost each time, and a little of the one that was just whole.
    assert up.take() < size + 4 * 2 * sftp_upload.SPOOL_FILE_BYTES


def test_small_files_that_are_cut_go_on_where_they_were(far: Cluster, tmp_path: Path, cut_proxy: CutProxy) -> None:
    (tmp_path / "d").mkdir()
    for number in range(300):
        (tmp_path / "d" / f"{number}").write_bytes(os.urandom(100_000))
    up = Counter(cut_proxy)
    cut_proxy.cut_after(nbytes=20 * MB, direction="up")
    job = stage(far, "job", tmp_path, data="d")
    assert files(job / "data" / "d") == files(tmp_path / "d")
    assert up.take() < 30 * MB + 2 * sftp_upload.SPOOL_FILE_BYTES


def test_a_download_that_is_cut_goes_on_where_it_was(
    far: Cluster, outputs: Path, home: Path, cut_proxy: CutProxy
) -> None:
    size = 60 * MB
    write_random(outputs / "large", size)
    for number in range(100):
        (outputs / f"{number}").write_bytes(os.urandom(10_000))
    before, connections = cut_proxy.passed["down"], cut_proxy.connections
    cut_proxy.cut_after(nbytes=7 * MB, direction="down", times=6)
    assert len(collect(far, home)) == 101
    assert files(home) == files(outputs)
    assert cut_proxy.connections - connections == 6
    assert cut_proxy.passed["down"] - before < size + MB + 6 * 2 * MB


def test_a_connection_that_brings_nothing_is_given_up(
    far: Cluster, outputs: Path, home: Path, tmp_path: Path, cut_proxy: CutProxy
) -> None:
    write_random(outputs / "large", 5 * MB)
    (tmp_path / "input").write_bytes(os.urandom(5 * MB))
    cut_proxy.cut_after(nbytes=20_000, times=1000)
    began = time.monotonic()
    with pytest.raises(GpuClusterConnectionError):
        collect(far, home)
    with pytest.raises(GpuClusterConnectionError):
        stage(far, "other", tmp_path, data="input")
    assert time.monotonic() - began < 90
    assert not (home / "large").exists()


# -- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1000, 20 * MB])
def test_an_input_that_is_damaged_on_its_way(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    (tmp_path / "input").write_bytes(bytes(size))
    real = PipelinedFile.write
    monkeypatch.setattr(PipelinedFile, "write", lambda self, data: real(self, bytes(data).replace(b"\0", b"\1", 1)))
    with pytest.raises(ChecksumError, match="'input' is not what its checksum says") as caught:
        stage(cluster, "job", tmp_path, data="input")
    assert "transfer" not in str(caught.value)
    assert files(Path(cluster.settings.root_dir) / "job" / "data") == {}
    monkeypatch.undo()
    job = stage(cluster, "job", tmp_path, data="input")
    assert same(job / "data" / "input", tmp_path / "input")


@pytest.mark.parametrize("size", [1000, 20 * MB])
def test_an_output_that_is_damaged_on_its_way(
    cluster: Cluster, outputs: Path, home: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    write_random(outputs / "output", size)
    real = PipelinedFile.read

    def read(self: PipelinedFile, start: int, end: int) -> Iterator[bytes]:
        for number, piece in enumerate(real(self, start, end)):
            yield bytes([piece[0] ^ 1]) + piece[1:] if number == 0 else piece

    def read_small(sftp: Any, paths: Any) -> Iterator[tuple[int, Any]]:
        for number, content in read_small_files(sftp, paths):
            assert isinstance(content, bytes)
            yield number, bytes([content[0] ^ 1]) + content[1:]

    monkeypatch.setattr(PipelinedFile, "read", read)
    monkeypatch.setattr(sftp_download, "read_small_files", read_small)
    with pytest.raises(CollectError, match="output 'output' is not what its checksum on the cluster says"):
        collect(cluster, home)
    assert files(home) == {}
    monkeypatch.undo()
    assert collect(cluster, home) == ["output"]


@pytest.mark.parametrize("size", [1000, 20 * MB])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (Path.unlink, "changed while it was being collected"),
        (lambda path: (path.unlink(), path.symlink_to("/etc/passwd")), "changed while it was being collected"),
        (lambda path: path.write_bytes(path.read_bytes() + b"more"), "is not what its checksum"),
    ],
)
def test_an_output_that_becomes_another(
    cluster: Cluster, outputs: Path, home: Path, size: int, change: Callable[[Path], Any], words: str
) -> None:
    write_random(outputs / "output", size)

    class Sink(LocalSink):
        def check_space(self, sizes: Any) -> None:
            change(outputs / "output")

    with pytest.raises(CollectError, match=words):
        cluster.collect("job", Sink(home))
    assert files(home) == {}


def test_a_checksum_that_comes_with_the_list_is_not_believed(home: Path) -> None:
    """What a file is checked against is what the cluster has computed when it was asked to."""
    entry: Any = {"path": "x", "kind": "file", "size": 1, "mode": 0o644, "sha256": hashlib.sha256(b"x").hexdigest()}
    with open_checksums() as checksums:
        download = sftp_download.SftpDownload("a-job", [entry], LocalSink(home), checksums)
        assert download.request() == {"checksums_of": ["x"]}
        download.take_checksums(io.BytesIO(b'{"sha256": ["0000"]}\n'))
        assert download.request() == {"checksums_of": []}


@pytest.mark.parametrize("size", [1000, 20 * MB])
def test_a_link_that_leads_out_after_the_checksum_was_taken(
    cluster: Cluster, outputs: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    write_random(outputs / "output", size)
    write_random(tmp_path / "secret", size)
    real = PipelinedFile.__init__

    def init(self: PipelinedFile, *arguments: Any) -> None:
        (outputs / "output").unlink(missing_ok=True)
        (outputs / "output").symlink_to(tmp_path / "secret")
        real(self, *arguments)

    def read_small(sftp: Any, paths: Any) -> Iterator[tuple[int, Any]]:
        (outputs / "output").unlink()
        (outputs / "output").symlink_to(tmp_path / "secret")
        return read_small_files(sftp, paths)

    monkeypatch.setattr(PipelinedFile, "__init__", init)
    monkeypatch.setattr(sftp_download, "read_small_files", read_small)
    with pytest.raises(CollectError, match="is not what its checksum on the cluster says"):
        collect(cluster, home)
    assert files(home) == {}


def test_a_disk_that_becomes_full_on_the_way(
    cluster_settings: ClusterSettings, ssh_connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SFTP says that it failed, and the cluster says why."""
    (tmp_path / "large").write_bytes(os.urandom(30 * MB))
    with small_disk(tmp_path / "disk", 80 << 10) as disk:
        settings = replace(cluster_settings, root_dir=str(disk / "jobs"))
        with Cluster(settings, ssh_connect, retry_for_s=1) as cluster:
            real = PipelinedFile.finish

            def finish(self: PipelinedFile) -> None:
                if not (disk / "filler").exists():
                    fill(disk, leave_kb=1 << 10)
                real(self)

            monkeypatch.setattr(PipelinedFile, "finish", finish)
            with pytest.raises(NoSpaceError):
                stage(cluster, "job", tmp_path, data="large")
            (disk / "filler").unlink()
            monkeypatch.undo()
            job = stage(cluster, "job", tmp_path, data="large")
            assert same(job / "data" / "large", tmp_path / "large")
            assert leftovers(settings.root_dir) == []


@pytest.mark.parametrize(
    "name", ["../secret.tmp", "/etc/passwd", "x" * 32 + ".tmp", "0" * 32, "", None, 7, "0" * 32 + ".tmp\n"]
)
def test_a_name_that_is_none(tmp_path: Path, name: object) -> None:
    stream = io.BytesIO(json.dumps({"in": name}).encode() + b"\n")
    with pytest.raises(Refused, match="no name of a spool file"):
        SpooledStream(stream, str(tmp_path), lambda: None).readline()


@pytest.mark.parametrize("make", [lambda path: path.symlink_to("/etc/passwd"), os.mkfifo, os.mkdir, lambda path: None])
def test_a_parcel_that_is_none(tmp_path: Path, make: Callable[[Path], Any]) -> None:
    name = "0" * 32 + ".tmp"
    make(tmp_path / name)
    with pytest.raises(Refused):
        SpooledStream(io.BytesIO(b'{"in": "%s"}\n' % name.encode()), str(tmp_path), lambda: None).readline()


def test_parcels_are_read_as_one_stream(tmp_path: Path) -> None:
    heard: list[int] = []
    names = [f"{number:032x}.tmp" for number in range(3)]
    for name, content in zip(names, (b'{"n": 5}\nab', b"cde", b'{"end": true}\n'), strict=True):
        (tmp_path / name).write_bytes(content)
    lines = [b"{}\n", *(b'{"in": "%s"}\n{}\n' % name.encode() for name in names)]
    with contextlib.closing(
        SpooledStream(io.BytesIO(b"".join(lines)), str(tmp_path), lambda: heard.append(1))
    ) as parcels:
        assert parcels.readline() == b'{"n": 5}\n'
        assert parcels.read(5) == b"abcde"
        assert parcels.readline() == b'{"end": true}\n'
        assert parcels.read(1) == b""
    assert len(heard) == 4
    assert os.listdir(tmp_path) == []


# -- a site whose commands are not given every bit ----------------------------------------------------------------

WRAPPER = """\
import os, shutil, subprocess, sys, threading

command = os.environ["SSH_ORIGINAL_COMMAND"]
if command == "internal-sftp":
    os.execv({sftp_server!r}, ["sftp-server"])

def strip(source, sink):
    while data := os.read(source, 65536):
        data = bytes(byte & 0x7f for byte in data)
        try:
            while data:
                data = data[os.write(sink, data):]
        except BrokenPipeError:
            return
    os.close(sink)

process = subprocess.Popen(["/bin/sh", "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
threading.Thread(target=strip, args=(0, process.stdin.fileno()), daemon=True).start()
strip(process.stdout.fileno(), 1)
os._exit(process.wait())
"""
SFTP_SERVER = next(
    (
        path
        for path in ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/lib/ssh/sftp-server")
        if os.path.exists(path)
    ),
    "",
)


@pytest.fixture
def seven_bits(tmp_path: Path, sshd: RealSshd, monkeypatch: pytest.MonkeyPatch) -> Iterator[RealSshd]:
    """Let ``ssh_connect`` lead to a server that strips the eighth bit of what commands read and write."""
    folder = tmp_path / "sshd"
    folder.mkdir()
    (folder / "wrapper.py").write_text(WRAPPER.format(sftp_server=SFTP_SERVER))
    server = RealSshd(folder, more=f"ForceCommand {sys.executable} -I -S {folder}/wrapper.py")
    server.start()
    for name in ("port", "host_key", "client_key"):
        monkeypatch.setattr(sshd, name, getattr(server, name))
    try:
        yield server
    finally:
        server.stop()


def test_a_site_that_strips_a_bit(seven_bits: RealSshd, cluster: Cluster, tmp_path: Path, home: Path) -> None:
    make_files(tmp_path / "d")
    stage(cluster, "job", tmp_path, data="d")
    submission = jobs.submit(cluster, "cp -r $DATA_DIR/d $OUTPUT_DIR && echo done", job_id="job", sources=None)
    assert submission.created
    assert jobs.wait(cluster, "job").state == "SUCCEEDED"
    assert b"done" in cluster.read_log("job", reader="test").data
    collect(cluster, home, include=["d/"])
    assert files(home / "d") == files(tmp_path / "d")


@pytest.mark.parametrize("size", [1000, 5 * MB])
def test_there_a_stream_fails_and_says_what_to_do(
    seven_bits: RealSshd, cluster_settings: ClusterSettings, ssh_connect: Connect, tmp_path: Path, home: Path, size: int
) -> None:
    settings = replace(cluster_settings, transfer="stream")
    (tmp_path / "input").write_bytes(os.urandom(size))
    with Cluster(settings, ssh_connect) as cluster:
        with pytest.raises(ChecksumError, match="set 'transfer' in the connection to sftp"):
            stage(cluster, "job", tmp_path, data="input")
        (Path(settings.root_dir) / "job" / "outputs" / "output").write_bytes(os.urandom(size))
        with pytest.raises(CollectError, match="set 'transfer' in the connection to sftp"):
            collect(cluster, home)
    assert files(home) == {}


@pytest.mark.parametrize("size", [1000, 5 * MB])
def test_there_a_stream_of_objects_fails_as_well(
    seven_bits: RealSshd,
    cluster_settings: ClusterSettings,
    ssh_connect: Connect,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    size: int,
) -> None:
    """Those whose SHA-256 nobody knows."""
    monkeypatch.setattr("airflow.sdk.io.store._STORE_CACHE", {})
    store = MemoryFileSystem()
    attach(protocol="memory", fs=store)
    store.pipe("/bucket-of-seven-bits/d/object", os.urandom(size))
    with (
        Cluster(replace(cluster_settings, transfer="stream"), ssh_connect) as cluster,
        pytest.raises(ChecksumError, match="set 'transfer' in the connection to sftp"),
    ):
        stage(cluster, "job", tmp_path, data="memory://bucket-of-seven-bits/d")
