"""What a ledger adds up to, read line by line, once."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.gpu_run.ledger import totals as module
from airflow_provider_gpu_cluster.gpu_run.ledger.ledger import Ledger
from airflow_provider_gpu_cluster.gpu_run.ledger.totals import read_totals
from airflow_provider_gpu_cluster.gpu_run.protocol.totals import KeptTotals


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(str(tmp_path))


@pytest.fixture
def _kept_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_UNSAVED_BYTES", 1)


def end(dag_id: str = "nightly", user: str = "ada", at: str = "2026-10-05T10:00:00.000+00:00", **more: Any) -> Any:
    line = {"kind": "end", "at": at, "job_id": "j", "dag_id": dag_id, "task_id": "train", "user": user, "owner": "ml"}
    return {**line, "state": "SUCCEEDED", "reason": None, "gpu_seconds": 100.0, **more}


def totals_of(ledger: Ledger) -> KeptTotals:
    return read_totals(ledger, within_s=60)


def kept(ledger: Ledger) -> Path:
    return Path(ledger.folder) / "totals.json"


def test_ends_add_up_by_dag_user_and_reason(ledger: Ledger) -> None:
    measured: Any = {
        "used_gpu_seconds": 60.0,
        "idle_gpu_seconds": 30.0,
        "energy_j": 5e3,
        "running_s": 50.0,
        "queued_s": 7.5,
    }
    failed = {"state": "FAILED", "reason": "out_of_memory"}
    for line in (end(**measured), end(**measured), end(**failed), end("weekly", "bob"), end(reason=None, state="LOST")):
        assert ledger.append(line)
    totals = totals_of(ledger)
    assert totals["is_complete"]
    nightly, weekly = totals["pairs"]
    assert (nightly["dag_id"], nightly["user"], weekly["dag_id"], weekly["user"]) == ("nightly", "ada", "weekly", "bob")
    assert {count["reason"]: count["count"] for count in nightly["ends"]} == {
        "success": 2,
        "out_of_memory": 1,
        "lost": 1,
    }
    numbers = ("gpu_seconds", "used_gpu_seconds", "idle_gpu_seconds", "energy_j", "running_s")
    assert [nightly[name] for name in numbers] == [400, 120, 60, 1e4, 100]  # type: ignore[literal-required]
    for durations, seconds in (("job_durations", 50.0), ("queue_durations", 7.5)):
        found = totals[durations]  # type: ignore[literal-required]
        bucket = next(number for number, bound in enumerate(found["bounds_s"]) if seconds <= bound)
        assert (found["counts"][bucket], sum(found["counts"]), found["sum_s"]) == (2, 2, 2 * seconds)


def test_transfers_add_up_by_direction(ledger: Ledger) -> None:
    line: Any = {"kind": "transfer", "at": "2026-10-05T10:00:00.000+00:00", "job_id": "j", "bytes": 1 << 40}
    for direction, seconds in (("in", 2.0), ("in", 1e6), ("out", 0.05)):
        line.update(direction=direction, seconds=seconds)
        ledger.append(line)
    into, out = totals_of(ledger)["transfers"]
    assert (into["direction"], into["bytes"], out["direction"], out["bytes"]) == ("in", 2 << 40, "out", 1 << 40)
    assert (into["durations"]["counts"][-1], out["durations"]["counts"][0]) == (1, 1)


def test_the_last_accuracy_and_loss_of_a_task_count_and_other_numbers_do_not(ledger: Ledger) -> None:
    numbers = {"accuracy": 0.9, "val_loss": 0.4, "epochs": 40, "glossary": 3, "top5-acc": 0.99, "lossless": 1}
    ledger.append(end(metrics={"accuracy": 0.5}))
    ledger.append(end(metrics=numbers))
    ledger.append(end("weekly", metrics={"epochs": 3}))
    (task,) = totals_of(ledger)["final_numbers"]
    assert (task["dag_id"], task["task_id"]) == ("nightly", "train")
    found = {number["name"]: number["value"] for number in task["numbers"]}
    assert found == {"accuracy": 0.9, "val_loss": 0.4, "top5-acc": 0.99}


def test_the_last_months_are_summed_for_budgets(ledger: Ledger) -> None:
    for month in ("2026-07", "2026-09", "2026-10"):
        ledger.append(end(at=f"{month}-01T00:00:00.000+00:00"))
    ledger.append(end("weekly", "bob"))
    months = totals_of(ledger)["months"]
    assert set(months) == {"2026-09", "2026-10"}
    assert months["2026-10"] == {
        "dags": {"nightly": 100, "weekly": 100},
        "users": {"ada": 100, "bob": 100},
        "owners": {"ml": 200},
        "all": 200,
    }


@pytest.mark.usefixtures("_kept_at_once")
def test_a_line_is_read_once(ledger: Ledger) -> None:
    ledger.append(end())
    assert totals_of(ledger)["pairs"][0]["gpu_seconds"] == 100
    path = Path(ledger.folder) / "2026-10.jsonl"
    line = path.read_bytes()
    # As long as its beginning and its end are the same, it is not read again.
    path.write_bytes(line.replace(b"100.0", b"999.0"))
    ledger.append(end(at="2026-09-30T00:00:00.000+00:00"))
    ledger.append(end(gpu_seconds=50.0))
    assert totals_of(ledger)["pairs"][0]["gpu_seconds"] == 250
    before = kept(ledger).stat()
    assert totals_of(ledger)["pairs"][0]["gpu_seconds"] == 250
    assert kept(ledger).stat() == before


@pytest.mark.usefixtures("_kept_at_once")
@pytest.mark.parametrize(
    "spoilt", ["missing", "empty", "a list", "of another form", "a shorter ledger", "another ledger", "a removed month"]
)
def test_sums_that_are_lost_or_do_not_fit_are_made_again(ledger: Ledger, spoilt: str) -> None:
    for month in ("2026-09", "2026-10"):
        for _ in range(2):
            ledger.append(end(at=f"{month}-01T00:00:00.000+00:00"))
    totals_of(ledger)
    october = Path(ledger.folder) / "2026-10.jsonl"
    expected = 400
    if spoilt == "missing":
        kept(ledger).unlink()
    elif spoilt == "empty":
        kept(ledger).write_bytes(b"")
    elif spoilt == "a list":
        kept(ledger).write_text("[]")
    elif spoilt == "of another form":
        kept(ledger).write_text(json.dumps({**json.loads(kept(ledger).read_text()), "form": -1}))
    elif spoilt == "a shorter ledger":
        october.write_bytes(october.read_bytes().splitlines(keepends=True)[0])
        expected = 300
    elif spoilt == "another ledger":
        october.write_bytes(b"")
        for _ in range(9):
            ledger.append(end(at="2026-10-31T00:00:00.000+00:00"))
        expected = 1100
    else:
        october.unlink()
        expected = 200
    assert totals_of(ledger)["pairs"][0]["gpu_seconds"] == expected


def test_a_line_that_is_still_being_written_counts_when_it_is_whole(ledger: Ledger) -> None:
    ledger.append(end())
    path = Path(ledger.folder) / "2026-10.jsonl"
    line = path.read_bytes()
    with path.open("ab") as file:
        file.write(line[:60])
        file.flush()
        assert totals_of(ledger)["pairs"][0]["gpu_seconds"] == 100
        file.write(line[60:])
    assert totals_of(ledger)["pairs"][0]["gpu_seconds"] == 200


@pytest.mark.parametrize(
    "odd",
    [
        b'{"kind": "end", "at": "2026-10-01T00:00:00", "job_id": "j", "gpu_seconds": 1e999, "dag_id": 4}',
        b'{"kind": "end", "at": "2026-10-01T00:00:00", "job_id": "j", "gpu_seconds": -5, "queued_s": "long"}',
        b'{"kind": "end", "at": "2026-10-01T00:00:00", "job_id": "j", "gpu_seconds": 1' + b"0" * 400 + b"}",
        b'{"kind": "transfer", "at": "2026-10-01T00:00:00", "job_id": "j", "bytes": true, "seconds": NaN}',
        b'{"kind": "end", "at": ' + b"[" * 50_000,
        b'{"kind": "end"}',
        b"\xff\x00",
    ],
)
def test_no_line_spoils_the_sums(ledger: Ledger, odd: bytes) -> None:
    ledger.append(end())
    with (Path(ledger.folder) / "2026-10.jsonl").open("ab") as file:
        file.write(odd + b"\n")
    ledger.append(end())
    totals = totals_of(ledger)
    assert totals["pairs"][0]["gpu_seconds"] == 200
    json.dumps(totals, allow_nan=False)


@pytest.mark.usefixtures("_kept_at_once")
def test_only_so_many_names_become_series_and_they_stay(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_PAIRS", 3)
    monkeypatch.setattr(module, "MOST_TASKS", 3)
    before: dict[tuple[str, str], float] = {}
    for number in range(5):
        ledger.append(end(f"dag{number}", gpu_seconds=1000.0 * number, metrics={"loss": 1.0}))
        ledger.append(end("dag0"))
        totals = totals_of(ledger)
        now = {(pair["dag_id"], pair["user"]): pair["gpu_seconds"] for pair in totals["pairs"]}
        assert all(now[pair] >= sum_before for pair, sum_before in before.items())
        before = now
    assert list(before) == [("dag0", "ada"), ("dag1", "ada"), ("dag2", "ada"), ("other", "other")]
    assert before[("other", "other")] == 7000
    assert len(totals["final_numbers"]) == 3
    assert len(totals["months"]["2026-10"]["dags"]) == 5


def test_a_long_ledger_is_read_in_parts(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_UNSAVED_BYTES", 1)
    for _ in range(10):
        ledger.append(end())
    sums = []
    for _ in range(20):
        totals = read_totals(ledger, within_s=0)
        sums.append(totals["pairs"][0]["gpu_seconds"])
        if totals["is_complete"]:
            break
    assert sums == sorted(sums)
    assert not totals["is_complete"]  # without any time, it is never sure to have seen all
    assert sums[-1] == 1000
    assert totals_of(ledger)["is_complete"]


def test_sums_that_cannot_be_kept_are_told_all_the_same(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_UNSAVED_BYTES", 1)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    ledger.append(end())
    monkeypatch.setattr(os, "replace", full)
    assert totals_of(ledger)["pairs"][0]["gpu_seconds"] == 100
    assert [file for file in os.listdir(ledger.folder) if file.startswith("totals")] == []


def test_a_cluster_without_a_ledger_adds_up_to_nothing(ledger: Ledger) -> None:
    totals = totals_of(ledger)
    assert (totals["is_complete"], totals["pairs"], totals["transfers"]) == (True, [], [])


@pytest.mark.long
def test_a_million_lines_are_read_once_and_in_no_time_after_that(
    ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger.append(end(running_s=50.0, queued_s=3.0, metrics={"accuracy": 0.9}))
    path = Path(ledger.folder) / "2026-10.jsonl"
    path.write_bytes(path.read_bytes() * 1_000_000)
    began = time.monotonic()
    assert totals_of(ledger)["pairs"][0]["ends"][0]["count"] == 1_000_000
    first_s = time.monotonic() - began
    began = time.monotonic()
    ledger.append(end())
    assert totals_of(ledger)["pairs"][0]["ends"][0]["count"] == 1_000_001
    with capsys.disabled():
        print(f"\na million lines: {first_s:.1f} s, and {time.monotonic() - began:.4f} s after that")
    assert time.monotonic() - began < 1
