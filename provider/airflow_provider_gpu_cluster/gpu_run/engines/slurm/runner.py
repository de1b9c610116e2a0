"""Run Slurm's commands: the only place of the Slurm engine that runs any."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from typing import NamedTuple, Sequence

from ... import protocol
from ...errors import Refused
from ...linux import processes
from ...supervise.foreign_variables import without_other_jobs

TIMEOUT_S = 60.0
# Where Slurm's commands are on sites that load them as a module at login.
_FOLDERS = ("/usr/local/bin", "/usr/bin", "/opt/slurm/bin", "/usr/local/slurm/bin", "/cm/shared/apps/slurm/current/bin")


class Answer(NamedTuple):
    """
    The answer of a command.

    :param code: its exit code; None when it did not end in time, and was killed.
    """

    code: int | None
    output: str
    errors: str


def run(
    command: Sequence[str], standard_input: str = "", *, timeout_s: float = TIMEOUT_S, pass_fds: Sequence[int] = ()
) -> Answer:
    """
    Run one of Slurm's commands.

    The command goes on when this process dies, as half a submission is worse than a complete one.

    :param pass_fds: open files that it keeps open.
    :raises Refused: it is not installed here.
    """
    path = _path(command[0])
    process = subprocess.Popen(
        [path, *command[1:]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=_environment(path),
        start_new_session=True,
        pass_fds=pass_fds,
    )
    try:
        output, errors = process.communicate(standard_input.encode(), timeout=timeout_s)
    except subprocess.TimeoutExpired as late:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            assert stream is not None
            with contextlib.suppress(OSError):
                stream.close()
        said = (late.stderr or b"").decode("utf-8", "replace")
        return Answer(None, "", f"{said}{command[0]} gave no answer in {timeout_s:g} s")
    return Answer(process.returncode, output.decode("utf-8", "replace"), errors.decode("utf-8", "replace"))


def start(command: Sequence[str], output: str, **environment: str) -> None:
    """
    Start one of Slurm's commands, for which nobody waits.

    :param output: path of the file for its output.
    :param environment: variables that it gets besides.
    :raises OSError: it cannot be started.
    :raises Refused: it is not installed here.
    """
    path = _path(command[0])
    with open(output, "wb") as file:
        subprocess.Popen(
            [path, *command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.DEVNULL,
            env={**_environment(path), **environment},
        )


def _path(program: str) -> str:
    path = shutil.which(program) or shutil.which(program, path=os.pathsep.join(_FOLDERS))
    if path is None:
        raise Refused(
            protocol.GPUS_UNAVAILABLE,
            f"there is no {program} on {processes.hostname()}, neither in PATH nor in {', '.join(_FOLDERS)}; "
            "the connection must lead to a login node of the Slurm cluster",
        )
    return path


def _environment(path: str) -> dict[str, str]:
    folders = os.environ.get("PATH", "/usr/bin:/bin").split(os.pathsep)
    # A job gets this PATH, and its next attempt that of the job.
    if os.path.dirname(path) not in folders:
        folders.append(os.path.dirname(path))
    env = without_other_jobs(os.environ)
    env.update(LC_ALL="C", PATH=os.pathsep.join(folders))
    return env
