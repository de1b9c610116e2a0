"""
What the next job of a kind could do with less, or sooner, as the use of the last one shows. Pure.

Only what is measured is judged, only jobs that did what they were to do (or ran into their time limit), and only by
differences that are worth a change.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.jobs.progress import duration_text
from airflow_provider_gpu_cluster.jobs.status import JobState, JobStatus

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.gpu_run.protocol.usage import GpuUsage

MOST = 3
# Shorter jobs are over before anything about them is certain.
_SHORTEST_S = 10.0
_FEWEST_SAMPLES = 3
# A GPU that was never busier, and held no more than what a process needs to see it, was not used.
_UNUSED_PERCENT = 1.0
_UNUSED_BYTES = 1 << 30
_LOW_PERCENT = 25.0
_FEW_CPUS_SHARE, _MOST_CPUS_SHARE = 0.5, 0.85
# GPU memory: nearly unused below the first share, while the GPU was not fully used either.
_LITTLE_GPU_MEMORY, _BUSY_PERCENT = 0.1, 50.0
_LITTLE, _NEARLY_ALL = 0.25, 0.92
_LEAST_MEMORY_BYTES = 4 << 30
_LEAST_TIME_LIMIT_S = 1800.0
_LEAST_BUILDING_S, _BUILDING_SHARE = 60.0, 0.5
_LEAST_QUEUED_S, _QUEUED_TIMES = 600.0, 5.0
_MANY_CPUS, _HARDLY_ANY_CPUS = 8, 0.1


def advice_of(status: JobStatus) -> list[str]:
    """Return what would help the next job of this kind: up to three sentences, the most useful first."""
    if status.state is JobState.SUCCEEDED:
        return list(_all(status))[:MOST]
    if status.state is JobState.FAILED and status.reason == protocol.TIME_LIMIT:
        return list(_of_gpus(status))[:MOST]
    return []


def _all(status: JobStatus) -> Iterator[str]:
    if _ran_s(status) < _SHORTEST_S:
        return
    yield from _of_limits_nearly_reached(status)
    yield from _of_gpus(status)
    yield from _of_memory(status)
    yield from _of_time(status)
    yield from _of_cpus(status)


def _ran_s(status: JobStatus) -> float:
    return status.seconds.get("running", status.run_seconds or 0.0)


def _of_limits_nearly_reached(status: JobStatus) -> Iterator[str]:
    memory, peak = status.asked.get("memory_bytes"), status.peak_memory_bytes
    if memory and peak and peak >= _NEARLY_ALL * memory:
        enough = f"memory='{_gib_with_room(peak)}G'"
        yield f"used {_gib(peak)} of its {_gib(memory)} of host memory, which is nearly all; {enough} is safer"
    limit, ran_s = status.asked.get("time_limit_s"), _ran_s(status)
    if limit and ran_s >= _NEARLY_ALL * limit and limit >= _LEAST_TIME_LIMIT_S:
        longest = "its longest element ran" if status.elements else "ran"
        yield f"{longest} {duration_text(ran_s)} of a time limit of {duration_text(limit)}; a longer one is safer"


def _of_gpus(status: JobStatus) -> Iterator[str]:
    usage, gpus = status.usage, _measured(status)
    if not gpus or usage.get("samples", 0) < _FEWEST_SAMPLES or _ran_s(status) < _SHORTEST_S:
        return
    used = [gpu for gpu in gpus if not _is_unused(gpu)]
    if not used:
        whose = "its GPU was" if len(gpus) == 1 else f"its {len(gpus)} GPUs were"
        yield f"{whose} never used; what needs no GPU need not wait for one, nor keep others waiting"
        return
    if len(used) < len(gpus):
        count = "1 was" if len(used) == 1 else f"{len(used)} were"
        yield f"{len(gpus)} GPUs were leased, {count} used"
    percent = sum(gpu["mean_percent"] for gpu in used) / len(used)
    if percent < _LOW_PERCENT:
        yield f"GPU use was {_percent(percent)} in the mean{_why_so_low(status)}"
    little = _little_gpu_memory(used)
    if little and percent < _BUSY_PERCENT:
        yield f"at most {little} of GPU memory was in use; a larger batch, or a smaller GPU, may do"


def _measured(status: JobStatus) -> Sequence[GpuUsage]:
    """Return the use of all GPUs; nothing where that of one is not known."""
    gpus = status.usage.get("gpus", [])
    return gpus if all("mean_percent" in gpu and "peak_percent" in gpu for gpu in gpus) else []


def _is_unused(gpu: GpuUsage) -> bool:
    return gpu["peak_percent"] < _UNUSED_PERCENT and gpu.get("peak_memory_bytes", 0) < _UNUSED_BYTES


def _why_so_low(status: JobStatus) -> str:
    busy, cpus = status.usage.get("cpus_mean"), status.usage.get("cpus")
    if busy is None or not cpus:
        return ""
    # A host does not keep a job to the processors that it has asked for.
    of_all = f" of {cpus}" if busy <= cpus else ""
    word = "core" if max(busy, cpus) <= 1 else "cores"
    count = "none" if of_all and _count(busy) == "0" else _count(busy)
    cores = f"{count}{of_all} {word} {'was' if busy <= 1 else 'were'} busy"
    if busy >= _MOST_CPUS_SHARE * cpus:
        return f"; the job was short of processors: {cores}; more cpus would help"
    if busy < _FEW_CPUS_SHARE * cpus:
        return f"; the job waited, most likely for its data: {cores}; more processes that load it may help"
    return f", while {cores}"


def _little_gpu_memory(gpus: Sequence[GpuUsage]) -> str:
    """Return the most memory that was in use on one of these GPUs, if that is little of it on all of them."""
    known = [(gpu.get("peak_memory_bytes"), gpu.get("memory_bytes")) for gpu in gpus]
    sizes = [(peak, total) for peak, total in known if peak is not None and total]
    if len(sizes) < len(gpus) or any(peak >= _LITTLE_GPU_MEMORY * total for peak, total in sizes):
        return ""
    peak, total = max(sizes)
    return f"{_gib(peak)} of {_gib(total)}"


def _of_memory(status: JobStatus) -> Iterator[str]:
    memory, peak = status.asked.get("memory_bytes"), status.peak_memory_bytes
    if memory and peak and memory >= _LEAST_MEMORY_BYTES and peak < _LITTLE * memory:
        yield f"asked for {_gib(memory)} of host memory, used {_gib(peak)}; memory='{_gib_with_room(peak)}G' would do"


def _of_time(status: JobStatus) -> Iterator[str]:
    limit, ran_s = status.asked.get("time_limit_s"), _ran_s(status)
    if limit and limit >= _LEAST_TIME_LIMIT_S and ran_s < _LITTLE * limit:
        longest = "the longest element ran" if status.elements else "ran"
        yield f"time limit {duration_text(limit)}, {longest} {duration_text(ran_s)}; a shorter one may start sooner"
    building_s, queued_s = status.seconds.get("building", 0.0), status.seconds.get("queued", 0.0)
    if building_s >= max(_LEAST_BUILDING_S, _BUILDING_SHARE * ran_s):
        took = f"its Python environment took {duration_text(building_s)}, its code {duration_text(ran_s)}"
        yield f"{took}; an environment is built once for the same requirements and setup, so keep them the same"
    if not status.elements and queued_s - building_s >= max(_LEAST_QUEUED_S, _QUEUED_TIMES * ran_s):
        waited = f"waited {duration_text(queued_s)} to run for {duration_text(ran_s)}"
        yield f"{waited}; several such pieces of work in one job wait only once"


def _of_cpus(status: JobStatus) -> Iterator[str]:
    cpus, busy = status.asked.get("cpus"), status.usage.get("cpus_mean")
    if cpus and busy is not None and cpus >= _MANY_CPUS and busy < _HARDLY_ANY_CPUS * cpus:
        yield f"asked for {cpus} cores, {_count(busy)} {'was' if busy <= 1 else 'were'} busy in the mean"


def _percent(percent: float) -> str:
    return f"{percent:.0f} %" if percent >= 1 else f"{percent:.1f} %"


def _count(count: float) -> str:
    """Return a number of processors: to a tenth while there are few."""
    return f"{count:.1f}".removesuffix(".0") if count < 10 else f"{count:.0f}"


def _gib(size: float) -> str:
    gib = size / 2**30
    return f"{gib:.1f}".removesuffix(".0") + " GiB" if gib >= 0.1 else f"{size / 2**20:.0f} MiB"


def _gib_with_room(size: float) -> int:
    """Return a third more than was used, in whole GiB."""
    return max(1, math.ceil(size * 4 / 3 / 2**30))
