"""The lines of a ledger, ``<root_dir>/.gpu-run/ledger/<year>-<month>.jsonl``, and what is added up from them."""

from __future__ import annotations

from typing import TypedDict

# The kinds of lines. Every line begins with its kind, so that a reader can pass over others unread.
END, TRANSFER, ACT = "end", "transfer", "act"


class _LedgerLine(TypedDict):
    kind: str
    at: str
    job_id: str


class LedgerLine(_LedgerLine, total=False):
    """
    What every line says.

    :param kind: see the constants of this module; it is the first key of a line.
    :param at: when, ISO 8601 in UTC.
    :param user: who it is for: who triggered the run, else the owner of the DAG, else the person or the login.
    """

    dag_id: str
    task_id: str
    run_id: str
    map_index: int
    owner: str
    user: str


class EndLine(LedgerLine, total=False):
    """
    The end of an attempt.

    :param verdict: the finer kind of its end.
    :param follows_at: when the attempt before it ended, and ``follows_reason``, why; missing for a first attempt.
    :param goes_on: whether the job goes on in a next attempt by itself.
    :param placement: why it did not run on this cluster, if that was its end; see :mod:`.placement`.
    :param array: the array that it is an element of, and ``element``, its index there.
    :param gpus: number of GPUs, on all nodes.
    :param leased_s: how long it had them, in seconds.
    :param gpu_seconds: GPUs multiplied by that.
    :param used_gpu_seconds: of these, the GPU-seconds in which a GPU computed; missing where nobody measured it.
    :param idle_gpu_seconds: of these, the GPU-seconds in which a GPU did nothing.
    :param energy_j: energy of its GPUs, in joules.
    :param received_bytes: brought to the cluster for it.
    :param sent_bytes: sent home from it, until its end.
    :param metrics: final numbers of its ``metrics.json``.
    """

    attempt: int
    follows_at: str
    follows_reason: str | None
    goes_on: bool
    placement: str
    array: str
    element: int
    submitted_at: str
    started_at: str
    ended_at: str
    engine: str
    host: str
    state: str
    reason: str | None
    verdict: str | None
    gpus: int
    gpu_type: str
    gpu_keys: list[str]
    leased_s: float
    gpu_seconds: float
    used_gpu_seconds: float
    idle_gpu_seconds: float
    energy_j: float
    queued_s: float
    staging_s: float
    building_s: float
    running_s: float
    received_bytes: int
    sent_bytes: int
    metrics: dict[str, float]


class TransferLine(LedgerLine, total=False):
    """
    A transfer.

    :param direction: ``in``, to the cluster, or ``out``, from it.
    """

    direction: str
    bytes: int
    seconds: float


class ActLine(LedgerLine, total=False):
    """
    An act on a job, see :mod:`.acts`; the same line is in ``.job/events.jsonl`` of the job.

    The fields of :class:`LedgerLine` are about whom the job is for, who need not be who has acted.

    :param act: one of :data:`.acts.ACTS`.
    :param by: who did it: the user of Airflow, the owner of the DAG, a person, or ``gpu-run`` by itself.
    :param through: by what means, for a person, such as the task.
    :param host: the machine where that was: Airflow's for what came from there, else the cluster's.
    :param address: whence the SSH connection came, as the cluster saw it.
    :param attempt: the attempt that it made or met.
    :param try_number: of the task that did it.
    :param key: names the request, which makes one line however often it is repeated.
    :param details: more about it, for a person.
    """

    act: str
    by: str
    through: str
    host: str
    address: str
    attempt: int
    try_number: int
    key: str
    details: str


class UsageRow(TypedDict):
    """
    What was used by one of those by whom it is added up.

    :param key: the user, DAG, task (``dag.task``), day (``2026-11-28``), month or reason; empty for those that have
        none, such as the reason of a job that has succeeded.
    :param jobs: how many jobs. By reason, one that has ended for several reasons counts for each.
    :param attempts: how many ends of attempts.
    :param failed: of these, those that were neither successes nor cancelled.
    :param gpu_hours: GPU-hours leased.
    :param used_gpu_hours: of these, the GPU-hours in which a GPU computed.
    :param idle_gpu_hours: of these, the GPU-hours in which a GPU did nothing.
    :param measured_gpu_hours: of all, the GPU-hours for which the two above are known.
    :param queued_hours: how long the attempts waited for their GPUs, together.
    :param received_bytes: brought to the cluster in that time; by reason, for these attempts until their ends.
    :param sent_bytes: sent home from it, likewise.
    """

    key: str
    jobs: int
    attempts: int
    failed: int
    gpu_hours: float
    used_gpu_hours: float
    idle_gpu_hours: float
    measured_gpu_hours: float
    energy_kwh: float
    queued_hours: float
    received_bytes: int
    sent_bytes: int


# By what usage can be added up.
BY_USER, BY_DAG, BY_TASK, BY_DAY, BY_MONTH, BY_REASON = "user", "dag", "task", "day", "month", "reason"
BYS = (BY_USER, BY_DAG, BY_TASK, BY_DAY, BY_MONTH, BY_REASON)


class UsageRequest(TypedDict):
    """
    What to add up.

    :param since: the first moment, in the form of all records, in UTC; None begins with the first line.
    :param until: the first moment that does not belong to it; None ends with the last line.
    :param by: one of :data:`BYS`.
    """

    since: str | None
    until: str | None
    by: str


class UsageReply(TypedDict):
    """
    What the lines of that time add up to.

    :param total: of all rows; its key is empty. A job that is in several rows is one job here.
    """

    rows: list[UsageRow]
    total: UsageRow
