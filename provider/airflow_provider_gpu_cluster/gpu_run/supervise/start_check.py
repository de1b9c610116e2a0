"""
A line in the script of a job that was placed here: versions of this program that do not look whether they may start it
start it no sooner than this version has looked.

A version without this line's knowledge may run a job that a later one has taken: on Slurm, the one that hands it over.
"""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING

from ..linux.detached import own_command
from ..store.directories import Attempt
from .right_place import found_misplaced

if TYPE_CHECKING:
    from ..protocol.records import AttemptRequest

_VARIABLE = "GPU_RUN_HAS_LOOKED"
# From sysexits.h: a fault that passes.
_EXIT_MISPLACED = 75


def with_check(script: str, program: str) -> str:
    """
    Return a script that looks itself, where its supervisor has not.

    :param program: path of this program.
    """
    lines = [line for line in script.splitlines(keepends=True) if _VARIABLE not in line]
    look = " ".join(map(shlex.quote, own_command(program, "may-start")))
    own = (
        f"# An older gpu-run does not look whether the job still is to run on this cluster ({_VARIABLE}).\n"
        f'[ "${{{_VARIABLE}:-}}" = "$ATTEMPT" ] || {look} "$JOB_DIR/.job/attempts/$ATTEMPT" || exit {_EXIT_MISPLACED}\n'
    )
    after = 1 if lines and lines[0].startswith("#!") else 0
    return "".join([*lines[:after], own, *lines[after:]])


def looked(attempt: Attempt, request: AttemptRequest) -> dict[str, str]:
    """Return the variables by which the script knows that its supervisor has looked."""
    return {_VARIABLE: str(attempt.number)} if "placement" in request else {}


def may_start(path: str) -> int:
    """
    Carry out the verb ``may-start``: say whether an attempt still is to run here.

    :param path: the attempt's folder.
    :return: 0 if it is.
    """
    attempt = Attempt.at_path(path)
    why = found_misplaced(attempt, attempt.request(), is_here=False, is_told_to_end=lambda: False)
    if why is None:
        return 0
    print(f"gpu-run: {why.message}; it is not started", file=sys.stderr)
    return 1
