"""What is added up from the samples of a job's use, when they are taken, and how nodes are put together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.gpu_run.gpus.gpu_reading import GpuReading
from airflow_provider_gpu_cluster.gpu_run.supervise.usage_nodes import NodesSampling, node_files
from airflow_provider_gpu_cluster.gpu_run.supervise.usage_rhythm import Rhythm
from airflow_provider_gpu_cluster.gpu_run.supervise.usage_summary import UsageSummary
from tests.gpu_run.host import Host

GPUS: Any = [{"key": "GPU-a", "index": 0}, {"key": "GPU-b", "index": 1}]


def test_integrals_and_peaks() -> None:
    summary = UsageSummary(GPUS, 16)
    summary.add_gpus([GpuReading(50.0, 10, 99, 100.0), GpuReading(0.0, 5, 99, 60.0)], 0.0)
    summary.add_gpus([GpuReading(100.0, 30, 99, 300.0), GpuReading(0.0, 5, 99, 60.0)], 10.0)
    summary.add_gpus([GpuReading(0.4, 20, 99, 80.0), GpuReading(0.0, 5, 99, 60.0)], 30.0)
    summary.add_host(40.0, cpu_s=100.0, written_bytes=7)
    usage = summary.usage()
    assert (usage["gpu_mean_percent"], usage["gpu_peak_percent"]) == (12.7, 50.0)
    assert usage["gpu_seconds_used"] == pytest.approx(10 + 0.12)
    assert usage["gpu_seconds_idle"] == 30 + 40
    assert usage["energy_j"] == 10 * 300 + 30 * 80 + 40 * 60
    assert (usage["cpus_mean"], usage["cpus"], usage["written_bytes"]) == (2.5, 16, 7)
    assert summary.seconds() == {"idle": 30.0}
    summary.source = "nvml"
    assert summary.usage()["gpus"][0] == {
        "index": 0,
        "key": "GPU-a",
        "mean_percent": 25.3,
        "peak_percent": 100.0,
        "peak_memory_bytes": 30,
        "memory_bytes": 99,
        "energy_j": 5400.0,
    }


def test_a_count_of_energy_is_exact_and_may_begin_anew() -> None:
    summary = UsageSummary(GPUS[:1], 1)
    for count, past_s in ((1000.0, 0.0), (1500.0, 10.0), (20.0, 10.0), (50.0, 10.0)):
        summary.add_gpus([GpuReading(power_w=1.0, energy_j=count)], past_s)
    # The driver was loaded anew in the third stretch.
    assert summary.usage()["energy_j"] == 500 + 10 + 30


def test_what_is_not_told_is_left_out() -> None:
    summary = UsageSummary(GPUS, 2)
    summary.add_gpus([], 10.0)
    summary.add_gpus([GpuReading(memory_bytes=5), GpuReading()], 10.0)
    summary.add_host(20.0, cpu_s=0.0, written_bytes=None)
    assert summary.usage() == {"source": "", "samples": 1, "cpus": 2, "cpus_mean": 0.0}
    assert summary.seconds() == {}


def looks_in(seconds: float, cost_s: float, **settings: Any) -> tuple[int, float]:
    """Return how many looks there are in that time if each has that cost, and the longest pause."""
    rhythm, now, looks, longest_s = Rhythm(**settings), 0.0, 0, 0.0
    while now < seconds:
        looks += 1
        pause_s = rhythm.pause_s(now, cost_s)
        longest_s = max(longest_s, pause_s)
        now += pause_s
    return looks, longest_s


def test_often_at_first_and_rarer_later() -> None:
    assert looks_in(60, 0.005)[0] == 31
    assert looks_in(3600, 0.005)[1] == 30.0
    assert looks_in(3600, 0.005, longest_s=10.0)[1] == 10.0


@pytest.mark.parametrize("cost_s", [0.005, 0.05, 0.3, 1.0])
def test_looks_that_cost_much_are_rare(cost_s: float) -> None:
    looks, _ = looks_in(3600, cost_s)
    assert looks * cost_s < 0.001 * 3600
    assert looks > 1


def test_what_all_nodes_have_used(host: Host) -> None:
    job = host.job("job")
    job.create()
    attempt = job.attempt(1)
    Path(attempt.path).mkdir()
    for rank, percent in ((0, 90.0), (1, 10.0)):
        points, so_far = node_files(attempt, rank)
        gpu = {"index": 0, "host": f"n{rank}", "mean_percent": percent, "energy_j": 5.0}
        usage = {
            "source": "nvml",
            "samples": 3,
            "cpus": 8,
            "cpus_mean": 2.0,
            "gpu_mean_percent": percent,
            "gpu_seconds_used": percent,
            "energy_j": 5.0,
            "gpus": [gpu],
        }
        last = {"t": 100 + rank, "s": 2, "gpus": [{"index": 0, "host": f"n{rank}", "percent": percent}], "cpus": 2.0}
        Path(so_far).write_text(
            json.dumps({"usage": usage, "seconds": {"idle": 1}, "last": last, "looked_at": 1.0, "pause_s": 1.0})
        )
        Path(points).write_text(
            "".join(json.dumps({"t": t, "s": 2, "node": f"n{rank}"}) + "\n" for t in (1e9, 1e9 + 2))
        )
    Path(node_files(attempt, 2)[1]).write_text('{"usage": {"cpus": []}, "seconds": 5}')
    seen: list[Any] = []
    sampling = NodesSampling(attempt, 3, Rhythm(), lambda *told: seen.append(told))
    sampling.begin(0)
    sampling.look()
    status = json.loads(Path(attempt.at("usage.json")).read_text())
    usage = status["usage"]
    assert (usage["gpu_mean_percent"], usage["gpu_peak_percent"]) == (50.0, 50.0)
    assert (usage["cpus_mean"], usage["cpus"], usage["samples"]) == (4.0, 16, 6)
    assert (usage["gpu_seconds_used"], usage["energy_j"]) == (100.0, 10.0)
    assert [gpu["host"] for gpu in usage["gpus"]] == ["n0", "n1"]
    assert [gpu["percent"] for gpu in seen[0][0]["gpus"]] == [90.0, 10.0]
    lines = Path(job.at("logs", "usage.jsonl")).read_text().splitlines()
    assert [(json.loads(line)["t"], json.loads(line)["node"]) for line in lines] == [
        (1e9, "n0"),
        (1e9, "n1"),
        (1e9 + 2, "n0"),
        (1e9 + 2, "n1"),
    ]
