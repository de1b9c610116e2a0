"""What is read of a GPU at one moment."""

from __future__ import annotations

from typing import NamedTuple


class GpuReading(NamedTuple):
    """
    What a driver says about one GPU. What it does not tell is None.

    :param percent: how busy it was lately.
    :param memory_bytes: memory in use: of the processes that were asked for where the driver tells it, else of all.
    :param total_bytes: how much it has.
    :param power_w: what it draws now, in watts.
    :param celsius: its temperature.
    :param energy_j: the count of its energy so far, in joules.
    """

    percent: float | None = None
    memory_bytes: int | None = None
    total_bytes: int | None = None
    power_w: float | None = None
    celsius: float | None = None
    energy_j: float | None = None
