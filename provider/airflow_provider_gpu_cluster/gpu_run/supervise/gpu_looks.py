"""Looks at a job's GPUs, each of which may take long, or never end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Collection, Sequence

from ..gpus import fake_nvml

if TYPE_CHECKING:
    from ..gpus.gpu_reading import GpuReading
    from ..linux.companion import Line
    from ..protocol.records import LeasedGpu

NO_GPU = "it has no GPU"
VIRTUAL = "its GPUs are virtual"


class GpuLooks:
    """
    Looks at some GPUs of this host.

    :param names: what CUDA_VISIBLE_DEVICES calls them.
    """

    def __init__(self, gpus: Sequence[LeasedGpu], names: Sequence[str]) -> None:
        self._indexes = [gpu["index"] for gpu in gpus]
        self._fake = fake_nvml.fake_file()
        self._readings: list[GpuReading] = []
        #: Who tells about them, and why nobody does.
        self.source, self.why_not = "", "" if gpus else NO_GPU
        if not self._fake and any(gpu["key"].startswith("virtual-") for gpu in gpus):
            self.why_not = VIRTUAL
        #: The processor time that other processes have taken for it.
        self.cost_s = 0.0

    def look(self, line: Line, most_s: float | None) -> bool:
        """
        Look at the GPUs.

        :param line: to the process that may say meanwhile that the job has ended.
        :param most_s: how long to wait for what they say; None for the usual time.
        :return: whether it has said that.
        """
        self._readings = []
        if self._fake and self._indexes:
            try:
                self._readings = fake_nvml.fake_readings(self._fake, self._indexes)
                self.source, self.why_not = fake_nvml.SOURCE, ""
            except (OSError, ValueError) as error:
                self.why_not = f"{fake_nvml.VARIABLE} cannot be used: {error}"
        return False

    def readings(self, pids: Collection[int]) -> list[GpuReading]:
        """
        Return what the last look has seen; nothing if it has seen nothing.

        :param pids: the processes of the job.
        """
        return self._readings
