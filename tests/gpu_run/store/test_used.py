"""What the records of an attempt say about its use, whatever a job has made of them."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.gpu_run.store.staging_time import note_staging, staging_noted, take_staging
from airflow_provider_gpu_cluster.gpu_run.store.used import gpu_percent, seconds_of, used_so_far

FACTS: Any = {
    "submitted_at": "2026-11-28T10:00:00.000+00:00",
    "leased_at": "2026-11-28T10:01:00.500+00:00",
    "started_at": "2026-11-28T10:02:00.000+00:00",
    "ended_at": "2026-11-28T10:05:00.000+00:00",
}


def so_far(**more: Any) -> dict[str, Any]:
    last = {"t": 1, "s": 1, "gpus": [{"index": 0, "percent": 3.5}, {"index": 1, "percent": 70.0}, {"index": 2}]}
    value = {"usage": {"source": "nvml"}, "seconds": {"idle": 20.0}, "last": last, "pause_s": 30.0}
    return {**value, "looked_at": time.monotonic(), **more}


def write(folder: Path, value: Any) -> None:
    (folder / "usage.json").write_text(json.dumps(value))


def test_how_long_each_part_took(tmp_path: Path) -> None:
    write(tmp_path, so_far())
    (tmp_path / "environment.json").write_text('{"seconds": 12.25}')
    (tmp_path / "staging.json").write_text('{"seconds": 3.5}')
    found = seconds_of(str(tmp_path), FACTS, used_so_far(str(tmp_path)), "")
    assert found == {"queued": 60.5, "running": 180.0, "building": 12.25, "staging": 3.5, "idle": 20.0}
    # The clock of the host was set meanwhile.
    known: Any = {**FACTS, "seconds": {"running": 15.0, "queued": "x"}}
    assert seconds_of(str(tmp_path), known, used_so_far(str(tmp_path)), "") == {**found, "running": 15.0, "idle": 15.0}


def test_one_that_runs_and_one_that_never_ran(tmp_path: Path) -> None:
    running: Any = {name: value for name, value in FACTS.items() if name != "ended_at"}
    assert seconds_of(str(tmp_path), running, {}, "2026-11-28T10:02:10.000+00:00")["running"] == 10.0
    assert seconds_of(str(tmp_path), {"submitted_at": FACTS["submitted_at"]}, {}, "") == {}
    # The clock was set back, or the job has written the time.
    early: Any = {**FACTS, "leased_at": "2026-11-28T09:00:00+00:00"}
    assert seconds_of(str(tmp_path), early, {}, "")["queued"] == 0.0
    early["leased_at"] = "then"
    assert "queued" not in seconds_of(str(tmp_path), early, {}, "")


@pytest.mark.parametrize(
    "spoil",
    [
        os.mkfifo,
        os.mkdir,
        lambda path: os.symlink("/dev/zero", path),
        lambda path: Path(path).write_text("{"),
        lambda path: Path(path).write_text("[1]"),
        lambda path: Path(path).write_text('{"usage": 5, "seconds": [], "last": {}, "looked_at": "now"}'),
        lambda path: Path(path).write_text('{"usage": {}, "x": "' + "y" * 100_000 + '"}'),
    ],
)
def test_what_a_job_may_put_there_says_nothing(tmp_path: Path, spoil: Callable[[str], object]) -> None:
    for name in ("usage.json", "environment.json", "staging.json"):
        spoil(str(tmp_path / name))
    assert used_so_far(str(tmp_path)) == {}
    assert gpu_percent(str(tmp_path)) is None
    assert seconds_of(str(tmp_path), {}, {}, "") == {}


def test_how_busy_its_gpus_were_lately(tmp_path: Path) -> None:
    assert gpu_percent(str(tmp_path)) is None
    write(tmp_path, so_far())
    assert gpu_percent(str(tmp_path)) == 70.0
    write(tmp_path, so_far(last={"t": 1, "s": 1}))
    assert gpu_percent(str(tmp_path)) is None
    # The sampler has not looked for long.
    write(tmp_path, so_far(looked_at=time.monotonic() - 50))
    assert gpu_percent(str(tmp_path)) is None


def test_staging_is_noted_in_the_job_and_belongs_to_the_attempt_that_follows(tmp_path: Path) -> None:
    attempt = tmp_path / ".job" / "attempts" / "1"
    attempt.mkdir(parents=True)
    note_staging(str(tmp_path), 2.0)
    note_staging(str(tmp_path), 1.5)
    with staging_noted(str(tmp_path)):
        # Nothing new was put in place.
        pass
    take_staging(str(tmp_path), str(attempt))
    take_staging(str(tmp_path), str(attempt))
    assert seconds_of(str(attempt), {}, {}, "") == {"staging": 3.5}
    with staging_noted(str(tmp_path)):
        (tmp_path / ".job" / "inputs.json").write_text("{}")
    assert (tmp_path / ".job" / "staging.json").exists()
