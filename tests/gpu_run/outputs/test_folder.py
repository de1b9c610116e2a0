"""A job's outputs: everything is named, and only what lies in the folder is sent."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from airflow_provider_gpu_cluster import gpu_run
from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.gpu_run.errors import Refused
from airflow_provider_gpu_cluster.gpu_run.outputs.folder import OutputsFolder, Unsendable
from airflow_provider_gpu_cluster.gpu_run.protocol.files import SMALL
from airflow_provider_gpu_cluster.gpu_run.store.directories import Root


@pytest.fixture
def root(tmp_path: Path) -> Root:
    root = Root(str(tmp_path / "root"))
    root.job("job").create()
    return root


@pytest.fixture
def folder(root: Root) -> Path:
    return Path(root.job("job").at("outputs"))


def kinds(root: Root) -> dict[str, str]:
    return {entry["path"]: entry["kind"] for entry in OutputsFolder(root, "job").entries()}


def read(root: Root, name: str) -> bytes:
    fd, found = OutputsFolder(root, "job").open(name)
    with open(fd, "rb") as file:
        content = file.read()
    assert found.st_size == len(content)
    return content


def test_files_in_all_folders(root: Root, folder: Path) -> None:
    names = ["a", "sub/b", "sub/deep/c d", "new\nline", "ünï", os.fsdecode(b"\xff"), ".hidden", "..x"]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(os.fsencode(name))
    (folder / "empty folder").mkdir()
    (folder / "program").touch(0o755)
    entries = {entry["path"]: entry for entry in OutputsFolder(root, "job").entries()}
    assert set(entries) == {*names, "program"}
    assert entries["sub/b"] == {"path": "sub/b", "kind": "file", "size": 5, "mode": 0o644}
    assert entries["program"]["mode"] == 0o755
    assert {name: read(root, name) for name in names} == {name: os.fsencode(name) for name in names}


def test_links(root: Root, folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "best").write_text("best")
    for name, target in {
        "inside": "sub/best",
        "sub/back": "../inside",
        "folder": "sub",
        "all": ".",
        "out": "/etc/passwd",
        "out by way of a folder": "../../../../../../../../../../etc/passwd",
        "etc": "/etc",
        "above": "..",
        "broken": "missing",
        "loop": "loop",
    }.items():
        (folder / name).symlink_to(target)
    found = kinds(root)
    assert found == {
        "sub/best": "file",
        "inside": "file",
        "sub/back": "file",
        "out": "outside",
        "out by way of a folder": "outside",
        "etc": "outside",
        "above": "outside",
        "broken": "broken",
        "loop": "broken",
    }
    targets = {entry["path"]: entry.get("target") for entry in OutputsFolder(root, "job").entries()}
    assert targets["out"] == "/etc/passwd"
    assert read(root, "inside") == b"best"


def test_what_is_no_file_is_named_and_never_opened(root: Root, folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(folder)  # the path of a socket may not be long
        try:
            listener.bind("socket")
        finally:
            os.chdir(here)
    if os.getuid() == 0:
        os.mknod(folder / "device", 0o20666, os.makedev(1, 5))
    assert set(kinds(root).values()) == {"special"}
    for name in kinds(root):
        with pytest.raises(Unsendable, match="changed while"):
            read(root, name)


@pytest.mark.parametrize(
    "become",
    ["ln -sf /etc/passwd x", "rm x", "rm x; mkdir x", "rm x; mkfifo x", "rm -r sub; ln -s /etc sub"],
)
def test_what_was_a_file_when_it_was_listed(root: Root, folder: Path, become: str) -> None:
    """Nothing outside is ever read, and nothing waits for ever."""
    name = "sub/passwd" if "sub" in become else "x"
    (folder / "sub").mkdir()
    (folder / name).touch()
    assert kinds(root)[name] == "file"
    subprocess.run(["sh", "-c", become], cwd=folder, check=True)
    with pytest.raises(Unsendable, match="changed while it was being collected"):
        read(root, name)


@pytest.mark.parametrize("path", ["../../../etc/passwd", "/etc/passwd", "", "sub/../../x"])
def test_no_request_leads_out_of_the_folder(root: Root, path: str) -> None:
    with pytest.raises(ValueError, match="does not stay inside"):
        OutputsFolder(root, "job").open(path)


def test_a_file_that_is_not_small_has_a_stamp_and_says_what_it_needs(root: Root, folder: Path) -> None:
    with open(folder / "sparse", "wb") as file:
        file.truncate(1 << 40)
        file.write(b"x")
    (folder / "dense").write_bytes(os.urandom(SMALL))
    (folder / "small").write_bytes(bytes(SMALL - 1))
    found = {entry["path"]: entry for entry in OutputsFolder(root, "job").entries()}
    assert found["dense"]["needs"] == SMALL
    assert found["sparse"]["needs"] <= 1 << 20
    assert "stamp" not in found["small"]
    stamp = found["dense"]["stamp"]
    times = (folder / "dense").stat()
    with open(folder / "dense", "r+b") as file:
        file.write(b"!")
    os.utime(folder / "dense", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert {entry["path"]: entry for entry in OutputsFolder(root, "job").entries()}["dense"]["stamp"] != stamp


def test_no_outputs_and_no_job(root: Root, folder: Path) -> None:
    assert OutputsFolder(root, "job").entries() == []
    folder.rmdir()
    assert OutputsFolder(root, "job").entries() == []
    with pytest.raises(Refused, match="there is no job nope under") as caught:
        OutputsFolder(root, "nope")
    assert caught.value.code == protocol.NO_SUCH_JOB


AS_NOBODY = f"""
import os, sys
sys.path.insert(0, {str(Path(gpu_run.__file__).parents[2])!r})
from airflow_provider_gpu_cluster.gpu_run.outputs.folder import OutputsFolder
from airflow_provider_gpu_cluster.gpu_run.outputs.sending import send_outputs
from airflow_provider_gpu_cluster.gpu_run.store.directories import Root
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
folder = OutputsFolder(Root(sys.argv[1]), "job")
print(sorted((entry["path"], entry["kind"]) for entry in folder.entries()))
send_outputs(folder, [["file", 0, None]], sys.stdout.buffer)
"""


def test_what_may_not_be_read_does_not_pass_for_absent() -> None:
    with tempfile.TemporaryDirectory() as top:
        job = Root(top).job("job")
        job.create()
        folder = Path(job.at("outputs"))
        (folder / "file").touch(0o000)
        (folder / "closed").mkdir()
        (folder / "closed" / "model.pth").touch()
        for path in (top, job.path, job.at(".job"), folder):
            os.chmod(path, 0o755)
        (folder / "closed").chmod(0o000)
        done = subprocess.run([sys.executable, "-c", AS_NOBODY, top], capture_output=True, text=True)
        (folder / "closed").chmod(0o755)
    assert sorted(done.stdout.splitlines()) == sorted(
        [
            "[('closed', 'unreadable'), ('file', 'unreadable')]",
            '{"file": 0, "fault": "cannot be read by the user that runs the job"}',
            '{"end": 1}',
        ]
    ), done.stderr
