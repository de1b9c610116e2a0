"""
The request of each verb.

On the way each of them gets ``settings``, and on the cluster ``umask``; see :class:`Call`.
"""

from __future__ import annotations

from typing import Any, Sequence, TypedDict, final

from .cancellation import CancelRecord
from .inputs import Input
from .settings import Settings
from .spec import Spec, SpecPart


class Call(TypedDict):
    """
    What every request has, as it arrives.

    :param settings: of the cluster.
    :param umask: of the user's login there.
    """

    settings: Settings
    umask: int


class Asker(TypedDict, total=False):
    """Who asks for a job: a task of Airflow or, in the last two, a person on the host. It may say more for people."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int | None
    try_number: int
    logical_date: str | None
    triggered_by: str | None
    bundle_name: str | None
    bundle_version: str | None
    dag_version_id: str | None
    airflow_host: str
    asked_at: str | None
    provider_version: str
    person: str
    folder: str


class StageRequest(TypedDict):
    """A job whose inputs are to be brought in, and nothing else."""

    job_id: str
    inputs: list[Input]
    record: Asker


class ElementRequest(TypedDict):
    """
    What is an element's own, of an array.

    :param spec: as far as it is other than that of all.
    :param env: variables besides those of all.
    """

    job_id: str
    spec: SpecPart
    env: dict[str, str]
    run_script: str


class ArrayPlace(TypedDict):
    """Of which array a job is an element, which one, and of how many."""

    job_id: str
    index: int
    count: int


class _SubmitRequest(TypedDict):
    job_id: str
    spec: Spec
    inputs: list[Input] | None
    env: dict[str, str]
    run_script: str
    request_key: str
    generation: str
    record: Asker
    context: dict[str, str]


class SubmitRequest(_SubmitRequest, total=False):
    """
    A job to launch, or an array; see :func:`.submit_request.submit_request`.

    :param elements: of an array.
    """

    elements: list[ElementRequest]


class SubmitCall(SubmitRequest, Call):
    """That request as it arrives."""


class Submit(SubmitRequest, total=False):
    """
    That request as it is carried out.

    :param program: path of this program.
    :param array: of which array it is an element.
    :param submitted: when, in seconds since the epoch; now by default.
    :param cancelled: of an array, who had cancelled it last when the request came.
    :param cwd: where it runs, unless in its code.
    :param waiter: whether one process, which somebody has in view, stands for it while it waits and while it runs.
    """

    settings: Settings
    umask: int
    program: str
    array: ArrayPlace
    submitted: float
    cancelled: CancelRecord | None
    cwd: str
    waiter: bool


class StatusRequest(TypedDict):
    """
    Jobs to look at.

    :param tail_bytes: how much of the end of each output to bring along.
    """

    job_ids: list[str]
    tail_bytes: int


class CancelRequest(TypedDict):
    """
    Jobs to cancel.

    :param by: who asks, for the record.
    :param wait_s: how long to wait for them to be gone, in seconds.
    """

    job_ids: list[str]
    by: str
    wait_s: float


class Position(TypedDict):
    """A place in a job's output: the attempt, and the offset in its log."""

    attempt: int
    offset: int


class Acknowledgement(Position, total=False):
    """
    Up to where a reader is done.

    :param note: JSON values of the reader's own, to be kept with it.
    """

    note: Any


class _LogRequest(TypedDict):
    job_id: str
    reader: str
    ack: Acknowledgement | None


@final
class LogRequest(_LogRequest, total=False):
    """
    A job's output from where a reader is.

    :param reader: a name; the place of each is kept.
    :param ack: up to where it is done.
    :param max_bytes: how much to send; of several jobs, of all of them together.
    :param tail_bytes: how much of the end of the output to put into the status.
    """

    max_bytes: int
    tail_bytes: int


@final
class LogsRequest(TypedDict):
    """The same of several jobs."""

    jobs: Sequence[LogRequest]
    max_bytes: int


class SendRequest(TypedDict):
    """
    A job whose outputs are to be sent.

    :param list: whether to say first what there is.
    """

    job_id: str
    list: bool


class GcRequest(TypedDict):
    """
    What is to be cleared away.

    :param older_than_s: for how long it must have been of no use, in seconds.
    :param dry_run: remove nothing, and report what would be.
    """

    older_than_s: float
    dry_run: bool


class GcCall(GcRequest, Call):
    """That request as it arrives."""
