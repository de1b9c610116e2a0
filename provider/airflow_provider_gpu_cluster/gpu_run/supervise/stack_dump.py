"""
What the processes of a job do at this moment: their Python stacks, and in which call of the kernel each waits.

Stacks come from ``py-spy``, if the job's environment or this host has it and the kernel lets it look. Otherwise a
process is asked for its own: code often has ``faulthandler.register(signal.SIGUSR1)``, which then writes to the job's
error output. A process that does not catch that signal would die of it, and does not get it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from typing import Iterable

from ..linux import processes
from ..linux.signal_sets import signal_sets

_PYTHON = re.compile(r"(?:python|pypy)[0-9.]*\Z")
_MOST_PROCESSES = 16
_MOST_STACKS = 4
_MOST_CHARACTERS = 20_000
_MOST_OF_COMMAND = 100
_PY_SPY_S = 10.0
# How long the code has for writing its stack, before it is told to end.
_FAULTHANDLER_S = 0.5
_ASKING = (signal.SIGUSR1, signal.SIGUSR2)
_STATES = {"R": "runs", "S": "waits", "D": "waits for a device or a disk", "Z": "has ended", "T": "is stopped"}


def stack_dump(pids: Iterable[int], path: str) -> str:
    """
    Return what these processes do, in lines for the job's log; what cannot be found out is left out.

    :param path: the PATH of the job, in which there may be a py-spy.
    """
    known = sorted(pids)
    lines = [_line(pid) for pid in known[:_MOST_PROCESSES]]
    if len(known) > _MOST_PROCESSES:
        lines.append(f"and {len(known) - _MOST_PROCESSES} more")
    shown = 0
    for pid in filter(_is_python, known):
        if shown == _MOST_STACKS:
            break
        stack = _stack_by_py_spy(pid, path)
        if stack:
            lines += filter(str.strip, stack.splitlines())
        elif _ask(pid):
            lines.append(f"process {pid} was asked for its Python stack by a signal that it catches")
        else:
            continue
        shown += 1
    return "".join(f"gpu-run: {line}\n" for line in lines)


def _line(pid: int) -> str:
    state = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()[:1]
    does = _STATES.get("".join(state), "waits")
    call = _read(f"/proc/{pid}/wchan").strip("\0\n ")
    where = f" in {call}" if call not in ("", "0") and "waits" in does else ""
    return f"process {pid} ({_command(pid)}) {does}{where}"


def _command(pid: int) -> str:
    words = [word for word in _read(f"/proc/{pid}/cmdline").split("\0") if word]
    short = " ".join(os.path.basename(word) if word.startswith("/") else word for word in words)
    short = short or _read(f"/proc/{pid}/comm").strip()
    return short if len(short) <= _MOST_OF_COMMAND else f"{short[:_MOST_OF_COMMAND]}..."


def _is_python(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return bool(_PYTHON.match(os.path.basename(os.readlink(f"/proc/{pid}/exe"))))
    return False


def _stack_by_py_spy(pid: int, path: str) -> str:
    own = os.path.dirname(_read(f"/proc/{pid}/cmdline").partition("\0")[0])
    places = os.pathsep.join(filter(None, (own, path, os.environ.get("PATH", ""))))
    program = shutil.which("py-spy", path=places)
    if program is None:
        return ""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(
            [program, "dump", "--pid", str(pid)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_PY_SPY_S,
        )
        if done.returncode == 0:
            return done.stdout.decode("utf-8", "replace")[:_MOST_CHARACTERS]
    return ""


def _ask(pid: int) -> bool:
    sets = signal_sets(pid)
    number = next((number for number in _ASKING if sets is not None and sets.caught >> (number - 1) & 1), None)
    if number is None:
        return False
    processes.send_signal([pid], number)
    time.sleep(_FAULTHANDLER_S)
    return True


def _read(path: str) -> str:
    with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        return file.read(4096)
    return ""
