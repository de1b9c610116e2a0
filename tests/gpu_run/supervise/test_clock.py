"""How long a job has had its GPUs, when the clock of its host is set meanwhile."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.gpu_run.store import records
from airflow_provider_gpu_cluster.gpu_run.supervise.allocation import Allocation
from airflow_provider_gpu_cluster.gpu_run.supervise.attempt_run import AttemptRun
from tests.gpu_run.attempts import first_attempt
from tests.gpu_run.host import Host

HOUR = 3600.0


@pytest.mark.parametrize("was_set_by_s", [0.0, 1e9, -1e6])
def test_a_clock_that_is_set_makes_no_gpu_hours(
    host: Host, monkeypatch: pytest.MonkeyPatch, was_set_by_s: float
) -> None:
    gpus: Any = [{"key": f"virtual-{number}", "index": number} for number in range(2)]
    run = AttemptRun(first_attempt(host, "j"), Allocation(gpus, records.now(), []))
    boot = time.clock_gettime
    monkeypatch.setattr(time, "clock_gettime", lambda clock: boot(clock) + HOUR)
    monkeypatch.setattr(records, "now", lambda: records.time_of(time.time() + HOUR + was_set_by_s))
    assert run.facts()["gpu_seconds"] == pytest.approx(2 * HOUR, abs=60)


@pytest.mark.parametrize(("told", "is_believed"), [("1000", True), ("2001", False), ("-1e9", False), ("x", False)])
def test_a_scheduler_says_since_when(tmp_path: Path, told: str, is_believed: bool) -> None:
    (tmp_path / "told").write_text(told)
    since = records.time_of(2000)
    allocation = Allocation([], since, [], told_since=str(tmp_path / "told"))
    assert allocation.leased_at == (records.time_of(float(told)) if is_believed else since)
