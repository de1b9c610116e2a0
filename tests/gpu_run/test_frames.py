"""The stream of files: what arrives is what was sent, or is refused."""

from __future__ import annotations

import hashlib
import io
import json
from typing import Any, BinaryIO

import pytest

from airflow_provider_gpu_cluster.gpu_run import frames


def stream(*lines: Any) -> BinaryIO:
    """Return a stream of JSON lines, and of bytes as they are."""
    return io.BytesIO(
        b"".join(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines)
    )


def receive(source: BinaryIO) -> dict[str, bytes]:
    found = {}
    for header in frames.headers(source):
        content = bytearray()
        if header["kind"] == "file":
            frames.read_file(source, header, content.extend)
        found[header["path"]] = bytes(content)
    return found


def header(size: int, path: str = "x") -> dict[str, Any]:
    return {"path": path, "kind": "file", "size": size, "mode": 0o644}


@pytest.mark.parametrize("size", [0, 1, frames.PIECE - 1, frames.PIECE, frames.PIECE + 1, 3 * frames.PIECE])
def test_files_of_any_size_arrive(size):
    content = bytes(range(256)) * (size // 256) + bytes(size % 256)
    out = io.BytesIO()
    sha256 = frames.write_file(out, header(size), io.BytesIO(content))
    frames.write_line(out, {"end": 1})

    assert sha256 == hashlib.sha256(content).hexdigest()
    assert receive(io.BytesIO(out.getvalue())) == {"x": content}


@pytest.mark.parametrize("content", [b"", b"shrt", b"grown!"])
def test_a_file_that_has_another_size_now_is_marked_and_the_stream_goes_on(content):
    out = io.BytesIO()
    assert frames.write_file(out, header(5), io.BytesIO(content)) is None
    frames.write_file(out, header(2, "next"), io.BytesIO(b"ok"))
    frames.write_line(out, {"end": 2})

    source = io.BytesIO(out.getvalue())
    each = frames.headers(source)
    with pytest.raises(frames.ChangedFile, match="'x' changed while it was being read"):
        frames.read_file(source, next(each), lambda piece: None)
    got = bytearray()
    frames.read_file(source, next(each), got.extend)
    assert got == b"ok"
    assert list(each) == []


def test_a_file_that_was_written_to_meanwhile_is_marked_even_when_its_size_is_the_same():
    out = io.BytesIO()
    assert frames.write_file(out, header(2), io.BytesIO(b"ab"), unchanged=lambda: False) is None
    with pytest.raises(frames.ChangedFile):
        receive(io.BytesIO(out.getvalue()))


def test_a_file_that_cannot_be_read_is_marked():
    class Bad(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError(5, "Input/output error")

    out = io.BytesIO()
    assert frames.write_file(out, header(5), Bad()) is None
    with pytest.raises(frames.ChangedFile, match="could not be read: Input/output error"):
        receive(io.BytesIO(out.getvalue()))


def test_a_damaged_file_is_refused():
    out = io.BytesIO()
    frames.write_file(out, header(5), io.BytesIO(b"hello"))
    with pytest.raises(frames.ChangedFile, match="SHA-256 differs"):
        receive(io.BytesIO(out.getvalue().replace(b"hello", b"hellO")))


def test_a_stream_cut_anywhere_is_never_taken_for_a_whole_one():
    out = io.BytesIO()
    frames.write_file(out, header(5), io.BytesIO(b"hello"))
    frames.write_line(out, {"path": "d", "kind": "dir"})
    frames.write_line(out, {"end": 2})
    whole = out.getvalue()
    for length in range(len(whole)):
        with pytest.raises(frames.BrokenStream):
            receive(io.BytesIO(whole[:length]))


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param([{"end": 1}], id="wrong count"),
        pytest.param([{"path": "d", "kind": "dir"}, {"end": 0}], id="another wrong count"),
        pytest.param([[1, 2]], id="no object"),
        pytest.param([b"not json\n"], id="no JSON"),
        pytest.param([b"\xff\xfe\n"], id="no text"),
        pytest.param([b"[" * 60000 + b"\n"], id="nested without end"),
        pytest.param([{"path": "x", "kind": "file", "mode": 0, "size": -1}], id="negative size"),
        pytest.param([{"path": "x", "kind": "file", "mode": 0, "size": "9"}], id="size is text"),
        pytest.param([{"path": "x", "kind": "file", "mode": 0, "size": 1.5}], id="size is a fraction"),
        pytest.param([{"path": "x", "kind": "file", "size": 1}], id="no mode"),
        pytest.param([{"path": "x", "kind": "link"}], id="no target"),
        pytest.param([{"path": ["x"], "kind": "dir"}], id="path is a list"),
        pytest.param([{"kind": "dir"}], id="no path"),
        pytest.param([{"path": "x"}], id="no kind"),
        pytest.param([b"{" + b" " * (1 << 17)], id="endless line"),
    ],
)
def test_what_no_sender_writes_is_refused(lines):
    with pytest.raises(frames.GarbledStream):
        receive(stream(*lines))


@pytest.mark.parametrize("path", ["", "/etc/passwd", "..", "../x", "a/../../x", "a/..", "a\0b"])
def test_paths_that_leave_their_folder_are_refused(path):
    with pytest.raises(ValueError, match="does not stay inside"):
        frames.safe_path(path)


@pytest.mark.parametrize("path", ["a", "a/b", "..a", "a..", ".hidden", "a b\nc", "\udcff", "…"])
def test_any_other_name_is_a_name(path):
    assert frames.safe_path(path) == path
