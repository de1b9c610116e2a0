"""
When the lines of PROGRESS_FILE were written. They need not say it, so it is taken from the samples of the job's use.

Each sample has the size of the file at that moment. So a line came between the last sample before which it was not
there and the first that had it: within two seconds early in a job, and within a thousandth or so of its time later.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Iterable


class ByteClock:
    """
    Tells when a byte of a file was written that grows.

    :param sizes: times, in seconds since the epoch, with the size of the file then; in the order of time.
    """

    def __init__(self, sizes: Iterable[tuple[float, int]]) -> None:
        self._times: list[float] = []
        self._sizes: list[int] = []
        #: The longest time between two samples between which lines were written.
        self.within_s: float | None = None
        for t, size in sizes:
            if self._sizes and size < self._sizes[-1]:
                # It was written anew: nothing is known of what was there before.
                self._times, self._sizes, self.within_s = [], [], None
            elif self._sizes and size > self._sizes[-1]:
                self.within_s = max(self.within_s or 0.0, t - self._times[-1])
            self._times.append(t)
            self._sizes.append(size)

    def written_at(self, end: int) -> float | None:
        """
        Return when a line was written, in seconds since the epoch; None if nobody knows.

        :param end: where the line ends, in bytes. Lines between two samples are taken to have come evenly.
        """
        after = bisect_left(self._sizes, end)
        if after == 0 or after == len(self._sizes):
            return None
        before = after - 1
        share = (end - self._sizes[before]) / (self._sizes[after] - self._sizes[before])
        return self._times[before] + share * (self._times[after] - self._times[before])
