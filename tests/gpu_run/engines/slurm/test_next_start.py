"""What a job asks Slurm for when it goes on by itself."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.gpu_run.engines.slurm import commands
from airflow_provider_gpu_cluster.gpu_run.engines.slurm.next_start import NextStart
from airflow_provider_gpu_cluster.gpu_run.protocol.recovery import Recovery


def recovery(**more: Any) -> Recovery:
    known: Recovery = {
        "first": 1,
        "used": {"preempted": 1},
        "reason": "preempted",
        "why": "attempt 1 was preempted",
        "streak": 1,
        "not_before": 0.0,
        "checkpoint": None,
        "quick_ends": [],
        "past": [],
    }
    return {**known, **more}  # type: ignore[typeddict-item]


@pytest.mark.parametrize(
    ("theirs", "excluded", "options"),
    [
        ([], [], []),
        (["--exclude=gpu1"], [], ["--exclude=gpu1"]),
        ([], ["gpu2"], ["--exclude=gpu2"]),
        (["--exclude=gpu[1,3],gpu5", "-N2"], ["gpu2"], ["-N2", "--exclude=gpu[1,3],gpu5,gpu2"]),
        (["-x", "gpu9", "--exclude", "gpu1"], ["gpu2", "gpu[4-5]"], ["--exclude=gpu1,gpu2,gpu[4-5]"]),
        (["-xgpu1", "--nice", "-100"], ["gpu2"], ["--nice", "-100", "--exclude=gpu1,gpu2"]),
        # Options about the first start have done their work.
        (["--begin=22:00", "-d", "afterok:12", "--hold", "-H", "-bnow", "--qos=a"], [], ["--qos=a"]),
        # Only an attempt that needs more memory has its own size.
        (["--mem=2G", "--mem-per-gpu", "1G"], [], ["--mem=2G", "--mem-per-gpu", "1G"]),
    ],
)
def test_options(theirs: list[str], excluded: list[str], options: list[str]) -> None:
    assert NextStart.after(recovery(exclude_nodes=excluded)).options(theirs) == options


def test_nodes_excluded_in_a_file(tmp_path: Path) -> None:
    listed = tmp_path / "nodes"
    listed.write_text("gpu1,gpu[7-8]\ngpu3\n")
    again = NextStart(exclude=("gpu2",))
    assert again.options([f"--exclude={listed}"]) == ["--exclude=gpu1,gpu[7-8],gpu3,gpu2"]
    assert again.options([f"--exclude={listed}.gone"]) == [f"--exclude={listed}.gone"]


@pytest.mark.parametrize(
    ("pause_s", "begins"), [(-5, []), (1, []), (60, ["--begin=now+60"]), (1e9, ["--begin=now+600"])]
)
def test_a_pause(pause_s: float, begins: list[str]) -> None:
    assert NextStart.after(recovery(not_before=time.time() + pause_s)).options([]) == begins


def test_more_memory_counts_whatever_the_options_say() -> None:
    again = NextStart.after(recovery(used={"out_of_memory": 1}))
    spec: Any = {"gpus": 1, "memory_bytes": 3 << 30, "sbatch_options": ["--mem=2G", "--mem-per-cpu", "1G", "--qos=a"]}
    command = commands.sbatch(
        spec, {}, name="n", comment="", folder="/", output="/o", environment=(), gpu_type=None, again=again
    )
    assert [word for word in command if word.startswith(("--mem", "--qos"))] == ["--mem=3200M", "--qos=a"]
