"""
The records in a job's directory. One version of the program may write them, and another read them.

Jobs can write to them as well, so a reader must expect anything in them.
"""

from __future__ import annotations

from typing import Any, TypedDict, final

from .inputs import InputNotes
from .masks import Masks
from .placement import Placement
from .recovery import NextAttempt, Recovery
from .requests import ArrayPlace, Asker
from .settings import Settings
from .spec import Spec
from .usage import Seconds, Usage


class _AttemptRequest(TypedDict):
    request_key: str
    generation: str
    requested_at: str
    submitted: float
    by: Asker
    spec: Spec
    settings: Settings
    program: str
    host: str
    umask: int


class AttemptRequest(_AttemptRequest, total=False):
    """
    ``request.json`` of an attempt: what to run and who asked.

    :param submitted: its place in the order of waiting jobs, in seconds since the epoch.
    :param program: path of the program that runs it.
    :param host: the host that got the request.
    :param context: environment variables that tell the job who it is.
    :param environment: the parts of its Python environment; None when it needs none.
    :param array: the array that it is an element of.
    :param cwd: the folder that it runs in, if not in its code.
    :param waiter: whether the process that waits for it also runs it.
    :param masks: masks of its secrets.
    :param interpreter: the Python that took the request, and is the job's unless its setup chooses another.
    :param recovery: why it exists, if nobody has asked for this attempt.
    :param over_budget: why it had to wait for its budget of GPU-hours when it was made; missing if it had not.
    :param placement: the choice of this cluster by which it was launched here; missing if there was no choice.
    """

    context: dict[str, str]
    environment: EnvironmentParts | None
    array: ArrayPlace
    cwd: str
    waiter: bool
    masks: Masks
    interpreter: str
    recovery: Recovery
    over_budget: str
    placement: Placement


class _EnvironmentParts(TypedDict):
    requirements: str
    includes: dict[str, str]
    private: list[Any] | None
    setup: str
    python: str | None


class EnvironmentParts(_EnvironmentParts, total=False):
    """
    The parts of a Python environment.

    :param requirements: text of the requirements.
    :param includes: texts of the files that these include, by path.
    :param private: changes when the code does, if the requirements depend on the code.
    :param setup: shell lines to run first.
    :param python: the interpreter, as the connection names it.
    :param interpreter: its path.
    """

    interpreter: str


@final
class Environment(TypedDict, total=False):
    """
    A Python environment that was built: the mark in it, and ``environment.json`` of an attempt that uses it.

    :param tool: the tool that installed the packages.
    :param group: see :func:`.environments.python_environment.group`; missing if an older version built it.
    :param reused: whether it existed before.
    :param seconds: how long it took to get it.
    """

    path: str
    key: str
    python: str
    tool: str
    built_at: str
    group: str
    reused: bool
    seconds: float


class ProcessIdentity(TypedDict):
    """What identifies a process among all others; see :func:`.linux.processes.identity`."""

    pid: int
    start: int | None
    boot: str
    host: str


class _LeasedGpu(TypedDict):
    key: str
    index: int


class LeasedGpu(_LeasedGpu, total=False):
    """
    A GPU of an attempt.

    :param key: of its lease.
    :param index: its index in PCI bus order; a MIG instance has that of its GPU.
    :param visible: its name in CUDA_VISIBLE_DEVICES, if that is not its index.
    :param type: its product name, or what the scheduler calls it; missing if that is not known.
    """

    visible: str
    type: str


class NodeOrder(TypedDict):
    """
    A line of ``orders.jsonl``: what each node of a job on several nodes is to do.

    :param kind: ``warn``, ``stop`` or ``kill``.
    :param number: of the signal.
    :param to_all: whether it is for every process.
    """

    kind: str
    number: int
    to_all: bool


class _End(TypedDict):
    state: str
    reason: str | None
    message: str


class End(_End, total=False):
    """
    How an attempt ended, as stated by the process that ended it.

    :param placement: why it does not run on this cluster, if that is its end; see :mod:`.placement`.
    """

    placement: str


