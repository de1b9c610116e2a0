"""What a job runs and needs, as plain JSON values; the Airflow side explains each in its ``JobSpec``."""

from __future__ import annotations

from typing import Any, TypedDict


class SpecPart(TypedDict, total=False):
    """The values in which an element may differ from its array, and which a spec may leave out."""

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
    stop_signal: str
    stop_signal_to: str
    grace_s: float | None
    warn_before_s: float | None
    warn_signal: str
    recover: dict[str, Any]
    checkpoint_exit_code: int
    hang_timeout_s: float | None
    orphan_timeout_s: float | None
    min_gpu_utilization: float | None
    utilization_window_s: float | None
    on_idle: str | None


class Spec(SpecPart):
    """A spec: the number of GPUs, and optional values."""

    gpus: int
