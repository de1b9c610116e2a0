"""A job's outputs: everything is named, and only what lies in the folder is sent."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.gpu_run import frames, outputs, protocol
from airflow_provider_gpu_cluster.gpu_run.errors import Refused
from airflow_provider_gpu_cluster.gpu_run.store import Root


@pytest.fixture
def root(tmp_path: Path) -> Root:
    root = Root(str(tmp_path / "root"))
    root.job("job").create()
    return root


@pytest.fixture
def folder(root: Root) -> Path:
    return Path(root.job("job").at("outputs"))


def kinds(root: Root) -> dict[str, str]:
    return {entry["path"]: entry["kind"] for entry in outputs.list_outputs(root, "job")}


def send(root: Root, *names: str) -> dict[str, Any]:
    """Return what arrives: bytes of files, and the kind of what could not be sent."""
    out = io.BytesIO()
    outputs.send_outputs(root, "job", list(names), out)
    stream = io.BytesIO(out.getvalue())
    found: dict[str, Any] = {}
    for header in frames.headers(stream):
        found[header["path"]] = header["kind"]
        if header["kind"] == "file":
            content = bytearray()
            frames.read_file(stream, header, content.extend)
            found[header["path"]] = bytes(content)
    assert stream.read() == b""
    return found


def test_files_in_all_folders(root: Root, folder: Path):
    names = ["a", "sub/b", "sub/deep/c d", "new\nline", "ünï", os.fsdecode(b"\xff"), ".hidden", "..x"]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(os.fsencode(name))
    (folder / "empty folder").mkdir()
    (folder / "program").touch(0o755)
    entries = {entry["path"]: entry for entry in outputs.list_outputs(root, "job")}
    assert set(entries) == {*names, "program"}
    assert entries["sub/b"] == {"path": "sub/b", "kind": "file", "size": 5, "mode": 0o644}
    assert entries["program"]["mode"] == 0o755
    assert send(root, *names) == {name: os.fsencode(name) for name in names}


def test_links(root: Root, folder: Path):
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
    targets = {entry["path"]: entry.get("target") for entry in outputs.list_outputs(root, "job")}
    assert targets["out"] == "/etc/passwd"
    assert send(root, "inside") == {"inside": b"best"}


def test_what_is_no_file_is_named_and_never_opened(root: Root, folder: Path):
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
    assert send(root, *kinds(root)) == dict.fromkeys(kinds(root), "gone") | {"socket": "unreadable"}


@pytest.mark.parametrize(
    ("become", "kind"),
    [
        ("ln -sf /etc/passwd x", "gone"),
        ("rm x", "gone"),
        ("rm x; mkdir x", "gone"),
        ("rm x; mkfifo x", "gone"),
        ("rm -r sub; ln -s /etc sub", "gone"),
    ],
)
def test_what_was_a_file_when_it_was_listed(root: Root, folder: Path, become: str, kind: str):
    """Nothing outside is ever read, and nothing waits for ever."""
    name = "sub/passwd" if "sub" in become else "x"
    (folder / "sub").mkdir()
    (folder / name).touch()
    assert kinds(root)[name] == "file"
    subprocess.run(["sh", "-c", become], cwd=folder, check=True)
    assert send(root, name) == {name: kind}


def test_a_file_that_is_written_to_while_it_is_sent(root: Root, folder: Path):
    """It keeps its size, so only its time of change tells."""
    (folder / "x").write_bytes(bytes(3 * frames.PIECE))

    class Out(io.BytesIO):
        def write(self, data: Any) -> int:
            with open(folder / "x", "r+b") as file:
                file.write(b"new")
            return super().write(data)

    out = Out()
    outputs.send_outputs(root, "job", ["x"], out)
    stream = io.BytesIO(out.getvalue())
    (header,) = [next(frames.headers(stream))]
    with pytest.raises(frames.ChangedFile, match="'x' changed while it was being read"):
        frames.read_file(stream, header, lambda piece: None)


def test_a_file_that_is_replaced_while_it_is_sent_arrives_whole(root: Root, folder: Path):
    """Checkpoints are commonly written beside and renamed: what was opened stays as it was."""
    (folder / "x").write_bytes(b"1" * 3 * frames.PIECE)
    stop = threading.Event()

    def replace() -> None:
        while not stop.is_set():
            (folder / "draft").write_bytes(b"2" * 3 * frames.PIECE)
            (folder / "draft").replace(folder / "x")

    thread = threading.Thread(target=replace)
    thread.start()
    try:
        for _ in range(20):
            assert len(set(send(root, "x")["x"])) == 1
    finally:
        stop.set()
        thread.join()


def test_no_outputs_and_no_job(root: Root, folder: Path):
    assert outputs.list_outputs(root, "job") == []
    folder.rmdir()
    assert outputs.list_outputs(root, "job") == []
    with pytest.raises(Refused, match="there is no job nope under") as caught:
        outputs.list_outputs(root, "nope")
    assert caught.value.code == protocol.NO_SUCH_JOB


AS_NOBODY = f"""
import os, sys
sys.path.insert(0, {str(Path(outputs.__file__).parents[2])!r})
from airflow_provider_gpu_cluster.gpu_run import outputs
from airflow_provider_gpu_cluster.gpu_run.store import Root
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
root = Root(sys.argv[1])
print(sorted((entry["path"], entry["kind"]) for entry in outputs.list_outputs(root, "job")))
outputs.send_outputs(root, "job", ["file"], sys.stdout.buffer)
"""


def test_what_may_not_be_read_does_not_pass_for_absent():
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
            '{"path": "file", "kind": "unreadable"}',
            '{"end": 1}',
        ]
    ), done.stderr
