"""The GPUs of this host: which exist, which do not work, and which are in use without a lease."""

from __future__ import annotations

import re
from typing import AbstractSet, NamedTuple, Sequence

from .. import protocol
from ..errors import Refused
from . import nvidia_smi
from .processes import UNLISTED_MIB, parse_busy

_LIST = "-L"
_PROCESSES = "--query-compute-apps=gpu_uuid,pid,process_name"
_QUERY = "--query-gpu=index,uuid,name,memory.total,memory.used"
# Drivers before 450 know no MIG, and refuse the whole query.
_MIG_FIELD = ",mig.mode.current"
_NO_SUCH_FIELD = "not a valid field"
_MIG_ON = "Enabled"

# A number, or nvidia-smi's words for one that it has not.
_VALUE = r"\d+(?: MiB)?|\[[^\],]*\]|N/A|ERR!|Unknown Error|GPU is lost"
_ROW = re.compile(rf"\s*(\d+), *([^,]+?), *(.+?), *({_VALUE})(?:, *({_VALUE})(?:, *([^,]*?))?)?\s*\Z")
# Only characters that are safe in a file name. The keys of MIG instances may have slashes, with drivers before 470.
_KEY = re.compile(r"[A-Za-z0-9-]+\Z")
_ERROR_VALUE = re.compile(r"error|err!|lost|reset|fail", re.IGNORECASE)
# What is said of a GPU that the driver cannot reach any more, as a line of its own.
_BROKEN_LINE = re.compile(
    r"unable to determine the device handle|gpu is lost|fallen off the bus|insufficiently powered|unknown error"
    r"|requires? (a )?reset|reset required",
    re.IGNORECASE,
)
_BUS_ADDRESS = re.compile(r"(?:[0-9A-F]{4,8}:)?[0-9A-F]{2}:[0-9A-F]{2}\.[0-7]", re.IGNORECASE)
_GPU_OF_LIST = re.compile(r"GPU (\d+): ")
_INSTANCE_OF_LIST = re.compile(r"\s*MIG\s+(\S+)\s+Device\s+\d+:\s+\(UUID:\s*(MIG-[A-Za-z0-9-]+(?:/\d+/\d+)?)\)\s*\Z")
_INSTANCE = " MIG "


class Gpu(NamedTuple):
    """
    One whole GPU, or one MIG instance of a GPU that is divided into some.

    :param key: its UUID, or ``virtual-<n>``; names its lease.
    :param number: its index in PCI bus order; a MIG instance has that of its GPU.
    :param type: its product name; that of a MIG instance ends with its profile, such as ``MIG 1g.10gb``.
    :param memory_mb: its memory in MiB; 0 if unknown.
    """

    key: str
    number: int
    type: str
    memory_mb: int

    @property
    def is_instance(self) -> bool:
        """Return whether it is a MIG instance."""
        return self.key.startswith("MIG-")

    def is_a(self, gpu_type: str | None) -> bool:
        """Return whether this GPU is of the type that a job asks for."""
        return gpu_type is None or gpu_type.lower() in self.type.lower()

    def is_by_profile(self, gpu_type: str | None) -> bool:
        """Return whether the type that a job asks for names MIG instances like this one, not only their GPU."""
        product = self.type.rpartition(_INSTANCE)[0]
        return gpu_type is not None and self.is_a(gpu_type) and gpu_type.lower() not in product.lower()


def fitting(gpus: Sequence[Gpu], count: int, gpu_type: str | None) -> list[Gpu]:
    """
    Return the GPUs that a job may get: whole ones or MIG instances, never both.

    A job gets whole GPUs if the host has any of that type. A process can use only one MIG instance, so a job gets
    several only if it names their profile.
    """
    named = [gpu for gpu in gpus if gpu.is_a(gpu_type)]
    whole = [gpu for gpu in named if not gpu.is_instance]
    if whole or count == 1:
        return whole or named
    return [gpu for gpu in named if gpu.is_by_profile(gpu_type)]


class BrokenGpu(NamedTuple):
    """A GPU that does not work: its PCI address or index, as far as known, and nvidia-smi's words."""

    gpu: str
    why: str

    def __str__(self) -> str:
        return f"GPU {self.gpu or 'of unknown address'} does not work: {self.why}"


