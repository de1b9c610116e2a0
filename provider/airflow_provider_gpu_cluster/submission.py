"""What a cluster is asked to launch, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from airflow_provider_gpu_cluster.job import JobHandle, JobSpec, JobStatus


@dataclass(frozen=True)
class Submission:
    """
    What came of a submit.

    :param created: whether this call made the attempt, or one of an element; False when it found one.
    :param launched: of an array, how many attempts it made.
    """

    handle: JobHandle
    status: JobStatus
    created: bool
    launched: int = 0


@dataclass(frozen=True)
class Element:
    """
    What is an element's own, of an array that is submitted.

    :param spec: what it runs and needs.
    :param env: its variables, besides those of all.
    :param run_script: text of its ``run.sh``.
    """

    spec: JobSpec
    env: Mapping[str, str] = field(repr=False)
    run_script: str
