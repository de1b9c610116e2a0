"""
Looks at a job's GPUs.

A process of its own asks the driver, since a driver may hang, or crash who asks it; the rest is looked at all the same.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import time
from functools import partial
from typing import TYPE_CHECKING, Container, Sequence

from ..gpus import fake_nvml
from ..gpus.gpu_readers import serve
from ..gpus.gpu_reading import GpuReading
from ..linux.companion import CompanionLine, Ended, start_companion

if TYPE_CHECKING:
    from ..gpus.gpu_readers import GpuAnswer
    from ..protocol.records import LeasedGpu

NO_GPU = "it has no GPU"
VIRTUAL = "its GPUs are virtual, and nobody tells what they do"
# To load the driver's library and to wake up a GPU may take seconds.
_USUAL_S = 5.0
# Once it has not answered in that time.
_HANGING_S = 0.1
_REAP_S = 0.5


class GpuLooks:
    """
    Looks at some GPUs of this host.

    :param names: what CUDA_VISIBLE_DEVICES calls them.
    """

    def __init__(self, gpus: Sequence[LeasedGpu], names: Sequence[str]) -> None:
        self._gpus = gpus
        self._names = names
        self._fake = fake_nvml.fake_file()
        self._readings: list[GpuReading] = []
        #: Who tells about them, and why nobody does.
        self.source, self.why_not = "", ""
        #: The processor time that other processes have taken for it.
        self.cost_s = 0.0
        self._reader: tuple[int, CompanionLine] | None = None
        self._asked_at: float | None = None
        self._without_nvml = ""
        #: Whether anybody may tell something about them.
        self.can_tell = False
        if not gpus:
            self.why_not = NO_GPU
        elif not self._fake and any(gpu["key"].startswith("virtual-") for gpu in gpus):
            self.why_not = VIRTUAL
        else:
            self.can_tell = True

    def look(self, line: CompanionLine, most_s: float | None) -> bool:
        """
        Look at the GPUs.

        :param line: to the process that may say meanwhile that the job has ended.
        :param most_s: how long to wait for what they say; None for the usual time.
        :return: whether that process has said something.
        """
        self._readings = []
        if not self.can_tell:
            return False
        if self._fake:
            self._read_fake()
            return False
        try:
            if self._reader is None:
                self._reader = start_companion(partial(serve, self._gpus, self._names, self._without_nvml))
            return self._ask(self._reader[1], line, most_s)
        except Ended:
            self._note_death()
        except OSError as error:
            self.why_not = f"the driver cannot be asked now: {error.strerror}"
        return False

    def of_job(self, pids: Container[int]) -> list[GpuReading]:
        """
        Return what the last look has seen; nothing if it has seen nothing.

        :param pids: the processes of the job.
        """
        return [reading.of_job(pids) for reading in self._readings]

    def _read_fake(self) -> None:
        try:
            self._readings = fake_nvml.fake_readings(self._fake, [gpu["index"] for gpu in self._gpus])
            self.source, self.why_not = fake_nvml.SOURCE, ""
        except (OSError, ValueError) as error:
            self.why_not = f"{fake_nvml.VARIABLE} cannot be used: {error}"

    def _ask(self, reader: CompanionLine, line: CompanionLine, most_s: float | None) -> bool:
        now = time.monotonic()
        wait_s = _USUAL_S if most_s is None else most_s
        if self._asked_at is None:
            self._asked_at = now
            reader.tell("look")
        elif most_s is None and now - self._asked_at > _USUAL_S:
            wait_s = _HANGING_S
        waiting = select.poll()
        waiting.register(reader.source, select.POLLIN)
        waiting.register(line.source, select.POLLIN)
        ready = {fd for fd, _ in waiting.poll(wait_s * 1000)}
        if reader.source in ready:
            text = reader.hear(wait_s)
            if text is not None:
                self._asked_at = None
                self._note(json.loads(text))
        else:
            asked_s = time.monotonic() - self._asked_at
            if asked_s > _USUAL_S:
                self.why_not = f"the driver of the GPUs has given no answer for {asked_s:.0f} s"
        return line.source in ready

    def _note(self, answer: GpuAnswer) -> None:
        self.cost_s = answer["cost_s"]
        self.why_not = answer["why_not"]
        if answer["source"]:
            self.source = answer["source"]
            self._readings = [GpuReading.from_json(reading) for reading in answer["gpus"]]

    def _note_death(self) -> None:
        """Go on without NVML when it has killed the process that has asked; give up when nvidia-smi has done that."""
        assert self._reader is not None
        pid, line = self._reader
        line.close()
        status = _status_of(pid)
        how = "" if status is None else f" by signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else ""
        self.why_not = f"the process that asks the driver was ended{how}"
        self._reader = self._asked_at = None
        self.can_tell = not self._without_nvml
        self._without_nvml = self.why_not


def _status_of(pid: int) -> int | None:
    """Return the exit status of a child that has just ended; None when it does not end in a moment."""
    deadline = time.monotonic() + _REAP_S
    with contextlib.suppress(ChildProcessError):
        while time.monotonic() < deadline:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                return status
            time.sleep(0.005)
    return None
