"""Find out why the user's code failed, from its exit status and its last output."""

from __future__ import annotations

import os
import signal
from typing import Mapping

from .. import protocol
from ..linux import regular_files
from .refused_options import ADVICE, refused_option

# How much of the last output is searched.
TAIL_BYTES = 16384

# Messages of the common frameworks and the system, from the surest sign to the least sure.
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


def diagnose(
    exit_code: int | None,
    number: int | None,
    oom_killed: bool,
    words: str,
    *,
    worker_killed: bool = False,
    run_script: str = "",
) -> tuple[str, str]:
    """
    Return the reason, and a sentence that explains it.

    :param number: the signal that ended the code, if one did.
    :param oom_killed: whether the kernel killed any process for memory meanwhile.
    :param words: the end of the output.
    :param worker_killed: whether that was a process of the job, other than the one that ended.
    :param run_script: what was run.
    """
    if number is None and exit_code is not None and 128 < exit_code < 128 + signal.NSIG:
        # A shell reports a child's signal in this way.
        number = exit_code - 128
    if number == signal.SIGKILL and oom_killed:
        return protocol.OUT_OF_MEMORY, "the kernel killed it for lack of memory"
    how = f"signal {_signal_name(number)}" if number is not None else f"exit code {exit_code}"
    if worker_killed:
        return protocol.OUT_OF_MEMORY, f"the kernel killed one of its worker processes for lack of memory ({how})"
    for reason, sentence, signs in _SIGNS:
        if any(sign in words for sign in signs):
            return reason, f"{sentence} ({how})"
    refused = refused_option(run_script, words) if number is None else None
    return protocol.USER_ERROR, f"it ended with {how}" if refused is None else ADVICE.format(refused, how)


def tail(logs: str, size: int, *, whole: bool = False, starts: Mapping[str, int] | None = None) -> str:
    """
    Return the last lines of the output: of stderr if it has any, of everything otherwise.

    :param size: how many bytes at most.
    :param whole: of everything, even if stderr has any.
    :param starts: where the output of the attempt begins in each log; see :meth:`.Attempt.log_starts`.
    """
    starts = starts or {}
    for name in ("training", "environment") if whole else ("error", "training", "environment"):
        # One more byte shows whether the text begins in the middle of a line.
        data = read_end(os.path.join(logs, name + ".log"), size + 1, starts.get(name, 0))
        if data.strip():
            return (_whole_lines(data) if len(data) > size else data).decode("utf-8", "backslashreplace")
    return ""


def _whole_lines(data: bytes) -> bytes:
    """Leave out an incomplete first line, which would only mislead."""
    rest = data.partition(b"\n")[2]
    return rest if rest.strip() else data[1:]


def read_end(path: str, size: int, start: int = 0) -> bytes:
    """
    Return the last bytes of a file, or of the file that a link leads to; none when it cannot be read.

    :param start: nothing before this place.
    """
    try:
        return regular_files.read_end(path, size, follow=True, start=start)
    except OSError:
        return b""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)
