"""What a job has used: of its GPUs, of its host, and of time."""

from __future__ import annotations

from typing import TypedDict


class GpuUsage(TypedDict, total=False):
    """
    The use of one GPU by an attempt. What its driver does not tell is left out.

    :param index: as in ``gpus`` of the status.
    :param key: of its lease.
    :param host: the node that it is in, for a job on several nodes.
    :param mean_percent: how busy it was in the mean over the run.
    :param peak_percent: the highest that was seen.
    :param peak_memory_bytes: the most memory in use on it: of this job where the driver tells it, else of all.
    :param memory_bytes: how much it has.
    :param energy_j: energy, in joules.
    """

    index: int
    key: str
    host: str
    mean_percent: float
    peak_percent: float
    peak_memory_bytes: int
    memory_bytes: int
    energy_j: float


class Usage(TypedDict, total=False):
    """
    What an attempt has used, over all of its nodes. What is not known is left out.

    :param source: who told about the GPUs: ``nvml``, ``nvidia-smi`` or ``fake``; empty when nobody did.
    :param why_not: why nobody did, for a person.
    :param samples: how many samples were taken.
    :param gpu_mean_percent: how busy the GPUs were in the mean, over all of them and the whole run.
    :param gpu_peak_percent: the highest mean over the GPUs at one moment.
    :param gpu_seconds_used: GPU-seconds in which a GPU computed: the integral of its use.
    :param gpu_seconds_idle: GPU-seconds in which a GPU did nothing (its use was below 1 percent).
    :param energy_j: of all GPUs together, in joules.
    :param cpus_mean: how many processors were busy in the mean.
    :param cpus: how many it could use.
    :param written_bytes: bytes that its processes have written.
    """

    source: str
    why_not: str
    samples: int
    gpus: list[GpuUsage]
    gpu_mean_percent: float
    gpu_peak_percent: float
    gpu_seconds_used: float
    gpu_seconds_idle: float
    energy_j: float
    cpus_mean: float
    cpus: int
    written_bytes: int


class Seconds(TypedDict, total=False):
    """
    How long each part of an attempt took, in seconds. What is not known is left out.

    :param queued: from the submit to the lease of its GPUs.
    :param staging: its inputs were brought in and put in place.
    :param building: its Python environment was built.
    :param running: from the start to the end of its code.
    :param idle: of that, the seconds in which none of its GPUs computed.
    """

    queued: float
    staging: float
    building: float
    running: float
    idle: float


class IdleNote(TypedDict):
    """
    ``idle.json`` of an attempt: it has been idle for half of its window, or for all of it.

    :param level: ``half`` or ``whole``.
    :param since: when it began to be idle, in the form of all records.
    :param idle_s: for how long it was, when this was written.
    :param percent: the use of its GPUs in that time, in the mean.
    :param min_percent: its ``min_gpu_utilization``.
    :param window_s: its ``utilization_window``.
    :param on_idle: ``warn`` or ``cancel``.
    """

    level: str
    since: str
    idle_s: float
    percent: float
    min_percent: float
    window_s: float
    on_idle: str


class GpuPoint(TypedDict, total=False):
    """
    One GPU in a line of ``usage.jsonl``. What its driver does not tell is left out.

    :param index: as in ``gpus`` of the status.
    :param host: the node that it is in, for a job on several nodes.
    :param percent: how busy it was, in the mean.
    :param memory_bytes: memory in use on it: of this job where the driver tells it, else of all.
    :param power_w: in watts.
    :param celsius: its temperature.
    """

    index: int
    host: str
    percent: float
    memory_bytes: int
    power_w: float
    celsius: float


class UsagePoint(TypedDict, total=False):
    """
    A line of ``usage.jsonl``: means over a while.

    :param t: the end of that while, in seconds since the epoch.
    :param s: how long it is, in seconds.
    :param memory_bytes: host memory of the job's processes.
    :param cpus: how many processors were busy.
    :param written_bytes: bytes that its processes have written so far.
    :param progress_bytes: how large the job's PROGRESS_FILE was then.
    :param node: the node; only for a job on several nodes.
    """

    t: float
    s: float
    gpus: list[GpuPoint]
    memory_bytes: int
    cpus: float
    written_bytes: int
    progress_bytes: int
    node: str


class UsageSoFar(TypedDict, total=False):
    """
    ``usage.json`` of an attempt: what it has used until its last sample.

    :param seconds: ``idle`` alone.
    :param last: the last sample.
    :param looked_at: when that was, by the clock of ``time.monotonic()`` on its host.
    :param pause_s: how long after it the next one is due, in seconds.
    """

    usage: Usage
    seconds: Seconds
    last: UsagePoint
    looked_at: float
    pause_s: float
