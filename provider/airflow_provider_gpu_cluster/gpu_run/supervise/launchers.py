"""Programs that only start others: the names of those that wait for one, and of those that run one after another."""

from __future__ import annotations

import contextlib
import os
import re

from ..linux import processes

# They run one program after another, as a shell does.
_REPEATERS = frozenset(("xargs", "find", "watch", "make", "gmake", "parallel"))
_LAUNCHERS = frozenset(
    (
        *("time", "timeout", "nice", "ionice", "stdbuf", "setsid", "nohup", "numactl", "taskset", "chrt", "unshare"),
        *("conda", "mamba", "micromamba", "uv", "uvx", "pixi", "poetry", "pipenv", "hatch"),
        *(
            "accelerate",
            "accelerate-launch",
            "torchrun",
            "deepspeed",
            "mpirun",
            "mpiexec",
            "prterun",
            "orterun",
            "srun",
        ),
        *("apptainer", "singularity", "starter", "appinit", "enroot", "bwrap", "tini", "dumb-init", "catatonit"),
        *("nsys", "ncu", "nvprof", "strace", "perf", "script", "unbuffer"),
    )
)
_LAUNCHING_MODULES = frozenset(
    (
        *("accelerate", "accelerate.commands.launch", "accelerate.commands.accelerate_cli", "conda"),
        *(
            "torch.distributed.run",
            "torch.distributed.launch",
            "deepspeed.launcher.runner",
            "deepspeed.launcher.launch",
        ),
    )
)
# Only the processes of one attempt have this variable with the same value.
TOKEN = "GPU_RUN_ATTEMPT"
_INTERPRETER = re.compile(r"^(?:python|pypy|perl)[0-9.]*$")
# Options of Python that have a value of their own.
_WITH_VALUE = ("-W", "-X", "--check-hash-based-pycs")


def is_repeater(pid: int, program: str) -> bool:
    """
    Return whether a process runs one program after another, as a shell does.

    :param program: the program that it runs itself.
    """
    return _name_of(pid, program) in _REPEATERS


def launched_by(pid: int, program: str) -> list[int]:
    """
    Return what a launcher has launched.

    What ``srun`` starts on this host is no child of it, but has its environment. A TERM to ``srun`` itself would be a
    KILL to them.
    """
    if program != "srun":
        return processes.children_of(pid)
    token = processes.variable_of(pid, TOKEN)
    found: set[int] = set()
    with contextlib.suppress(OSError):
        found.update(() if token is None else processes.with_environment(f"{TOKEN}={token}"))
    elsewhere = found - processes.descendants(os.getpid())
    return sorted(one for one in elsewhere if processes.parent_of(one) not in found)


def is_launcher(pid: int, program: str) -> bool:
    """
    Return whether a process only starts another program and waits for it.

    :param program: the program that it runs.
    """
    return program in _LAUNCHERS or _name_of(pid, program) in {*_LAUNCHERS, *_LAUNCHING_MODULES}


def _name_of(pid: int, program: str) -> str:
    """Return the name under which a process was started: of a script or module, if an interpreter runs it."""
    words = processes.words_of(pid)
    if not _INTERPRETER.match(program):
        return os.path.basename(words[0]) if words else program
    following = iter(words[1:])
    for word in following:
        if word == "-m":
            return next(following, "")
        if word == "-c":
            return ""
        if word in _WITH_VALUE:
            next(following, "")
        elif not word.startswith("-"):
            return os.path.basename(word)
    return ""