class SlurmRun(TypedDict, total=False):
    """
    What a claim says about a run in Slurm.

    :param slurm_job: Slurm's id of its job.
    :param nodes: where it runs.
    :param restarts: how often Slurm had requeued it.
    :param unix_time: when it began, in seconds since the epoch.
    :param output_start: where the output of this run begins in that of the job's script, in bytes.
    :param memory_limit_bytes: what it may use on each node; missing where Slurm does not say it.
    """

    slurm_job: str
    nodes: str | None
    restarts: int
    unix_time: float
    output_start: int
    memory_limit_bytes: int


class _Claim(ProcessIdentity):
    by: str
    at: str


class Claim(_Claim, SlurmRun, total=False):
    """
    ``claim.json``: who runs an attempt, or has ended it before it could run.

    :param by: ``supervisor``, ``waiter``, ``cancel``, ``dispatcher``, or the engine.
    :param leased_at: when the supervisor got its GPUs.
    :param token: a variable that only this attempt's processes have in their environment.
    :param end: how it ended, if it was claimed so that it never runs.
    """

    leased_at: str
    gpus: list[LeasedGpu]
    token: str
    end: End


class EndFacts(TypedDict, total=False):
    """
    What an exit record says besides the end itself, as far as known.

    :param kind: how it ended, finer than its reason.
    :param remedy: what to do about it, as a sentence.
    :param memory_limit_bytes: the memory that a scheduler gave it on each node.
    :param failed_nodes: those of its nodes that failed, in the scheduler's words.
    :param usage: what it has used.
    :param seconds: how long each of its parts took.
    :param placement: why it does not run on this cluster; see :mod:`.placement`.
    """

    kind: str | None
    remedy: str

    exit_code: int | None
    signal: int | None
    submitted_at: str
    leased_at: str
    started_at: str | None
    ended_at: str
    released_at: str
    gpus: list[int]
    gpu_keys: list[str]
    gpu_seconds: float
    peak_memory_bytes: int | None
    memory_limit_bytes: int
    failed_nodes: str
    usage: Usage
    seconds: Seconds
    host: str
    pid: int
    placement: str


class _ExitRecord(_End):
    job_id: str
    attempt: int


class ExitRecord(_ExitRecord, EndFacts, total=False):
    """
    ``exit.json``: how an attempt ended.

    :param resumed_from: why the attempt before had ended, if this one followed it by itself.
    :param next: the attempt that follows by itself; missing when this end is the job's.
    """

    resumed_from: str
    next: NextAttempt


class _LogStarts(TypedDict):
    training: int
    error: int


class LogStarts(_LogStarts, total=False):
    """
    ``log_starts.json``: where an attempt's part of each log begins, in bytes. What is before is of earlier ones.

    :param progress: the same for PROGRESS_FILE; earlier versions do not say it.
    """

    progress: int


class CheckpointNote(TypedDict):
    """
    ``checkpoint.json``: the newest file of a checkpoint when an attempt began.

    :param modified_ns: when it was last written, in nanoseconds since the epoch.
    """

    path: str
    modified_ns: int


class Stopped(TypedDict, total=False):
    """``stopped.json``: how an end looked from within, when a scheduler has to say why it came."""

    end: End
    facts: EndFacts


class Marked(_End):
    """What the marker in outputs/ says about an end."""

    facts: EndFacts


class _JobRecord(TypedDict):
    job_id: str
    by: Asker
    spec: Spec
    environment_names: list[str]
    engine: str
    inputs: InputNotes


class JobRecord(_JobRecord, total=False):
    """``spec.json``, which describes a job for people; no program reads it."""

    array: ArrayPlace


class OwnerRecord(TypedDict):
    """``owner.json``: which task a job's directory belongs to."""

    job_id: str
    by: Asker


class ArrayRecord(TypedDict, total=False):
    """``array.json``: the job ids of an array's elements, and of its earlier elements."""

    elements: list[str]
    former: list[str]
