"""The verb ``appraise``: whether jobs fit a cluster, when they could start there, and what has to be sent for that."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from .inputs import Input
    from .placement import Placed
    from .spec import Spec

# How an expected start is known.
FREE_NOW = "free now"
QUEUE = "queue"  # from the queue of a host and the time limits of what runs
TEST_ONLY = "test-only"  # Slurm's answer to `sbatch --test-only`
SQUEUE_START = "squeue --start"  # Slurm's plan for a job that waits there


class JobToAppraise(TypedDict):
    """
    One job. Jobs that need the same are asked about once, whatever their ids.

    :param job_id: if something of it is here, its placement and status are told.
    :param inputs: as for ``stage``; None if they are staged.
    """

    job_id: str
    spec: Spec
    inputs: list[Input] | None


class AppraiseRequest(TypedDict):
    """What is asked for."""

    jobs: list[JobToAppraise]


class _Appraisal(TypedDict):
    fits: bool


class Appraisal(_Appraisal, total=False):
    """
    One job on this cluster. What is not known is left out.

    :param fits: whether it can ever run here.
    :param why_not: a sentence, if it cannot.
    :param free_gpus: GPUs that suit it, are free, and are not promised to another job.
    :param gpus: GPUs that suit it.
    :param starts_in_s: when it is expected to start if it is launched now, in seconds from now; 0 for at once.
    :param start_known_by: how that is known, one of the words above.
    :param waiting: jobs that wait before it.
    :param missing_bytes: how much of its inputs is to be sent to this cluster.
    :param bytes_per_s: how fast that went lately, from the ledger.
    :param is_environment_built: whether its Python environment is built; not told if it needs none.
    :param placed: what is known of the job itself.
    """

    why_not: str
    free_gpus: int
    gpus: int
    starts_in_s: float
    start_known_by: str
    waiting: int
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
