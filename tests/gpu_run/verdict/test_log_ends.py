"""The ends of a job's logs."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_provider_gpu_cluster.gpu_run.verdict.log_ends import OUTPUT_BYTES, output_since, tail


def test_the_tail_is_of_the_errors_if_there_are_any(tmp_path: Path) -> None:
    assert tail(str(tmp_path), 100) == ""
    (tmp_path / "environment.log").write_text("pip says no\n")
    assert tail(str(tmp_path), 100) == "pip says no\n"
    (tmp_path / "training.log").write_text("epoch 1\n")
    (tmp_path / "error.log").write_text("\n")
    assert tail(str(tmp_path), 100) == "epoch 1\n"
    (tmp_path / "error.log").write_text("Traceback\n")
    assert tail(str(tmp_path), 100) == "Traceback\n"
    assert tail(str(tmp_path), 100, whole=True) == "epoch 1\n"


@pytest.mark.parametrize(
    ("data", "size", "expected"),
    [
        (b"first line\nsecond line\n", 14, "second line\n"),
        (b"first\nsecond\n", 7, "second\n"),
        (b"first\nsecond\n", 13, "first\nsecond\n"),
        (b"x" * 100, 10, "x" * 10),
        (b"x" * 100 + b"\n", 10, "x" * 9 + "\n"),
        (b"\xff\xfe ok\n", 100, "\\xff\\xfe ok\n"),
    ],
)
def test_the_tail_begins_with_a_whole_line_where_it_can(tmp_path: Path, data: bytes, size: int, expected: str) -> None:
    (tmp_path / "error.log").write_bytes(data)
    assert tail(str(tmp_path), size) == expected


def test_a_traceback_far_before_the_end_is_read(tmp_path: Path) -> None:
    log = tmp_path / "error.log"
    earlier, own = (
        b"Traceback (most recent call last)\nOldError: x\n",
        b"Traceback (most recent call last)\nKeyError: 'a'\n",
    )
    noise = b"clean-up of one more buffer\n" * (2 * OUTPUT_BYTES // 28)
    log.write_bytes(earlier + b"epoch 1\n" * 20000 + own + noise)
    found = output_since(str(log), len(earlier))
    assert own in found
    assert earlier not in found
    assert len(found) < OUTPUT_BYTES + 200_000
    assert output_since(str(log), len(earlier) + 160_000 + len(own)) == noise[-OUTPUT_BYTES:]
    assert output_since(str(tmp_path / "none.log"), 0) == b""
