"""How a job is stopped: for every reason in the same way, in whatever form its program is written."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.gpu_run.errors import Refused
from airflow_provider_gpu_cluster.gpu_run.jobs import interrupt as interruptions
from airflow_provider_gpu_cluster.gpu_run.jobs.cancel import cancel
from airflow_provider_gpu_cluster.gpu_run.supervise.allocation import Allocation
from airflow_provider_gpu_cluster.gpu_run.supervise.variables import job_variables
from tests.gpu_run.host import Host, processes_with

# Takes longer to save than leftovers get. It has two workers, which a TERM ends, and whose end it does not survive.
TRAIN = """\
import multiprocessing, os, signal, sys, time
signals = []

def work():
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    time.sleep(600)

def note(number, frame):
    signals.append(number)

signal.signal(signal.SIGTERM, note)
signal.signal(signal.SIGUSR1, note)
workers = [multiprocessing.get_context("fork").Process(target=work, daemon=True) for _ in range(2)]
for worker in workers:
    worker.start()
print("ready", flush=True)
while signal.SIGTERM not in signals:
    if signal.SIGUSR1 in signals:
        signals.remove(signal.SIGUSR1)
        print("warned", flush=True)
    if not all(worker.is_alive() for worker in workers):
        raise RuntimeError("a worker is gone")
    time.sleep(0.02)
time.sleep(float(os.environ["SAVES_FOR_S"]))
if not all(worker.is_alive() for worker in workers):
    raise RuntimeError("a worker is gone")
