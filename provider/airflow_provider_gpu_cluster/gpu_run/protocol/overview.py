"""The verb ``overview``: what a cluster looks like now, for people who want to know where a GPU is free."""

from __future__ import annotations

from typing import TypedDict

from .replies import DiskFacts, GpuFault
from .requests import Asker

# More than these are counted, and not listed.
MOST_GPUS = 5000
MOST_RUNNING = 2000
MOST_WAITING = 200

# States of a GPU, as in ``capacity``.
FREE, LEASED, OTHER, DOWN = "free", "leased", "other", "down"


class OverviewRequest(TypedDict):
    """
    What is asked for.

    :param hours: how many hours back the use of GPUs is told.
    """

    hours: int


class _OverviewGpu(TypedDict):
    state: str
    type: str


class OverviewGpu(_OverviewGpu, total=False):
    """
    A GPU, or a MIG instance. What is not known is left out.

    :param index: in PCI bus order; a MIG instance has that of its GPU.
    :param memory_mb: how much memory it has, and ``used_mb``, how much of it is in use, in MiB.
    :param percent: how busy it is.
    :param job: who has leased it: a place in ``jobs``.
    :param used_by: what uses it that holds no lease.
    """

    index: int
    memory_mb: int
    used_mb: int
    percent: float
    job: int
    used_by: str


class _OverviewNode(TypedDict):
    name: str
    is_up: bool
    gpus: list[OverviewGpu]


class OverviewNode(_OverviewNode, total=False):
    """
    A node of a scheduler, or the host itself.

    :param state: in the scheduler's words.
    :param reason: why it takes no jobs.
    """

    state: str
    reason: str
    partitions: list[str]


class _OverviewJob(TypedDict):
    is_running: bool
    user: str
    gpus: int


class OverviewJob(_OverviewJob, total=False):
    """
    A job of any user that has GPUs, or waits for some. What is not known is left out.

    :param user: its login on the cluster.
    :param job_id: its name among the jobs of this program; of others than this root's, too.
    :param scheduler_id: what the scheduler calls it.
    :param by: who has asked for it, if it is one of this root.
    :param element: its index, if it is an element of an array.
    :param place: its place in the queue, from 1, and ``why``, why it waits.
    :param since: when it got its GPUs, and ``until``, when it will give them back at the latest.
    :param expected_at: when the scheduler expects to start it.
    """

    job_id: str
    scheduler_id: str
    by: Asker
    element: int
    place: int
    why: str
    gpu_type: str
    partition: str
    submitted_at: str
    since: str
    until: str
    expected_at: str


class _EngineView(TypedDict):
    nodes: list[OverviewNode]
    jobs: list[OverviewJob]
    waiting_jobs: int
    waiting_gpus: int


class EngineView(_EngineView, total=False):
    """
    What an engine knows of the GPUs, and of the jobs of all users.

    :param left_out: how many GPUs are in no node of the list, as there are too many.
    :param partition: where jobs go that name none, if the connection says so.
    :param launcher: the program that alone knows the GPUs, if there is one.
    :param broken_gpus: those that do not work, which the nodes leave out.
    :param remarks: what else there is to know about the GPUs, each a sentence.
    """

    left_out: int
    partition: str
    launcher: str
    broken_gpus: list[GpuFault]
    remarks: list[str]


class HourOfUse(TypedDict):
    """
    An hour of use by the jobs of this root.

    :param begins_at: ISO 8601 in UTC.
    :param gpu_hours: GPU-hours leased in it.
    :param measured_gpu_hours: of these, those whose use is known, and ``used_gpu_hours``, of those, the GPU-hours in
        which a GPU computed. Both are only known of attempts that have ended.
    """

    begins_at: str
    gpu_hours: float
    measured_gpu_hours: float
    used_gpu_hours: float


class _Overview(TypedDict):
    host: str
    engine: str
    python: str
    hours: list[HourOfUse]


class Overview(_Overview, total=False):
    """
    What a cluster looks like now.

    :param view: missing when it is not known now, and ``fault`` says why.
    :param disk: of the root.
    :param driver: version of NVIDIA's driver on the host.
    """

    view: EngineView
    fault: str
    disk: DiskFacts
    driver: str
