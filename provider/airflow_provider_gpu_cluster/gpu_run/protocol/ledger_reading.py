"""The verb ``read-ledger``: its request, and its reply."""

from __future__ import annotations

from typing import Any, TypedDict

from .requests import Call


class LedgerPlace(TypedDict):
    """
    A place in a ledger, between two lines.

    :param file: name of the month's file; empty for before the first.
    :param offset: in bytes.
    """

    file: str
    offset: int


class ReadLedgerRequest(TypedDict):
    """
    A request for ends of attempts, and for how far some jobs are.

    :param place: where to go on reading.
    :param jobs: ids of jobs, of which the reply says how far they are; not of all, if that takes long.
    """

    place: LedgerPlace
    jobs: list[str]


class ReadLedgerCall(ReadLedgerRequest, Call):
    """That request as it arrives."""


class _JobStanding(TypedDict):
    job_id: str
    state: str | None


class JobStanding(_JobStanding, total=False):
    """
    How far a job is, as its files say.

    :param state: None for a job that is not there any more. A job whose next attempt is still to be made is QUEUED.
    :param placement: why its last attempt did not run here, if it was placed on another cluster; see :mod:`.placement`.
    """

    attempt: int
    reason: str | None
    kind: str | None
    host: str | None
    started_at: str | None
    ended_at: str | None
    placement: str


class ReadLedgerReply(TypedDict):
    """
    Ends of attempts, and how far the jobs are.

    :param lines: each an :class:`.EndLine`, in the order in which they were written; jobs can write to the ledger, so
        there may be anything in them.
    :param place: where to go on.
    :param is_all: whether there is nothing more to read now.
    """

    lines: list[dict[str, Any]]
    place: LedgerPlace
    is_all: bool
    jobs: list[JobStanding]
