"""``gpu-run rehearse``, for a person on the host."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.gpu_run.host import Host
from tests.harness.patience import PATIENCE_S


def rehearse(host: Host, *arguments: str) -> tuple[int, str, str]:
    command = [sys.executable, "-I", "-S", host.program, "rehearse", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    return done.returncode, done.stdout, done.stderr


def test_a_person_interrupts_a_job(host: Host, eventually: Callable[..., object]) -> None:
    job = host.submit("trap 'echo saved; exit 3' TERM; echo ready; sleep 600 & wait", grace_s=30)
    log = Path(host.job(job).at("logs", "training.log"))
    eventually(lambda: log.exists() and "ready\n" in log.read_text())
    code, said, errors = rehearse(host, job, "--as", "checkpoint")
    assert (code, errors) == (0, "")
    assert said == "nothing was sent: no process of the job catches USR1, and it would die of it\n"
    code, said, errors = rehearse(host, job, "--as", "time_limit")
    assert (code, errors) == (0, "")
    assert said.startswith("TERM was sent to process ")
    assert said.endswith("; what is left in 30 s is killed\n")
    status = host.wait(job)
    assert (status["reason"], status["exit_code"]) == ("time_limit", 3)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing", "--as", "preempted"], "gpu-run: nothing is no job under "),
        (["../up", "--as", "preempted"], "gpu-run: "),
        (["nothing"], "gpu-run: the following arguments are required: --as (see gpu-run --help)"),
        (["nothing", "--as", "killed"], "gpu-run: argument --as: invalid choice: 'killed'"),
    ],
)
def test_what_cannot_be_rehearsed_is_one_clear_line(host: Host, arguments: list[str], said: str) -> None:
    code, out, errors = rehearse(host, *arguments)
    assert (code, out, errors.count("\n")) == (2, "", 1)
    assert errors.startswith(said)
