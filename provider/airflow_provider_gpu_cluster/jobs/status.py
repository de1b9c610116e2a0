"""The status of a job: its state, and what else is known about it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, cast

from airflow_provider_gpu_cluster.connection.words import cleaned
from airflow_provider_gpu_cluster.exceptions import JOB_ERRORS, GpuClusterProtocolError, GpuJobError
from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.gpu_run.protocol.masks import are_masks
from airflow_provider_gpu_cluster.jobs.handle import MAX_JOB_ID_LENGTH
from airflow_provider_gpu_cluster.jobs.metrics import storable
from airflow_provider_gpu_cluster.jobs.progress import duration_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_gpu_cluster.gpu_run.protocol.masks import Masks
    from airflow_provider_gpu_cluster.gpu_run.protocol.notices import Notice
    from airflow_provider_gpu_cluster.gpu_run.protocol.recovery import PastAttempt
    from airflow_provider_gpu_cluster.gpu_run.protocol.status import AskedFor, Progress, Status
    from airflow_provider_gpu_cluster.gpu_run.protocol.usage import IdleNote, Seconds, Usage

_OF_EACH_ATTEMPT = (
    "attempt",
    "reason",
    "kind",
    "message",
    "started_at",
    "ended_at",
    "host",
    "exit_code",
    "gpu_seconds",
)


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


@dataclass(frozen=True)
class JobStatus:
    """
    The status of a job. Times are ISO 8601 in UTC, None if not reached yet.

    :param reason: why it ended badly; None unless the state is FAILED, CANCELLED or LOST.
    :param kind: how it ended, finer than ``reason``, such as ``missing_module``; see docs/verdicts.md.
    :param remedy: what to do about it, as one sentence; empty if nobody knows.
    :param message: one readable sentence: why it waits, or how it ended.
    :param exit_code: exit code of the user's code; None while it runs or if a signal ended it.
    :param signal: the signal that ended it, if one did.
    :param attempt: number of the attempt, from 1; 0 if nothing was launched.
    :param orphan_timeout_s: after how many seconds the cluster ends it if nobody asks about it; None for never, and
        when it has ended.
    :param log_attempt: number of the attempt with which its log begins, if that is an earlier one; see
        :attr:`log_number`.
    :param gpus: indexes of the leased GPUs.
    :param gpu_seconds: GPUs multiplied by the seconds they were leased.
    :param peak_memory_bytes: highest host memory of the whole process tree.
    :param memory_limit_bytes: the limit on that, once it has ended; None without one.
    :param queue_place: place in the cluster's queue, from 1; None unless QUEUED.
    :param expected_start: when its scheduler expects it to start; None unless QUEUED and known.
    :param progress: the last line of PROGRESS_FILE.
    :param usage: what it has used of its GPUs and its host; while it runs, so far. Empty where nobody has measured it.
    :param seconds: how long each part took, in seconds: ``queued``, ``staging``, ``building``, ``running``, ``idle``.
    :param idle: while it runs and leaves its GPUs idle: for how long, and what follows; see docs/idle.md.
    :param asked: what it was to get, once it has ended: ``cpus``, ``memory_bytes`` and ``time_limit_s``, as far as it
        has asked for them.
    :param host: host the attempt runs on.
    :param pid: process id of its supervisor.
    :param log_bytes: size of training.log.
    :param log_tail: last lines of the output, if requested.
    :param attempts: the earlier attempts of this try, oldest first: ``attempt``, ``reason``, ``kind``, ``message``,
        ``started_at``, ``ended_at``, ``host``, ``exit_code``, ``gpu_seconds``, ``checkpoint``.
    :param recovered: how many attempts each reason has caused in this try.
    :param notes: what keeps a part of this from being known, such as a pipe in the place of the job's progress.
    :param placement: that the attempt was not to run on this cluster any more: ``withdrawn``, ``expired`` or
        ``fenced``. That is no end of the job.
    :param moved_to: the connection of the cluster that has the job instead, if this one was told so.
    :param elements: for an array, the state of each element, and its reason if it ended badly.
    :param due: what the caller has to tell people now, if it has asked for that.
    :param masks: masks of the job's secrets, to hide them in its output. All texts here are without them.
    """

    job_id: str
    state: JobState
    reason: str | None = None
    kind: str | None = None
    message: str = ""
    remedy: str = ""
    exit_code: int | None = None
    signal: int | None = None
    attempt: int = 0
    orphan_timeout_s: float | None = None
    log_attempt: int = 0
    submitted_at: str | None = None
    started_at: str | None = None
    ended_at: str | None = None
    gpus: tuple[int, ...] = ()
    gpu_seconds: float | None = None
    peak_memory_bytes: int | None = None
    memory_limit_bytes: int | None = None
    queue_place: int | None = None
    expected_start: str | None = None
    progress: Progress | None = None
    usage: Usage = field(default_factory=dict)  # type: ignore[assignment]
    seconds: Seconds = field(default_factory=dict)  # type: ignore[assignment]
    idle: IdleNote | None = None
    asked: AskedFor = field(default_factory=dict)  # type: ignore[assignment]
    host: str | None = None
    pid: int | None = None
    log_bytes: int = 0
    log_tail: str = ""
    attempts: tuple[PastAttempt, ...] = ()
    recovered: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    placement: str | None = None
    moved_to: str | None = None
    elements: tuple[tuple[JobState, str | None], ...] = field(default=(), repr=False)
    due: tuple[Notice, ...] = field(default=(), repr=False, compare=False)
    masks: Masks | None = field(default=None, repr=False, compare=False)

    @classmethod
    def from_json(cls, value: Status) -> JobStatus:
        """
        Read a status from a reply; fields that this version does not know are ignored.

        :raises GpuClusterProtocolError: no job can be in such a state.
        """
        known = {item.name for item in fields(cls)}
        values: dict[str, Any] = {name: item for name, item in value.items() if name in known}
        try:
            values["elements"] = tuple((JobState(state), reason) for state, reason in value.get("elements") or ())
            values["state"] = JobState(value["state"])
        except ValueError as error:
            raise GpuClusterProtocolError(
                f"job {cleaned(value['job_id'], MAX_JOB_ID_LENGTH)}: the cluster tells a state that no job can be in "
                f"({cleaned(str(error), 200)})"
            ) from error
        values["masks"] = value["masks"] if are_masks(value.get("masks")) else None
        values["message"], values["remedy"] = cleaned(values.get("message") or ""), cleaned(values.get("remedy") or "")
        for name in ("gpus", "notes", "attempts", "due"):
            values[name] = tuple(values.get(name) or ())
        recovered = values.get("recovered") or {}
        values["recovered"] = {name: times for name, times in recovered.items() if isinstance(times, int)}
        return cls(**values)

    def to_json(self) -> Status:
        """Return the status as plain JSON values, for Airflow's database; masks and what is due have no place there."""
        value = cast("Status", asdict(self))
        value.pop("masks", None)
        value.pop("due", None)
        value["state"], value["gpus"], value["notes"] = str(self.state), list(self.gpus), list(self.notes)
        value["attempts"], value["recovered"] = list(self.attempts), dict(self.recovered)
        value["elements"] = [[str(state), reason] for state, reason in self.elements]
        return value

    def used(self) -> dict[str, Any]:
        """Return ``usage`` and ``seconds``, as far as they are known, as plain JSON values for Airflow's database."""
        found = {"usage": self.usage, "seconds": self.seconds}
        return dict(storable({name: value for name, value in found.items() if value}))

    def history(self) -> dict[str, Any]:
        """
        Return ``attempts``, all of this try with the last one, and ``recovered``, as plain JSON values for Airflow's
        database; nothing of a job that has not gone on by itself.
        """
        if not self.recovered:
            return {}
        found: dict[str, Any] = {"recovered": dict(self.recovered)}
        if self.attempts:
            last = {name: getattr(self, name) for name in _OF_EACH_ATTEMPT}
            found["attempts"] = [*self.attempts, {**last, "checkpoint": None}]
        return dict(storable(found))

    @property
    def final(self) -> bool:
        """Whether the job has ended."""
        return self.state.final

    @property
    def is_elsewhere(self) -> bool:
        """Whether this says nothing of how the job goes, as it is, or is to be, on another cluster of its pool."""
        return self.placement is not None or self.moved_to is not None

    @property
    def log_number(self) -> int:
        """
        Number of the attempt with which the job's log begins: all places in its output have that number.

        A job that goes on in a next attempt by itself goes on in the same log.
        """
        return self.log_attempt or self.attempt

    @property
    def run_seconds(self) -> float | None:
        """Seconds between start and end of the user's code; None until it has ended."""
        if self.started_at is None or self.ended_at is None:
            return None
        started, ended = (datetime.fromisoformat(text) for text in (self.started_at, self.ended_at))
        return (ended - started).total_seconds()

    @property
    def memory_text(self) -> str:
        """Highest host memory and the limit on it, for a person; empty where nothing is known."""
        if not self.peak_memory_bytes:
            return ""
        limit = f" of {self.memory_limit_bytes / 2**30:.2f} GiB" if self.memory_limit_bytes else ", without a limit"
        return f"{self.peak_memory_bytes / 2**30:.2f} GiB at most{limit}"

    def _where(self) -> str:
        """Return where it ran and how it ended, for a person."""
        if self.host is None:
            return ""
        parts = [self.host]
        if self.gpus:
            parts.append(f"{'GPU' if len(self.gpus) == 1 else 'GPUs'} {', '.join(map(str, self.gpus))}")
        parts.append(f"attempt {self.attempt}")
        if self.run_seconds is not None:
            parts.append(f"after {duration_text(self.run_seconds)}")
        if self.exit_code is not None:
            parts.append(f"exit code {self.exit_code}")
        elif self.signal is not None:
            parts.append(f"signal {self.signal}")
        return ", ".join(parts)

    def error(self, cluster: str) -> GpuJobError:
        """
        Return the exception for a job that ended badly.

        Its text is all that somebody needs who reads nothing else: the cause, what to do, where it ran, its memory, and
        the last lines that it printed.

        :param cluster: name of the cluster.
        """
        error_class = JOB_ERRORS.get(self.reason or "", GpuJobError)
        message = f"job {self.job_id} on {cluster} {self.state}"
        if self.reason:
            finer = f", {self.kind}" if self.kind and self.kind != self.reason else ""
            message += f" ({self.reason}{finer})"
        said, last_lines = self.message, self.log_tail
        # When its environment could not be built, both hold the installer's last lines.
        sentence, _, quoted = said.partition("\n")
        if quoted.strip() and quoted.strip() in last_lines:
            said = sentence
        elif last_lines.strip() in quoted:
            last_lines = ""
        if said:
            message += f": {said}"
        for label, text in (("What to do", self.remedy), ("Where", self._where()), ("Host memory", self.memory_text)):
            if text:
                message += f"\n{label}: {text}"
        if last_lines:
            message += f"\nIts last lines were:\n{cleaned(last_lines, len(last_lines))}"
        return error_class(
            message,
            job_id=self.job_id,
            state=str(self.state),
            reason=self.reason,
            kind=self.kind,
            exit_code=self.exit_code,
            log_tail=self.log_tail,
            recovered=self.recovered,
            attempt=self.attempt,
            cause=self.message,
            remedy=self.remedy,
        )
