"""Ask ``nvidia-smi``, and never wait for it without a limit."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from functools import partial
from typing import NamedTuple

from .. import protocol
from ..errors import Refused
from ..linux import processes

QUERY_S = 30.0
_KILL_S = 1.0
MOST_CHARACTERS = 500
USUAL_PLACES = ("/usr/bin", "/usr/local/bin", "/usr/local/nvidia/bin", "/usr/lib/wsl/lib", "/opt/bin")


class SmiAnswer(NamedTuple):
    """
    What it printed, on both outputs, and its exit code.

    The exit code alone says little: with one broken GPU among healthy ones, it lists the healthy ones and fails.
    """

    text: str
    code: int

    @property
    def end(self) -> str:
        """The end of the text, for messages."""
        return self.text.strip()[-MOST_CHARACTERS:]


def ask(*questions: str, timeout_s: float | None = None, dies_with_parent: bool = False) -> list[SmiAnswer]:
    """
    Ask several questions at once, each one argument, and return the answers.

    :param timeout_s: how long to wait for them, in seconds; None for as long as usual.
    :param dies_with_parent: whether it is killed with this process; a process with threads must not ask for that.
    :raises Refused: there is no ``nvidia-smi``, it cannot be started, or it gives no answer in time.
    """
    program = _program()
    timeout_s = QUERY_S if timeout_s is None else timeout_s
    asked = []
    try:
        for question in questions:
            asked.append(_start(program, question, dies_with_parent))
        deadline = time.monotonic() + timeout_s
        return [_answer(process, deadline, timeout_s) for process in asked]
    finally:
        for process in asked:
            _end(process)


def _program() -> str:
    import shutil

    program = shutil.which("nvidia-smi") or shutil.which("nvidia-smi", path=os.pathsep.join(USUAL_PLACES))
    if program is None:
        raise Refused(
            protocol.GPUS_UNAVAILABLE,
            "there is no nvidia-smi on this host, so its GPUs cannot be listed; install the NVIDIA driver's tools, "
            "or set 'virtual_gpus' in the connection to pretend to have some",
        )
    return program


def _start(program: str, question: str, dies_with_parent: bool) -> subprocess.Popen[bytes]:
    command = [program, question]
    if question.startswith("--query-"):
        command.append("--format=csv,noheader,nounits")
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(os.environ, LC_ALL="C"),
            preexec_fn=partial(processes.die_with_parent, signal.SIGKILL) if dies_with_parent else None,
        )
    except OSError as error:
        raise Refused(
            protocol.GPUS_UNAVAILABLE, f"{program} cannot be started, so no GPU can be listed: {error.strerror}"
        ) from error


def _answer(process: subprocess.Popen[bytes], deadline: float, timeout_s: float) -> SmiAnswer:
    try:
        output = process.communicate(timeout=max(0.0, deadline - time.monotonic()))[0]
    except subprocess.TimeoutExpired:
        raise Refused(
            protocol.GPUS_UNAVAILABLE,
            f"nvidia-smi gave no answer in {timeout_s:g} s; the driver may hang, or one GPU may: try nvidia-smi on the "
            "host, and look for Xid errors with dmesg",
        ) from None
    return SmiAnswer(output.decode("utf-8", "replace"), process.returncode)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        # If the driver hangs, not even KILL ends nvidia-smi.
        process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=_KILL_S)
