"""The verb ``totals``: what the ledger of a cluster adds up to, and how the cluster stands now."""

from __future__ import annotations

from typing import TypedDict

from .replies import Capacity


class EndCount(TypedDict):
    """How many attempts ended for a reason; ``success`` for those that ended well."""

    reason: str
    count: int


class PairTotals(TypedDict):
    """
    What the jobs of one DAG for one user add up to.

    :param running_s: for how long they ran, in seconds.
    :param used_gpu_seconds: of ``gpu_seconds``, those in which a GPU computed, as far as that was measured.
    :param idle_gpu_seconds: of ``gpu_seconds``, those in which a GPU did nothing, as far as that was measured.
    """

    dag_id: str
    user: str
    ends: list[EndCount]
    running_s: float
    gpu_seconds: float
    used_gpu_seconds: float
    idle_gpu_seconds: float
    energy_j: float


class Histogram(TypedDict):
    """
    How long something took, of many.

    :param bounds_s: upper bounds of the buckets, in seconds, ascending.
    :param counts: how many are in each bucket and in none below, and, last, how many took longer than all bounds.
    :param sum_s: of all together, in seconds.
    """

    bounds_s: list[float]
    counts: list[int]
    sum_s: float


class TransferTotals(TypedDict):
    """The transfers in one direction."""

    direction: str
    bytes: int
    durations: Histogram


class FinalNumber(TypedDict):
    """A final number of a job, by its name in ``metrics.json``."""

    name: str
    value: float


class FinalNumbers(TypedDict):
    """The final numbers of the job of a task that has ended last."""

    dag_id: str
    task_id: str
    numbers: list[FinalNumber]


class LedgerTotals(TypedDict):
    """
    What the lines of a ledger add up to.

    :param is_complete: whether all lines are in it; otherwise the next call goes on.
    """

    is_complete: bool
    pairs: list[PairTotals]
    job_durations: Histogram
    queue_durations: Histogram
    transfers: list[TransferTotals]
    final_numbers: list[FinalNumbers]


class MonthTotals(TypedDict):
    """GPU-seconds that the attempts that ended in a month had leased: of each DAG, user and owner, and of all."""

    dags: dict[str, float]
    users: dict[str, float]
    owners: dict[str, float]
    all: float


class CoveredFile(TypedDict):
    """
    How much of a month's file is in the totals.

    :param begins: its first characters, to notice when there is another file in its place.
    """

    bytes: int
    begins: str


class KeptTotals(LedgerTotals):
    """
    ``totals.json`` beside the ledger.

    :param form: a number that changes when these fields change their meaning.
    :param covered: by name of a month's file, what is in the totals.
    :param months: the last months, such as ``2026-11``.
    """

    form: int
    covered: dict[str, CoveredFile]
    months: dict[str, MonthTotals]


class VerbCount(TypedDict):
    """How many calls of a verb are under way."""

    verb: str
    count: int


class _TotalsReply(TypedDict):
    calls: list[VerbCount]


class TotalsReply(_TotalsReply, total=False):
    """
    What a cluster adds up to.

    :param ledger: missing when the ledger cannot be read now.
    :param waiting_jobs: how many jobs under this root wait.
    :param running_jobs: how many of them run. Both are missing when they cannot be counted now.
    :param calls: calls of this program for Airflow that are under way, besides this one.
    :param capacity: missing when it is not known now, and ``capacity_fault`` says why.
    """

    ledger: LedgerTotals
    waiting_jobs: int
    running_jobs: int
    capacity: Capacity
    capacity_fault: str
