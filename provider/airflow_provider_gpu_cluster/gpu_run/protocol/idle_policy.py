"""When a job counts as idle, and what is done about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from .settings import Settings
    from .spec import Spec

WARN, CANCEL = "warn", "cancel"
# Levels of an idle job: it has been idle for half of its window, or for all of it.
HALF, WHOLE = "half", "whole"

MIN_PERCENT = 5.0
WINDOW_S = 1800.0


class IdlePolicy(NamedTuple):
    """
    The policy for one job.

    :param min_percent: use of its GPUs below which it is idle; 0 for never.
    :param window_s: over how long that is looked at, in seconds.
    :param on_idle: ``warn`` or ``cancel``.
    """

    min_percent: float = MIN_PERCENT
    window_s: float = WINDOW_S
    on_idle: str = WARN


def idle_policy(spec: Spec, settings: Settings) -> IdlePolicy:
    """Return the policy of a job: what it says itself, else what its connection says, else the usual one."""
    percents = (spec.get("min_gpu_utilization"), settings.get("min_gpu_utilization"), MIN_PERCENT)
    windows = (spec.get("utilization_window_s"), settings.get("utilization_window_s"), WINDOW_S)
    return IdlePolicy(
        min_percent=next(percent for percent in percents if percent is not None),
        window_s=next(window for window in windows if window is not None),
        on_idle=spec.get("on_idle") or settings.get("on_idle") or WARN,
    )
