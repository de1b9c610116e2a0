"""What processes use: processor time, memory, connections; read from /proc and from the log of sshd."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import Bench
from tests.harness.leftovers import processes_under

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_ESTABLISHED = "01"


@dataclass(frozen=True)
class Usage:
    """
    What was used up to a moment.

    :param airflow_cpu_s: processor time of the triggerer.
    :param watching_cpu_s: of sshd and all below it.
    :param jobs_cpu_s: of whatever else runs in the cluster's folder: jobs, and what gpu-run needs to run them.
    :param commands: remote commands that sshd has started.
    """

    at: float
    airflow_cpu_s: float
    watching_cpu_s: float
    jobs_cpu_s: float
    commands: int


@dataclass(frozen=True)
class Rates:
    """What was used in a minute."""

    airflow_cpu_s: float
    watching_cpu_s: float
    jobs_cpu_s: float
    commands: float


def usage(cluster: Bench, triggerer: int | None = None) -> Usage:
    """
    Look what has been used so far.

    :param triggerer: its process id; None when there is none.
    """
    airflow = set() if triggerer is None else _tree(triggerer)
    watching = _tree(_sshd())
    jobs = set(processes_under(cluster.folder)) - watching - airflow
    return Usage(time.monotonic(), _cpu_s(airflow), _cpu_s(watching), _cpu_s(jobs), commands(cluster))


def rates(before: Usage, after: Usage) -> Rates:
    """Return what was used between two looks, in a minute."""
    per_minute = 60 / (after.at - before.at)
    return Rates(
        (after.airflow_cpu_s - before.airflow_cpu_s) * per_minute,
        (after.watching_cpu_s - before.watching_cpu_s) * per_minute,
        (after.jobs_cpu_s - before.jobs_cpu_s) * per_minute,
        (after.commands - before.commands) * per_minute,
    )


def commands(cluster: Bench) -> int:
    """Return how many remote commands sshd has started so far; at this level, it logs each."""
    return cluster.sshd.log.read_bytes().count(b"Starting session: ")


def connections(cluster: Bench) -> int:
    """Return how many SSH connections are open, as the kernel has them on the server's side."""
    return sum(
        int(local.partition(":")[2], 16) == cluster.sshd.port and state == _ESTABLISHED
        for _, local, _, state, *_ in map(str.split, Path("/proc/net/tcp").read_text().splitlines()[1:])
    )


def memory_kb(pids: Iterable[int]) -> float:
    """Return how much memory processes use (PSS: what several share counts once), in kB of 1,000 bytes."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total / 1000


def memory_below_kb(pid: int) -> float:
    """Return how much memory the processes below one use, without its own."""
    return memory_kb(_tree(pid) - {pid})


def cluster_memory_kb() -> float:
    """Return how much memory sshd and all below it use."""
    return memory_kb(_tree(_sshd()))


def _sshd() -> int:
    """Return the server of the benchmark: it is this process's child."""
    return next(pid for pid in _children(os.getpid()) if Path(f"/proc/{pid}/comm").read_text().startswith("sshd"))


def _tree(pid: int) -> set[int]:
    """Return a process and all below it."""
    found = {pid}
    front = [pid]
    while front:
        children = _children(front.pop())
        front += children
        found.update(children)
    return found


def _children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(word) for word in task.read_text().split()]
    return found


def _cpu_s(pids: Iterable[int]) -> float:
    """Return the processor time of processes, and of their children that have ended."""
    ticks = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(int(field) for field in fields[11:15])
    return ticks / _TICKS_PER_S
