"""What it takes to add up a ledger: that of a thousand ended jobs, and one of a million lines, with its memory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from airflow_provider_gpu_cluster.connection.program import build_program
from airflow_provider_gpu_cluster.gpu_run.ledger.ledger import Ledger
from airflow_provider_gpu_cluster.gpu_run.protocol.ledger import EndLine
from benchmarks.measure import bench, line, paired
from tests.harness.jobs import submit, wait

RUNS = 5
JOBS = 1000
LINES = (10_000, 1_000_000)


def main() -> None:
    _thousand_jobs()
    for count in LINES:
        _many_lines(count)


def _thousand_jobs() -> None:
    with bench(gpus=4) as cluster, cluster.cluster() as session:
        handle = submit(session, "echo done", job_id="ended").handle
        wait(session, "ended")
        for number in range(1, JOBS):
            copied = shutil.copytree(handle.job_dir, Path(handle.job_dir).parent / f"ended-{number}")
            # Nobody has looked at it yet, so its line is missing.
            (copied / ".job" / "attempts" / "1" / "booked.json").unlink(missing_ok=True)
        began = time.perf_counter()
        assert session.usage()["total"]["jobs"] == JOBS
        print(f"usage of {JOBS} ended jobs whose lines have to be written first: {time.perf_counter() - began:.2f} s")
        (often,) = paired(RUNS, lambda: session.usage(by="task"))
        line(f"usage of {JOBS} ended jobs, connection open", often)


def _many_lines(count: int) -> None:
    """Measure ``gpu-run usage`` on a ledger of a year, of ends alone, which take the longest."""
    with tempfile.TemporaryDirectory(prefix="gpu-cluster-ledger-") as folder:
        own = Path(folder, ".gpu-run")
        own.mkdir()
        program = build_program()
        path = own / program.name
        path.write_bytes(program.content)
        command = [sys.executable, "-I", "-S", str(path), "usage", "--since", "all", "--by", "dag", "--json"]
        subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL)
        _write(Ledger(str(own)), count)
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        peak = 0
        while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
            # That of the process itself, and not of this one, as a copy of which it begins.
            peak = max(peak, _peak_kilobytes(process.pid))
            time.sleep(0.02)
        took = time.perf_counter() - began
        _, status, used = ended
        assert status == 0
        print(
            f"gpu-run usage of {count:,} lines ({_megabytes(own)} MB): {took:.2f} s, "
            f"{used.ru_utime + used.ru_stime:.2f} s of a processor, {peak >> 10} MB of memory"
        )


def _peak_kilobytes(pid: int) -> int:
    words = Path(f"/proc/{pid}/status").read_text().split()
    return int(words[words.index("VmHWM:") + 1]) if "VmHWM:" in words else 0


def _write(ledger: Ledger, count: int) -> None:
    lines: list[EndLine] = []
    for number in range(count):
        lines.append(
            {
                "kind": "end",
                "at": f"2025-{1 + 12 * number // count:02}-{1 + number % 28:02}T12:00:00.000+00:00",
                "job_id": f"train_{number % 200}__fit__scheduled-2025-{number:08}",
                "user": f"user-{number % 50}",
                "dag_id": f"train_{number % 200}",
                "task_id": "fit",
                "run_id": "scheduled__2025-11-28T00:00:00+00:00",
                "owner": "airflow",
                "attempt": 1,
                "engine": "slurm",
                "host": "gpu-[001-002]",
                "state": "SUCCEEDED" if number % 3 else "FAILED",
                "reason": None if number % 3 else "user_error",
                "verdict": None if number % 3 else "user_error",
                "gpus": 2,
                "gpu_type": "NVIDIA A100-SXM4-80GB",
                "gpu_keys": [f"{node}:{gpu}" for node in range(2) for gpu in range(4)],
                "leased_s": 3600.5,
                "gpu_seconds": 7201.0,
                "used_gpu_seconds": 3000.25,
                "idle_gpu_seconds": 700.5,
                "energy_j": 1.5e6,
                "queued_s": 61.2,
                "staging_s": 3.1,
                "running_s": 3590.0,
                "received_bytes": 123456789,
                "sent_bytes": 0,
                "metrics": {"accuracy": 0.9731, "loss": 0.0812},
            }
        )
        if len(lines) == 5000 or number == count - 1:
            assert ledger.append_all(lines)
            lines = []


def _megabytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.jsonl")) >> 20


if __name__ == "__main__":
    main()
