"""How often a job's use is looked at: often at first, rarer later, and never for more than its share of a processor."""

from __future__ import annotations

import os

_SHORTEST_S = 2.0
# Many jobs end soon, or change soon after their start.
_FIRST_S = 0.5
_LONGEST_S = 30.0
# Of a job on several nodes, of which nothing is seen between two such looks.
LONGEST_OF_NODES_S = 10.0
# One look per so many parts of the time that the job has run.
_PARTS = 60
# How often the GPUs alone are looked at, as each look shows only a moment of what they do.
GPUS_S = 5.0
# What the first looks may take in processor time, and the share of a processor for all others: below 0.1 % in an hour.
# Those at the GPUs alone have a share of their own, as they are cheap where those at everything are not.
_CREDIT_S, _SHARE = 0.4, 0.0006
_CREDIT_OF_GPUS_S, _SHARE_OF_GPUS = 0.1, 0.0002
# Looks at even distances could always meet the same moment of a job that repeats itself.
_JITTER = 0.3


class Rhythm:
    """
    Tells when the next look is due. All times are in seconds.

    :param longest_s: the longest pause, unless more can be afforded only later.
    :param gpus_s: how often the GPUs are looked at.
    """

    def __init__(self, longest_s: float = _LONGEST_S, gpus_s: float = GPUS_S) -> None:
        self._longest_s = longest_s
        self._gpus_s = gpus_s
        self._spent_s = self._spent_on_gpus_s = 0.0

    def pause_s(self, ran_s: float, cost_s: float) -> float:
        """
        Return how long after a look at everything the next one is due.

        :param ran_s: how long the job has run.
        :param cost_s: the processor time of this look.
        """
        self._spent_s += cost_s
        affordable_at = (self._spent_s + cost_s - _CREDIT_S) / _SHARE
        usual_s = _FIRST_S if ran_s < _FIRST_S else max(_SHORTEST_S, ran_s / _PARTS)
        return max(min(self._longest_s, usual_s), affordable_at - ran_s)

    def gpu_pause_s(self, ran_s: float, cost_s: float) -> float:
        """Return the same for a look at the GPUs alone, whose distances vary."""
        self._spent_on_gpus_s += cost_s
        affordable_at = (self._spent_on_gpus_s + cost_s - _CREDIT_OF_GPUS_S) / _SHARE_OF_GPUS
        jitter = 1 - _JITTER + 2 * _JITTER * os.urandom(1)[0] / 255
        return max(self._gpus_s * jitter, affordable_at - ran_s)
