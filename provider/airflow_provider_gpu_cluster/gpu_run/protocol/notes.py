"""Notes that processes of this program leave for each other, outside the jobs' own records."""

from __future__ import annotations

from typing import Any, Dict, List, TypedDict

from .placement import Placement
from .records import LeasedGpu, ProcessIdentity
from .requests import Position


class CursorNote(TypedDict):
    """A reader's position in a job's output, and a note of its own."""

    reader: str
    place: Position
    note: Any


class Lease(TypedDict):
    """What a dispatcher passes on to a supervisor: the open files that are the leases, and their GPUs."""

    fds: list[int]
    gpus: list[LeasedGpu]
    leased_at: str


class QueueEntry(TypedDict):
    """An entry in the queue of a host: the path of its attempt."""

    attempt: str


WaitNotes = Dict[str, List[Any]]
"""Why jobs wait in that queue: for each a place and a sentence, see :class:`.gpus.schedule.Wait`."""


class UnfinishedNote(TypedDict):
    """
    An attempt that waits or runs.

    :param gpus: number of GPUs, on all nodes.
    :param noted_at: when it was made, or was allowed to start, in seconds since the epoch.
    :param is_held: whether it must wait until its budget of GPU-hours allows it to start.
    """

    gpus: int
    time_limit_s: float | None
    dag_id: str
    user: str
    owner: str
    noted_at: float
    is_held: bool


class KeptBudget(TypedDict):
    """
    The budget of GPU-hours of a connection, as it was read last.

    :param read_at: when, in seconds since the epoch.
    """

    conn_id: str
    read_at: float
    gpu_hours_budget: dict[str, float] | None
    over_budget: str | None


class HeldNote(TypedDict):
    """
    Why an attempt waits for its budget.

    :param checked_at: when that was last looked at, in seconds since the epoch.
    :param told_at: when the message was made, likewise.
    :param read_at: of the budget.
    """

    key: str
    message: str
    checked_at: float
    told_at: float
    read_at: float


class BuildFault(TypedDict):
    """Why a Python environment could not be built; printed by the process that builds it."""

    error: str


class Interpreter(TypedDict):
    """
    What a Python interpreter says about itself.

    :param prefix: where it is installed.
    :param is_environment: whether it is in a virtual environment.
    :param packages: the folders of its packages.
    """

    executable: str
    version: str
    prefix: str
    platform: str
    is_environment: bool
    packages: list[str]


class _GpuNote(TypedDict):
    gpus: list[list[Any]]


class GpuNote(_GpuNote, total=False):
    """
    The GPUs of a host, see :class:`.gpus.inventory.Gpu`.

    :param broken: those that do not work, see :class:`.gpus.inventory.BrokenGpu`.
    """

    broken: list[list[str]]


class PieceNote(TypedDict, total=False):
    """
    The outcome of one ``sbatch`` for attempts of a batch.

    :param first: the number of the first of them in the batch, and ``count``, how many they are; both are missing when
        they are the whole batch.
    :param asked_at: when the first ``sbatch`` began, in seconds since the epoch.
    :param asked_on: the host where it did.
    :param answered_at: when ``ids``, Slurm's job ids, became known.
    :param message: what went wrong.
    """

    first: int
    count: int
    asked_at: float
    asked_on: str
    answered_at: float
    ids: list[str]
    message: str


class BatchNote(PieceNote, total=False):
    """
    The outcome of a batch for Slurm.

    :param array: in an attempt's own note: the folder of the array that it belongs to; then all other fields are
        missing.
    :param pieces: the outcome of each piece, if Slurm does not take the batch in one; then all other fields are
        missing.
    """

    array: str
    pieces: list[PieceNote]


class RequeuedJob(TypedDict):
    """
    ``requeued.json`` of an attempt whose job Slurm has put back into its queue: the next attempt runs as that job, if
    one follows by itself.

    :param id: Slurm's id of the job.
    :param name: its name; None for an element of an array, whose folder is enough.
    :param folder: where its script starts.
    :param output: path of its script's output.
    :param at: when this was noticed, in seconds since the epoch.
    """

    id: str
    name: str | None
    folder: str
    output: str
    at: float


class BatchAttempts(TypedDict):
    """The paths of the attempts in a Slurm array."""

    attempts: list[str]


class GateNote(TypedDict):
    """Until when, in seconds since the epoch, no job may be submitted to Slurm, how long that pause is, and why."""

    until: float
    for_s: float
    message: str


class Moment(TypedDict):
    """When something was first seen, in seconds since the epoch."""

    at: float


class ViewNote(TypedDict, total=False):
    """Slurm's last answer about all jobs; see :class:`.engines.slurm.views.View`."""

    asked_at: float
    told_at: float
    since: float
    trouble: str
    is_off: bool
    rows: list[list[Any]]


class _LaunchNote(TypedDict):
    path: str
    host: str
    boot: str
    noted_at: float


class LaunchNote(_LaunchNote, total=False):
    """
    An attempt that is handed to a site's launcher.

    :param path: of the attempt.
    :param host: where it is handed over, and ``boot``, the id of that host's boot.
    :param noted_at: when this note last changed, in seconds since the epoch.
    :param not_before: when the launcher may be called, likewise; missing if at once.
    :param called_at: when the launcher was called; written before the call.
    :param offsets: where the output of this call begins in the output files.
    :param launcher: the process of that call.
    :param process: the process whose id the launcher has printed.
    :param gone_at: when that process was first seen to be gone.
    """

    not_before: float
    called_at: float
    offsets: list[int]
    launcher: ProcessIdentity
    process: ProcessIdentity
    gone_at: float


class StartBy(TypedDict):
    """
    The last moment at which an attempt may start, by the clocks of the host where it was noted.

    :param at: in seconds since the epoch.
    :param boottime: the same by the clock that runs since that host was booted and is never set.
    :param boot: id of that boot.
    """

    at: float
    boottime: float
    boot: str
    host: str


class _PlacementNote(TypedDict):
    job_id: str
    placement: Placement
    kind: str


class PlacementNote(_PlacementNote, total=False):
    """
    What a cluster keeps of a job's highest placement.

    :param kind: with which word it was told.
    :param start_by: missing if an attempt of it may start at any time.
    :param chosen: the highest placement that this cluster was told for each chosen cluster, by its connection.
    :param withdrawal: the placement for which its waiting attempts are being taken back right now: none starts until
        that is decided.
    """

    start_by: StartBy
    chosen: dict[str, Placement]
    withdrawal: Placement


class PromiseNote(TypedDict):
    """
    GPUs that are kept for a job that was claimed and is about to be launched.

    :param gpus: how many, on all nodes.
    """

    gpus: int
    gpu_type: str | None
    time_limit_s: float | None
    priority: str | None
    made: StartBy
