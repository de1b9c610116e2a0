"""A line of PROGRESS_FILE in readable form. Pure: whatever a job has written, nothing here raises."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

MAX_METRICS = 8
MAX_CHARACTERS = 200
MAX_WORD_CHARACTERS = 40
# Longer estimates say nothing.
_LONGEST_S = 365 * 86400.0
# Below this, a float still distinguishes whole numbers from others.
_MOST_STEPS = 1e15


@dataclass(frozen=True)
class Pace:
    """
    The pace of an attempt's steps, measured from the first step seen, so that it stays steady.

    A step that is smaller than the one before starts a new measurement, for instance after a checkpoint was loaded.

    :param since: when the first step was seen, in seconds since the epoch.
    :param start: that step.
    :param step: the last step seen.
    :param now: when that was, in seconds since the epoch.
    """

    since: float
    start: float
    step: float
    now: float

    @classmethod
    def seen(cls, progress: Any, before: Pace | None, now: float) -> Pace | None:
        """
        Return the pace after reading the progress.

        :param before: the pace at the previous reading; None at the first.
        """
        step = _step(progress)
        if step is None:
            return before
        if before is None or step < before.step:
            return cls(now, step, step, now)
        return replace(before, step=step, now=now)

    @property
    def steps_per_s(self) -> float | None:
        """Steps per second; None while that is not known."""
        if self.step <= self.start or self.now <= self.since:
            return None
        rate = (self.step - self.start) / (self.now - self.since)
        return rate if 1 / _LONGEST_S < rate < _MOST_STEPS else None


def progress_text(progress: Any, pace: Pace | None = None) -> str:
    """
    Return a line such as ``step 40 of 100 (40%), 3.2 steps/s, 19 s left, loss 0.31, accuracy 0.87``.

    Missing and meaningless values are left out, so the text may be empty.

    :param progress: the JSON object that the job wrote; ``step`` and ``total`` are counts, the rest are metrics.
    :param pace: the pace of the steps; None leaves out the pace and the remaining time.
    """
    if not isinstance(progress, dict):
        return ""
    parts = _how_far(_step(progress), _total(progress), pace.steps_per_s if pace else None)
    length = len(", ".join(parts))
    metrics = 0
    for name, value in progress.items():
        text = _metric(name, value)
        if text and metrics < MAX_METRICS and length + len(text) + 2 <= MAX_CHARACTERS:
            parts.append(text)
            length += len(text) + 2
            metrics += 1
    return ", ".join(parts)


def _how_far(step: float | None, total: float | None, rate: float | None) -> list[str]:
    if step is None:
        return []
    whole = f"{_number(step)} of {_number(total)}" if total else _number(step)
    if not total or step > total:
        return [f"step {whole}", *_pace(rate)]
    parts = [f"step {whole} ({math.floor(100 * step / total + 1e-9)}%)", *_pace(rate)]
    left_s = (total - step) / rate if rate else 0
    if 0 < left_s < _LONGEST_S:
        parts.append(f"{duration_text(left_s)} left")
    return parts


def _pace(rate: float | None) -> list[str]:
    """Return the rate in words, to two digits: more digits would be noise."""
    if rate is None:
        return []
    if rate <= 1 / 60:
        return [f"{duration_text(1 / rate)} per step"]
    pace = _number(float(f"{rate if rate >= 1 else 1 / rate:.2g}"))
    return [f"{pace} {'step/s' if pace == '1' else 'steps/s'}" if rate >= 1 else f"{pace} s per step"]


def _metric(name: Any, value: Any) -> str:
    return "" if name in ("step", "total") else " ".join(metric_words(name, value))


def metric_words(name: Any, value: Any) -> tuple[str, str] | tuple[()]:
    """Return the name of a metric and its value, as words; nothing for a value that does not fit into a line."""
    if isinstance(value, bool):
        return ()
    text = _words(value) if isinstance(value, str) else _number(value) if isinstance(value, (int, float)) else ""
    name = _words(name) if isinstance(name, str) else ""
    return (name, text) if name and text else ()


def _words(text: str) -> str:
    # Cut first, because cleaning megabytes would take long.
    words = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * MAX_WORD_CHARACTERS]).split())
    return words if len(words) <= MAX_WORD_CHARACTERS else words[: MAX_WORD_CHARACTERS - 1] + "…"


def _number(value: float) -> str:
    """Return a number to four digits, a whole number in full. NaN is shown, because a NaN loss is worth knowing."""
    try:
        number = float(value)
    except OverflowError:
        return ""
    if math.isnan(number):
        return "NaN"
    if math.isinf(number):
        return "Infinity" if number > 0 else "-Infinity"
    if not number.is_integer():
        number = float(f"{number:.4g}")
    return str(int(number)) if number.is_integer() and abs(number) < _MOST_STEPS else f"{number:.4g}"


def duration_text(seconds: float) -> str:
    """Return a readable duration: ``2 h 5 min``, ``1 min 20 s``, ``3 s``."""
    whole = max(1, round(seconds))
    if whole >= 3600:
        minutes = round(whole / 60)
        parts = [(minutes // 60, "h"), (minutes % 60, "min")]
    else:
        parts = [(whole // 60, "min"), (whole % 60, "s")]
    return " ".join(f"{count} {unit}" for count, unit in parts if count)


def _step(progress: Any) -> float | None:
    return _count(progress.get("step")) if isinstance(progress, dict) else None


def _total(progress: dict[Any, Any]) -> float | None:
    return _count(progress.get("total")) or None


def _count(value: Any) -> float | None:
    """Return a number that can be a step; NaN fails the comparison."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if is_number and 0 <= value < _MOST_STEPS else None