class Inventory(NamedTuple):
    """
    The GPUs of this host at one moment.

    :param gpus: those that work.
    :param broken: those that do not.
    :param remarks: what else there is to know about GPUs, each a sentence.
    :param busy: the keys of GPUs that are in use, each with a few words on by what.
    :param busy_numbers: the same for divided GPUs, by index: it is not known which of their instances is in use.
    """

    gpus: list[Gpu]
    broken: list[BrokenGpu] = []
    remarks: list[str] = []
    busy: dict[str, str] = {}
    busy_numbers: dict[int, str] = {}

    def in_use_without_lease(self, leased: AbstractSet[str]) -> dict[str, str]:
        """
        Return the keys of the GPUs that something uses that holds no lease, each with a few words on it.

        :param leased: the keys of leased GPUs, whose use is that of their holders.
        """
        leased_numbers = {gpu.number for gpu in self.gpus if gpu.key in leased}
        found = {}
        for gpu in self.gpus:
            words = self.busy.get(gpu.key)
            if words is None and gpu.is_instance and gpu.number not in leased_numbers:
                words = self.busy_numbers.get(gpu.number)
            if words is not None and gpu.key not in leased:
                found[gpu.key] = words
        return found

    @property
    def is_numbered_by_cuda(self) -> bool:
        """
        Return whether CUDA gives these GPUs the same numbers.

        CUDA counts only GPUs that work, so one that is broken or missing shifts its numbers. It counts a divided GPU in
        its own way.
        """
        whole = not any(gpu.is_instance for gpu in self.gpus)
        return whole and not self.broken and [gpu.number for gpu in self.gpus] == list(range(len(self.gpus)))


def take_inventory(virtual_gpus: int | None, *, with_use: bool = True) -> Inventory:
    """
    Look at the GPUs of this host.

    :param virtual_gpus: pretend to have this many; None asks ``nvidia-smi``.
    :param with_use: also look which are in use.
    :raises Refused: there is no ``nvidia-smi``, it fails, or no GPU works.
    """
    if virtual_gpus is not None:
        return Inventory([Gpu(f"virtual-{number}", number, "virtual", 0) for number in range(virtual_gpus)])
    answer, *processes = nvidia_smi.ask(_QUERY + _MIG_FIELD, *([_PROCESSES] if with_use else []))
    if _NO_SUCH_FIELD in answer.text:
        (answer,) = nvidia_smi.ask(_QUERY)
    rows, broken, remarks = parse_gpus(answer.text)
    gpus = [row.gpu for row in rows]
    if any(row.mig in (_MIG_ON, None) for row in rows):
        (listed,) = nvidia_smi.ask(_LIST)
        gpus, undivided = _with_instances(rows, parse_instances(listed.text))
        remarks += undivided
    if not gpus:
        raise Refused(protocol.GPUS_UNAVAILABLE, _no_gpus(answer, broken, remarks))
    if answer.code and not broken and not remarks:
        remarks.append(f"nvidia-smi ended with exit code {answer.code}")
    if not with_use:
        return Inventory(gpus, broken, remarks)
    return Inventory(gpus, broken, remarks, *_use(rows, processes[0], answer.code))


def find_gpus(virtual_gpus: int | None) -> list[Gpu]:
    """
    List the GPUs of this host that work.

    :param virtual_gpus: see :func:`take_inventory`.
    :raises Refused: there is none, or ``nvidia-smi`` fails.
    """
    return take_inventory(virtual_gpus, with_use=False).gpus


class ListedGpu(NamedTuple):
    """
    What nvidia-smi says about one GPU that works.

    :param used_mib: its memory that is in use, in MiB; None if unknown.
    :param mig: whether it is divided, in nvidia-smi's words; None if it does not say.
    """

    gpu: Gpu
    used_mib: int | None
    mig: str | None


def parse_gpus(text: str) -> tuple[list[ListedGpu], list[BrokenGpu], list[str]]:
    """
    Read the output of ``nvidia-smi --query-gpu=index,uuid,name,memory.total,memory.used,mig.mode.current
    --format=csv,noheader,nounits``, whose last fields may be missing.

    :return: the GPUs that work, those that do not, and remarks: nvidia-smi's other lines.
    """
    rows: list[ListedGpu] = []
    broken: dict[BrokenGpu, None] = {}
    remarks: dict[str, None] = {}
    for line in text.splitlines():
        match = _ROW.match(line)
        if match:
            number, key, name, total, used, mig = match.groups()
            error = next((value for value in match.groups("")[1:] if _is_error(value)), None)
            if error is not None:
                broken[BrokenGpu(number, error.strip("[]"))] = None
            elif not _KEY.match(key):
                broken[BrokenGpu(number, f"its UUID is {key[: nvidia_smi.MOST_CHARACTERS]!r}")] = None
            else:
                rows.append(ListedGpu(Gpu(key, int(number), name.strip('"'), _mib(total) or 0), _mib(used), mig))
        elif _BROKEN_LINE.search(line):
            broken[_broken(line.strip())] = None
        elif line.strip():
            remarks[f"nvidia-smi says: {line.strip()[: nvidia_smi.MOST_CHARACTERS]}"] = None
    return rows, list(broken), list(remarks)


