"""What a job runs and what it needs, as plain JSON values; the Airflow side says more of each in its ``JobSpec``."""

from __future__ import annotations

from typing import TypedDict


class SpecPart(TypedDict, total=False):
    """What an element of an array has other than the array; and all that a spec need not say."""

    entry_script: str | None
    script_args: list[str]
    command: str | None
    gpu_type: str | None
    cpus: int | None
    memory_bytes: int | None
    time_limit_s: float | None
    priority: str
    nodes: int
    partition: str | None
    account: str | None
    qos: str | None
    constraint: str | None
    sbatch_options: list[str]
    requirements: str | None
    setup: str
    grace_s: float


class Spec(SpecPart):
    """A spec: as many GPUs, and whatever else it says."""

    gpus: int
