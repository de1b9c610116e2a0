"""NVIDIA's management library, ``libnvidia-ml.so.1``, which the driver brings along: called by ctypes, as in nvml.h."""

from __future__ import annotations

import ctypes
from ctypes import byref, c_char_p, c_uint, c_ulonglong, c_void_p
from typing import Any, Sequence

LIBRARIES = ("libnvidia-ml.so.1", "/usr/lib/wsl/lib/libnvidia-ml.so.1", "/run/opengl-driver/lib/libnvidia-ml.so.1")
SUCCESS, NOT_SUPPORTED, NOT_FOUND, INSUFFICIENT_SIZE, FUNCTION_NOT_FOUND, NO_DATA = 0, 3, 6, 7, 13, 21
_UUID_BYTES = 96
_TEMPERATURE_OF_GPU = 0
_SAMPLES_OF_UTILIZATION = 1
_MOST_PROCESSES = 4096
_FIRST_PROCESSES = 32
# What the library says instead of a size that it does not know.
_NO_SIZE = (1 << 64) - 1


class NvmlError(Exception):
    """
    The library cannot be used, or it has refused something.

    :param code: as in nvml.h; None where it is not the library that says it.
    """

    def __init__(self, words: str, code: int | None = None) -> None:
        super().__init__(words)
        self.code = code


class _Utilization(ctypes.Structure):
    _fields_ = [("gpu", c_uint), ("memory", c_uint)]


class _Memory(ctypes.Structure):
    _fields_ = [("total", c_ulonglong), ("free", c_ulonglong), ("used", c_ulonglong)]


class _MemoryV2(ctypes.Structure):
    _fields_ = [
        ("version", c_uint),
        ("total", c_ulonglong),
        ("reserved", c_ulonglong),
        ("free", c_ulonglong),
        ("used", c_ulonglong),
    ]


class _Process(ctypes.Structure):
    _fields_ = [("pid", c_uint), ("used", c_ulonglong)]


class _ProcessV2(ctypes.Structure):
    _fields_ = [("pid", c_uint), ("used", c_ulonglong), ("gpu_instance", c_uint), ("compute_instance", c_uint)]


class _ProcessUtilization(ctypes.Structure):
    _fields_ = [
        ("pid", c_uint),
        ("time_us", c_ulonglong),
        ("sm", c_uint),
        ("memory", c_uint),
        ("encoder", c_uint),
        ("decoder", c_uint),
    ]


class _Sample(ctypes.Structure):
    # Its value is a union of eight bytes; that of a utilization is an unsigned int.
    _fields_ = [("time_us", c_ulonglong), ("value", c_uint), ("rest", c_uint)]


_PROCESS_CALLS = (
    ("nvmlDeviceGetComputeRunningProcesses_v3", _ProcessV2),
    ("nvmlDeviceGetComputeRunningProcesses_v2", _ProcessV2),
    ("nvmlDeviceGetComputeRunningProcesses", _Process),
)

Handle = Any
"""A GPU or a MIG instance, as the library names it."""