def parse_instances(text: str) -> dict[int, list[tuple[str, str]]]:
    """
    Read the output of ``nvidia-smi -L``.

    :return: for each GPU that is listed, by its index, the profile and UUID of its MIG instances.
    """
    found: dict[int, list[tuple[str, str]]] = {}
    number = None
    for line in text.splitlines():
        gpu, instance = _GPU_OF_LIST.match(line), _INSTANCE_OF_LIST.match(line)
        if gpu:
            number = int(gpu.group(1))
            found[number] = []
        elif instance and number is not None:
            found[number].append((instance.group(1), instance.group(2)))
    return found


def _is_error(value: str) -> bool:
    return (value[:1] == "[" or value in ("ERR!", "Unknown Error", "GPU is lost")) and bool(_ERROR_VALUE.search(value))


def _mib(value: str | None) -> int | None:
    number = (value or "").partition(" ")[0]
    return int(number) if number.isdigit() else None


def _broken(line: str) -> BrokenGpu:
    address = _BUS_ADDRESS.search(line)
    if address is None:
        return BrokenGpu("", line[: nvidia_smi.MOST_CHARACTERS])
    why = line[address.end() :].strip(" :.") or line
    return BrokenGpu(address.group(), why[: nvidia_smi.MOST_CHARACTERS])


def _with_instances(
    rows: Sequence[ListedGpu], instances: dict[int, list[tuple[str, str]]]
) -> tuple[list[Gpu], list[str]]:
    """Put its instances in the place of each GPU that is divided; return remarks on those that have none."""
    gpus, remarks = [], []
    for row in rows:
        whole = row.gpu
        parts = instances.get(whole.number, [])
        gpus += [Gpu(key, whole.number, f"{whole.type}{_INSTANCE}{profile}", 0) for profile, key in parts]
        if row.mig == _MIG_ON and not parts:
            remarks.append(
                f"GPU {whole.number} ({whole.type}) has MIG on and no instance, so no job can use it: make instances "
                f"with 'nvidia-smi mig -i {whole.number} -cgi <profile> -C', or turn MIG off"
            )
        elif not parts:
            gpus.append(whole)
    return gpus, remarks


def _no_gpus(answer: nvidia_smi.SmiAnswer, broken: Sequence[BrokenGpu], remarks: Sequence[str]) -> str:
    if answer.code:
        return f"nvidia-smi failed: {answer.end or f'exit code {answer.code}'}"
    if broken or any("MIG" in remark for remark in remarks):
        return "no GPU of this host can be used: " + "; ".join([*map(str, broken), *remarks])
    return f"nvidia-smi lists no GPU; it says {answer.end!r}"


def _use(
    rows: Sequence[ListedGpu], processes: nvidia_smi.SmiAnswer, usual_code: int
) -> tuple[dict[str, str], dict[int, str]]:
    """
    Return what is in use: by key, and, for divided GPUs, by index.

    :param usual_code: nvidia-smi's exit code when it listed the GPUs, which may tell of a broken one.
    """
    busy = parse_busy(processes.text)
    if processes.code not in (0, usual_code) and not busy and not _BROKEN_LINE.search(processes.text):
        raise Refused(
            protocol.GPUS_UNAVAILABLE,
            f"nvidia-smi cannot list processes: {processes.end or f'exit code {processes.code}'}",
        )
    for row in rows:
        if row.gpu.key not in busy and row.mig != _MIG_ON and (row.used_mib or 0) > UNLISTED_MIB:
            busy[row.gpu.key] = (
                f"something outside (GPU {row.gpu.number}: {(row.used_mib or 0) / 1024:.1f} GiB in use, and no process "
                "is listed)"
            )
    return busy, {row.gpu.number: busy[row.gpu.key] for row in rows if row.gpu.key in busy}
