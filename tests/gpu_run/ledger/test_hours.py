"""The GPU-hours of the last hours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from airflow_provider_gpu_cluster.gpu_run.ledger.hours import hours_of_use
from airflow_provider_gpu_cluster.gpu_run.ledger.ledger import Ledger

NOW = "2026-11-01T00:30:00.000+00:00"


def end(at: str, **values: Any) -> Any:
    return {"kind": "end", "at": at, "job_id": "x", "state": "SUCCEEDED", **values}


def test_an_attempt_counts_in_each_hour_for_the_part_of_it_that_lies_there(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path))
    # Two GPUs from 22:30 to 23:30 of the day, and month, before; they computed for half of that time.
    ledger.append(
        end("2026-10-31T23:30:00.000+00:00", gpus=2, leased_s=3600.0, gpu_seconds=7200.0, used_gpu_seconds=3600.0)
    )
    # One of which nobody measured anything, and one that had ended before.
    ledger.append(end("2026-10-31T23:45:00.000+00:00", gpus=1, leased_s=900.0, gpu_seconds=900.0))
    ledger.append(end("2026-10-31T20:00:00.000+00:00", gpus=8, leased_s=3600.0, gpu_seconds=28800.0))
    running = [("2026-10-31T23:00:00.000+00:00", 4), ("no time", 4)]
    told = hours_of_use(ledger, NOW, 3, running)
    assert [hour["begins_at"][11:16] for hour in told] == ["22:00", "23:00", "00:00"]
    assert [hour["gpu_hours"] for hour in told] == [1.0, 1.0 + 0.25 + 4.0, 2.0]
    assert [hour["measured_gpu_hours"] for hour in told] == [1.0, 1.0, 0.0]
    assert [hour["used_gpu_hours"] for hour in told] == [0.5, 0.5, 0.0]


def test_lines_that_make_no_sense_are_passed_over(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path))
    for odd in ({}, {"gpus": "x", "leased_s": 1}, {"gpus": 1, "leased_s": "long"}, {"gpus": 1, "leased_s": 1e300}):
        ledger.append(end(NOW, **odd))
    assert [hour["gpu_hours"] for hour in hours_of_use(ledger, NOW, 2)] == [1.0, 0.5]
    assert hours_of_use(Ledger(str(tmp_path / "nothing")), NOW, 1)[0]["gpu_hours"] == 0
