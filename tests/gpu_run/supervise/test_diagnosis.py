"""Why the user's code failed."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from airflow_provider_gpu_cluster.gpu_run.supervise.diagnosis import diagnose, tail


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB", "gpu_out_of_memory"),
        ("jaxlib.xla_extension.XlaRuntimeError: RESOURCE_EXHAUSTED: Out of memory while trying", "gpu_out_of_memory"),
        ("RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling", "gpu_out_of_memory"),
        ("OSError: [Errno 28] No space left on device: 'model.pth'", "disk_full"),
        ("OSError: [Errno 122] Disk quota exceeded", "disk_full"),
        ("Traceback (most recent call last):\nMemoryError", "out_of_memory"),
        ("terminate called after throwing an instance of 'std::bad_alloc'", "out_of_memory"),
        ("ValueError: shapes do not match", "user_error"),
        ("", "user_error"),
    ],
)
def test_the_signs_of_the_common_frameworks(words: str, reason: str) -> None:
    found, message = diagnose(1, None, False, words)
    assert found == reason
    assert message.endswith("exit code 1)" if reason != "user_error" else "exit code 1")


@pytest.mark.parametrize(("exit_code", "number"), [(137, None), (None, 9)])
def test_the_kernels_out_of_memory_killer(exit_code: int | None, number: int | None) -> None:
    assert diagnose(exit_code, number, True, "")[0] == "out_of_memory"
    assert diagnose(exit_code, number, False, "") == ("user_error", "it ended with signal SIGKILL")


def test_exit_codes_that_only_look_like_signals() -> None:
    assert diagnose(255, None, True, "") == ("user_error", "it ended with exit code 255")
    assert diagnose(128, None, False, "") == ("user_error", "it ended with exit code 128")
    assert diagnose(None, signal.SIGRTMIN + 3, False, "")[1].startswith("it ended with signal ")


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
