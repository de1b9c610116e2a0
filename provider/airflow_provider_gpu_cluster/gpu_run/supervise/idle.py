"""
Finds a job that leaves its GPUs idle: its ``min_gpu_utilization`` and ``utilization_window``.

A job is idle from the last moment at which it has shown life. Life is

- GPUs that compute: in the mean over all of them, at the minimum for a sixth of the window, or at twice the minimum in
  one look; or one of them alone at five times the minimum in one look;
- GPU memory that changes by more than a driver's own pages;
- progress that is reported, and files that are saved;
- whatever keeps anybody from knowing: GPUs that are not measured, looks that are missing, a job that is stopped.

What a job does in its first window does not count either: it may be loading its data.
"""

from __future__ import annotations

import time
from collections import deque
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Callable, NamedTuple, Sequence

from ..protocol.idle_policy import HALF, WHOLE, IdlePolicy

if TYPE_CHECKING:
    from ..protocol.usage import IdleNote

# How often a job is looked at: so many times in its window, but not more often and not less often than that.
_LOOKS = 360
_SHORTEST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 5.0
# Rarer looks may all fall between the bursts of a job. It takes so many to know that it is idle, however long that is.
_SECONDS_A_LOOK = 12.0
_FEWEST_LOOKS = 4
# What was not looked at for so long, or for so large a part of the window, is not known.
_LONGEST_GAP_S = 5.0
_LONGEST_GAP_SHARE = 1 / 15
# A burst: so many times the minimum in one look, of all GPUs in the mean, or of one, whatever the others do.
_BURST_OF_ALL, _BURST_OF_ONE = 2.0, 5.0
# The part of the window over which the mean is taken; a pause of the job that is shorter than the window ends nothing.
_MEAN_SHARE = 1 / 6
# Drivers hand out GPU memory in pages of 2 MiB, and need one more or less for themselves.
_MEMORY_NOISE_BYTES = 4 << 20


class JobLook(NamedTuple):
    """
    What was seen of a job at one moment.

    :param percents: the use of each of its GPUs; None where it is not measured.
    :param memory_bytes: the memory in use on each; None where it is not measured.
    :param progress: changes whenever the job has reported progress.
    :param is_stopped: whether a process of the job is stopped, or traced by a debugger.
    """

    percents: Sequence[float | None]
    memory_bytes: Sequence[int | None] = ()
    progress: object = None
    is_stopped: bool = False


