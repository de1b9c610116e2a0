"""What launchers of several processes say about which of them failed first: torchrun and what is built on it."""

from __future__ import annotations

import re
from typing import NamedTuple, Sequence

from .output import Line

_ROOT_CAUSE = "Root Cause (first observed failure):"
_FIELD = r"\s*(rank|exitcode|traceback)\s*: (.*)"
_MOST_LINES = 14
# Exceptions that only say that a process failed, which says more itself.
_WRAPPER = (
    r"(?:[\w.]*\.)?(?:ChildFailedError|ProcessRaisedException|PapermillExecutionError)\b"
    r"|(?:[\w.]*\.)?CalledProcessError: Command .* returned non-zero exit status \d+"
    r"|RuntimeError: (?:Engine core initialization failed|Engine process failed to start|Failed to start the engine)"
    r"|(?:[\w.]*\.)?SystemExit\b|click\.exceptions\.Exit\b|(?:[\w.]*\.)?RayActorError: "
    r"|RuntimeError: (?:Job failed|Training failed|Subprocess .* failed)"
)
_SEVERAL = re.compile(
    r"torch/distributed/|^srun: error: |mpirun |MPI_ABORT|horovodrun|deepspeed\.launcher", re.MULTILINE
)


class RootCause(NamedTuple):
    """
    The process that failed first.

    :param rank: its rank.
    :param number: the signal that ended it; None if it ended by itself.
    """

    rank: str
    number: int | None


def root_cause(lines: Sequence[Line]) -> RootCause | None:
    """Return what torchrun says about the first failure; None when it says nothing."""
    at = next((index for index in range(len(lines) - 1, -1, -1) if lines[index].text.startswith(_ROOT_CAUSE)), None)
    if at is None:
        return None
    rank, number = "", None
    for line in lines[at + 1 : at + _MOST_LINES]:
        field = re.match(_FIELD, line.text)
        if not field:
            continue
        found = re.match(r"-?\d+", field.group(2))
        if field.group(1) == "rank" and found:
            rank = found.group()
        elif field.group(1) == "exitcode" and found:
            number = -int(found.group()) if int(found.group()) < 0 else None
        elif field.group(1) == "traceback":
            break
    return RootCause(rank, number) if rank else None


def is_wrapper(text: str) -> bool:
    """Return whether an exception only says that another process has failed."""
    return re.match(_WRAPPER, text) is not None


def are_several(text: str) -> bool:
    """Return whether several processes have printed into one output."""
    return _SEVERAL.search(text) is not None
