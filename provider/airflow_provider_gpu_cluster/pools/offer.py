"""A cluster of a pool, and what it offers for one job."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow.sdk.log import redact  # type: ignore[attr-defined]

from airflow_provider_gpu_cluster.connection.words import cleaned, words_of
from airflow_provider_gpu_cluster.exceptions import GpuClusterSetupError, InvalidJobError
from airflow_provider_gpu_cluster.gpu_run import protocol

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.gpu_run.protocol.appraisal import Appraisal, JobToAppraise
    from airflow_provider_gpu_cluster.gpu_run.protocol.placement import Placed

# What an error says first, and the row of a cluster says already.
_WHERE = re.compile(r"cluster \S+ \(connection [^)]*\): ")
# Longer reasons belong into the log of the cluster.
_MOST_CHARACTERS = 300
# Larger numbers are no seconds, and no GPUs.
_MOST_S = 1e9
_MOST_GPUS = 1 << 24


@dataclass(frozen=True)
class Member:
    """
    One cluster of a pool.

    :param conn_id: its connection.
    :param weight: how much it is preferred: an expected wait counts divided by it.
    :param price_per_gpu_hour: of the connection, in the currency that all members share; None if it gives none.
    """

    conn_id: str
    weight: float = 1.0
    price_per_gpu_hour: float | None = None


@dataclass(frozen=True)
class Offer:
    """
    One row of the choice. What is not known is None.

    :param member: the cluster.
    :param fits: whether the job can ever run there.
    :param why_not: a sentence, if it cannot, or if the cluster has not answered.
    :param is_passing: that ``why_not`` can change by itself, as with a full disk.
    :param answered: whether the cluster has answered.
    :param free_gpus: GPUs there that suit the job, are free, and are not promised to another.
    :param gpus: GPUs there that suit the job.
    :param needs_gpus: how many GPUs the job needs.
    :param starts_in_s: when the job is expected to start if it is launched now, in seconds from now.
    :param start_known_by: how that is known.
    :param likely_in_s: if the cluster does not know that, when it is likely to start by how long jobs took there.
    :param waiting: jobs that wait there before it.
    :param missing_bytes: how much of the inputs is to be sent.
    :param send_s: how long that will take, in seconds.
    :param is_environment_built: whether the Python environment of the job is built there; None if it needs none.
    :param price_per_gpu_hour: of the connection, in the currency that all members share.
    :param remark: something to know besides, in a sentence.
    :param placed: what the cluster knows of the job itself.
    :param clock_ahead_s: by how much the clock of the cluster is ahead of this process's, at least; add it to a moment
        of this process to get a moment of the cluster that is not later.
    """

    member: Member
    fits: bool
    why_not: str = ""
    is_passing: bool = False
    answered: bool = True
    free_gpus: int | None = None
    gpus: int | None = None
    needs_gpus: int = 1
    starts_in_s: float | None = None
    start_known_by: str | None = None
    likely_in_s: float | None = None
    waiting: int | None = None
    missing_bytes: int | None = None
    send_s: float | None = None
    is_environment_built: bool | None = None
    price_per_gpu_hour: float | None = None
    remark: str = ""
    placed: Placed | None = None
    clock_ahead_s: float = 0.0

    @property
    def conn_id(self) -> str:
        """Return the connection of the cluster."""
        return self.member.conn_id


def gpus_of(job: JobToAppraise) -> int:
    """Return how many GPUs a job needs, on all of its nodes."""
    spec = job["spec"]
    return spec["gpus"] * (spec.get("nodes") or 1)


def offer_of(member: Member, appraisal: Appraisal, *, needs_gpus: int, clock_ahead_s: float) -> Offer:
    """
    Return what a cluster has answered.

    :param appraisal: it has the types of the protocol; numbers that cannot be right count as not told.
    :param needs_gpus: how many GPUs the job needs.
    """
    fits = appraisal["fits"]
    missing_bytes, bytes_per_s = appraisal.get("missing_bytes"), appraisal.get("bytes_per_s")
    send_s = None
    if missing_bytes is not None and bytes_per_s is not None and bytes_per_s > 0:
        send_s = missing_bytes / bytes_per_s
    return Offer(
        member,
        fits,
        "" if fits else shown(appraisal.get("why_not", "")) or "it does not say why",
        is_passing=not fits and appraisal.get("is_passing", False),
        free_gpus=_whole(appraisal.get("free_gpus")),
        gpus=_whole(appraisal.get("gpus")),
        needs_gpus=needs_gpus,
        starts_in_s=_seconds(appraisal.get("starts_in_s")),
        start_known_by=appraisal.get("start_known_by"),
        likely_in_s=_seconds(appraisal.get("likely_in_s")),
        waiting=_whole(appraisal.get("waiting")),
        missing_bytes=None if missing_bytes is None or missing_bytes < 0 else missing_bytes,
        send_s=0.0 if missing_bytes == 0 else _seconds(send_s),
        is_environment_built=appraisal.get("is_environment_built"),
        price_per_gpu_hour=member.price_per_gpu_hour,
        remark=shown(appraisal.get("remark", "")),
        placed=appraisal.get("placed"),
        clock_ahead_s=clock_ahead_s,
    )


def offer_without_answer(member: Member, error: BaseException, *, needs_gpus: int) -> Offer:
    """
    Return the row of a cluster that has not told whether the job fits.

    :param error: why.
    """
    # A request that the cluster refuses is refused again.
    is_refused = isinstance(error, InvalidJobError)
    return Offer(
        member,
        False,
        "its program does not know how to appraise a job: it is of an earlier version of this provider"
        if _is_of_older_program(error)
        else _WHERE.sub("", shown(words_of(error)), 1),
        answered=is_refused and not _is_of_older_program(error),
        needs_gpus=needs_gpus,
        price_per_gpu_hour=member.price_per_gpu_hour,
    )


def _is_of_older_program(error: BaseException) -> bool:
    if isinstance(error, InvalidJobError):
        return error.code == protocol.BAD_REQUEST and "'appraise' cannot be called" in str(error)
    return isinstance(error, GpuClusterSetupError) and "gpu-run appraise ended with exit code 2 and no reply" in str(
        error
    )


def shown(text: str) -> str:
    """Return a reason as one line that may be shown to people, without the secrets that Airflow knows."""
    return cleaned(str(redact(" ".join(text.split()))), _MOST_CHARACTERS)


def _seconds(value: float | None) -> float | None:
    return None if value is None or not 0 <= value <= _MOST_S else float(value)


def _whole(value: int | None) -> int | None:
    return None if value is None or not 0 <= value <= _MOST_GPUS else value
