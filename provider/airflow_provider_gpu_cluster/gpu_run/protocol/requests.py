"""
The request of each verb.

Each gets ``settings`` on the way, and ``umask`` on the cluster; see :class:`Call`.
"""

from __future__ import annotations

from typing import Any, Sequence, TypedDict, final

from .cancellation import CancelRecord
from .inputs import Input
from .masks import Masks
from .notices import NotifyWhen
from .placement import Placement, PlaceRequest, RenewRequest
from .settings import Settings
from .spec import Spec, SpecPart


class Asker(TypedDict, total=False):
    """
    Who asks for a job: a task of Airflow or, in the last two, a person on the host. Other fields are for people.

    :param triggered_by: the user who triggered the run.
    :param owner: owner of the DAG.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int | None
    try_number: int
    logical_date: str | None
    triggered_by: str | None
    owner: str | None
    bundle_name: str | None
    bundle_version: str | None
    dag_version_id: str | None
    airflow_host: str
    airflow_url: str | None
    asked_at: str | None
    provider_version: str
    person: str
    folder: str


class Caller(Asker, total=False):
    """
    Who makes a request: the task that runs, or who has clicked in Airflow's UI.

    :param user: who is logged in to Airflow.
    :param settings_read_at: when the settings that come with it were read, in seconds since the epoch.
    """

    user: str
    settings_read_at: float


class _Call(TypedDict):
    settings: Settings
    umask: int


class Call(_Call, total=False):
    """
    The fields of every request as it arrives.

    :param settings: of the cluster.
    :param umask: of the user's login there.
    :param caller: who makes it; earlier versions do not say that.
    """

    caller: Caller


class StageRequest(TypedDict):
    """A job whose inputs are brought in, without a launch."""

    job_id: str
    inputs: list[Input]
    record: Asker


class StageCall(StageRequest, Call):
    """A request to stage as it arrives."""


class _ElementRequest(TypedDict):
    job_id: str
    spec: SpecPart
    env: dict[str, str]
    run_script: str


class ElementRequest(_ElementRequest, total=False):
    """
    The values of one element of an array.

    :param spec: the values that differ from those of all elements.
    :param env: variables besides those of all elements.
    :param masks: masks of all of its secrets.
    """

    masks: Masks


class _ArrayPlace(TypedDict):
    job_id: str
    index: int
    count: int


class ArrayPlace(_ArrayPlace, total=False):
    """
    The array that a job is an element of, its index, and the number of elements.

    :param first: if that array is a part of a larger one, the index there of its first element: index and count are
        those in the whole.
    """

    first: int


class PartOfArray(TypedDict):
    """
    Which elements of a larger array these are, when others of it are on other clusters.

    :param first: the index of the first of them in the whole array.
    :param count: the number of elements of the whole array.
    """

    first: int
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

    :param elements: the elements, for an array.
    :param part: of an array on several clusters, which of its elements these are.
    :param masks: masks of the job's secrets, if it has any.
    :param placement: the choice of this cluster, of several, by which it is to be launched here.
    """

    elements: list[ElementRequest]
    part: PartOfArray
    masks: Masks
    placement: Placement


class SubmitCall(SubmitRequest, Call):
    """A request to submit as it arrives."""


class Submit(SubmitRequest, total=False):
    """
    A request to submit as it is carried out.

    :param program: path of this program.
    :param array: the array that it is an element of.
    :param submitted: when, in seconds since the epoch; now by default.
    :param cancelled: for an array, the last cancellation before the request arrived.
    :param cwd: the folder that it runs in, if not in its code.
    :param waiter: whether the process that waits for its turn also runs it, so that a person can follow one process.
    :param caller: who makes the request.
    :param act: what it is in the audit trail, if it makes an attempt.
    """

    settings: Settings
    umask: int
    program: str
    array: ArrayPlace
    submitted: float
    cancelled: CancelRecord | None
    cwd: str
    waiter: bool
    caller: Caller
    act: str


class _ResubmitRequest(TypedDict):
    job_id: str
    request_key: str
    env: dict[str, str]


