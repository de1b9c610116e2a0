"""The verb ``jobs``: its request, and its reply."""

from __future__ import annotations

from typing import TypedDict

from .requests import Asker, Call


class JobsRequest(TypedDict):
    """
    A list of the jobs that wait or run.

    :param most: how many of them to list.
    """

    most: int


class JobsCall(JobsRequest, Call):
    """A request for that list as it arrives."""


class _ListedJob(TypedDict):
    job_id: str
    state: str
    attempt: int
    gpus: int
    by: Asker


class ListedJob(_ListedJob, total=False):
    """
    A job that waits or runs.

    :param gpus: how many it wants or has, on all of its nodes.
    :param by: who asked for its latest attempt.
    :param generation: see :class:`.SubmitRequest`.
    :param array: the array that it is an element of.
    :param newer: a job that the same task has launched since.
    :param unasked_s: for how long nobody has asked about it, in seconds.
    """

    generation: str
    array: str
    newer: str
    submitted_at: str
    started_at: str
    host: str
    unasked_s: float


class JobsReply(TypedDict):
    """The jobs that wait or run, and how many more there are."""

    jobs: list[ListedJob]
    left_out: int
