"""What is told of one job, as OpenAPI shows it. Times are ISO 8601 in UTC; what is not known is null."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class _Told(BaseModel):
    model_config = ConfigDict(extra="forbid")


class AttemptTold(_Told):
    """One run of the job, as it stands or has ended."""

    attempt: int
    state: str | None
    started_at: str | None
    ended_at: str | None
    reason: str | None
    kind: str | None
    message: str | None
    remedy: str | None
    host: str | None
    checkpoint: str | None = Field(description="the newest file of a checkpoint that it left, below outputs/")
    exit_code: int | None
    signal: int | None
    gpu_seconds: float | None
    conn_id: str = Field(description="connection of the cluster where it is or was, which has its log")


class Queue(_Told):
    """Why a job waits."""

    place: int | None = Field(description="place in the cluster's queue, from 1")
    since: str | None
    expected_start: str | None = Field(description="as the scheduler expects it")
    why: str


class Progress(_Told):
    """The last line of PROGRESS_FILE."""

    step: float | None
    total: float | None
    label: str
    values: dict[str, float | str]
    seconds_left: float | None


class LifePart(_Told):
    """A part of the job's life."""

    kind: str = Field(description="staging, building, queued, running, recovering or collecting")
    attempt: int
    start: str
    end: str | None = Field(description="null while it lasts")
    label: str


class Resources(_Told):
    """What the job has asked for, and what it has used, each by its name."""

    asked: dict[str, Any]
    used: dict[str, Any]


class Code(_Told):
    """An input of the job."""

    place: str = Field(description="its path in the job's directory")
    source: str = Field(description="as written in the DAG")
    commit: str | None
    checksum: str | None
    files: int | None
    bytes: int | None


class Part(_Told):
    """Elements of an array that are on one cluster, as an array of their own."""

    job_id: str
    conn_id: str
    first: int = Field(description="index of its first element in the whole array")
    count: int


class Array(_Told):
    """An array of jobs, or the part of it that is on one cluster."""

    size: int
    counts: dict[str, int] = Field(description="how many elements are in each state")
    parts: list[Part] | None = Field(description="if its elements are on several clusters: what is on each")


class Act(_Told):
    """Who has done what with the job."""

    at: str
    act: str
    attempt: int | None
    by: str
    through: str
    try_number: int | None
    host: str
    address: str
    details: str


class Earlier(_Told):
    """A job that the same task instance had launched before it was cleared, or this job where it was before."""

    job_id: str
    conn_id: str | None
    state: str | None
    attempt: int | None = Field(description="the number of its last attempt there")
    submitted_at: str | None


class May(_Told):
    """What the user may do."""

    read_log: bool = Field(description="see what the job printed, wrote and reported; without it, that is null here")
    cancel: bool
    clear: bool


class JobDetail(_Told):
    """All that is known of a job."""

    job_id: str
    conn_id: str
    engine: str
    job_dir: str
    state: str = Field(description="UNKNOWN as long as the cluster has not told it")
    is_final: bool
    reason: str | None
    kind: str | None
    headline: str
    remedy: str | None
    message: str | None
    error: str | None = Field(description="why the cluster cannot be asked now; the rest is what was known before")
    error_since: str | None
    as_of: str | None = Field(description="when the cluster said so; null as long as it has not answered")
    attempt: int | None
    attempts: list[AttemptTold]
    recovered: dict[str, int] = Field(description="how often it went on by itself, by the reason")
    queue: Queue | None
    progress: Progress | None
    gpus: list[int]
    gpu_count: int
    host: str | None
    nodes: list[str]
    resources: Resources
    usage: dict[str, Any]
    seconds: dict[str, Any] = Field(description="how long each part took")
    command: str | None
    script: str | None
    code: list[Code]
    env_names: list[str]
    submitted_at: str | None
    started_at: str | None
    ended_at: str | None
    exit_code: int | None
    signal: int | None
    log_bytes: int | None
    log_attempt: int | None
    array: Array | None
    elements: list[tuple[str, str | None]] | None = Field(description="of an array: state and reason of each element")
    element: int | None
    element_count: int | None = Field(description="of the array that this is an element of")
    life: list[LifePart]
    idle: str | None
    advice: list[str]
    notes: list[str]
    metrics: Any = Field(description="the final numbers of metrics.json")
    acts: list[Act]
    earlier: list[Earlier] | None
    may: May
