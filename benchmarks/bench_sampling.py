"""
What it takes to look at a job: processor time in an hour, memory of the sampler, and bytes kept of a job of a week.

The looks of an hour are all taken, by the sampler's own code, but one after the other: its clock is moved forward over
the pauses between them. The GPUs are those of a fake of NVIDIA's library (tests/gpu_run/gpus/fake_nvml.c), which
answers at once; a real driver takes time of its own. Memory, and the price of the start, are those of a real job.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from airflow_provider_gpu_cluster.gpu_run.gpus import nvml
from airflow_provider_gpu_cluster.gpu_run.linux import processes
from airflow_provider_gpu_cluster.gpu_run.linux.companion import CompanionLine
from airflow_provider_gpu_cluster.gpu_run.supervise import usage_sampling
from airflow_provider_gpu_cluster.gpu_run.supervise.allocation import Allocation
from airflow_provider_gpu_cluster.gpu_run.supervise.idle_looks import IdleLooks
from airflow_provider_gpu_cluster.gpu_run.supervise.usage_points import UsagePoints
from airflow_provider_gpu_cluster.gpu_run.supervise.usage_rhythm import Rhythm
from airflow_provider_gpu_cluster.gpu_run.supervise.usage_sampling import SampledNode, Sampling
from tests.gpu_run.gpus.fake_driver import UUIDS, build_library
from tests.gpu_run.host import Host
from tests.harness.leftovers import kill_everything_under, processes_under

_HOUR_S = 3600.0
_WEEK_S = 7 * 24 * _HOUR_S
_GOAL = 0.001


class _Clock:
    """The clock of a sampler, which a benchmark can set."""

    def __init__(self) -> None:
        self.ahead_s = 0.0
        self.process_time, self.time = time.process_time, time.time

    def monotonic(self) -> float:
        """Return the time, in seconds."""
        return time.monotonic() + self.ahead_s


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="bench-sampling-") as name:
        folder = Path(name)
        print(f"{'job':<44}{'looks':>7}{'of GPUs alone':>15}{'processor time':>16}{'share of a core':>17}")
        with mock.patch.object(nvml, "LIBRARIES", (build_library(folder),)):
            for gpus, count in ((1, 8), (8, 64), (8, 500), (1, 4000)):
                _hour(folder / f"{gpus}-{count}", gpus, count)
        _real_job(folder)
        for gpus in (1, 8):
            _week(folder, gpus)


def _gpus(count: int) -> Any:
    return [{"key": UUIDS[number % 2], "index": number} for number in range(count)]


@contextlib.contextmanager
def _tree(count: int) -> Iterator[int]:
    """Run so many processes below one, and give its id."""
    command = f"for one in $(seq {count}); do sleep 1000 & done; echo ready; wait"
    with subprocess.Popen(
        ["bash", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process.pid
        finally:
            processes.send_signal([*processes.descendants(process.pid), process.pid], 9)


def _hour(folder: Path, gpus: int, count: int) -> None:
    folder.mkdir()
    host = Host(folder)
    job = host.job("job")
    job.create()
    attempt = job.add_attempt(1, host.request("true"), {})  # type: ignore[arg-type]
    assert attempt is not None
    source, _ = os.pipe()
    line = CompanionLine(source, os.open(os.devnull, os.O_WRONLY))
    node = SampledNode(_gpus(gpus), [], 16, job.at("logs", "usage.jsonl"), attempt.at("usage.json"))
    clock = _Clock()
    with mock.patch.object(usage_sampling, "time", clock), _tree(count) as root:
        idle = IdleLooks(attempt, Allocation(list(node.gpus), "", []), clock.monotonic())
        sampling = Sampling(attempt, node, Rhythm(gpus_s=idle.pause_s), line, idle.look)
        began, looks = clock.monotonic(), 0
        sampling.begin(root)
        before_s = time.process_time()
        while clock.monotonic() < began + _HOUR_S:
            sampling.look()
            looks += 1
            clock.ahead_s += sampling.pause_s
        took_s = time.process_time() - before_s + sampling._gpus.cost_s
    whole = sampling._summary.usage()["samples"]
    what = f"{gpus} GPU{'s' if gpus > 1 else ''}, {count} processes, an hour"
    verdict = "" if took_s / _HOUR_S < _GOAL else "  above the goal"
    print(f"{what:<44}{whole:>7}{looks - whole:>15}{took_s:>14.2f} s{took_s / _HOUR_S:>16.4%}{verdict}")


def _real_job(folder: Path) -> None:
    (folder / "gpus.json").write_text('{"gpus": [{"percent": 50, "memory_bytes": 1000}]}')
    os.environ["GPU_RUN_FAKE_NVML"] = str(folder / "gpus.json")
    host = Host(folder / "host")
    try:
        job = host.submit("exec sleep 1000")
        supervisor = host.wait(job, state="RUNNING")["pid"]
        while not os.path.exists(host.attempt(job).at("usage.json")):
            time.sleep(0.05)
        time.sleep(10)
        guard = processes.parent_of(supervisor) or 0
        known = {guard, *processes.descendants(guard), *host.processes("dispatch")}
        for pid in processes_under(Path(host.root.path)):
            if pid in known:
                continue
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks = int(fields[11]) + int(fields[12])
            rows = dict(row.split(":", 1) for row in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
            own = sum(int(rows[name].split()[0]) for name in ("Private_Clean", "Private_Dirty"))
            proportional = int(rows["Pss"].split()[0])
            print(
                f"\nthe sampler of a real job, after 10 s: {ticks * 10} ms of processor time; memory of its own "
                f"{own / 1024:.1f} MiB, and {proportional / 1024:.1f} MiB with its share of common memory"
            )
    finally:
        kill_everything_under(folder)


def _week(folder: Path, gpus: int) -> None:
    path = folder / f"week-{gpus}.jsonl"
    points, rhythm = UsagePoints(str(path), lambda: None), Rhythm()
    now, looks, largest, began = 0.0, 0, 0, time.process_time()
    while now < _WEEK_S:
        pause_s = rhythm.pause_s(now, 0.005)
        now += pause_s
        looks += 1
        point: Any = {
            "t": round(1.8e9 + now, 3),
            "s": round(pause_s, 3),
            "gpus": [
                {
                    "index": number,
                    "percent": (looks * 7 + number) % 1000 / 10,
                    "memory_bytes": 70_000_000_000 + looks,
                    "power_w": (looks * 11 + number) % 7000 / 10,
                    "celsius": 65.0,
                }
                for number in range(gpus)
            ],
            "memory_bytes": 60_000_000_000 + looks,
            "cpus": looks % 1600 / 100,
            "written_bytes": looks * 10_000_000,
        }
        points.add(point)
        largest = max(largest, path.stat().st_size)
    took_s = time.process_time() - began
    lines = path.read_text().count("\n")
    print(
        f"a job of a week with {gpus} GPU{'s' if gpus > 1 else ''}: {looks} looks, {lines} points, "
        f"{path.stat().st_size / 1024:.0f} KiB at its end, {largest / 1024:.0f} KiB at most; "
        f"keeping them took {took_s:.1f} s of processor time"
    )


if __name__ == "__main__":
    main()
