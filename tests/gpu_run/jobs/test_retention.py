"""A connection's retention: launches start the clearing, at most once an hour, and never suffer from it."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.gpu_run.jobs.retention import clear_if_due
from airflow_provider_gpu_cluster.gpu_run.protocol.durations import seconds_of
from tests.gpu_run.host import Host
from tests.gpu_run.old import DAY, make_job_old, make_old


@pytest.fixture
def host(cluster_folder: Path) -> Host:
    return Host(cluster_folder, retention_s=14 * DAY)


@pytest.fixture
def starts(host: Host, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Return the commands that were started, which are not run."""
    commands: list[list[str]] = []

    class Process:
        returncode: int | None = None

        def __init__(self, command: list[str], **options: Any) -> None:
            commands.append(command)

    monkeypatch.setattr(subprocess, "Popen", Process)
    return commands


def due(host: Host) -> None:
    clear_if_due(host.root, host.program, host.settings)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("14d", 14 * DAY),
        ("36h", 36 * 3600),
        ("90m", 5400),
        ("45s", 45),
        ("3600", 3600),
        (" 1.5 H ", 5400),
        (7, 7),
        (0.5, 0.5),
    ],
)
def test_durations(text: object, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", "d", "0", "0d", "-1d", "1w", "1d12h", "1e3", "inf", "nan", "٣d", "9" * 400, True, False, None, [], -1, 0],
)
def test_what_is_no_duration(text: object) -> None:
    with pytest.raises(ValueError, match="is not a duration such as 14d"):
        seconds_of(text)


def test_it_clears_old_jobs_away_in_the_background(host: Host, eventually: Callable[..., Any]) -> None:
    old = host.submit("true")
    host.wait(old)
    make_job_old(host, old)
    due(host)
    eventually(lambda: not os.path.exists(host.job(old).path))
    log = Path(host.root.own, "gc.log")
    eventually(lambda: "removed 1 jobs" in log.read_text())


def test_once_an_hour(host: Host, starts: list[list[str]]) -> None:
    stamp = Path(host.root.own, "gc.stamp")
    due(host)
    due(host)
    assert len(starts) == 1
    assert starts[0][-4:] == ["gc", "--older-than", "1209600.000000", "--of-retention"]
    make_old(stamp, 3500)
    due(host)
    assert len(starts) == 1
    make_old(stamp, 3700)
    due(host)
    due(host)
    assert len(starts) == 2
    # The clock was wrong, and was put right.
    make_old(stamp, -DAY)
    due(host)
    due(host)
    assert len(starts) == 3


def test_of_many_at_once_one_starts_it(host: Host, starts: list[list[str]]) -> None:
    stamp = Path(host.root.own, "gc.stamp")
    for count in range(1, 20):
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: due(host), range(8)))
        assert len(starts) == count
        if count % 2:
            stamp.unlink()
        else:
            make_old(stamp)


def test_without_a_retention_nothing_is_touched(host: Host, starts: list[list[str]]) -> None:
    clear_if_due(host.root, host.program, {**host.settings, "retention_s": None})
    clear_if_due(host.root, host.program, {})
    assert starts == []
    assert not Path(host.root.own, "gc.stamp").exists()


def test_what_goes_wrong_is_not_the_launchs_concern(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **options: Any) -> Any:
        raise OSError("no more processes")

    monkeypatch.setattr(subprocess, "Popen", fail)
    due(host)
    Path(host.root.own, "gc.stamp").unlink()
    Path(host.root.own, "gc.stamp").mkdir()
    make_old(Path(host.root.own, "gc.stamp"))
    due(host)


def test_it_is_cheap_when_it_is_not_due(host: Host, starts: list[list[str]]) -> None:
    due(host)
    began = time.perf_counter()
    for _ in range(1000):
        due(host)
    assert time.perf_counter() - began < 10
    assert len(starts) == 1
