"""On a real Slurm: how often it is asked, a submit beside a plain sbatch, and from a job's end to the event."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from airflow_provider_gpu_cluster.connection.settings import ClusterSettings
from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from benchmarks.measure import CONN_ID, Bench, line, paired, percentile, ratio
from benchmarks.triggerer import Triggerer
from benchmarks.waiting_jobs import ends, gpu_job_trigger
from tests.harness.jobs import submit
from tests.harness.leftovers import kill_everything_under
from tests.servers.login_node import LoginNode
from tests.servers.slurm import RealSlurm
from tests.servers.sshd import login

COUNTS = (1, 10, 100, 300)
WATCHED_S = 60.0
RUNS = 15
ENDS = 24
SWEEP = 100
COMMANDS = ("sbatch", "squeue", "sacct", "scontrol", "scancel", "sinfo")


class Counted:
    """Slurm's commands on the login node, each of which leaves a line when it is run."""

    def __init__(self, node: LoginNode, folder: Path) -> None:
        self._log = folder / "commands"
        self._log.touch()
        for name in COMMANDS:
            node.replace(name, f'echo {name} >> {self._log}; exec $REAL "$@"')

    def count(self) -> Counter[str]:
        """Return how often each was run so far."""
        return Counter(self._log.read_text().split())


@contextlib.contextmanager
def slurm_bench() -> Iterator[tuple[Bench, RealSlurm, Counted]]:
    """Start a Slurm with accounting, and a login node with the stock limits."""
    folder = Path(tempfile.mkdtemp(prefix="sb-"))
    slurm = RealSlurm(folder / "s")
    slurm.folder.mkdir()
    try:
        slurm.start()
        (folder / "login").mkdir()
        node = LoginNode(folder / "login", slurm)
        node.sshd.start()
        counted = Counted(node, folder)
        settings = ClusterSettings(
            conn_id=CONN_ID,
            name=f"{login()}@{node.sshd.host}:{node.sshd.port}",
            root_dir=str(folder / "ml-jobs"),
            engine="slurm",
        )
        try:
            yield Bench(node.sshd, settings, folder), slurm, counted
        finally:
            node.sshd.stop()
    finally:
        slurm.stop()
        kill_everything_under(folder)
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    counts = [int(word) for word in sys.argv[1:]] or COUNTS
    with slurm_bench() as (bench, slurm, counted):
        _submit_beside_sbatch(bench)
        _end_to_event(bench)
        _sweep(bench, slurm, counted)
        _commands_per_minute(bench, slurm, counted, counts)


def _submit_beside_sbatch(bench: Bench) -> None:
    numbers = itertools.count()
    with bench.cluster() as session:
        submit(session, "true")  # the program is on the cluster from here on

    def ours() -> None:
        with bench.cluster() as session:
            submit(session, "true", job_id=f"bench-{next(numbers)}")

    def theirs() -> None:
        command = bench.ssh("sbatch", "--parsable", "--output=/dev/null", "--gres=gpu:1")
        subprocess.run(command, check=True, input=b"#!/bin/sh\ntrue\n", stdout=subprocess.DEVNULL)

    mine, other = paired(RUNS, ours, theirs)
    line("submit, connection included", mine)
    line("ssh login sbatch --parsable", other)
    print(f"submit / ssh sbatch: {ratio(mine, other):.2f} (target: at most 2)")


def _end_to_event(bench: Bench) -> None:
    with bench.cluster() as session, Triggerer(bench) as triggerer:
        handles = [submit(session, f"sleep {6 + number / 5}").handle for number in range(ENDS)]
        triggerer.run(map(gpu_job_trigger, handles))
        late = ends(session, triggerer, handles)
    cells = (statistics.median(late), percentile(late, 99))
    print("end of a job to the event: median {:.3f} s, p99 {:.3f} s (target: median under 2 s)".format(*cells))


def _sweep(bench: Bench, slurm: RealSlurm, counted: Counted) -> None:
    """Submit many jobs at once, from as many connections, as mapped tasks do that Airflow runs eight at a time."""
    before = counted.count()
    began = time.monotonic()
    numbers = iter(range(SWEEP))

    def work() -> None:
        for number in numbers:
            with bench.cluster() as session:
                submit(session, "true", job_id=f"sweep-{number}")

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.monotonic() - began
    commands = counted.count() - before
    print(f"{SWEEP} submits, eight at a time: {took:.1f} s, Slurm commands: {shown(commands)}")
    slurm.end_jobs()


def _commands_per_minute(bench: Bench, slurm: RealSlurm, counted: Counted, counts: Sequence[int]) -> None:
    slurm.run("scontrol", "update", "partition=gpu", "state=down", check=True)
    handles: list[JobHandle] = []
    for count in counts:
        with bench.cluster() as session:
            while len(handles) < count:
                handles.append(submit(session, "sleep 600", job_id=f"watched-{len(handles)}").handle)
        with Triggerer(bench) as triggerer:
            triggerer.run(map(gpu_job_trigger, handles))
            time.sleep(10)
            before = counted.count()
            time.sleep(WATCHED_S)
            commands = counted.count() - before
        print(f"{count:>4} watched jobs, Slurm commands in a minute: {shown(commands)}", flush=True)


def shown(commands: Counter[str]) -> str:
    """Return counts of commands, for people."""
    each = ", ".join(f"{number} {name}" for name, number in sorted(commands.items()))
    return f"{sum(commands.values())} ({each})"


if __name__ == "__main__":
    main()
