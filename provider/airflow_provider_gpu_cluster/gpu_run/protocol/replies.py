"""The reply of each verb."""

from __future__ import annotations

from typing import Any, TypedDict, final

from .notices import Counted
from .outputs import OutputEntry, Writer
from .status import Status


class Fault(TypedDict):
    """Why a request is refused: one of the codes of :mod:`.protocol`, and a sentence."""

    code: str
    message: str


class _Handle(TypedDict):
    job_id: str
    job_dir: str
    engine: str
    submitted_at: str | None
    gpus: int


class Handle(_Handle, total=False):
    """
    Where a job is.

    :param array_size: the number of elements, for an array.
    """

    array_size: int


class StageReply(TypedDict, total=False):
    """
    The result of staging.

    :param needs: numbers of the inputs that the worker has to send first.
    """

    needs: list[int]
    handle: Handle


class InterruptReply(TypedDict):
    """
    The result of an interruption.

    :param message: what was done, as a sentence.
    """

    message: str


@final
class SubmitReply(TypedDict, total=False):
    """
    The result of a submit: ``needs``, or all the other fields.

    :param needs: numbers of the inputs that the worker has to send first.
    :param created: whether this request made the attempt, or one of an element.
    :param launched: for an array, how many attempts it made.
    """

    needs: list[int]
    handle: Handle
    status: Status
    created: bool
    launched: int


class _StatusReply(TypedDict):
    jobs: list[Status]


class StatusReply(_StatusReply, total=False):
    """
    The statuses of jobs, in the order of the request; ``cancel`` replies in this form as well.

    :param counted: what has happened to them and is to be counted by the one who gets this.
    """

    counted: list[Counted]


class _LogReply(TypedDict):
    status: Status
    attempt: int
    offset: int
    log_bytes: int
    length: int


class LogReply(_LogReply, total=False):
    """
    A job's output from its reader's position on.

    :param attempt: the attempt that wrote the output, and ``offset``, where in its log the output begins.
    :param log_bytes: size of the whole log.
    :param length: how many bytes follow the reply.
    :param note: the reader's note at that position.
    :param counted: what has happened to the job and is to be counted by the one who gets this.
    """

    note: Any
    counted: list[Counted]


class LogsReply(TypedDict):
    """The same for several jobs; their bytes follow one after the other."""

    jobs: list[LogReply]


class SendReply(TypedDict, total=False):
    """
    The outputs that can be sent, if the request asked for a list.

    :param is_array: whether the outputs are those of elements, each in a folder named after its index.
    :param writer: whose outputs they are.
    """

    entries: list[OutputEntry]
    is_array: bool
    writer: Writer


class _GpuState(TypedDict):
    index: int
    key: str
    type: str
    memory_mb: int | None
    free: bool
    used_by: str


class GpuState(_GpuState, total=False):
    """
    A GPU, and who has it.

    :param state: ``free``, ``leased``, ``other`` when something uses it that holds no lease, or ``down`` when its node
        takes no jobs.
    """

    state: str


class GpuFault(TypedDict):
    """A GPU that does not work: its PCI address or index, as far as known, and why."""

    gpu: str
    why: str


class _Capacity(TypedDict):
    gpus: list[GpuState]
    free_gpus: int | None
    waiting_jobs: int
    waiting_gpus: int


class Capacity(_Capacity, total=False):
    """
    The GPUs of a cluster, and how many jobs of all users wait.

    :param launcher: the program that alone knows the GPUs, if there is one.
    :param broken_gpus: those that do not work, which ``gpus`` leaves out.
    :param remarks: what else there is to know about the GPUs, each a sentence.
    """

    launcher: str
    broken_gpus: list[GpuFault]
    remarks: list[str]


class PythonFacts(TypedDict):
    """The interpreter that runs this program."""

    version: str
    executable: str


class DiskFacts(TypedDict):
    """The disk of the root, in bytes."""

    free: int
    total: int


class _Check(TypedDict):
    host: str
    user: str
    engine: str
    root_dir: str
    python: PythonFacts
    disk: DiskFacts
    cpus: int | None
    uv: str | None
    git: str | None
    warnings: list[str]


class Check(_Check, total=False):
    """Facts about a cluster to know before the first job."""

    capacity: Capacity


class NotRemoved(TypedDict):
    """A path that could not be removed, and why."""

    path: str
    why: str


class GcReport(TypedDict):
    """What was removed; see :func:`.gc.collection.collect_garbage`."""

    older_than_s: float
    dry_run: bool
    busy: bool
    jobs: list[str]
    environments: list[str]
    cache_entries: int
    uploads: int
    programs: int
    bytes_freed: int
    failed: list[NotRemoved]
    failures: int


class ToldReply(TypedDict):
    """
    Who is to tell an event.

    :param tries: how often somebody was to tell it, if it is now the one who asks; else 0.
    """

    tries: int


class FillReply(TypedDict):
    """How many bytes arrived over a further channel."""

    bytes: int