class IdleWatch:
    """
    Tells when a job is idle. It begins when the job does.

    :param saved_ago_s: tells how long ago the job has saved a file. That may take a while, so it is seldom asked.
    :param now: the time on the clock of all looks, which is never set, in seconds.
    :param clock: tells the time of day.
    """

    def __init__(
        self,
        policy: IdlePolicy,
        *,
        saved_ago_s: Callable[[], float],
        now: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._policy = policy
        self._saved_ago_s = saved_ago_s
        self._clock = clock
        self._looked_at = self._saved_due = now
        # At first the end of the grace, before which nothing counts.
        self._since = now + policy.window_s
        self._seen = _Seen(policy.window_s * _MEAN_SHARE)
        self._memory: list[int | None] = []
        self._progress: object = None
        self._note: IdleNote | None = None
        self._noted_since = self._since

    @property
    def pause_s(self) -> float:
        """How long the pause between two looks should be in the mean, in seconds."""
        return min(max(self._policy.window_s / _LOOKS, _SHORTEST_PAUSE_S), _LONGEST_PAUSE_S)

    def look(self, look: JobLook, now: float) -> IdleNote | None:
        """Take a look into account; return a note while the job is idle for half of its window or longer."""
        past_s, self._looked_at = now - self._looked_at, now
        if self._policy.min_percent <= 0:
            return None
        # Each of them is asked, since each remembers what it has seen.
        if any([self._is_unknown(look, past_s), self._has_moved(look), self._computes(look, past_s, now)]):
            self._since = max(self._since, now)
            self._seen.forget()
        level = self._level(now)
        if level is not None and (level != self._level_told or now >= self._saved_due):
            self._saved_due = now + self._policy.window_s / 2
            self._begin_at(now - max(0.0, self._saved_ago_s()))
            level = self._level(now)
        if level is None:
            self._note = None
        elif level != self._level_told or self._since != self._noted_since:
            self._note, self._noted_since = self._noted(level, now), self._since
        return self._note

    @property
    def _level_told(self) -> str | None:
        return None if self._note is None else self._note["level"]

    def _is_unknown(self, look: JobLook, past_s: float) -> bool:
        """Return whether nobody can say what the job did since the last look."""
        has_missed = past_s > max(_LONGEST_GAP_S, self._policy.window_s * _LONGEST_GAP_SHARE)
        return has_missed or look.is_stopped or not look.percents or None in look.percents

    def _has_moved(self, look: JobLook) -> bool:
        """Return whether the job has reported progress, or its GPU memory has changed."""
        before, self._progress = self._progress, look.progress
        has_changed = look.progress != before
        # It is compared with what it was when it last changed, or what grows slowly would never seem to change.
        held = self._memory + [None] * (len(look.memory_bytes) - len(self._memory))
        for place, (old, new) in enumerate(zip(held, look.memory_bytes)):
            if new is not None and (old is None or abs(new - old) > _MEMORY_NOISE_BYTES):
                held[place] = new
                has_changed = has_changed or old is not None
        self._memory = held
        return has_changed

    def _computes(self, look: JobLook, past_s: float, now: float) -> bool:
        """Return whether the GPUs compute."""
        percents = [percent for percent in look.percents if percent is not None]
        if not percents or now <= self._since:
            return False
        mean, least = sum(percents) / len(percents), self._policy.min_percent
        self._seen.add(now, min(past_s, now - self._since), mean)
        is_burst = mean >= _BURST_OF_ALL * least or max(percents) >= _BURST_OF_ONE * least
        return is_burst or self._seen.mean_of_last >= least

    def _begin_at(self, since: float) -> None:
        """Let the job be idle from an earlier moment than this one, if later than so far: it was alive then."""
        if since > self._since:
            self._seen.keep((self._looked_at - since) / (self._looked_at - self._since))
            self._since = since

    def _level(self, now: float) -> str | None:
        idle_s, window_s, looks = now - self._since, self._policy.window_s, self._seen.looks
        for level, share in ((WHOLE, 1.0), (HALF, 0.5)):
            if idle_s >= share * window_s and looks >= share * max(_FEWEST_LOOKS, window_s / _SECONDS_A_LOOK):
                return level
        return None

    def _noted(self, level: str, now: float) -> IdleNote:
        idle_s = now - self._since
        since = datetime.fromtimestamp(self._clock() - idle_s, timezone.utc)
        return {
            "level": level,
            "since": since.isoformat(timespec="milliseconds"),
            "idle_s": round(idle_s, 3),
            "percent": round(self._seen.mean, 2),
            "min_percent": self._policy.min_percent,
            "window_s": self._policy.window_s,
            "on_idle": self._policy.on_idle,
        }


class _Seen:
    """
    What was seen since a job is idle.

    :param last_s: how long the last part is of which there is a mean of its own, in seconds.
    """

    def __init__(self, last_s: float) -> None:
        self._last_s = last_s
        self._last: deque[tuple[float, float, float]] = deque()
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self.looks = 0.0
        self._seconds = self._percent_seconds = 0.0
        self._last.clear()

    def keep(self, share: float) -> None:
        """Keep a share of all, as if it had been seen later."""
        self.looks *= share
        self._seconds *= share
        self._percent_seconds *= share

    def add(self, now: float, seconds: float, percent: float) -> None:
        """Add a look that stands for so many seconds."""
        self.looks += 1
        self._seconds += seconds
        self._percent_seconds += seconds * percent
        self._last.append((now, seconds, percent))
        while self._last[0][0] < now - self._last_s:
            self._last.popleft()

    @property
    def mean(self) -> float:
        """The mean of all, in percent."""
        return self._percent_seconds / self._seconds if self._seconds else 0.0

    @property
    def mean_of_last(self) -> float:
        """The mean of the last part, in percent."""
        seconds = sum(took for _, took, _ in self._last)
        return sum(took * percent for _, took, percent in self._last) / seconds if seconds else 0.0