class ResubmitRequest(_ResubmitRequest, total=False):
    """
    A job, or an array, whose next attempt is to start if the last one has ended badly.

    :param request_key: names one try; the same key starts no second attempt.
    :param env: the job's own environment variables, which are in no record.
    :param after: number of the attempt that has ended badly; if there is another since, none is started.
    :param elements: for an array, the variables that each element has besides those.
    :param secrets: what is to be hidden of the job's output, besides what was hidden before.
    """

    after: int
    elements: list[dict[str, str]]
    secrets: list[str]


class ResubmitCall(ResubmitRequest, Call):
    """A request to resubmit as it arrives."""


class _StatusRequest(TypedDict):
    job_ids: list[str]
    tail_bytes: int


class StatusRequest(_StatusRequest, total=False):
    """
    Jobs to look at.

    :param tail_bytes: how many of the last bytes of each output to include.
    :param whole_tail: of all output in its order; otherwise of stderr alone, if it has any.
    :param notify: by job, when the one who asks wants to tell people about it.
    """

    whole_tail: bool
    notify: dict[str, NotifyWhen]


class _ToldRequest(TypedDict):
    job_id: str
    event: str
    attempt: int


class ToldRequest(_ToldRequest, total=False):
    """
    An event of a job that people were told, or are to be told.

    :param event: as in the :class:`.notices.Notice` of it, and ``attempt``; or one of :data:`.notices.ENDS`.
    :param take: the one who asks wants to tell it.
    """

    take: bool


class _CancelRequest(TypedDict):
    job_ids: list[str]
    by: str
    wait_s: float


class CancelRequest(_CancelRequest, total=False):
    """
    Jobs to cancel.

    :param by: who asks, for the record.
    :param wait_s: how long to wait until they are gone, in seconds.
    :param request_keys: by job, the key of a request to launch it that may still be on its way.
    """

    request_keys: dict[str, str]


class CancelCall(CancelRequest, Call):
    """A request to cancel as it arrives."""


class PlaceCall(PlaceRequest, Call):
    """A request to place as it arrives."""


class RenewCall(RenewRequest, Call):
    """A request to renew as it arrives."""


class InterruptRequest(TypedDict):
    """
    A running job to interrupt.

    :param id: unique to this interruption, which is carried out once, however often it is asked for.
    :param kind: one of :data:`.interruption.INTERRUPTIONS`.
    :param by: who asks, for the record.
    """

    job_id: str
    id: str
    kind: str
    by: str


class InterruptCall(InterruptRequest, Call):
    """A request to interrupt as it arrives."""


class Position(TypedDict):
    """A place in a job's output: the attempt, and the offset in its log."""

    attempt: int
    offset: int


class Acknowledgement(Position, total=False):
    """
    How far a reader has got.

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
    A job's output from a reader's position on.

    :param reader: a name; the position of each reader is kept.
    :param ack: how far the reader has got.
    :param max_bytes: how much to send; for several jobs, the total.
    :param tail_bytes: how many of the last bytes of the output to include in the status.
    :param notify: when the reader wants to tell people about the job.
    """

    max_bytes: int
    tail_bytes: int
    notify: NotifyWhen


@final
class LogsRequest(TypedDict):
    """The same for several jobs."""

    jobs: Sequence[LogRequest]
    max_bytes: int


class _SendRequest(TypedDict):
    job_id: str
    list: bool


class SendRequest(_SendRequest, total=False):
    """
    A job whose outputs are to be sent.

    :param list: whether to begin with a list of the outputs.
    :param is_beside: whether this is a further connection beside the one that will say how much has arrived.
    :param id: unique to this collection, over however many connections it goes.
    """

    is_beside: bool
    id: str


class SendCall(SendRequest, Call):
    """A request to send as it arrives."""


class GcRequest(TypedDict):
    """
    What garbage collection should remove.

    :param older_than_s: how long it must have been unused, in seconds.
    :param dry_run: remove nothing, and report what would be removed.
    """

    older_than_s: float
    dry_run: bool


class GcCall(GcRequest, Call):
    """A request to collect garbage as it arrives."""
