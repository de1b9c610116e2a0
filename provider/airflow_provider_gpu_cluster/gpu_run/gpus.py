"""The GPUs of this host: what there is, and what somebody already computes on."""

from __future__ import annotations

import csv
import io
import os
import shutil
import subprocess
from typing import NamedTuple

from . import protocol
from .errors import Refused

_QUERY_S = 30
_USUAL_PLACES = ("/usr/bin", "/usr/local/bin", "/usr/local/nvidia/bin", "/usr/lib/wsl/lib", "/opt/bin")


class Gpu(NamedTuple):
    """
    One whole GPU.

    :param key: its UUID, or ``virtual-<n>``; what leases are kept by.
    :param number: its index in PCI bus order, as ``CUDA_VISIBLE_DEVICES`` takes it.
    :param type: its product name.
    :param memory_mb: its memory in MiB.
    """

    key: str
    number: int
    type: str
    memory_mb: int

    def is_a(self, gpu_type: str | None) -> bool:
        """Tell whether this GPU answers to the type a job asks for."""
        return gpu_type is None or gpu_type.lower() in self.type.lower()


def find_gpus(virtual_gpus: int | None) -> list[Gpu]:
    """
    List the GPUs of this host.

    :param virtual_gpus: pretend to have that many; None asks ``nvidia-smi``.
    :raises Refused: there is no ``nvidia-smi``, or it fails.
    """
    if virtual_gpus is not None:
        return [Gpu(f"virtual-{number}", number, "virtual", 0) for number in range(virtual_gpus)]
    return parse_gpus(_ask("--query-gpu=index,uuid,name,memory.total"))


def find_busy(virtual_gpus: int | None) -> dict[str, str]:
    """
    Return the GPUs on which some process computes, with a word on that process.

    :raises Refused: ``nvidia-smi`` fails.
    """
    if virtual_gpus is not None:
        return {}
    return parse_busy(_ask("--query-compute-apps=gpu_uuid,pid,process_name"))


def parse_gpus(text: str) -> list[Gpu]:
    """Read the output of ``nvidia-smi --query-gpu=index,uuid,name,memory.total --format=csv,noheader,nounits``."""
    gpus = []
    for row in _rows(text, 4):
        memory = int(row[3]) if row[3].isdigit() else 0
        gpus.append(Gpu(key=row[1], number=int(row[0]), type=row[2], memory_mb=memory))
    return gpus


def parse_busy(text: str) -> dict[str, str]:
    """Read the output of ``nvidia-smi --query-compute-apps=gpu_uuid,pid,process_name``."""
    busy = {}
    for row in _rows(text, 3):
        # The MPS server sits on every GPU it serves, used or not.
        if not row[2].endswith("nvidia-cuda-mps-server"):
            busy[row[0]] = f"process {row[1]} ({os.path.basename(row[2])})"
    return busy


def _rows(text: str, width: int) -> list[list[str]]:
    rows = csv.reader(io.StringIO(text), skipinitialspace=True)
    return [[cell.strip() for cell in row] for row in rows if len(row) == width]


def _ask(query: str) -> str:
    program = shutil.which("nvidia-smi") or shutil.which("nvidia-smi", path=os.pathsep.join(_USUAL_PLACES))
    if program is None:
        raise Refused(
            protocol.GPUS_UNAVAILABLE,
            "there is no nvidia-smi on this host, so its GPUs cannot be listed; install the NVIDIA driver's tools, "
            "or set 'virtual_gpus' in the connection to pretend to have some",
        )
    try:
        done = subprocess.run(
            [program, query, "--format=csv,noheader,nounits"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_QUERY_S,
        )
    except subprocess.TimeoutExpired:
        raise Refused(
            protocol.GPUS_UNAVAILABLE, f"nvidia-smi gave no answer in {_QUERY_S} s; the driver may hang"
        ) from None
    output = done.stdout.decode("utf-8", "replace")
    if done.returncode:
        raise Refused(protocol.GPUS_UNAVAILABLE, f"nvidia-smi failed: {output.strip()[-500:]}")
    return output
