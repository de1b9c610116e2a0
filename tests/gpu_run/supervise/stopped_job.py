"""
Jobs and their stop, without records: ``python stopped_job.py``, with a list of jobs on standard input.

A copy of this process for each runs its shell text as a supervisor does, waits until the named programs are ready, and
tells the job to end. What became of it lies in its folder, as JSON. Its programs are ``program.py NAME``.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from airflow_provider_gpu_cluster.gpu_run.linux import processes
from airflow_provider_gpu_cluster.gpu_run.supervise.job_processes import JobProcesses
from airflow_provider_gpu_cluster.gpu_run.supervise.main_process import catching
from airflow_provider_gpu_cluster.gpu_run.supervise.telling import Telling
from tests.harness.patience import PATIENCE_S

PROGRAM = """\
import os, signal, sys, time
name, workers = sys.argv[1], int((sys.argv[2:] or "0")[0])

def note(text):
    with open(os.environ["NOTES"], "a") as file:
        file.write(name + " " + text + "\\n")

def work(number):
    signal.signal(signal.SIGTERM, lambda *_: (note("worker told"), os._exit(1)))
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(0.02)
    note("worker left alone")
    os._exit(0)

def save(number, frame):
    note("told")
    time.sleep(0.3)
    note("saved")
    print("last words of", name, flush=True)
    sys.exit(7)

for number in range(workers):
    if os.fork() == 0:
        work(number)
signal.signal(signal.SIGTERM, save)
signal.signal(signal.SIGINT, save)
signal.signal(signal.SIGUSR1, lambda *_: note("warned"))
note("ready")
while True:
    time.sleep(10)
"""


def main(folder: Path, command: str, ready: str, number: int) -> dict[str, object]:
    """Run a job, stop it, and return what became of it."""
    notes = folder / "notes"
    notes.touch()
    (folder / "program.py").write_text(PROGRAM)
    (folder / "run.sh").write_text(f"set -eo pipefail\n{command}\n")
    processes.become_subreaper()
    job = JobProcesses()
    with (folder / "out").open("wb") as out:
        env = {**os.environ, "NOTES": str(notes), "PYTHON": sys.executable}
        command_line = ["bash", str(folder / "run.sh")]
        job.start(command_line, cwd=str(folder), env=env, out=out.fileno(), errors=out.fileno(), umask=0o022)
    deadline = time.monotonic() + PATIENCE_S
    while any(f"{name} ready\n" not in notes.read_text() for name in ready.split()):
        assert time.monotonic() < deadline, notes.read_text() + (folder / "out").read_text()
        time.sleep(0.01)
    warned = [processes.program_of(pid) for pid in catching(job.tops(), 10)]
    telling = Telling(job, number)
    while job.reap() and not telling.is_over():
        assert time.monotonic() < deadline, notes.read_text()
        time.sleep(0.02)
    telling.end_shells()
    job.reap_top()
    job.end_leftovers(lambda: None)
    told = telling.status()
    done = [line for line in notes.read_text().splitlines() if not line.endswith(" ready")]
    return {
        "notes": done,
        "status": job.status if told is None else told,
        "out": (folder / "out").read_text(),
        "warned": warned,
    }


if __name__ == "__main__":
    pids = []
    for folder, command, ready, number in json.load(sys.stdin):
        pids.append(os.fork())
        if pids[-1] == 0:
            end = main(Path(folder), command, ready, number)
            Path(folder, "end.json").write_text(json.dumps(end))
            os._exit(0)
    for pid in pids:
        os.waitpid(pid, 0)
