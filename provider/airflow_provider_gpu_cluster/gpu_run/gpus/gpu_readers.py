"""Who can read a host's GPUs: NVML, or ``nvidia-smi`` where that cannot be loaded."""

from __future__ import annotations

import contextlib
import json
import resource
import time
from typing import TYPE_CHECKING, Any, Callable, Sequence, TypedDict, TypeVar

from ..errors import Refused
from ..linux.companion import CompanionLine, Ended
from . import nvidia_smi
from .gpu_reading import GpuReading
from .named_gpus import index_of, uuid_of
from .nvml import FUNCTION_NOT_FOUND, NO_DATA, NOT_FOUND, NOT_SUPPORTED, Nvml, NvmlError

if TYPE_CHECKING:
    from ..protocol.records import LeasedGpu
    from .nvml import Handle

NVML, NVIDIA_SMI = "nvml", "nvidia-smi"
_QUERY = "--query-gpu=uuid,index,utilization.gpu,memory.used,memory.total,power.draw,temperature.gpu"
_MIB = 1 << 20
_LONG_S = 3600.0
# What a GPU, or a driver, does not tell; that is no fault.
_UNTOLD = (NOT_SUPPORTED, NOT_FOUND, NO_DATA, FUNCTION_NOT_FOUND)
_T = TypeVar("_T")


class GpuAnswer(TypedDict):
    """
    What :func:`serve` answers.

    :param source: who has told about the GPUs; empty when nobody did.
    :param why_not: why nobody did, or about one of them.
    :param gpus: a reading of each, in the form of :meth:`.GpuReading.to_json`.
    :param cost_s: the processor time that it has taken so far.
    """

    source: str
    why_not: str
    gpus: list[dict[str, Any]]
    cost_s: float


class NvmlReader:
    """
    Reads some GPUs by NVML.

    :param names: what CUDA_VISIBLE_DEVICES calls them.
    :raises NvmlError: it cannot be used.
    """

    source = NVML

    def __init__(self, gpus: Sequence[LeasedGpu], names: Sequence[str]) -> None:
        self._nvml = Nvml()
        self._gpus = gpus
        self._names = names
        self._seen_us: dict[int, int] = {}
        #: What went wrong with a GPU in the last reading.
        self.why_not = ""

    def read(self) -> list[GpuReading]:
        """Return a reading of each GPU; an empty one for a GPU that cannot be read."""
        self.why_not = ""
        return [self._read(place) for place in range(len(self._gpus))]

    def _read(self, place: int) -> GpuReading:
        # Asked for anew each time: after a fault a handle may be of no use.
        handle = self._tried(lambda: self._handle(place), untold=())
        if handle is None:
            return GpuReading()
        # What a driver says of a MIG instance here is that of its GPU, or nothing.
        is_whole = not (uuid_of(self._gpus[place], place, self._names) or "").startswith("MIG-")
        memory = self._tried(lambda: self._nvml.memory(handle))
        by_process = self._tried(lambda: self._nvml.processes(handle)) or {}
        reading = GpuReading(
            percent=self._percent(place, handle) if is_whole else None,
            memory_bytes=memory and memory[0],
            total_bytes=memory and memory[1],
            power_w=self._tried(lambda: self._nvml.power_w(handle)) if is_whole else None,
            celsius=self._tried(lambda: self._nvml.celsius(handle)),
            energy_j=self._tried(lambda: self._nvml.energy_j(handle)) if is_whole else None,
            memory_by_process={str(pid): size for pid, size in by_process.items()},
        )
        if is_whole and len(by_process) > 1:
            reading = reading._replace(percent_by_process=self._percent_by_process(place, handle))
        return reading

    def _handle(self, place: int) -> Handle:
        uuid = uuid_of(self._gpus[place], place, self._names)
        if uuid is not None:
            return self._nvml.by_uuid(uuid)
        index = index_of(self._gpus, place, range(self._nvml.count()))
        if index is None:
            raise NvmlError("the driver lists fewer GPUs than the job has")
        return self._nvml.by_index(index)

    def _percent(self, place: int, handle: Handle) -> float | None:
        """Return how busy a GPU was since the last reading, as far back as the driver remembers."""
        now = self._tried(lambda: self._nvml.percent(handle))
        since = self._seen_us.get(place, 0)
        told = None if now is None else self._tried(lambda: self._nvml.percents_since(handle, since))
        samples = [(time_us, percent) for time_us, percent in told or () if percent <= 100]
        if not samples:
            return now
        self._seen_us[place] = max(time_us for time_us, _ in samples)
        if not since:
            # Those before the first reading may be of another job.
            return now
        return sum(percent for _, percent in samples) / len(samples) or now

    def _percent_by_process(self, place: int, handle: Handle) -> dict[str, float]:
        samples = self._tried(lambda: self._nvml.percents_by_process(handle, 0)) or []
        latest = {pid: percent for pid, _, percent in sorted(samples, key=lambda sample: sample[1])}
        return {str(pid): float(percent) for pid, percent in latest.items() if percent <= 100}

    def _tried(self, ask: Callable[[], _T], untold: Sequence[int] = _UNTOLD) -> _T | None:
        try:
            return ask()
        except NvmlError as error:
            if error.code not in untold:
                self.why_not = str(error)
            return None


