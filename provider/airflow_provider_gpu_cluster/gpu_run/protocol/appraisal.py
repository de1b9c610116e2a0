"""The verb ``appraise``: whether jobs fit a cluster, when they could start there, and what has to be sent for that."""

from __future__ import annotations

from typing import TypedDict

from .inputs import Input
from .placement import Placed
from .requests import Asker
from .spec import Spec

# How many jobs one request may have.
MOST_JOBS = 1000

# How an expected start is known.
FREE_NOW = "free now"
QUEUE = "queue"  # from the queue of a host and the time limits of what runs
TEST_ONLY = "test-only"  # Slurm's answer to `sbatch --test-only`
SQUEUE_START = "squeue --start"  # Slurm's plan for a job that waits there
BUDGET = "budget"  # its budget of GPU-hours is used up, and begins anew then


class _JobToAppraise(TypedDict):
    job_id: str
    spec: Spec
    inputs: list[Input] | None


class JobToAppraise(_JobToAppraise, total=False):
    """
    One job. Jobs that need the same are asked about once, whatever their ids.

    :param job_id: if something of it is here, its placement and status are told.
    :param inputs: as for ``stage``; None if they are staged.
    :param input_bytes: the size of each upload among them, in their order; None for others, and where it is not known.
        Without it, nobody knows how much of an upload is missing that the cluster has never seen.
    :param record: who asks for the job, whose budget of GPU-hours it counts against.
    """

    input_bytes: list[int | None]
    record: Asker


class AppraiseRequest(TypedDict):
    """What is asked for."""

    jobs: list[JobToAppraise]


class _Prospect(TypedDict):
    fits: bool


class Prospect(_Prospect, total=False):
    """
    What an engine knows of a job that may be launched here. What is not known is left out.

    :param fits: whether it can ever run here.
    :param why_not: a sentence, if it cannot.
    :param is_passing: that ``why_not`` can change by itself, as with a full disk or a scheduler that is silent.
    :param remark: something to know besides, in a sentence.
    :param free_gpus: GPUs that suit it, are free, and are not promised to another job.
    :param gpus: GPUs that suit it.
    :param starts_in_s: when it is expected to start if it is launched now, in seconds from now; 0 for at once. If it
        waits here already, when that attempt is.
    :param start_known_by: how that is known, one of the words above.
    :param likely_in_s: if nobody knows that, because jobs before it have no time limit, when it starts if these take as
        long as the last jobs here did on average.
    :param waiting: jobs that wait before it.
    """

    why_not: str
    is_passing: bool
    remark: str
    free_gpus: int
    gpus: int
    starts_in_s: float
    start_known_by: str
    likely_in_s: float
    waiting: int


class Appraisal(Prospect, total=False):
    """
    One job on this cluster. What is not known is left out.

    :param missing_bytes: how much of its inputs is to be sent to this cluster.
    :param bytes_per_s: how fast that went lately, from the ledger.
    :param is_environment_built: whether its Python environment is built; not told if it needs none.
    :param placed: what is known of the job itself.
    """

    missing_bytes: int
    bytes_per_s: float
    is_environment_built: bool
    placed: Placed


class AppraiseReply(TypedDict):
    """
    :param jobs: in the order of the request.
    :param now: the time of the cluster, in seconds since the epoch.
    """

    jobs: list[Appraisal]
    now: float