print("saved", flush=True)
sys.exit(3)
"""
PYTHON = f"{sys.executable} train.py"
FORMS = {
    "entry_script": f"exec {PYTHON}",
    "a shell script": "exec bash train.sh",
    "command": f"set -eo pipefail\n{PYTHON}",
    "command of several lines": f"set -eo pipefail\necho begins\n{PYTHON} || echo failed\necho goes on",
}
CODE = {"train.py": TRAIN, "train.sh": f"{PYTHON}\necho goes on\n"}

Eventually = Callable[..., Any]


def launch(host: Host, command: str, eventually: Eventually, *, saves_for_s: float = 0, **spec: Any) -> str:
    """Launch a job that runs the program above, and return its id when the program is ready."""
    job = host.submit(command, code=CODE, job_id=None, env={"SAVES_FOR_S": str(saves_for_s)}, **spec)
    log = Path(host.job(job).at("logs", "training.log"))
    eventually(lambda: log.exists() and "ready\n" in log.read_text())
    return job


def events(host: Host, job: str) -> dict[str, dict[str, Any]]:
    """Return the events of a job by their names."""
    lines = Path(host.attempt(job).at("events.jsonl")).read_text().splitlines()
    return {event["event"]: event for event in map(json.loads, lines)}


def seconds(host: Host, job: str, first: str, second: str) -> float:
    from airflow_provider_gpu_cluster.gpu_run.store.records import seconds_between

    found = events(host, job)
    return seconds_between(found[first]["at"], found[second]["at"])


def interrupt(host: Host, job: str, kind: str) -> str:
    return interruptions.interrupt(host.root, job, kind, by="ann", name=os.urandom(4).hex())


def test_the_grace_is_the_same_in_every_form(host: Host, eventually: Eventually) -> None:
    jobs = {
        form: host.submit(command, code=CODE, env={"SAVES_FOR_S": "2.2"}, grace_s=None)
        for form, command in FORMS.items()
    }
    for job in jobs.values():
        log = Path(host.job(job).at("logs", "training.log"))
        eventually(lambda log=log: log.exists() and "ready\n" in log.read_text())
    cancel(host.root, host.engine, list(jobs.values()), "ann", 0)
    for form, job in jobs.items():
        status = host.wait(job)
        said = [line for line in host.log(job).splitlines() if line != "begins"]
        assert said == ["ready", "saved"], form
        assert (status["state"], status["exit_code"], status["signal"]) == ("CANCELLED", 3, None), form
        assert host.log(job, "error.log") == "", form


def test_who_is_not_ready_in_time_is_killed(host: Host, eventually: Eventually) -> None:
    job = launch(host, FORMS["command of several lines"], eventually, saves_for_s=600, grace_s=0.6)
    cancel(host.root, host.engine, [job], "ann", 0)
    status = host.wait(job)
    assert (status["state"], status["signal"]) == ("CANCELLED", signal.SIGKILL)
    # The events are written a moment after what they tell of.
    assert 0.5 <= seconds(host, job, "stop_signal", "killed") < 3
    assert host.log(job) == "begins\nready\n"
    assert not processes_with(f"JOB_DIR={host.job(job).path}")


def test_no_grace_is_a_kill(host: Host, eventually: Eventually) -> None:
    job = launch(host, PYTHON, eventually, saves_for_s=600, grace_s=0)
    cancel(host.root, host.engine, [job], "ann", 0)
    assert host.wait(job)["signal"] == signal.SIGKILL


def test_a_signal_of_one_s_own_and_for_all(host: Host, eventually: Eventually) -> None:
    job = launch(host, FORMS["command"], eventually, stop_signal="INT", grace_s=30)
    for_all = launch(host, FORMS["command"], eventually, stop_signal_to="all", grace_s=30, saves_for_s=0.3)
    cancel(host.root, host.engine, [job, for_all], "ann", 0)
    host.wait(job, for_all)
    assert "KeyboardInterrupt" in host.log(job)
    assert "RuntimeError: a worker is gone" in host.log(for_all)


def test_a_warning_comes_before_the_time_limit(host: Host, eventually: Eventually) -> None:
    # The shell that would die of the warning is not sent it.
    job = launch(host, FORMS["command of several lines"], eventually, time_limit_s=1.5, warn_before_s=0.7, grace_s=30)
    status = host.wait(job)
    assert (status["state"], status["reason"]) == ("FAILED", "time_limit")
    assert host.log(job) == "begins\nready\nwarned\nsaved\n"
    assert 0.1 < seconds(host, job, "warned", "stop_signal") < 1.5


def test_a_stop_from_outside_warns_first(host: Host, eventually: Eventually) -> None:
    job = launch(host, PYTHON, eventually, warn_before_s=60, grace_s=0.5, saves_for_s=600)
    deaf = launch(host, "echo ready; exec sleep 600", eventually, warn_before_s=60, grace_s=30)
    cancel(host.root, host.engine, [job, deaf], "ann", 0)
    assert host.wait(job)["signal"] == signal.SIGKILL
    assert host.log(job) == "ready\nwarned\n"
    assert 0.5 <= seconds(host, job, "warned", "stop_signal") < 2
    assert 0.5 <= seconds(host, job, "stop_signal", "killed") < 2
    # Who would die of the warning is not made to wait for it.
    assert host.wait(deaf)["signal"] == signal.SIGTERM
    assert "warned" not in events(host, deaf)


def test_a_program_that_listens_late_is_warned_late(host: Host) -> None:
    command = "sleep 0.6; trap 'echo warned; exit 85' USR1; while :; do sleep 0.05 || :; done"
    job = host.submit(command, time_limit_s=60, warn_before_s=59.9)
    assert host.wait(job)["exit_code"] == 85
    assert host.log(job) == "warned\n"


# -- rehearsals ------------------------------------------------------------------------------------------------------


def test_a_checkpoint_is_rehearsed(host: Host, eventually: Eventually) -> None:
    job = launch(host, FORMS["command"], eventually)
    for count in (1, 2):
        said = interrupt(host, job, "checkpoint")
        assert said.startswith("USR1 was sent to python")
        eventually(lambda count=count: host.log(job).count("warned\n") == count)
    assert host.status(job)["state"] == "RUNNING"
    deaf = host.submit("exec sleep 600")
    host.wait(deaf, state="RUNNING")
    said = interrupt(host, deaf, "checkpoint")
    assert said == "nothing was sent: no process of the job catches USR1, and it would die of it"


def test_an_end_is_rehearsed(host: Host, eventually: Eventually) -> None:
    jobs = {
        kind: launch(host, FORMS["command of several lines"], eventually, warn_before_s=0.4, grace_s=0.6)
        for kind in ("preempted", "time_limit")
    }
    for kind, job in jobs.items():
        assert interrupt(host, job, kind).startswith("USR1 was sent; TERM follows in ")
    for (kind, job), said in zip(jobs.items(), ("preemption", "time limit"), strict=True):
        status = host.wait(job)
        assert (status["state"], status["reason"]) == ("FAILED", kind)
        assert status["message"] == f"its {said} was rehearsed by ann"
        assert host.log(job) == "begins\nready\nwarned\nsaved\n"
        with pytest.raises(Refused, match=f"job {job} does not run: it has ended, as FAILED"):
            interrupt(host, job, kind)


def test_what_cannot_be_interrupted(host: Host, monkeypatch: pytest.MonkeyPatch, eventually: Eventually) -> None:
    with pytest.raises(Refused, match="nothing-1 is no job under "):
        interrupt(host, "nothing-1", "preempted")
    running = host.submit("sleep 600", gpus=4)
    waiting = host.submit("sleep 600")
    with pytest.raises(Refused, match=f"job {waiting} does not run: it waits for its turn"):
        interrupt(host, waiting, "preempted")
    with pytest.raises(Refused, match="as 'sleep'; valid is 'preempted', 'time_limit' or 'checkpoint'"):
        interrupt(host, running, "sleep")
    host.job("staged").create()
    with pytest.raises(Refused, match="staged was staged, and not launched"):
        interrupt(host, "staged", "preempted")
    pid = host.wait(running, state="RUNNING")["pid"]
    monkeypatch.setattr(interruptions, "ANSWERED_WITHIN_S", 0.2)
    os.kill(pid, signal.SIGSTOP)
    assert interrupt(host, running, "checkpoint").startswith("its supervisor has not answered within 0.2 s")
    os.kill(pid, signal.SIGCONT)


# -- environment -----------------------------------------------------------------------------------------------------


def test_a_job_knows_its_end(host: Host) -> None:
    job = host.submit("true", time_limit_s=100.5, grace_s=None)
    attempt = host.attempt(job)
    host.wait(job)
    request = attempt.request()
    allocation = Allocation([], "2026-01-01T00:00:00+00:00", [])
    env = job_variables(attempt, request, allocation)
    assert (env["STOP_GRACE_S"], env["RESUMED_FROM"], env["ATTEMPT"]) == ("30", "", "1")
    assert abs(int(env["TIME_LIMIT_AT"]) - time.time() - 100.5) < 5
    # A scheduler may end it sooner.
    soon = allocation._replace(ends_at=time.time() + 50)
    assert abs(int(job_variables(attempt, request, soon)["TIME_LIMIT_AT"]) - time.time() - 50) < 5
    request["spec"]["time_limit_s"], request["spec"]["grace_s"] = None, 1e15
    request["settings"]["grace_s"] = 7.5
    request["recovery"] = {"reason": "preempted"}  # type: ignore[typeddict-item]
    env = job_variables(attempt, request, allocation)
    assert (env["TIME_LIMIT_AT"], env["STOP_GRACE_S"], env["RESUMED_FROM"]) == ("", "1000000000000000", "preempted")
    request["spec"]["grace_s"] = None
    assert job_variables(attempt, request, allocation)["STOP_GRACE_S"] == "7.5"
