"""Outputs as a stream: from any byte on, holes as holes, and what changed meanwhile is told."""

from __future__ import annotations

import hashlib
import io
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.gpu_run.outputs import sending
from airflow_provider_gpu_cluster.gpu_run.outputs.folder import OutputsFolder
from airflow_provider_gpu_cluster.gpu_run.outputs.sending import answer, checksums_of, send_outputs
from airflow_provider_gpu_cluster.gpu_run.protocol.files import PIECE, SMALL
from airflow_provider_gpu_cluster.gpu_run.protocol.lines import read_line
from airflow_provider_gpu_cluster.gpu_run.store.directories import Root

CHANGED = "changed while it was being collected"


@pytest.fixture
def outputs(tmp_path: Path) -> OutputsFolder:
    root = Root(str(tmp_path))
    root.job("job").create()
    return OutputsFolder(root, "job")


@pytest.fixture
def folder(outputs: OutputsFolder) -> Path:
    return Path(outputs.path)


def received(sent: bytes) -> dict[int, Any]:
    """Return what a reader makes of a stream: of each file its bytes, from its offset on, or the fault."""
    stream = io.BytesIO(sent)
    found: dict[int, Any] = {}
    while "end" not in (line := read_line(stream)):
        if "small" in line:
            for number, size, _, sha256 in line["small"]:
                found[number] = stream.read(size)
                assert hashlib.sha256(found[number]).hexdigest() == sha256
        elif "fault" in line:
            found[line["file"]] = line["fault"]
        else:
            found[line["file"]] = _large(stream)
    assert line == {"end": len(found)}
    assert stream.read() == b""
    return found


def _large(stream: io.BytesIO) -> Any:
    content = bytearray()
    while not {"sha256", "fault"} & set(line := read_line(stream)):
        content += stream.read(line["data"]) if "data" in line else bytes(line.get("zeros", 0))
    return line.get("fault", bytes(content))


def send(outputs: OutputsFolder, *files: tuple[str, int, str | None], out: io.BytesIO | None = None) -> dict[int, Any]:
    out = out or io.BytesIO()
    send_outputs(outputs, [list(file) for file in files], out)
    return received(out.getvalue())


def stamp(outputs: OutputsFolder, name: str) -> str:
    return str({entry["path"]: entry for entry in outputs.entries()}[name]["stamp"])


@pytest.mark.parametrize("size", [0, 1, SMALL - 1, SMALL, SMALL + 1, 3 * PIECE + 7])
def test_files_of_any_size(outputs: OutputsFolder, folder: Path, size: int) -> None:
    content = os.urandom(size)
    (folder / "x").write_bytes(content)
    assert send(outputs, ("x", 0, None), ("x", 0, None)) == {0: content, 1: content}
    assert checksums_of(outputs, ["x", "none"], io.BytesIO()) == [hashlib.sha256(content).hexdigest(), None]


def test_many_small_files_come_together_in_pieces_that_are_not_too_large(outputs: OutputsFolder, folder: Path) -> None:
    for number in range(600):
        (folder / str(number)).write_bytes(bytes([number % 256]) * (number * 20))
    (folder / "large").write_bytes(bytes(SMALL))
    names = [*map(str, range(300)), "large", *map(str, range(300, 600))]
    assert send(outputs, *((name, 0, None) for name in names)) == {
        place: (folder / name).read_bytes() for place, name in enumerate(names)
    }


@pytest.mark.parametrize("offset", [0, 1, PIECE, 2 * PIECE + 5, 3 * PIECE])
def test_a_file_is_sent_from_any_byte_on_and_its_checksum_is_that_of_all(
    outputs: OutputsFolder, folder: Path, offset: int
) -> None:
    content = os.urandom(3 * PIECE)
    (folder / "x").write_bytes(content)
    out = io.BytesIO()
    assert send(outputs, ("x", offset, stamp(outputs, "x")), out=out) == {0: content[offset:]}
    assert json.loads(out.getvalue().partition(b"\n")[0])["at"] == offset
    assert hashlib.sha256(content).hexdigest().encode() in out.getvalue()[-200:]


def test_a_file_that_is_another_now_is_sent_from_its_beginning(outputs: OutputsFolder, folder: Path) -> None:
    (folder / "x").write_bytes(b"1" * 2 * PIECE)
    old = stamp(outputs, "x")
    (folder / "new").write_bytes(b"2" * 2 * PIECE)
    (folder / "new").replace(folder / "x")
    assert send(outputs, ("x", PIECE, old)) == {0: b"2" * 2 * PIECE}


