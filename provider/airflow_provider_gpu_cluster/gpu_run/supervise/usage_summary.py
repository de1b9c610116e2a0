"""What a job has used in all, added up from its samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Sequence

if TYPE_CHECKING:
    from ..gpus.gpu_reading import GpuReading
    from ..protocol.records import LeasedGpu
    from ..protocol.usage import GpuPoint, GpuUsage, Seconds, Usage

# Below this, a GPU does nothing.
IDLE_PERCENT = 1.0
# So many GPUs are told of one by one; the sums are of all.
MOST_GPUS = 64


class _GpuSum:
    """
    The use of one GPU.

    :param gpu: its lease.
    :param host: the node that it is in, for a job on several.
    """

    def __init__(self, gpu: LeasedGpu, host: str) -> None:
        self._gpu = gpu
        self._host = host
        self._told_s = self._percent_s = 0.0
        self._peak_percent: float | None = None
        self._peak_memory_bytes: int | None = None
        self._total_bytes: int | None = None
        self._counted_j: float | None = None
        self.energy_j: float | None = None
        self.used_s = self.idle_s = 0.0

    def add(self, reading: GpuReading, past_s: float) -> None:
        """
        Add a reading.

        :param past_s: how many seconds it stands for.
        """
        percent = reading.percent
        if percent is not None:
            self._told_s += past_s
            self._percent_s += percent * past_s
            self.used_s += percent / 100 * past_s
            self.idle_s += past_s if percent < IDLE_PERCENT else 0.0
            self._peak_percent = max(self._peak_percent or 0.0, percent)
        if reading.memory_bytes is not None:
            self._peak_memory_bytes = max(self._peak_memory_bytes or 0, reading.memory_bytes)
        self._total_bytes = reading.total_bytes or self._total_bytes
        self._add_energy(reading, past_s)

    def _add_energy(self, reading: GpuReading, past_s: float) -> None:
        if reading.energy_j is not None:
            counted, self._counted_j = self._counted_j, reading.energy_j
            if counted is not None and reading.energy_j >= counted:
                self.energy_j = (self.energy_j or 0.0) + reading.energy_j - counted
                return
        if reading.power_w is not None:
            self.energy_j = (self.energy_j or 0.0) + reading.power_w * past_s

    @property
    def mean_percent(self) -> float | None:
        """How busy it was in the mean; None when nobody tells it."""
        if self._told_s:
            return self._percent_s / self._told_s
        return self._peak_percent

    def usage(self) -> GpuUsage:
        """Return what is known about it."""
        found: GpuUsage = {"index": self._gpu["index"], "key": self._gpu["key"]}
        if self._host:
            found["host"] = self._host
        if self.mean_percent is not None and self._peak_percent is not None:
            found["mean_percent"], found["peak_percent"] = round(self.mean_percent, 1), round(self._peak_percent, 1)
        if self._peak_memory_bytes is not None:
            found["peak_memory_bytes"] = self._peak_memory_bytes
        if self._total_bytes is not None:
            found["memory_bytes"] = self._total_bytes
        if self.energy_j is not None:
            found["energy_j"] = round(self.energy_j, 1)
        return found


class UsageSummary:
    """
    What a job uses on one node.

    :param gpus: its GPUs there.
    :param cpus: how many processors it may use.
    :param host: name of the node, for a job on several.
    """

    def __init__(self, gpus: Sequence[LeasedGpu], cpus: int, host: str = "") -> None:
        self._gpus = [_GpuSum(gpu, host) for gpu in gpus]
        self._indexes = [gpu["index"] for gpu in gpus]
        self._host = host
        self._cpus = cpus
        self._samples = 0
        self._ran_s = self._cpu_s = self._idle_s = 0.0
        self._is_told = False
        self._peak_percent: float | None = None
        self._written_bytes: int | None = None
        #: Who tells about the GPUs, and why nobody does.
        self.source, self.why_not = "", ""

    def add_host(self, past_s: float, *, cpu_s: float, written_bytes: int | None) -> None:
        """
        Add what a look has seen of the host.

        :param past_s: how many seconds it stands for.
        :param cpu_s: processor time in these.
        :param written_bytes: what the job has written so far.
        """
        self._samples += 1
        self._ran_s += past_s
        self._cpu_s += cpu_s
        if written_bytes is not None:
            self._written_bytes = max(self._written_bytes or 0, written_bytes)

    def add_gpus(self, readings: Sequence[GpuReading], past_s: float) -> list[GpuPoint]:
        """
        Add what a look has seen of the GPUs, and return that in the form of a point.

        :param readings: of each GPU; none where they are not known now.
        :param past_s: how many seconds they stand for.
        """
        for gpu, reading in zip(self._gpus, readings):
            gpu.add(reading, past_s)
        told = [reading.percent for reading in readings if reading.percent is not None]
        if told:
            self._is_told = True
            self._peak_percent = max(self._peak_percent or 0.0, sum(told) / len(told))
            self._idle_s += past_s if max(told) < IDLE_PERCENT else 0.0
        return [_point(index, reading, self._host) for index, reading in zip(self._indexes, readings)]

    def usage(self) -> Usage:
        """Return what it has used so far."""
        found: Usage = {"source": self.source, "samples": self._samples, "cpus": self._cpus}
        if self.why_not:
            found["why_not"] = self.why_not
        if self._gpus and self.source:
            found["gpus"] = [gpu.usage() for gpu in self._gpus[:MOST_GPUS]]
        means = [gpu.mean_percent for gpu in self._gpus if gpu.mean_percent is not None]
        if means and self._peak_percent is not None:
            found["gpu_mean_percent"] = round(sum(means) / len(means), 1)
            found["gpu_peak_percent"] = round(self._peak_percent, 1)
            found["gpu_seconds_used"] = round(sum(gpu.used_s for gpu in self._gpus), 3)
            found["gpu_seconds_idle"] = round(sum(gpu.idle_s for gpu in self._gpus), 3)
        energies = [gpu.energy_j for gpu in self._gpus if gpu.energy_j is not None]
        if energies:
            found["energy_j"] = round(sum(energies), 1)
        if self._ran_s:
            found["cpus_mean"] = round(self._cpu_s / self._ran_s, 3)
        if self._written_bytes is not None:
            found["written_bytes"] = self._written_bytes
        return found

    def seconds(self) -> Seconds:
        """Return for how long none of its GPUs computed, if that is known."""
        return {"idle": round(self._idle_s, 3)} if self._is_told else {}


def _point(index: int, reading: GpuReading, host: str) -> GpuPoint:
    point: GpuPoint = {"index": index}
    if host:
        point["host"] = host
    if reading.percent is not None:
        point["percent"] = round(reading.percent, 1)
    if reading.memory_bytes is not None:
        point["memory_bytes"] = reading.memory_bytes
    if reading.power_w is not None:
        point["power_w"] = round(reading.power_w, 1)
    if reading.celsius is not None:
        point["celsius"] = round(reading.celsius, 1)
    return point
