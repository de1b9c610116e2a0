"""What is known of a job besides its status: what it runs, of which code, and how all of its attempts have ended."""

from __future__ import annotations

from typing import Any, TypedDict

from .ledger import ActLine
from .status import Status


class DescribeRequest(TypedDict):
    """A job, or an array, to describe."""

    job_id: str


class CodeVersion(TypedDict, total=False):
    """
    An input of a job, as it was put in place.

    :param place: its path in the job's directory, such as ``code``.
    :param source: as the user wrote it, without credentials.
    :param commit: of a Git repository.
    :param checksum: of all that was uploaded.
    :param files: how many files an upload has, and ``bytes``, their total size.
    """

    place: str
    source: str
    commit: str
    checksum: str
    files: int
    bytes: int


class DescribedAttempt(TypedDict, total=False):
    """How an attempt stands or has ended; see :class:`.records.ExitRecord`."""

    attempt: int
    started_at: str | None
    ended_at: str | None
    state: str
    reason: str | None
    kind: str | None
    message: str
    remedy: str
    host: str | None
    exit_code: int | None
    signal: int | None
    gpu_seconds: float | None
    checkpoint: str | None


class Description(TypedDict):
    """
    What a job runs. Secrets that it was given are hidden in all texts.

    :param status: its status.
    :param spec: what it was asked to run and to get.
    :param script: its ``run.sh``, or the beginning of it.
    :param code: its inputs.
    :param env_names: names of its own environment variables; nobody tells their values.
    :param attempts: all of them, the oldest first; not more than the last hundred.
    :param acts: who has done what with it, the oldest first; not more than the last two hundred.
    :param metrics: the content of its ``metrics.json`` by name, once it has ended.
    :param problem: why a part of this is missing, as a sentence; empty if none is.
    """

    status: Status
    spec: dict[str, Any]
    script: str
    code: list[CodeVersion]
    env_names: list[str]
    attempts: list[DescribedAttempt]
    acts: list[ActLine]
    metrics: dict[str, Any]
    problem: str
