"""
Jobs that go on by themselves while whatever serves them is killed at random moments.

Each job counts its steps in a checkpoint, prints a line for each, and holds a lock for as long as it runs.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import threading
import time
from pathlib import Path

import pytest

from airflow_provider_gpu_cluster.connection.program import Program, build_program
from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.gpu_run.jobs import cancel
from airflow_provider_gpu_cluster.gpu_run.recovery import policy
from airflow_provider_gpu_cluster.jobs.status import JobStatus
from airflow_provider_gpu_cluster.logs.buffer import OutputBuffer
from airflow_provider_gpu_cluster.logs.relay import LogPosition, LogRelay, Output
from tests.gpu_run import host as hosts
from tests.gpu_run.host import Host, is_alive
from tests.gpu_run.watch.client import Client, Event

PAUSE_S = 0.2
SHORT_PAUSE = f"_LONGEST_PAUSE_S = {PAUSE_S}"
STEPS = 60

# The lock shows whether another attempt is alive; whoever finds it taken says so in the ledger.
TRAIN = """
import fcntl, os, sys, time
out, attempt = os.environ["OUTPUT_DIR"], os.environ["ATTEMPT"]
ledger = os.open(out + "/ledger", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
lock = os.open(out + "/lock", os.O_RDWR | os.O_CREAT)
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    os.write(ledger, b"BESIDE\\n")
path = os.environ["CHECKPOINT_DIR"] + "/step"
step = int(open(path).read()) if os.path.exists(path) else 0
while step < int(sys.argv[1]):
    step += 1
    os.write(ledger, f"{attempt} {step}\\n".encode())
    print(f"attempt {attempt} step {step} " + "x" * 200, flush=True)
    with open(path + ".new", "w") as file:
        file.write(str(step))
    os.replace(path + ".new", path)
    time.sleep(0.05)
"""


@pytest.fixture
def host(cluster_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """Return a host on which all wait only a moment before the next attempt."""
    usual = build_program()
    source = usual._sources["gpu_run/recovery/policy.py"].decode()
    changed = source.replace("_LONGEST_PAUSE_S = 300.0", SHORT_PAUSE)
    assert changed != source
    program = Program({**usual._sources, "gpu_run/recovery/policy.py": changed.encode()})
    monkeypatch.setattr(hosts, "build_program", lambda: program)
    monkeypatch.setattr(policy, "_LONGEST_PAUSE_S", PAUSE_S)
    return Host(cluster_folder, virtual_gpus=3)


class Reader:
    """Watches all jobs and shows their output, as a triggerer does; its server may be killed at any moment."""

    def __init__(self, host: Host, jobs: list[str]) -> None:
        self._host = host
        self._jobs = jobs
        self.lines: dict[str, list[str]] = {job: [] for job in jobs}
        self.states: dict[str, list[str]] = {job: [] for job in jobs}
        self.server: int | None = None
        self._relays = {job: LogRelay(self.lines[job].append) for job in jobs}
        self._buffers = {job: OutputBuffer(self._relays[job]) for job in jobs}
        self._statuses: dict[str, JobStatus] = {}
        self.errors: list[BaseException] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def wait(self, timeout_s: float) -> None:
        """Wait until the end of each job was told, and all its output shown."""
        self._thread.join(timeout_s)
        assert not self.errors, self.errors
        assert not self._thread.is_alive(), f"nobody told of the end of {self._left()}"

    def _left(self) -> list[str]:
        return [
            job
            for job in self._jobs
            if job not in self._statuses or not self._buffers[job].drained(self._statuses[job])
        ]

    def _run(self) -> None:
        try:
            while self._left():
                client = Client(
                    self._host,
                    f"from airflow_provider_gpu_cluster.gpu_run.recovery import policy\npolicy.{SHORT_PAUSE}",
                )
                self.server = client.process.pid
                try:
                    for key, job in enumerate(self._jobs):
                        client.subscribe(job, key=key, reader="task")
                    while self._left():
                        self._take(client, client.read())
                except (AssertionError, BrokenPipeError, ValueError):
                    if client.process.poll() in (None, 0):
                        raise
                finally:
                    self.server = None
                    if not client.has_ended:
                        client.process.kill()
                        client.process.communicate()
        except BaseException as error:
            self.errors.append(error)

    def _take(self, client: Client, event: Event) -> None:
        if event["event"] in ("alive", "acked"):
            return
        assert event["event"] != "refused", event
        job = self._jobs[event["key"]]
        if event["event"] == "status":
            status = self._statuses[job] = JobStatus.from_json(event["status"])
            self.states[job].append(str(status.state))
        else:
            place = LogPosition(event["attempt"], event["offset"])
            if event["event"] == "place":
                self._buffers[job].place(place)
            else:
                self._buffers[job].add(
                    Output(place, event["data"].encode("utf-8", "surrogateescape"), event["log_bytes"])
                )
        while job in self._statuses and self._buffers[job].show(self._statuses[job]):
            pass
        position = self._relays[job].position
        if position is not None:
            client.ack(position.offset, key=event["key"], attempt=position.attempt)


def kill_something(host: Host, reader: Reader, dice: random.Random) -> None:
    """Kill a supervisor, a guard, both, a dispatcher, or the one that watches."""
    what = dice.choice(["supervisor", "guard", "both", "dispatch", "watch"])
    if what == "watch":
        victims = [reader.server] if reader.server else []
    elif what == "dispatch":
        victims = host.processes("dispatch")
    else:
        supervisors = [pid for pid in (host_pid(host, job) for job in reader.lines) if pid is not None]
        if not supervisors:
            return
        supervisor = dice.choice(supervisors)
        victims = {
            "supervisor": [supervisor],
            "guard": parents(supervisor),
            "both": [*parents(supervisor), supervisor],
        }[what]
    for pid in victims:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def host_pid(host: Host, job_id: str) -> int | None:
    """Return the supervisor that runs a job's latest attempt."""
    attempts = host.job(job_id).attempts()
    claim = attempts[-1].claimed() if attempts else None
    if claim is None or claim["by"] != "supervisor" or not is_alive(claim["pid"]):
        return None
    return claim["pid"]


def parents(pid: int) -> list[int]:
    """Return the guard of a supervisor."""
    try:
        parent = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    except (OSError, IndexError):
        return []
    # Its guard may be gone.
    return [parent] if parent > 1 and parent != os.getpid() else []


@pytest.mark.long
@pytest.mark.parametrize("seed", range(3))
def test_whatever_is_killed_no_job_is_lost_and_none_runs_twice_at_a_time(host: Host, seed: int) -> None:
    dice = random.Random(seed)
    recover = {"lost": 1000}
    jobs = [
        host.submit(f"exec python3 train.py {STEPS}", code={"train.py": TRAIN}, recover=recover, job_id=f"job-{number}")
        for number in range(8)
    ]
    doomed = jobs[:2]
    reader = Reader(host, jobs)
    until = time.monotonic() + 20
    cancel_at = {job: time.monotonic() + dice.uniform(0.5, 5) for job in doomed}
    cancelled: list[str] = []
    while time.monotonic() < until:
        time.sleep(dice.uniform(0.05, 0.5))
        kill_something(host, reader, dice)
        for job in doomed:
            if job not in cancelled and time.monotonic() > cancel_at[job]:
                cancelled.append(job)
                cancel.cancel(host.root, host.engine, [job], "the test", 0)
    reader.wait(120)
    attempts = 0
    for job in jobs:
        status = host.status(job)
        ledger = Path(host.job(job).at("outputs", "ledger"))
        entries = ledger.read_text().splitlines() if ledger.exists() else []
        assert "BESIDE" not in entries, job
        # A cancel may come too late, or just after a kill, whose end is recorded then; the job does not go on from it.
        is_whole = f" {STEPS}" in "".join(entries[-1:])
        assert is_whole or job in cancelled
        ends = [protocol.SUCCEEDED] if is_whole else [protocol.CANCELLED, protocol.LOST]
        assert status["state"] in ends, status
        # One end was told, and it was the last state.
        final = [state for state in reader.states[job] if state in protocol.FINAL_STATES]
        assert set(final) == {status["state"]}
        assert reader.states[job][-len(final) :] == final
        steps = [tuple(int(number) for number in entry.split()) for entry in entries]
        assert steps == sorted(steps), "an earlier attempt was alive beside a later one"
        if is_whole:
            # None is lost, and an attempt repeats at most the step whose checkpoint was not yet written.
            assert sorted({step for _, step in steps}) == list(range(1, STEPS + 1))
            assert all(after[1] - before[1] in (0, 1) for before, after in itertools.pairwise(steps))
        assert reader.lines[job] == host.log(job).splitlines()
        attempts += status["attempt"]
    assert attempts > len(jobs) + 5, "nothing was killed"
