"""The GPUs of this host: which exist, and which are already in use."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from typing import NamedTuple

from .. import protocol
from ..errors import Refused

QUERY_S = 30.0
_KILL_S = 1.0
_MOST_CHARACTERS = 500
USUAL_PLACES = ("/usr/bin", "/usr/local/bin", "/usr/local/nvidia/bin", "/usr/lib/wsl/lib", "/opt/bin")
# A key has only characters that are safe in a file name.
_GPU_LINE = re.compile(r"^\s*(\d+), *([A-Za-z0-9-]+), *(.+), *([^,]+?)\s*$")
_PROCESS_LINE = re.compile(r"^\s*([A-Za-z0-9-]+), *(\d+), *(.*?)\s*$")


class Gpu(NamedTuple):
    """
    One whole GPU.

    :param key: its UUID, or ``virtual-<n>``; names its lease.
    :param number: its index in PCI bus order, as ``CUDA_VISIBLE_DEVICES`` takes it.
    :param type: its product name.
    :param memory_mb: its memory in MiB.
    """

    key: str
    number: int
    type: str
    memory_mb: int

    def is_a(self, gpu_type: str | None) -> bool:
        """Return whether this GPU is of the type that a job asks for."""
        return gpu_type is None or gpu_type.lower() in self.type.lower()


def find_gpus(virtual_gpus: int | None) -> list[Gpu]:
    """
    List the GPUs of this host.

    :param virtual_gpus: pretend to have this many; None asks ``nvidia-smi``.
    :raises Refused: there is no ``nvidia-smi``, or it fails.
    """
    if virtual_gpus is not None:
        return [Gpu(f"virtual-{number}", number, "virtual", 0) for number in range(virtual_gpus)]
    output = _ask("--query-gpu=index,uuid,name,memory.total")
    gpus = parse_gpus(output)
    if not gpus:
        said = output.strip()[-_MOST_CHARACTERS:]
        raise Refused(protocol.GPUS_UNAVAILABLE, f"nvidia-smi lists no GPU; it says {said!r}")
    return gpus


def find_busy(virtual_gpus: int | None) -> dict[str, str]:
    """
    Return the GPUs on which a process computes, each with a few words on the process.

    :raises Refused: ``nvidia-smi`` fails.
    """
    if virtual_gpus is not None:
        return {}
    return parse_busy(_ask("--query-compute-apps=gpu_uuid,pid,process_name"))


def parse_gpus(text: str) -> list[Gpu]:
    """
    Read the output of ``nvidia-smi --query-gpu=index,uuid,name,memory.total --format=csv,noheader,nounits``.

    Warnings among its lines are skipped.
    """
    gpus = []
    for line in text.splitlines():
        match = _GPU_LINE.match(line)
        if match:
            number, key, name, memory = match.groups()
            gpus.append(Gpu(key, int(number), name.strip('"'), int(memory) if memory.isdigit() else 0))
    return gpus


def parse_busy(text: str) -> dict[str, str]:
    """
    Read the output of ``nvidia-smi --query-compute-apps=gpu_uuid,pid,process_name --format=csv,noheader,nounits``.

    The owner of a process chooses its name, which may contain commas and quotes; nvidia-smi prints it unchanged.
    """
    busy = {}
    for line in text.splitlines():
        match = _PROCESS_LINE.match(line)
        # The MPS server runs on every GPU it serves, whether in use or not.
        if match and not match.group(3).endswith("nvidia-cuda-mps-server"):
            key, pid, name = match.groups()
            busy[key] = f"process {pid} ({os.path.basename(name)})"
    return busy


def _ask(query: str) -> str:
    import shutil

    program = shutil.which("nvidia-smi") or shutil.which("nvidia-smi", path=os.pathsep.join(USUAL_PLACES))
    if program is None:
        raise Refused(
            protocol.GPUS_UNAVAILABLE,
            "there is no nvidia-smi on this host, so its GPUs cannot be listed; install the NVIDIA driver's tools, "
            "or set 'virtual_gpus' in the connection to pretend to have some",
        )
    process = subprocess.Popen(
        [program, query, "--format=csv,noheader,nounits"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        output = process.communicate(timeout=QUERY_S)[0].decode("utf-8", "replace")
    except subprocess.TimeoutExpired:
        # If the driver hangs, not even KILL ends nvidia-smi.
        process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=_KILL_S)
        raise Refused(
            protocol.GPUS_UNAVAILABLE, f"nvidia-smi gave no answer in {QUERY_S:g} s; the driver may hang"
        ) from None
    if process.returncode:
        raise Refused(protocol.GPUS_UNAVAILABLE, f"nvidia-smi failed: {output.strip()[-_MOST_CHARACTERS:]}")
    return output