@pytest.mark.parametrize("at", [0, 1, 5 * PIECE, (8 << 20) + 1, 16 << 20])
def test_holes_take_no_bytes(outputs: OutputsFolder, folder: Path, at: int) -> None:
    with open(folder / "x", "wb") as file:
        file.truncate(16 << 20)
        file.seek(8 << 20)
        file.write(b"middle")
    out = io.BytesIO()
    assert send(outputs, ("x", at, stamp(outputs, "x")), out=out) == {0: (folder / "x").read_bytes()[at:]}
    assert len(out.getvalue()) < 100_000
    assert hashlib.sha256((folder / "x").read_bytes()).hexdigest().encode() in out.getvalue()


def test_a_file_system_that_does_not_tell_holes(
    outputs: OutputsFolder, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lseek(fd: int, at: int, how: int) -> int:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "lseek", lseek)
    with open(folder / "x", "wb") as file:
        file.truncate(4 << 20)
    assert send(outputs, ("x", 0, None)) == {0: bytes(4 << 20)}


@pytest.mark.parametrize("change", ["write", "grow", "shrink"])
def test_a_file_that_is_written_to_while_it_is_sent(outputs: OutputsFolder, folder: Path, change: str) -> None:
    (folder / "x").write_bytes(b"1" * 3 * PIECE)
    (folder / "y").write_bytes(b"ok")

    class Out(io.BytesIO):
        def write(self, data: Any) -> int:
            with open(folder / "x", "r+b") as file:
                if change == "write":
                    file.write(b"new")
                else:
                    file.truncate(4 * PIECE if change == "grow" else PIECE)
            return super().write(data)

    assert send(outputs, ("x", 0, None), ("y", 0, None), out=Out()) == {0: CHANGED, 1: b"ok"}


def test_a_file_that_is_replaced_while_it_is_sent_arrives_whole(outputs: OutputsFolder, folder: Path) -> None:
    """Checkpoints are commonly written beside and renamed: what was opened stays as it was."""
    (folder / "x").write_bytes(b"1" * 3 * PIECE)
    stop = threading.Event()

    def replace() -> None:
        while not stop.is_set():
            (folder / "draft").write_bytes(b"2" * 3 * PIECE)
            (folder / "draft").replace(folder / "x")

    thread = threading.Thread(target=replace)
    thread.start()
    try:
        for _ in range(20):
            assert len(set(send(outputs, ("x", 0, None))[0])) == 1
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("size", [5, 2 * PIECE])
def test_a_file_that_cannot_be_read_is_told(
    outputs: OutputsFolder, folder: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    def pread(fd: int, size: int, at: int) -> bytes:
        raise OSError(5, "Input/output error")

    (folder / "x").write_bytes(bytes([1]) * size)
    monkeypatch.setattr(os, "pread", pread)
    assert send(outputs, ("x", 0, None), ("gone", 0, None)) == {0: "could not be read: Input/output error", 1: CHANGED}
    assert checksums_of(outputs, ["x"], io.BytesIO()) == [None]


def test_a_sign_of_life_while_what_is_there_already_is_read(
    outputs: OutputsFolder, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "x").write_bytes(os.urandom(3 * PIECE))
    monkeypatch.setattr(sending, "SIGN_OF_LIFE_S", 0)
    out = io.BytesIO()
    assert len(send(outputs, ("x", 3 * PIECE, stamp(outputs, "x")), out=out)[0]) == 0
    assert out.getvalue().count(b"\n{}\n") >= 1


def test_one_thing_after_the_other_is_asked_for(outputs: OutputsFolder, folder: Path) -> None:
    (folder / "x").write_bytes(b"1" * 10)
    (folder / "y").write_bytes(b"2" * 2 * PIECE)
    checksums = [hashlib.sha256(content).hexdigest() for content in (b"1" * 10, b"2" * 2 * PIECE)]
    asked = [{"checksums_of": ["x", "gone", "y"]}, {"files": [["x", 0, None]]}, {"files": [["y", 0, None]]}]
    lines = b"".join(json.dumps(line).encode() + b"\n" for line in asked)
    out = io.BytesIO()
    # The last line is one that a broken connection has cut.
    answer(outputs, io.BytesIO(lines + lines[:-5]), out)
    said = out.getvalue()
    assert read_line(io.BytesIO(said)) == {"sha256": [checksums[0], None, checksums[1]]}
    assert said.count(b'{"sha256": [') == 2
    assert said.count(b'{"end": 1}\n') == 3


def test_a_sign_of_life_while_checksums_are_computed(
    outputs: OutputsFolder, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("x", "y"):
        (folder / name).write_bytes(b"1" * 10)
    monkeypatch.setattr(sending, "SIGN_OF_LIFE_S", 0)
    out = io.BytesIO()
    checksums_of(outputs, ["x", "y"], out)
    assert out.getvalue() == b"{}\n{}\n"
