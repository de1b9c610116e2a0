"""What the lines of a ledger add up to."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, cast

import pytest

from airflow_provider_gpu_cluster.gpu_run.cli import usage as cli
from airflow_provider_gpu_cluster.gpu_run.ledger.ledger import Ledger
from airflow_provider_gpu_cluster.gpu_run.ledger.sums import add_up
from airflow_provider_gpu_cluster.gpu_run.ledger.totals import read_totals
from airflow_provider_gpu_cluster.gpu_run.protocol.ledger import BYS, LedgerLine
from airflow_provider_gpu_cluster.gpu_run.protocol.moments import moment_of
from airflow_provider_gpu_cluster.gpu_run.store.directories import Root

HOUR = 3600


def at(day: str) -> str:
    return f"2026-{day}:00:00.000+00:00"


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """Return a ledger in which a job of ann's is preempted, and ends in the next month; and so on."""
    ledger = Ledger(str(tmp_path / ".gpu-run"))
    ann: Any = {"user": "ann", "dag_id": "night", "task_id": "train", "engine": "host"}
    first = {**ann, "job_id": "a", "attempt": 1, "state": "FAILED", "reason": "preempted", "gpu_seconds": 2 * HOUR}
    then = {**first, "attempt": 2, "state": "SUCCEEDED", "reason": None, "gpu_seconds": HOUR, "queued_s": HOUR / 2}
    used = {"used_gpu_seconds": HOUR / 2, "idle_gpu_seconds": HOUR / 4, "energy_j": 3.6e6, "received_bytes": 70}
    bob: Any = {"user": "bob", "dag_id": "day", "task_id": "t", "engine": "host", "job_id": "b", "attempt": 1}
    lines: list[Any] = [
        {**first, "at": at("10-31T23")},
        {**then, **used, "at": at("11-01T00"), "follows_at": at("10-31T23"), "follows_reason": "preempted"},
        {**bob, "at": at("11-02T05"), "state": "CANCELLED", "reason": "cancelled", "gpu_seconds": 8 * HOUR},
        {**bob, "job_id": "c", "user": "", "at": at("11-03T05"), "state": "LOST", "reason": "lost", "gpu_seconds": 0},
    ]
    add(ledger, "end", *lines)
    moves: list[Any] = [
        {**ann, "job_id": "a", "direction": "in", "bytes": 50, "seconds": 2, "at": at("10-31T20")},
        {**ann, "job_id": "a", "direction": "out", "bytes": 7, "seconds": 2, "at": at("11-02T20")},
    ]
    add(ledger, "transfer", *moves)
    add(ledger, "act", {"at": at("11-02T20"), "job_id": "a", "user": "ann"})
    return ledger


def add(ledger: Ledger, kind: str, *lines: Any) -> None:
    assert ledger.append_all([cast(LedgerLine, {"kind": kind, **line}) for line in lines])


def brief(rows: Any) -> dict[str, tuple[Any, ...]]:
    names = ("jobs", "attempts", "failed", "gpu_hours", "received_bytes", "sent_bytes")
    return {row["key"]: tuple(row[name] for name in names) for row in rows}


@pytest.mark.parametrize(
    ("by", "rows"),
    [
        ("user", {"bob": (1, 1, 0, 8, 0, 0), "ann": (1, 2, 1, 3, 50, 7), "": (1, 1, 1, 0, 0, 0)}),
        ("dag", {"day": (2, 2, 1, 8, 0, 0), "night": (1, 2, 1, 3, 50, 7)}),
        ("task", {"day.t": (2, 2, 1, 8, 0, 0), "night.train": (1, 2, 1, 3, 50, 7)}),
        ("month", {"2026-10": (1, 1, 1, 2, 50, 0), "2026-11": (3, 3, 1, 9, 0, 7)}),
        (
            "day",
            {
                "2026-10-31": (1, 1, 1, 2, 50, 0),
                "2026-11-01": (1, 1, 0, 1, 0, 0),
                "2026-11-02": (1, 1, 0, 8, 0, 7),
                "2026-11-03": (1, 1, 1, 0, 0, 0),
            },
        ),
        (
            "reason",
            {
                "cancelled": (1, 1, 0, 8, 0, 0),
                "preempted": (1, 1, 1, 2, 0, 0),
                "": (1, 1, 0, 1, 70, 0),
                "lost": (1, 1, 1, 0, 0, 0),
            },
        ),
    ],
)
def test_by(ledger: Ledger, by: str, rows: dict[str, Any]) -> None:
    found = add_up(ledger, None, None, by)
    assert brief(found["rows"]) == rows
    assert [row["key"] for row in found["rows"]] == list(rows)
    bytes_of_all = (70, 0) if by == "reason" else (50, 7)
    assert brief([found["total"]]) == {"": (3, 4, 2, 11, *bytes_of_all)}


def test_what_was_measured(ledger: Ledger) -> None:
    (row,) = [row for row in add_up(ledger, None, None, "user")["rows"] if row["key"] == "ann"]
    assert (row["used_gpu_hours"], row["idle_gpu_hours"], row["measured_gpu_hours"]) == (0.5, 0.25, 1)
    assert (row["energy_kwh"], row["queued_hours"]) == (1, 0.5)


