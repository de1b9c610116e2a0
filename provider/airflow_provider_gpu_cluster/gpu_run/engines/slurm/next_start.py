"""How a job that goes on by itself is submitted again: after a pause, for other nodes or with more memory perhaps."""

from __future__ import annotations

import math
import re
import time
from typing import TYPE_CHECKING, NamedTuple, Sequence

from ... import protocol
from ...linux import regular_files

if TYPE_CHECKING:
    from ...protocol.recovery import Recovery

_MOST_IN_FILE = 1 << 16
# However wrong a clock is.
_LONGEST_PAUSE_S = 600.0
# Slurm itself takes about as long to start a job.
_SHORTEST_PAUSE_S = 2.0
_MEMORY = ("--mem", "--mem-per-cpu", "--mem-per-gpu")
_EXCLUDE = ("--exclude", "-x")
# About the job's first start, which is over: what it depended on may be forgotten by now.
_FIRST_START = ("--begin", "-b", "--dependency", "-d", "--deadline", "--hold", "-H")
_WITHOUT_VALUE = ("--hold", "-H")


class NextStart(NamedTuple):
    """
    How a job starts again.

    :param pause_s: how long it must not, from now, in seconds.
    :param exclude: nodes on which it must not.
    :param has_more_memory: whether it gets more than its user has asked for, who may have done so in a free option.
    """

    pause_s: float = 0.0
    exclude: tuple[str, ...] = ()
    has_more_memory: bool = False

    @classmethod
    def after(cls, recovery: Recovery) -> NextStart:
        """Return how the attempt starts that has that note."""
        pause_s = recovery["not_before"] - time.time()
        return cls(
            pause_s=min(pause_s, _LONGEST_PAUSE_S) if pause_s > _SHORTEST_PAUSE_S else 0.0,
            exclude=tuple(recovery.get("exclude_nodes", ())),
            has_more_memory=protocol.OUT_OF_MEMORY in recovery["used"],
        )

    def options(self, theirs: Sequence[str]) -> list[str]:
        """
        Return the options to add to sbatch's command, instead of a user's own.

        :param theirs: the user's own.
        """
        dropped = [*_FIRST_START, *(_MEMORY if self.has_more_memory else ())]
        kept, _ = _parted(theirs, dropped)
        if self.exclude:
            others, excluded = _parted(kept, _EXCLUDE)
            nodes = _nodes_of(excluded[-1] if excluded else "")
            if nodes is not None:
                kept = [*others, "--exclude={}".format(",".join([*nodes, *self.exclude]))]
        if self.pause_s:
            # Not as a point in time, since the clocks of hosts differ.
            kept.append(f"--begin=now+{math.ceil(self.pause_s)}")
        return kept


def _parted(options: Sequence[str], names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the options without those of that name, and the values of these."""
    others: list[str] = []
    values: list[str] = []
    words = iter(options)
    for word in words:
        name, has_value, value = word.partition("=")
        if not word.startswith("--") and len(word) > 2:
            name, has_value, value = word[:2], "=", word[2:]
        if name not in names:
            others.append(word)
        elif name not in _WITHOUT_VALUE:
            values.append(value if has_value else next(words, ""))
    return others, values


def _nodes_of(excluded: str) -> list[str] | None:
    """Return the nodes of such an option, which may also be the path of a file that lists them; None if it is lost."""
    if "/" in excluded:
        try:
            excluded = regular_files.read(excluded, _MOST_IN_FILE, follow=True).decode("utf-8", "replace")
        except OSError:
            return None
    # Not the commas in gpu[1,3].
    return [name for name in re.split(r"[\s,]+(?![^\[]*\])", excluded) if name]