class SmiReader:
    """
    Reads some GPUs by ``nvidia-smi``.

    :param names: what CUDA_VISIBLE_DEVICES calls them.
    :param why: why NVML does not.
    """

    source = NVIDIA_SMI

    def __init__(self, gpus: Sequence[LeasedGpu], names: Sequence[str], why: str) -> None:
        self._gpus = gpus
        self._names = names
        self._why = why
        self.why_not = ""

    def read(self) -> list[GpuReading]:
        """
        Return a reading of each GPU; an empty one for a GPU that it does not list.

        :raises Refused: there is no ``nvidia-smi``, or it gives no answer.
        """
        try:
            (answer,) = nvidia_smi.ask(_QUERY, dies_with_parent=True)
        except Refused as refusal:
            raise Refused(refusal.code, f"{self._why}; {refusal.message}") from None
        readings = parse_readings(answer.text, self._gpus, self._names)
        self.why_not = "" if any(readings) else f"nvidia-smi: {answer.end}"
        return readings


def parse_readings(text: str, gpus: Sequence[LeasedGpu], names: Sequence[str]) -> list[GpuReading]:
    """Read the answer of nvidia-smi to the question above, for each of a job's GPUs."""
    rows = [[word.strip() for word in line.split(",")] for line in text.splitlines()]
    rows = [row for row in rows if len(row) == 7 and row[1].isdigit()]
    found = []
    for place, gpu in enumerate(gpus):
        uuid, index = uuid_of(gpu, place, names), index_of(gpus, place, [int(row[1]) for row in rows])
        mine = [row for row in rows if (row[0].startswith(uuid) if uuid else int(row[1]) == index)]
        found.append(_reading(mine[0]) if mine else GpuReading())
    return found


def _reading(row: Sequence[str]) -> GpuReading:
    percent, used_mib, total_mib, power_w, celsius = map(_number, row[2:])
    return GpuReading(
        percent=percent,
        memory_bytes=None if used_mib is None else int(used_mib * _MIB),
        total_bytes=None if total_mib is None else int(total_mib * _MIB),
        power_w=power_w,
        celsius=celsius,
    )


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        # Such as [N/A].
        return None


def serve(gpus: Sequence[LeasedGpu], names: Sequence[str], without_nvml: str, line: CompanionLine) -> None:
    """
    Read some GPUs whenever the other end of a line asks for it, until that is gone.

    :param names: what CUDA_VISIBLE_DEVICES calls them.
    :param without_nvml: why NVML is not to be used; empty where it is.
    """
    reader: NvmlReader | SmiReader | None = None
    with contextlib.suppress(Ended):
        while True:
            if line.hear(_LONG_S) is None:
                continue
            answer: GpuAnswer = {"source": "", "why_not": "", "gpus": [], "cost_s": 0.0}
            try:
                reader = reader or _reader(gpus, names, without_nvml)
                answer["gpus"] = [reading.to_json() for reading in reader.read()]
                answer["source"], answer["why_not"] = reader.source, reader.why_not
            except Refused as refusal:
                reader, answer["why_not"] = None, refusal.message
            children = resource.getrusage(resource.RUSAGE_CHILDREN)
            answer["cost_s"] = time.process_time() + children.ru_utime + children.ru_stime
            line.tell(json.dumps(answer))


def readings_now(gpus: Sequence[LeasedGpu]) -> list[GpuReading]:
    """Return one reading of each of these GPUs; an empty list when nobody can read them."""
    try:
        return _reader(gpus, (), "").read()
    except (Refused, NvmlError):
        return []


def _reader(gpus: Sequence[LeasedGpu], names: Sequence[str], without_nvml: str) -> NvmlReader | SmiReader:
    if without_nvml:
        return SmiReader(gpus, names, without_nvml)
    try:
        return NvmlReader(gpus, names)
    except NvmlError as error:
        return SmiReader(gpus, names, str(error))
