"""Who runs an attempt, or has ended it before anybody could: what a process writes down of itself to claim it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..linux import processes
from . import records

if TYPE_CHECKING:
    from ..protocol.records import Claim


def claim_by(name: str) -> Claim:
    """
    Return a claim of this process, made now.

    :param name: what it is to the attempt: its ``supervisor``, a ``cancel``, or whatever else claims one.
    """
    who = processes.identity()
    return {
        "pid": who["pid"],
        "start": who["start"],
        "boot": who["boot"],
        "host": who["host"],
        "by": name,
        "at": records.now(),
    }
