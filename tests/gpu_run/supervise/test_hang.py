"""Jobs that hang, what is said of them, and what only looks like it."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.gpu_run.gpus import utilization
from airflow_provider_gpu_cluster.gpu_run.store.directories import JobDirectory
from airflow_provider_gpu_cluster.gpu_run.supervise import hang
from airflow_provider_gpu_cluster.gpu_run.supervise.hang import HangLimit
from tests.gpu_run.host import Host

HANGS = """
import sys, threading
{first}
def wait_for_a_lock():
    lock = threading.Lock()
    lock.acquire()
    print("ready", flush=True)
    lock.acquire()
wait_for_a_lock()
"""
REGISTERED = "import faulthandler, signal; faulthandler.register(signal.SIGUSR1)"
PYTHON = f'exec {sys.executable} "$JOB_DIR/code/main.py"'
# A stand-in: the real one needs a kernel that lets it look, and is no part of what the tests install.
PY_SPY = '#!/bin/sh\necho "Process $3: python main.py"; echo "    wait_for_a_lock (main.py:8)"\n'

LIVES = {
    "computes": "while :; do :; done",
    "prints": "while sleep 0.3; do echo .; done",
    "reports": 'while sleep 0.3; do echo "{}" >> "$PROGRESS_FILE"; done',
    "saves": 'while sleep 0.3; do : > "$CHECKPOINT_DIR/new"; done',
    "is stopped": "kill -STOP $$",
    "serves": f"exec {sys.executable} -m http.server 0 --bind 127.0.0.1 > /dev/null 2>&1",
}


def test_a_job_that_hangs_ends_and_its_log_says_where(host: Host) -> None:
    # The shell around it waits as well.
    run = PYTHON.replace("exec ", "") + "\necho over"
    codes = {name: {"main.py": HANGS.format(first=first)} for name, first in (("asked", REGISTERED), ("mute", ""))}
    codes["spied"] = {**codes["mute"], "bin/py-spy": PY_SPY}
    spied = {"PATH": f"{host.job('spied').at('code', 'bin')}:{os.environ['PATH']}"}
    for name, code in codes.items():
        host.submit(run, code=code, hang_timeout_s=1.5, job_id=name, env=spied if name == "spied" else {})
    Path(host.job("spied").at("code", "bin", "py-spy")).chmod(0o755)
    for name in codes:
        end = host.wait(name)
        assert (end["state"], end["reason"]) == ("FAILED", "hang")
        message = "it hung: it printed nothing, saved nothing and used no processor time for "
        assert end["message"].startswith(message)
        log = host.log(name)
        assert log.startswith("ready\ngpu-run: process ")
        assert "main.py) waits in futex" in log
    assert "in wait_for_a_lock" in host.log("asked")
    # The signal that asks would have ended it, as its shell would say.
    assert "in wait_for_a_lock" not in host.log("mute")
    assert "User defined signal" not in host.log("mute")
    assert "gpu-run:     wait_for_a_lock (main.py:8)\n" in host.log("spied")


def test_what_only_looks_like_it_runs_on(tmp_path: Path, cluster_folder: Path) -> None:
    host = Host(cluster_folder, virtual_gpus=len(LIVES) + 1)
    alive = [host.submit(command, job_id=name.replace(" ", "-"), hang_timeout_s=1.2) for name, command in LIVES.items()]
    host.wait(*alive, state="RUNNING")
    hung = host.submit("exec sleep 100", hang_timeout_s=1.6)
    assert host.wait(hung)["reason"] == "hang"
    assert {job: host.status(job)["state"] for job in alive} == dict.fromkeys(alive, "RUNNING")


# -- more closely, without waiting -------------------------------------------------------------------------------


class Quiet:
    """The limit of a job that shows no sign of life; the tests decide about the rest."""

    def __init__(self, host: Host) -> None:
        self.job: JobDirectory = host.job("job")
        self.job.create()
        self.now = 0.0
        spec: Any = {"gpus": 1, "hang_timeout_s": 100.0}
        self.limit = HangLimit(self.job, spec, [], set, clock=lambda: self.now)

    def hangs_at(self, now: float) -> bool:
        self.now = now
        return self.limit.reached() is not None

    def ends_at(self, until: int = 400) -> int | None:
        """Return when it is called hung, with a look every five seconds."""
        return next((now for now in range(0, until, 5) if self.hangs_at(now)), None)


@pytest.fixture
def quiet(host: Host) -> Quiet:
    return Quiet(host)


def test_it_takes_as_long_as_its_timeout(quiet: Quiet) -> None:
    assert quiet.ends_at() == 100


def test_a_gpu_that_computes_is_a_sign_of_life(quiet: Quiet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hang, "busiest_percent", lambda gpus: 3)
    assert quiet.ends_at() is None


@pytest.mark.parametrize(("percent", "ends_at"), [(0.0, 100), (3.0, None)])
def test_what_the_sampler_has_seen_lately_needs_no_question_to_the_driver(
    quiet: Quiet, monkeypatch: pytest.MonkeyPatch, percent: float, ends_at: int | None
) -> None:
    monkeypatch.setattr(hang, "busiest_percent", lambda gpus: pytest.fail("the driver was asked"))
    monkeypatch.setattr(quiet.limit, "_gpu_percent", lambda: percent)
    assert quiet.ends_at() == ends_at


def test_a_file_counts_from_when_it_was_saved(quiet: Quiet) -> None:
    path = Path(quiet.job.at("outputs", "model.pt"))
    path.touch()
    os.utime(path, (time.time() - 40,) * 2)
    # It is looked for after 100 s, and was saved at 60 s.
    assert quiet.ends_at(160) is None
    os.utime(path, (time.time() - 101,) * 2)
    assert quiet.hangs_at(165.0)


def test_a_file_from_the_future_says_nothing(quiet: Quiet) -> None:
    path = Path(quiet.job.at("outputs", "model.pt"))
    path.touch()
    os.utime(path, (time.time() + 86400,) * 2)
    assert quiet.ends_at() == 100


def test_who_was_stopped_together_with_its_job_begins_anew(quiet: Quiet) -> None:
    assert not quiet.hangs_at(0.0)
    assert not quiet.hangs_at(50.0)
    assert not quiet.hangs_at(5000.0)
    assert not quiet.hangs_at(5005.0)


GPUS: Any = [{"key": "GPU-aa", "index": 1}, {"key": "1:0", "index": 0}]


@pytest.mark.parametrize(
    ("text", "gpus", "percent"),
    [
        # nvidia-smi --query-gpu=uuid,index,utilization.gpu --format=csv,noheader,nounits
        ("GPU-aa, 0, 7\nGPU-bb, 1, 99\n", [0], 7),
        ("GPU-cc, 0, 7\nGPU-bb, 1, 99\n", [1], 7),
        ("GPU-cc, 0, 42\n", [0], 42),
        ("GPU-aa, 0, [N/A]\n", [0], 0),
        ("GPU-aa, 0, [Not Supported]\n", [0], 0),
        ("Unable to determine the device handle for GPU 0000:01:00.0: Unknown Error\n", [0], 0),
        ("", [0, 1], 0),
    ],
)
def test_how_busy_gpus_are(text: str, gpus: list[int], percent: int) -> None:
    assert utilization.parse(text, [GPUS[one] for one in gpus]) == percent
