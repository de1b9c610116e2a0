"""What virtual GPUs are said to do: a file, for tests and the sandbox, in the place of a driver."""

from __future__ import annotations

import json
import os
from typing import Any, Sequence

from ..linux import regular_files
from .gpu_reading import GpuReading

VARIABLE = "GPU_RUN_FAKE_NVML"
SOURCE = "fake"
_MOST_BYTES = 1 << 20
_WHOLE = ("memory_bytes", "total_bytes")
_TOLD = ("percent", "power_w", "celsius", "energy_j", *_WHOLE)


def fake_file() -> str:
    """Return the path of the file; an empty text where there is none, as on every real cluster."""
    return os.environ.get(VARIABLE, "")


def fake_readings(path: str, indexes: Sequence[int]) -> list[GpuReading]:
    """
    Return what the file says now: ``{"gpus": [{"percent": 80, "memory_bytes": 1e9}, ...]}``, by the index of a GPU.

    The last entry counts for all others.

    :raises ValueError: it does not say that.
    :raises OSError: it cannot be read.
    """
    value: Any = json.loads(regular_files.read(path, _MOST_BYTES, follow=True))
    gpus = value.get("gpus") if isinstance(value, dict) else None
    if not isinstance(gpus, list) or not gpus or not all(isinstance(gpu, dict) for gpu in gpus):
        raise ValueError(f"{path} has no list of GPUs")
    return [_reading(gpus[min(index, len(gpus) - 1)]) for index in indexes]


def _reading(gpu: dict[str, Any]) -> GpuReading:
    known: dict[str, Any] = {}
    for name in _TOLD:
        if isinstance(gpu.get(name), (int, float)):
            known[name] = int(gpu[name]) if name in _WHOLE else float(gpu[name])
    return GpuReading(**known)
