"""Lines among the bytes of files: what no sender writes is refused, and so are paths that leave their folder."""

from __future__ import annotations

import io
import json
from typing import Any, BinaryIO

import pytest

from airflow_provider_gpu_cluster.gpu_run.protocol.lines import (
    BrokenStream,
    GarbledStream,
    read_line,
    safe_path,
    write_line,
)


def stream(*lines: Any) -> BinaryIO:
    """Return a stream of JSON lines, and of bytes as they are."""
    return io.BytesIO(
        b"".join(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines)
    )


def test_lines_among_bytes() -> None:
    out = io.BytesIO()
    write_line(out, {"data": 3, "path": "\udcff…\n"})
    out.write(b"\n{}")
    write_line(out, {})

    source = io.BytesIO(out.getvalue())
    assert read_line(source) == {"data": 3, "path": "\udcff…\n"}
    assert source.read(3) == b"\n{}"
    assert read_line(source) == {}
    with pytest.raises(BrokenStream):
        read_line(source)


def test_a_line_cut_anywhere_is_never_taken_for_a_whole_one() -> None:
    whole = stream({"file": 1, "size": 20}).read()
    for length in range(len(whole)):
        with pytest.raises(BrokenStream):
            read_line(io.BytesIO(whole[:length]))


@pytest.mark.parametrize(
    "line",
    [
        pytest.param([1, 2], id="no object"),
        pytest.param(b"\n", id="nothing"),
        pytest.param(b"not json\n", id="no JSON"),
        pytest.param(b"\xff\xfe\n", id="no text"),
        pytest.param(b"[" * 60000 + b"\n", id="nested without end"),
        pytest.param(b"{" + b" " * (1 << 17), id="endless line"),
    ],
)
def test_what_no_sender_writes_is_refused(line: Any) -> None:
    with pytest.raises(GarbledStream):
        read_line(stream(line))


@pytest.mark.parametrize("path", ["", "/etc/passwd", "..", "../x", "a/../../x", "a/..", "a\0b"])
def test_paths_that_leave_their_folder_are_refused(path: str) -> None:
    with pytest.raises(ValueError, match="does not stay inside"):
        safe_path(path)


@pytest.mark.parametrize("path", ["a", "a/b", "..a", "a..", ".hidden", "a b\nc", "\udcff", "…"])
def test_any_other_name_is_a_name(path: str) -> None:
    assert safe_path(path) == path
