"""The values of a job: what is asked for, what was launched, how it stands. Frozen, no IO, JSON in and out."""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from datetime import datetime, timezone
from enum import Enum
from typing import Any

from airflow_provider_gpu_cluster.exceptions import JOB_ERRORS, GpuJobError
from airflow_provider_gpu_cluster.gpu_run import protocol

MAX_JOB_ID_LENGTH = 100
MAX_ARRAY_SIZE = 1000


class JobState(str, Enum):
    """State of a job. UNKNOWN means that it could not be determined now, and is never an end."""

    QUEUED = protocol.QUEUED
    RUNNING = protocol.RUNNING
    SUCCEEDED = protocol.SUCCEEDED
    FAILED = protocol.FAILED
    CANCELLED = protocol.CANCELLED
    LOST = protocol.LOST
    UNKNOWN = protocol.UNKNOWN

    @property
    def final(self) -> bool:
        """Whether a job in this state never changes again."""
        return self.value in protocol.FINAL_STATES

    def __str__(self) -> str:
        return self.value


def make_job_id(
    *,
    dag_id: str,
    run_id: str,
    task_id: str,
    map_index: int,
    generation: str,
    run_date: datetime,
    name: str | None = None,
) -> str:
    """
    Derive the identity of a job: the same task instance always gets the same one, on any machine and in any retry.

    :param generation: changes when a user clears the task; a retry leaves it.
    :param run_date: the DAG run's date; makes the id readable, and does not take part in the hash.
    :param name: what to call the job in its id, which does not take part in the hash either; by default ``task_id``.
    :return: ``<dag>-<task>-<yyyymmddThhmmss>-<8 hex>``, only ``[A-Za-z0-9._-]``, at most 100 characters.
    """
    key = json.dumps([dag_id, run_id, task_id, map_index, generation])
    digest = hashlib.sha256(key.encode()).hexdigest()[:8]
    stamp = run_date.astimezone(timezone.utc).strftime("%Y%m%dT%H%M%S")
    tail = f"-{stamp}-{digest}"
    head = "-".join(_readable(part) for part in (dag_id, name or task_id))
    return head[: MAX_JOB_ID_LENGTH - len(tail)].rstrip("-._") + tail


def element_id(array_id: str, index: int) -> str:
    """
    Return the job id of an element of an array: that of the array, and the element's index.

    Of an id that is too long for that the beginning goes, as what makes it one of its kind stands at its end.
    """
    tail = f"_{index}"
    return array_id[-(MAX_JOB_ID_LENGTH - len(tail)) :].lstrip("-._") + tail


