"""How far a transfer is, for who reads the task's log or watches a terminal."""

from __future__ import annotations

import io
import logging
import sys
import time
from collections.abc import Callable

import pytest

from airflow_provider_gpu_cluster.transfer.progress import TransferProgress, progress_line


@pytest.fixture
def lines(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Callable[[list[tuple[float, int]]], list[str]]:
    """Return a function that moves bytes at given times, in seconds, and returns what the log says of it."""
    caplog.set_level(logging.INFO, logger="airflow_provider_gpu_cluster.transfer.progress")

    def move(steps: list[tuple[float, int]], total: int = 1_000_000_000) -> list[str]:
        now = [100.0]
        monkeypatch.setattr(time, "monotonic", lambda: now[0])
        with TransferProgress("outputs of job from me@gpu1", total) as progress:
            for at, nbytes in steps:
                now[0] = 100.0 + at
                progress.advance(nbytes)
        return [record.getMessage() for record in caplog.records]

    return move


def test_a_line_every_five_seconds_and_one_at_the_end(lines: Callable[..., list[str]]) -> None:
    steps = [(number * 1.0, 50_000_000) for number in range(1, 13)]
    assert lines(steps) == [
        "outputs of job from me@gpu1: 250.0 of 1,000.0 MB (25%), 50.0 MB/s, 15 s left",
        "outputs of job from me@gpu1: 500.0 of 1,000.0 MB (50%), 50.0 MB/s, 10 s left",
        "outputs of job from me@gpu1: 600.0 of 1,000.0 MB (60%), 50.0 MB/s, 8 s left",
    ]


def test_a_short_transfer_is_not_worth_a_line(lines: Callable[..., list[str]]) -> None:
    assert lines([(1.0, 500_000_000), (4.9, 500_000_000)]) == []


def test_bytes_that_have_to_come_again_are_counted_back(lines: Callable[..., list[str]]) -> None:
    assert lines([(1.0, 600_000_000), (2.0, -600_000_000), (5.0, 100_000_000)])[0].startswith(
        "outputs of job from me@gpu1: 100.0 of 1,000.0 MB (10%)"
    )


@pytest.mark.parametrize(
    ("done", "total", "seconds", "line"),
    [
        (0, 0, 0.0, "0.0 of 0.0 MB"),
        (0, 5_000_000, 9.0, "0.0 of 5.0 MB (0%)"),
        (5_000_000, 5_000_000, 2.0, "5.0 of 5.0 MB (100%), 2.5 MB/s"),
        (6_000_000, 5_000_000, 2.0, "6.0 of 5.0 MB (100%), 3.0 MB/s"),
        (1_000_000, 5_000_000, 0.1, "1.0 of 5.0 MB (20%)"),
    ],
)
def test_only_what_can_be_told_is_told(done: int, total: int, seconds: float, line: str) -> None:
    assert progress_line(done, total, seconds) == line


def test_a_bar_where_a_person_watches(lines: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    assert lines([(1.0, 250_000_000), (6.0, 250_000_000)]) == []
    assert "outputs of job" in terminal.getvalue()
    assert "0.5/1.0 GB" in terminal.getvalue()
