"""How often a job's use is looked at: often at first, rarer later, and never for more than its share of a processor."""

from __future__ import annotations

_SHORTEST_S = 2.0
_LONGEST_S = 30.0
# One look per so many parts of the time that the job has run.
_PARTS = 60
# Of a window in which every look counts.
_LOOKS_OF_WINDOW = 8
# What the first looks may take in processor time, and the share of a processor for all others: below 0.1 % in an hour.
_CREDIT_S = 0.5
_SHARE = 0.0008


class Rhythm:
    """
    Tells when the next look is due.

    :param window_s: a time, in seconds, in which there must be several looks; None for any.
    """

    def __init__(self, window_s: float | None = None) -> None:
        self._longest_s = _LONGEST_S if not window_s else min(_LONGEST_S, window_s / _LOOKS_OF_WINDOW)
        self._spent_s = 0.0

    def pause_s(self, ran_s: float, cost_s: float) -> float:
        """
        Return how long to wait now, in seconds.

        :param ran_s: how long the job has run.
        :param cost_s: the processor time of the last look.
        """
        self._spent_s += cost_s
        usual_s = min(self._longest_s, max(_SHORTEST_S, ran_s / _PARTS))
        affordable_at = (self._spent_s + cost_s - _CREDIT_S) / _SHARE
        return max(usual_s, affordable_at - ran_s)
