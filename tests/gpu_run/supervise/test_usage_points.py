"""The points of a job's use: how they are merged, and the file that shows them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.gpu_run.supervise.usage_points import UsagePoints, merged
from tests.harness.small_disk import fill, small_disk

PAGE = 4096


def point(number: int, *, seconds: float = 2.0, percent: float | None = 50.0) -> Any:
    gpu = {"index": 3, "memory_bytes": 7} | ({} if percent is None else {"percent": percent})
    return {"t": 1e9 + seconds * number, "s": seconds, "gpus": [gpu], "cpus": 1.5, "written_bytes": number}


def shown(path: Path) -> list[dict[str, Any]]:
    text = path.read_text()
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def test_neighbours_become_means_weighted_by_their_seconds() -> None:
    points = [
        {"t": 2, "s": 2, "gpus": [{"index": 0, "percent": 100, "power_w": 90}], "memory_bytes": 10, "cpus": 4.0},
        {"t": 8, "s": 6, "gpus": [{"index": 0, "percent": 20}], "memory_bytes": 30, "cpus": 0.0, "written_bytes": 9},
    ]
    (one,) = merged(points, 1)  # type: ignore[arg-type]
    gpu = {"index": 0, "percent": 40.0, "power_w": 90.0}
    assert one == {"t": 8, "s": 8, "gpus": [gpu], "memory_bytes": 25, "cpus": 1.0, "written_bytes": 9}


def test_gpus_of_several_nodes_stay_apart_and_one_may_be_missing() -> None:
    points = [
        {"t": 1, "s": 1, "gpus": [{"index": 0, "host": "a", "percent": 10}, {"index": 0, "host": "b", "percent": 30}]},
        {"t": 2, "s": 1, "gpus": [{"index": 0, "host": "a", "percent": 20}]},
        {"t": 3, "s": 1},
    ]
    (one,) = merged(points, 1)  # type: ignore[arg-type]
    assert {gpu["host"]: gpu["percent"] for gpu in one["gpus"]} == {"a": 15.0, "b": 30.0}


def test_however_long_it_runs_the_points_stay_few_and_say_the_same(tmp_path: Path) -> None:
    path = tmp_path / "usage.jsonl"
    points = UsagePoints(str(path), lambda: None, most=50)
    for number in range(1, 501):
        points.add(point(number, percent=number % 2 * 100))
        kept = shown(path)
        assert len(kept) <= 50
        assert sum(one["s"] for one in kept) == 2 * number
        assert kept[-1]["t"] == 1e9 + 2 * number
    mean = sum(one["gpus"][0]["percent"] * one["s"] for one in kept) / 1000
    assert mean == pytest.approx(50, abs=0.5)
    # The oldest stand for the longest times, and all of the old ones for about as long.
    assert kept[0]["s"] > max(one["s"] for one in kept) / 2
    assert len(kept) >= 25


def test_a_line_is_appended_only_within_a_page(tmp_path: Path) -> None:
    path = tmp_path / "usage.jsonl"
    points = UsagePoints(str(path), lambda: None)
    inode, size, replaced = 0, 0, 0
    for number in range(500):
        points.add(point(number))
        found = path.stat()
        if found.st_ino == inode:
            assert size // PAGE == (found.st_size - 1) // PAGE
        else:
            replaced += 1
        inode, size = found.st_ino, found.st_size
    assert 5 < replaced < 50


def make_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    "spoil",
    [
        Path.unlink,
        lambda path: path.write_text("x" * 100),
        lambda path: path.write_text(path.read_text() + "torn"),
        make_pipe,
        lambda path: (path.unlink(), path.mkdir()),
        lambda path: (path.unlink(), path.symlink_to("/etc/passwd")),
        lambda path: (path.unlink(), path.parent.rmdir()),
        lambda path: (path.unlink(), path.parent.rmdir(), path.parent.write_text("")),
    ],
)
def test_whatever_the_job_puts_there_it_is_shown_again(tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    path = tmp_path / "logs" / "usage.jsonl"

    def make_folder() -> None:
        if path.parent.is_file():
            path.parent.unlink()
        path.parent.mkdir(exist_ok=True)

    points = UsagePoints(str(path), make_folder)
    points.add(point(1))
    spoil(path)
    points.add(point(2))
    assert shown(path) == [point(1), point(2)]
    assert not path.is_symlink()


def test_a_full_disk_loses_no_point_that_a_later_one_can_bring(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 64) as disk:
        path = disk / "usage.jsonl"
        points = UsagePoints(str(path), lambda: None)
        points.add(point(1))
        fill(disk)
        for number in range(2, 100):
            points.add(point(number))
            assert shown(path)[0] == point(1)
        (disk / "filler").unlink()
        points.add(point(100))
        assert len(shown(path)) == 100
        assert sorted(os.listdir(disk)) == ["usage.jsonl"]