class Nvml:
    """
    The library, ready to be asked.

    :raises NvmlError: it is not here, or it cannot be used.
    """

    def __init__(self) -> None:
        self._library = _loaded()
        self._call_one_of(("nvmlInit_v2", "nvmlInit"))

    def count(self) -> int:
        """Return how many GPUs this process may see."""
        number = c_uint()
        self._call_one_of(("nvmlDeviceGetCount_v2", "nvmlDeviceGetCount"), byref(number))
        return number.value

    def by_index(self, index: int) -> Handle:
        """Return the GPU of an index, in PCI bus order."""
        handle = c_void_p()
        names = ("nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceGetHandleByIndex")
        self._call_one_of(names, c_uint(index), byref(handle))
        return handle

    def by_uuid(self, uuid: str) -> Handle:
        """
        Return the GPU or MIG instance of a UUID.

        :param uuid: or, as in CUDA_VISIBLE_DEVICES, the beginning of that of a GPU.
        """
        handle = c_void_p()
        try:
            self._call("nvmlDeviceGetHandleByUUID", c_char_p(uuid.encode()), byref(handle))
            return handle
        except NvmlError:
            for index in range(self.count()):
                handle = self.by_index(index)
                if self._uuid(handle).startswith(uuid):
                    return handle
            raise

    def _uuid(self, handle: Handle) -> str:
        text = ctypes.create_string_buffer(_UUID_BYTES)
        self._call("nvmlDeviceGetUUID", handle, text, c_uint(_UUID_BYTES))
        return text.value.decode("ascii", "replace")

    def percent(self, handle: Handle) -> int:
        """Return for how much of the last moment it was busy, in percent."""
        rates = _Utilization()
        self._call("nvmlDeviceGetUtilizationRates", handle, byref(rates))
        return int(rates.gpu)

    def percents_since(self, handle: Handle, time_us: int) -> list[tuple[int, int]]:
        """
        Return the driver's own samples of that, the last hundred or so, each with its time.

        :param time_us: only those after it.
        """
        count, kind = c_uint(), c_uint()
        arguments = (handle, c_uint(_SAMPLES_OF_UTILIZATION), c_ulonglong(time_us), byref(kind), byref(count))
        self._call("nvmlDeviceGetSamples", *arguments, None)
        samples = (_Sample * min(count.value, _MOST_PROCESSES))()
        count.value = len(samples)
        if samples:
            self._call("nvmlDeviceGetSamples", *arguments, samples)
        return [(one.time_us, one.value) for one in samples[: count.value] if time_us < one.time_us]

    def memory(self, handle: Handle) -> tuple[int, int]:
        """Return how much of its memory is in use, and how much it has, in bytes."""
        memory = _MemoryV2()
        memory.version = ctypes.sizeof(memory) | 2 << 24
        try:
            self._call("nvmlDeviceGetMemoryInfo_v2", handle, byref(memory))
            return memory.used, memory.total
        except NvmlError:
            # This one counts what the driver keeps for itself as well.
            older = _Memory()
            self._call("nvmlDeviceGetMemoryInfo", handle, byref(older))
            return older.used, older.total

    def power_w(self, handle: Handle) -> float:
        """Return what it draws, in watts."""
        milliwatts = c_uint()
        self._call("nvmlDeviceGetPowerUsage", handle, byref(milliwatts))
        return milliwatts.value / 1000

    def celsius(self, handle: Handle) -> int:
        """Return its temperature."""
        degrees = c_uint()
        self._call("nvmlDeviceGetTemperature", handle, c_uint(_TEMPERATURE_OF_GPU), byref(degrees))
        return degrees.value

    def energy_j(self, handle: Handle) -> float:
        """Return the count of its energy since the driver was loaded, in joules."""
        millijoules = c_ulonglong()
        self._call("nvmlDeviceGetTotalEnergyConsumption", handle, byref(millijoules))
        return millijoules.value / 1000

    def processes(self, handle: Handle) -> dict[int, int | None]:
        """Return the processes that compute on it, by id, and the memory of each in bytes, as far as that is known."""
        name, kind = next(
            ((name, kind) for name, kind in _PROCESS_CALLS if hasattr(self._library, name)), _PROCESS_CALLS[-1]
        )
        room = _FIRST_PROCESSES
        while True:
            count, found = c_uint(room), (kind * room)()
            try:
                self._call(name, handle, byref(count), found)
            except NvmlError as error:
                # Others may begin meanwhile.
                room = max(2 * room, count.value)
                if error.code != INSUFFICIENT_SIZE or room > _MOST_PROCESSES:
                    raise
                continue
            some: Any = found[: min(count.value, room)]
            return {one.pid: None if one.used == _NO_SIZE else one.used for one in some}

    def percents_by_process(self, handle: Handle, time_us: int) -> list[tuple[int, int, int]]:
        """
        Return how busy single processes have kept it: id, time and percent of each sample.

        :param time_us: only those after it.
        """
        count = c_uint(0)
        try:
            self._call("nvmlDeviceGetProcessUtilization", handle, None, byref(count), c_ulonglong(time_us))
        except NvmlError as error:
            if error.code != INSUFFICIENT_SIZE:
                raise
        found = (_ProcessUtilization * min(count.value, _MOST_PROCESSES))()
        count.value = len(found)
        if not found:
            return []
        self._call("nvmlDeviceGetProcessUtilization", handle, found, byref(count), c_ulonglong(time_us))
        return [(one.pid, one.time_us, one.sm) for one in found[: count.value] if one.time_us > time_us]

    def _call_one_of(self, names: Sequence[str], *arguments: Any) -> None:
        """Call the newest of several functions that this library has."""
        self._call(next((name for name in names if hasattr(self._library, name)), names[-1]), *arguments)

    def _call(self, name: str, *arguments: Any) -> None:
        function = getattr(self._library, name, None)
        if function is None:
            raise NvmlError(f"this driver's NVML has no {name}", FUNCTION_NOT_FOUND)
        code = function(*arguments)
        if code != SUCCESS:
            raise NvmlError(f"{name}: {self._words(code)}", code)

    def _words(self, code: int) -> str:
        tell = getattr(self._library, "nvmlErrorString", None)
        if tell is None:
            return f"error {code}"
        tell.restype = c_char_p
        words: bytes | None = tell(c_uint(code))
        return f"{(words or b'').decode('ascii', 'replace')} (error {code})"


def _loaded() -> ctypes.CDLL:
    why = ""
    for path in LIBRARIES:
        try:
            return ctypes.CDLL(path)
        except OSError as error:
            why = why or str(error)
    raise NvmlError(f"NVML cannot be loaded: {why}")
