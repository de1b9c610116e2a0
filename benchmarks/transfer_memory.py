"""How much memory a worker needs for a large transfer, over what Airflow and a transfer of one byte need."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import transfer_ours as ours
from benchmarks.measure import Bench
from benchmarks.usage import memory_below_kb

TARGET_MB = 150
_SAMPLE_S = 0.05


def memory(cluster: Bench, large: Path, tiny: Path) -> None:
    """Move a large and a tiny file both ways, each in a process of its own, and print what they needed."""
    megabytes = large.stat().st_size / 1e6
    print(f"\n-- peak memory of the worker for {megabytes:.0f} MB")
    for way in ("up", "down"):
        for_large, for_tiny = (_peak_mb(cluster, way, source) for source in (large, tiny))
        print(
            f"{way:<5} {for_large:.0f} MB, and {for_tiny:.0f} MB to move one byte: {for_large - for_tiny:.0f} MB more "
            f"(target: under {TARGET_MB} MB)",
            flush=True,
        )


def _peak_mb(cluster: Bench, way: str, source: Path) -> float:
    """Return the peak memory of a worker that moves a file, with that of the processes it may start."""
    with tempfile.TemporaryDirectory(prefix="place-", dir=cluster.folder) as name:
        place = Path(name)
        root_dir = ours.turn_to(cluster, place)
        ours.make_job("job")
        os.link(source, root_dir / "job" / "outputs" / source.name)
        worker = subprocess.Popen(
            [sys.executable, "-m", __name__, way, str(place), str(source)],
            cwd=Path(__file__).parent.parent,
            env={**os.environ, "AIRFLOW_HOME": str(place / "airflow")},
            stdout=subprocess.PIPE,
        )
        below_mb = 0.0
        while worker.poll() is None:
            below_mb = max(below_mb, memory_below_kb(worker.pid) / 1000)
            time.sleep(_SAMPLE_S)
        assert worker.stdout is not None
        said = worker.stdout.read().split()
        assert worker.returncode == 0, f"the worker that moves {source} {way} has failed"
        return float(said[-1]) + below_mb


def _work(way: str, place: Path, source: Path) -> None:
    if way == "up":
        ours.stage("job-with-inputs", source)
    else:
        ours.collect("job", place / "home")
    print(_peak_of_this_process_mb())


def _peak_of_this_process_mb() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise AssertionError("the kernel does not tell")


if __name__ == "__main__":
    _work(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
