"""What is read of a GPU at one moment."""

from __future__ import annotations

from typing import Any, Container, Mapping, NamedTuple


class GpuReading(NamedTuple):
    """
    What a driver says about one GPU. What it does not tell is None.

    :param percent: how busy it was lately.
    :param memory_bytes: memory in use.
    :param total_bytes: how much it has.
    :param power_w: what it draws now, in watts.
    :param celsius: its temperature.
    :param energy_j: the count of its energy so far, in joules.
    :param memory_by_process: memory in use by the processes on it, by id.
    :param percent_by_process: how busy these have kept it lately.
    """

    percent: float | None = None
    memory_bytes: int | None = None
    total_bytes: int | None = None
    power_w: float | None = None
    celsius: float | None = None
    energy_j: float | None = None
    memory_by_process: Mapping[str, int | None] = {}
    percent_by_process: Mapping[str, float] = {}

    def of_job(self, pids: Container[int]) -> GpuReading:
        """
        Return what is known about the use by some processes; where that cannot be told from the whole, it is the whole.

        :param pids: the job's.
        """
        known = {pid for pid in self.memory_by_process if int(pid) in pids}
        if not known:
            # It uses none now; or its processes have other ids here, as in a container.
            return self
        sizes = [self.memory_by_process[pid] for pid in known]
        own = self
        if None not in sizes:
            own = own._replace(memory_bytes=sum(size or 0 for size in sizes))
        if self.percent is not None and self.percent_by_process and set(self.memory_by_process) - known:
            percent = sum(self.percent_by_process.get(pid, 0.0) for pid in known)
            own = own._replace(percent=min(self.percent, percent))
        return own

    def at_the_end(self, before: GpuReading) -> GpuReading:
        """
        Return what this reading says about the time since another, when the job has just ended.

        It may have stopped computing a moment ago, or have begun after the other reading: the larger one counts.
        """
        busy = max(self, before, key=lambda reading: -1.0 if reading.percent is None else reading.percent)
        return self._replace(percent=busy.percent, power_w=busy.power_w)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> GpuReading:
        """Return the reading that :meth:`to_json` has described."""
        return cls(**value)

    def to_json(self) -> dict[str, Any]:
        """Return its known values."""
        return {name: value for name, value in zip(self._fields, self) if value not in (None, {})}
