"""Why the user's code failed, from its exit status and its last words."""

from __future__ import annotations

import os
import signal

from . import protocol

_TAIL_BYTES = 16384

# What the common frameworks and the system print, in the order of how sure each sign is.
_SIGNS = (
    (
        protocol.GPU_OUT_OF_MEMORY,
        "it ran out of GPU memory",
        (
            "CUDA out of memory",
            "OutOfMemoryError: CUDA",
            "HIP out of memory",
            "CUDA_ERROR_OUT_OF_MEMORY",
            "cudaErrorMemoryAllocation",
            "RESOURCE_EXHAUSTED: Out of memory",
            "CUBLAS_STATUS_ALLOC_FAILED",
        ),
    ),
    (
        protocol.DISK_FULL,
        "it ran out of disk space",
        ("No space left on device", "Disk quota exceeded"),
    ),
    (
        protocol.OUT_OF_MEMORY,
        "it ran out of host memory",
        ("MemoryError", "std::bad_alloc", "Cannot allocate memory"),
    ),
)


def diagnose(exit_code: int | None, number: int | None, oom_killed: bool, logs: str) -> tuple[str, str]:
    """
    Return the reason and one sentence.

    :param number: the signal that ended it, if one did.
    :param oom_killed: whether the kernel killed any process for memory meanwhile.
    :param logs: the job's folder of logs.
    """
    if number is None and exit_code is not None and 128 < exit_code < 128 + signal.NSIG:
        # A shell reports a child's signal so.
        number = exit_code - 128
    if number == signal.SIGKILL and oom_killed:
        return protocol.OUT_OF_MEMORY, "the kernel killed it because the host ran out of memory"
    how = f"signal {_signal_name(number)}" if number is not None else f"exit code {exit_code}"
    words = tail(logs, _TAIL_BYTES)
    for reason, sentence, signs in _SIGNS:
        if any(sign in words for sign in signs):
            return reason, f"{sentence} ({how})"
    return protocol.USER_ERROR, f"it ended with {how}"


def tail(logs: str, size: int) -> str:
    """
    Return the last lines of the output: of stderr where there is any, of everything otherwise.

    :param size: how many bytes at most.
    """
    for name in ("error.log", "training.log", "environment.log"):
        try:
            with open(os.path.join(logs, name), "rb") as file:
                length = file.seek(0, os.SEEK_END)
                file.seek(max(0, length - size))
                text = file.read().decode("utf-8", "backslashreplace")
        except OSError:
            continue
        if text.strip():
            # What begins in the middle of a line says less than nothing.
            return text.split("\n", 1)[1] if length > size and "\n" in text.rstrip("\n") else text
    return ""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)
