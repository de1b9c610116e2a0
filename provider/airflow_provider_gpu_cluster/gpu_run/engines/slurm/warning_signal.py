"""
The option ``--signal`` of sbatch: the signal by which Slurm warns a job some time before it ends it.

Slurm sends it to a job's steps, and with ``B:`` to its script instead, which is a supervisor here. A job on one node
has no step unless it starts one, so its warning is asked for with ``B:`` in any case. The supervisor hands it on.
"""

from __future__ import annotations

import math
import re
import signal
from typing import NamedTuple, Sequence

from ...supervise.signals import HANDED_ON, number_of

_USUAL_S = 60
_MOST_S = 65535
# Sent in the place of a signal that would end the supervisor.
_STAND_IN = int(signal.SIGRTMIN) + 16
# Tells the supervisor to warn the job, as the job's own ``warn_before`` says.
WARNS = int(signal.SIGRTMIN) + 15


class WarningSignal(NamedTuple):
    """
    What a job has asked for.

    :param number: the signal.
    :param before_s: how long before its end, in seconds.
    :param to_steps: whether it is for the job's steps, and not for its script alone.
    :param in_reservation: Slurm's ``R:``, which has nothing to do with the signal.
    """

    number: int
    before_s: int
    to_steps: bool
    in_reservation: bool

    @property
    def sent(self) -> int:
        """The signal that Slurm sends to the supervisor."""
        return self.number if self.number in HANDED_ON else _STAND_IN


def asked(options: Sequence[str]) -> WarningSignal | None:
    """Return the warning in sbatch's options; None when there is none that this understands."""
    for place in reversed(range(len(options))):
        name, _, value = options[place].partition("=")
        if name == "--signal":
            return _parsed(value or "".join(options[place + 1 : place + 2]))
    return None


def with_warning(
    options: Sequence[str], *, nodes: int, more_time_s: float, warn_before_s: float | None = None
) -> list[str]:
    """
    Return sbatch's options with a warning that arrives, and in time.

    :param more_time_s: how much later than the supervisor Slurm would end the job.
    :param warn_before_s: of the job itself. Its supervisor knows its time limit, but not that of Slurm, nor that it is
        about to be preempted. The user's own option comes first.
    """
    warning = asked(options)
    if warning is None:
        is_given = any(option.partition("=")[0] == "--signal" for option in options)
        if not warn_before_s or is_given:
            return list(options)
        return [*options, f"--signal=B:{WARNS}@{min(_MOST_S, math.ceil(warn_before_s))}"]
    flags = "R" if warning.in_reservation else ""
    number = warning.number
    if not warning.to_steps or nodes == 1:
        flags += "B"
        number = warning.sent
    prefix = f"{flags}:" if flags else ""
    before_s = min(_MOST_S, warning.before_s + round(more_time_s))
    return [*options, f"--signal={prefix}{number}@{before_s}"]


def _parsed(value: str) -> WarningSignal | None:
    match = re.match(r"^(?:([RB]{1,2}):)?(\w+)(?:@(\d+))?$", value, re.IGNORECASE)
    number = number_of(match.group(2)) if match else None
    if match is None or number is None:
        return None
    flags = (match.group(1) or "").upper()
    return WarningSignal(number, int(match.group(3) or _USUAL_S), "B" not in flags, "R" in flags)
