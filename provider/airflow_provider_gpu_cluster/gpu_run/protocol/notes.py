"""What processes of this program note for each other, outside of the jobs' own records."""

from __future__ import annotations

from typing import Any, Dict, List, TypedDict

from .records import LeasedGpu, ProcessIdentity
from .requests import Position


class CursorNote(TypedDict):
    """Where a reader is in a job's output, and a note of its own."""

    reader: str
    place: Position
    note: Any


class Lease(TypedDict):
    """What a dispatcher hands on to a supervisor: open files that are leases, and their GPUs."""

    fds: list[int]
    gpus: list[LeasedGpu]
    leased_at: str


class QueueEntry(TypedDict):
    """One that waits in a queue of a host: the path of its attempt."""

    attempt: str


WaitNotes = Dict[str, List[Any]]
"""Why jobs wait in that queue: of each a place and a sentence, see :class:`.gpus.schedule.Wait`."""


class BuildFault(TypedDict):
    """Why a Python environment could not be built, which the process that builds it prints."""

    error: str


class Interpreter(TypedDict):
    """
    What a Python interpreter says of itself.

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


class GpuNote(TypedDict):
    """The GPUs of a host, see :class:`.gpus.inventory.Gpu`."""

    gpus: list[list[Any]]


class BatchNote(TypedDict, total=False):
    """
    What came of a batch for Slurm.

    :param array: the folder of the array that the attempt is in, where this is written; nothing else is said then.
    :param asked_at: when the first ``sbatch`` began, in seconds since the epoch.
    :param answered_at: when ``ids``, Slurm's job ids, were known.
    :param message: what went wrong.
    """

    array: str
    asked_at: float
    answered_at: float
    ids: list[str]
    message: str


class BatchAttempts(TypedDict):
    """The paths of the attempts in an array of Slurm's."""

    attempts: list[str]


class GateNote(TypedDict):
    """Until when, in seconds since the epoch, nobody asks Slurm for another job, for how long that was, and why."""

    until: float
    for_s: float
    message: str


class Moment(TypedDict):
    """When something was first seen, in seconds since the epoch."""

    at: float


class ViewNote(TypedDict, total=False):
    """What Slurm has last answered about all jobs; see :class:`.engines.slurm.views.View`."""

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
    :param host: where it is handed over, and ``boot``, that host's.
    :param noted_at: when this was last changed, in seconds since the epoch.
    :param called_at: when the launcher was called; written before that.
    :param offsets: where in the files of its output that of this call begins.
    :param launcher: the process of that call.
    :param process: the one whose id the launcher has printed.
    :param gone_at: when that was first seen to be gone.
    """

    called_at: float
    offsets: list[int]
    launcher: ProcessIdentity
    process: ProcessIdentity
    gone_at: float