@pytest.mark.parametrize(
    ("since", "until", "keys"),
    [
        ("11-01T00", None, {"ann": (1, 1, 0, 1, 0, 7), "bob": (1, 1, 0, 8, 0, 0), "": (1, 1, 1, 0, 0, 0)}),
        ("11-01T01", "11-03T05", {"ann": (0, 0, 0, 0, 0, 7), "bob": (1, 1, 0, 8, 0, 0)}),
        (None, "10-31T23", {"ann": (0, 0, 0, 0, 50, 0)}),
        ("12-01T00", None, {}),
    ],
)
def test_of_a_time(ledger: Ledger, since: str | None, until: str | None, keys: dict[str, Any]) -> None:
    found = add_up(ledger, since and at(since), until and at(until), "user")
    assert brief(found["rows"]) == keys


@pytest.mark.parametrize(
    "change",
    [{"gpu_seconds": "7"}, {"gpu_seconds": None}, {"gpu_seconds": 1e300}, {"energy_j": -1}, {"user": 7}, {"state": {}}],
)
def test_a_line_that_makes_no_sense_is_passed_over(ledger: Ledger, change: dict[str, Any]) -> None:
    before = add_up(ledger, None, None, "user")
    line = {"kind": "end", "at": at("11-05T00"), "job_id": "x", "attempt": 1, "state": "LOST", "gpu_seconds": 1}
    text = json.dumps({**line, "user": "ann", **change, "engine": "host"}) + "\n" + '{"kind": "end", "at": NaN}\n'
    with open(Path(ledger.folder, "2026-11.jsonl"), "a") as file:
        file.write(text.replace("1e+300", "NaN"))
    assert add_up(ledger, None, None, "user") == before


NOW = datetime(2026, 11, 28, 12, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("30d", "2026-10-29T12:00:00+00:00"),
        ("36H", "2026-11-27T00:00:00+00:00"),
        ("2026-11", "2026-11-01T00:00:00+00:00"),
        (" 2026-11-28 ", "2026-11-28T00:00:00+00:00"),
        ("2026-11-28T01:30+01:00", "2026-11-28T00:30:00+00:00"),
        ("2026-11-28T01:30:00Z", "2026-11-28T01:30:00+00:00"),
        ("2026-11-28 01:30", "2026-11-28T01:30:00+00:00"),
    ],
)
def test_moments(text: str, moment: str) -> None:
    assert moment_of(text, NOW).isoformat() == moment


@pytest.mark.parametrize(
    "text", ["", "yesterday", "30", "2026-13", "2026-02-30", "-3d", "99999999d", "0001-01-01T00:00+23:59"]
)
def test_what_is_no_moment(text: str) -> None:
    with pytest.raises(ValueError, match="is not a moment such as 30d"):
        moment_of(text, NOW)


@pytest.mark.parametrize("by", BYS)
def test_a_table_fits_a_terminal(ledger: Ledger, by: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    line: Any = {"at": at("11-05T00"), "job_id": "x", "attempt": 1, "state": "LOST", "engine": "host"}
    line = {**line, "gpu_seconds": 1.2e6 * HOUR, "used_gpu_seconds": 1, "user": "\x1b[31mé\udcff" + "x" * 200}
    add(ledger, "end", {**line, "dag_id": "d" * 250, "task_id": "t", "reason": "r"})
    add(ledger, "transfer", {**line, "user": "ann", "direction": "in", "bytes": 5 << 50})
    assert cli.run("--since", "all", "--until", "2026-11-30T12:00", "--by", by, root=Root(str(tmp_path))) == 0
    shown = capsys.readouterr().out
    assert all(len(row) <= 80 for row in shown.splitlines()), shown
    assert "\x1b" not in shown
    first, head, *rows, _, total = shown.splitlines()
    assert first == "attempts that ended before 2026-11-30 12:00 UTC"
    assert head.split() == [by, "jobs", "ends", "failed", "GPU-h", "used", "idle", "kWh", "received", "sent"]
    assert total.split()[:4] == ["total", "4", "5", "3"]
    assert all(row[-1] == "B" for row in rows)


def test_json_and_nothing(ledger: Ledger, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    options = ("--since", "2026-11", "--until", "2026-11-03", "--by", "dag")
    assert cli.run(*options, "--json", root=Root(str(tmp_path))) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["since"], found["until"], found["by"]) == (at("11-01T00"), at("11-03T00"), "dag")
    assert brief(found["rows"]) == {"day": (1, 1, 0, 8, 0, 0), "night": (1, 1, 0, 1, 0, 7)}
    assert cli.run("--since", "2027-01", root=Root(str(tmp_path))) == 0
    assert capsys.readouterr().out.splitlines()[1:] == ["no job has ended in that time"]
    with pytest.raises(SystemExit) as left:
        cli.run("--since", "soon", root=Root(str(tmp_path)))
    assert left.value.code == 2
    assert "'soon' is not a moment such as 30d (so long ago), 2026-11" in capsys.readouterr().err


def test_an_attempt_that_was_taken_back_counts_for_nothing_unless_it_has_used_gpus(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path / ".gpu-run"))
    end: Any = {"user": "ann", "dag_id": "night", "attempt": 1, "engine": "host", "state": "CANCELLED"}
    end.update(reason="cancelled", at=at("11-02T05"), queued_s=HOUR)
    moved = {**end, "job_id": "a", "gpu_seconds": 0, "placement": "withdrawn"}
    fenced = {**end, "job_id": "b", "gpu_seconds": HOUR, "placement": "fenced"}
    add(ledger, "end", moved, fenced, {**end, "job_id": "c", "gpu_seconds": 0})
    assert brief(add_up(ledger, None, None, "user")["rows"]) == {"ann": (2, 2, 0, 1, 0, 0)}
    (pair,) = read_totals(ledger, within_s=10)["pairs"]
    assert (pair["ends"], pair["gpu_seconds"]) == ([{"reason": "cancelled", "count": 2}], HOUR)