def _readable(text: str) -> str:
    """Reduce any text to characters that are safe in a path, a process list and a Slurm job name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("-._") or "x"


@dataclass(frozen=True)
class JobHandle:
    """
    What a DAG passes on: enough to find a job again from any task.

    :param job_id: the job's identity, and the name of its directory.
    :param gpu_cluster_conn_id: the Airflow connection of its cluster.
    :param job_dir: its directory on the cluster.
    :param engine: ``host``, ``slurm`` or ``command``.
    :param submitted_at: when it was launched, ISO 8601 in UTC; None while it is only staged.
    :param gpus: how many GPUs it asked for, each element of an array by itself; 0 while it is only staged.
    :param array_size: of an array, how many elements it has; None for any other job.
    """

    job_id: str
    gpu_cluster_conn_id: str
    job_dir: str
    engine: str
    submitted_at: str | None
    gpus: int
    array_size: int | None = None

    @property
    def elements(self) -> tuple[JobHandle, ...]:
        """The elements of an array, each a job of its own."""
        return tuple(self.element(index) for index in range(self.array_size or 0))

    def element(self, index: int) -> JobHandle:
        """Return an element of an array."""
        job_id = element_id(self.job_id, index)
        job_dir = posixpath.join(posixpath.dirname(self.job_dir), job_id)
        return replace(self, job_id=job_id, job_dir=job_dir, array_size=None)

    def to_json(self) -> dict[str, Any]:
        """Return the handle as the small dict that goes through XCom."""
        value = asdict(self)
        if self.array_size is None:
            del value["array_size"]
        return value

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> JobHandle:
        """
        Read a handle back from XCom.

        :raises ValueError: the value is no job handle.
        """
        names = [item.name for item in fields(cls) if item.default is MISSING]
        if not isinstance(value, dict) or any(name not in value for name in names):
            raise ValueError(
                f"not a job handle: {value!r}; pass the output of SubmitGpuJobOperator or StageGpuJobOperator, "
                f"a dict with the keys {', '.join(names)}"
            )
        return cls(**{item.name: value[item.name] for item in fields(cls) if item.name in value})


@dataclass(frozen=True)
class JobStatus:
    """
    How a job stands. Times are ISO 8601 in UTC, None where not reached.

    :param reason: why it ended badly; None unless the state is FAILED, CANCELLED or LOST.
    :param message: one sentence for a person: why it waits, or how it ended.
    :param exit_code: exit code of the user's code, None while it runs or when a signal ended it.
    :param signal: the signal that ended it, if one did.
    :param attempt: number of the attempt this is about, from 1; 0 when nothing was launched.
    :param gpus: indexes of the leased GPUs.
    :param gpu_seconds: GPUs multiplied by the seconds they were leased.
    :param peak_memory_bytes: highest host memory of the whole process tree.
    :param queue_place: place in the cluster's queue, from 1; None unless QUEUED.
    :param progress: the last line of PROGRESS_FILE.
    :param host: host the attempt runs on.
    :param pid: process id of its supervisor.
    :param log_bytes: size of training.log.
    :param log_tail: last lines of the output, where asked for.
    :param elements: of an array, the state of each element and, of one that ended badly, its reason.
    """

    job_id: str
    state: JobState
    reason: str | None = None
    message: str = ""
    exit_code: int | None = None
    signal: int | None = None
    attempt: int = 0
    submitted_at: str | None = None
    started_at: str | None = None
    ended_at: str | None = None
    gpus: tuple[int, ...] = ()
    gpu_seconds: float | None = None
    peak_memory_bytes: int | None = None
    queue_place: int | None = None
    progress: dict[str, Any] | None = None
    host: str | None = None
    pid: int | None = None
    log_bytes: int = 0
    log_tail: str = ""
    elements: tuple[tuple[JobState, str | None], ...] = field(default=(), repr=False)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> JobStatus:
        """Read a status from a reply; names this version does not know are left out."""
        known = {item.name for item in fields(cls)}
        values = {name: item for name, item in value.items() if name in known}
        values["elements"] = tuple((JobState(state), reason) for state, reason in value.get("elements") or ())
        return cls(**{**values, "state": JobState(value["state"]), "gpus": tuple(value.get("gpus") or ())})

    def to_json(self) -> dict[str, Any]:
        """Return the status as plain JSON values."""
        value = {**asdict(self), "state": str(self.state), "gpus": list(self.gpus)}
        value["elements"] = [[str(state), reason] for state, reason in self.elements]
        return value

    @property
    def final(self) -> bool:
        """Whether the job has ended."""
        return self.state.final

    @property
    def run_seconds(self) -> float | None:
        """Seconds between start and end of the user's code; None until it has ended."""
        if self.started_at is None or self.ended_at is None:
            return None
        started, ended = (datetime.fromisoformat(text) for text in (self.started_at, self.ended_at))
        return (ended - started).total_seconds()

    def error(self, cluster: str) -> GpuJobError:
        """Return the exception for a job that ended badly on the cluster of that name."""
        error_class = JOB_ERRORS.get(self.reason or "", GpuJobError)
        message = f"job {self.job_id} on {cluster} {self.state}"
        if self.reason:
            message += f" ({self.reason})"
        if self.message:
            message += f": {self.message}"
        if self.log_tail:
            message += f"\nIts last lines were:\n{self.log_tail}"
        return error_class(
            message,
            job_id=self.job_id,
            state=str(self.state),
            reason=self.reason,
            exit_code=self.exit_code,
            log_tail=self.log_tail,
        )
