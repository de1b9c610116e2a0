"""
A trace of jobs that fail and are preempted, replayed a thousand times as fast: what is lost of it.

Ours are jobs of the host engine with virtual GPUs and what ``recover`` does by default, never retried. The others are
jobs of ``SSHRemoteJobOperator`` with ``retries=2``: the wrapper that it starts over SSH, again after each bad end, and
a pool of Airflow in place of the queue of GPUs. Both run the same program, which saves every half hour and when it is
told to end, and goes on from there. Neither has a whole Airflow around it. The others have it better than in life: a
preemption ends their program alone and leaves the wrapper to write the exit code, which is noticed at once.

GPU-hours are lost that were spent on steps that had been done before, or on jobs without a fault of their own that were
given up. What a failing job takes up to its fault counts for neither.

Options: how many jobs (200), and the seed of the trace.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from os import kill
from pathlib import Path
from typing import Protocol

import paramiko
from airflow.providers.ssh.utils.remote_job import RemoteJobPaths, build_posix_wrapper_command

from airflow_provider_gpu_cluster.exceptions import JobConflictError
from airflow_provider_gpu_cluster.hooks.gpu_cluster import GpuClusterHook
from benchmarks.measure import CONN_ID, Bench, bench
from benchmarks.trace import STEP_S, TraceJob, trace
from tests.harness.ledger import TRAINING, Ledger

JOBS = 200
SEED = 13
FASTER = 1000
GPUS = 32
# In seconds of this machine's time: as many as two processors can start with what both sides need for that.
ARRIVALS_PER_S = 2.5
SAVE_EVERY = 30
RETRIES = 2
RETRY_DELAY_S = 300 / FASTER
_LAUNCHERS = 4
_LOOK_EVERY_S = 0.3
_PATIENCE_S = 900.0

SUCCEEDED = "SUCCEEDED"
FAILED = "FAILED"


class Side(Protocol):
    """One way to run the jobs."""

    name: str

    def submit(self, job: TraceJob) -> None:
        """Launch a job; called by several threads."""

    def preempt(self, job: TraceJob) -> None:
        """Preempt a running job; called by several threads."""

    def ended(self) -> dict[int, str]:
        """Return what has been told of the jobs that have ended by now, and will not be tried again."""


@dataclass(frozen=True)
class Ledgers:
    """The ledgers of all jobs of one side."""

    folder: Path

    def path(self, job: TraceJob) -> Path:
        return self.folder / f"{job.number}"

    def of(self, job: TraceJob) -> Ledger:
        return Ledger.read(self.path(job))

    def environment(self, job: TraceJob) -> dict[str, str]:
        values = {
            "LEDGER": self.path(job),
            "STEPS": job.steps,
            "STEP_S": STEP_S / FASTER,
            "SAVE_EVERY": SAVE_EVERY,
            "FAIL_AT": job.fails_at,
        }
        return {name: str(value) for name, value in values.items()}


class Ours:
    """Jobs launched by the hook, and asked about all in one call."""

    name = "this provider"

    def __init__(self, cluster: Bench, ledgers: Ledgers) -> None:
        self._ledgers = ledgers
        self._hooks = threading.local()
        self._open: list[GpuClusterHook] = []
        self._running: set[int] = set()
        self._ended: dict[int, str] = {}
        cluster.connect().close()  # sets the Airflow connections

    def submit(self, job: TraceJob) -> None:
        self._hook().submit(
            job_id=self._id(job.number),
            command=f'exec "$PYTHON" -S {TRAINING}',
            env=self._ledgers.environment(job),
            gpus=job.gpus,
        )
        self._running.add(job.number)

    def preempt(self, job: TraceJob) -> None:
        # It may have ended meanwhile.
        with contextlib.suppress(JobConflictError):
            self._hook().interrupt(self._id(job.number), as_="preempted", requested_by="the replay of a trace")

    def ended(self) -> dict[int, str]:
        running = sorted(self._running)
        for number, status in zip(running, self._hook().statuses(map(self._id, running)), strict=True):
            if status.final:
                told = str(status.state)
                self._ended[number] = told if status.reason in (None, "user_error") else f"{told} {status.reason}"
                self._running.discard(number)
        return self._ended

    def close(self) -> None:
        for hook in self._open:
            hook.close()

    def _hook(self) -> GpuClusterHook:
        if not hasattr(self._hooks, "own"):
            self._hooks.own = GpuClusterHook(CONN_ID)
            self._open.append(self._hooks.own)
        hook: GpuClusterHook = self._hooks.own
        return hook

    @staticmethod
    def _id(number: int) -> str:
        return f"replayed-{number}"


@dataclass
class _Task:
    job: TraceJob
    may_start_at: float
    tries: int = 0
    paths: RemoteJobPaths | None = None


class Theirs:
    """Jobs of SSHRemoteJobOperator in a pool with a slot for each GPU."""

    name = f"SSHRemoteJobOperator, retries={RETRIES}"

    def __init__(self, cluster: Bench, ledgers: Ledgers) -> None:
        self._cluster = cluster
        self._ledgers = ledgers
        self._client = cluster.connect()
        # No more at a time than a stock sshd lets one connection have.
        self._executor = ThreadPoolExecutor(_LAUNCHERS)
        self._starts: list[Future[None]] = []
        self._waiting: deque[_Task] = deque()
        self._running: list[_Task] = []
        self._free_slots = GPUS
        self._ended: dict[int, str] = {}

    def submit(self, job: TraceJob) -> None:
        self._waiting.append(_Task(job, time.monotonic()))

    def preempt(self, job: TraceJob) -> None:
        begins = self._ledgers.of(job).of("begins")
        with contextlib.suppress(ProcessLookupError):
            kill(begins[-1].pid, signal.SIGTERM)

    def ended(self) -> dict[int, str]:
        for task in list(self._running):
            code = self._exit_code(task)
            if code is None:
                continue
            self._running.remove(task)
            self._free_slots += task.job.gpus
            if code == 0:
                self._ended[task.job.number] = SUCCEEDED
            elif task.tries > RETRIES:
                self._ended[task.job.number] = FAILED
            else:
                task.may_start_at = time.monotonic() + RETRY_DELAY_S
                self._waiting.append(task)
        self._start_what_fits()
        return self._ended

    def close(self) -> None:
        self._executor.shutdown()
        for start in self._starts:
            start.result()
        self._client.close()

    def _start_what_fits(self) -> None:
        for task in [task for task in list(self._waiting) if task.may_start_at <= time.monotonic()]:
            if task.job.gpus > self._free_slots:
                break
            self._waiting.remove(task)
            self._free_slots -= task.job.gpus
            task.tries += 1
            job_id = f"replayed-{task.job.number}-{task.tries}"
            base_dir = str(self._cluster.folder / "remote-jobs")
            task.paths = RemoteJobPaths(job_id=job_id, remote_os="posix", base_dir=base_dir)
            self._running.append(task)
            self._starts.append(self._executor.submit(self._start, self._client, task))

    def _start(self, client: paramiko.SSHClient, task: _Task) -> None:
        assert task.paths is not None
        checkpoints = self._ledgers.folder / f"{task.job.number}.checkpoints"
        checkpoints.mkdir(exist_ok=True)
        environment = self._ledgers.environment(task.job)
        environment |= {"ATTEMPT": str(task.tries), "CHECKPOINT_DIR": str(checkpoints)}
        command = f"{sys.executable} -S {TRAINING}"
        _, stdout, _ = client.exec_command(
            build_posix_wrapper_command(command=command, paths=task.paths, environment=environment)
        )
        assert stdout.channel.recv_exit_status() == 0

    @staticmethod
    def _exit_code(task: _Task) -> int | None:
        assert task.paths is not None
        with contextlib.suppress(OSError):
            return int(Path(task.paths.exit_code_file).read_text())
        return None


def replay(jobs: Sequence[TraceJob], side: Side, ledgers: Ledgers) -> dict[int, str]:
    """Run all jobs, and return what was told of the end of each; one that never ended is missing."""
    began = time.monotonic()
    arriving = deque(jobs)
    preemptions = {job: deque(job.preempted_after) for job in jobs if job.preempted_after}
    futures: list[Future[None]] = []
    told: dict[int, str] = {}
    with ThreadPoolExecutor(_LAUNCHERS) as executor:
        while len(told) < len(jobs):
            now_s = time.monotonic() - began
            if now_s > jobs[-1].arrives_s / FASTER + _PATIENCE_S:
                break
            while arriving and arriving[0].arrives_s / FASTER <= now_s:
                futures.append(executor.submit(side.submit, arriving.popleft()))
            told = dict(side.ended())
            for job, due in list(preemptions.items()):
                if job.number in told or not due:
                    del preemptions[job]
                elif ledgers.of(job).steps_run >= due[0]:
                    due.popleft()
                    futures.append(executor.submit(side.preempt, job))
            time.sleep(_LOOK_EVERY_S)
    for future in futures:
        future.result()
    return told


def report(side: Side, jobs: Sequence[TraceJob], ledgers: Ledgers, told: dict[int, str], took_s: float) -> float:
    """Print what came of it, and return how many GPU-hours were lost."""
    attempts = doubles = wrong = gone = 0
    run_h = lost_h = 0.0
    for job in jobs:
        ledger = ledgers.of(job)
        attempts += len(ledger.attempts)
        doubles += bool(ledger.double_launches())
        is_whole = ledger.is_done or bool(job.fails_at and ledger.of("fails"))
        gone += not is_whole
        wrong += job.number in told and is_whole and told[job.number] != (FAILED if job.fails_at else SUCCEEDED)
        gpu_hours = job.gpus * STEP_S / 3600
        run_h += ledger.steps_run * gpu_hours
        lost_h += (ledger.steps_repeated if is_whole else ledger.steps_run) * gpu_hours
    print(f"\n-- {side.name}: {len(jobs)} jobs in {took_s:.0f} s ({took_s * FASTER / 3600:.0f} h of the trace)")
    print(f"   {attempts} attempts; double launches {doubles}; lost jobs {gone}; ends told wrongly {wrong}")
    print(f"   {run_h:.1f} GPU-hours, lost {lost_h:.1f} ({lost_h / run_h:.1%})", flush=True)
    return lost_h


def main() -> None:
    count, seed = [*map(int, sys.argv[1:]), *(JOBS, SEED)[len(sys.argv) - 1 :]]
    jobs = trace(count, seed=seed, arrivals_per_s=ARRIVALS_PER_S / FASTER)
    failing = sum(bool(job.fails_at) for job in jobs)
    print(f"{count} jobs, seed {seed}: {failing} fail by a fault of their own; {GPUS} GPUs; {FASTER} times as fast")
    lost_h = []
    with bench(gpus=GPUS) as cluster:
        for kind in (Ours, Theirs):
            ledgers = Ledgers(cluster.folder / f"ledgers-{kind.__name__}")
            ledgers.folder.mkdir()
            began = time.monotonic()
            with contextlib.closing(kind(cluster, ledgers)) as side:
                told = replay(jobs, side, ledgers)
            lost_h.append(report(side, jobs, ledgers, told, time.monotonic() - began))
    print(f"\nGPU-hours lost: {lost_h[0]:.1f} beside {lost_h[1]:.1f}")


if __name__ == "__main__":
    main()
