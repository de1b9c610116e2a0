"""Real frameworks, on the processor: each saves at the warning, and goes on from the same step in the next attempt."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_provider_gpu_cluster.gpu_run.jobs.interrupt import interrupt
from tests.gpu_run.host import Host

pytestmark = pytest.mark.long

PROGRAMS = Path(__file__).parent / "programs"
COMMANDS = {
    "torch": '"$PYTHON" torch_loop.py || exit $?\necho the next line',
    "torchrun": '"$PYTHON" -m torch.distributed.run --standalone --nproc-per-node 2 torch_ranks.py',
    "accelerate": '"$PYTHON" -m accelerate.commands.launch --cpu --num_processes 1 --num_machines 1 '
    "--dynamo_backend no --mixed_precision no accelerate_loop.py",
    "lightning": '"$PYTHON" lightning_fit.py | tee copy',
    "lightning on slurm": '"$PYTHON" lightning_slurm.py',
    "transformers": "bash -c '\"$PYTHON\" transformers_fit.py; exit $?'",
}


@pytest.fixture(scope="session")
def python() -> str:
    """Return a Python that has them all; `make bench` installs one."""
    path = os.environ.get("FRAMEWORKS_PYTHON") or str(Path(__file__).parents[3] / ".venv-frameworks" / "bin" / "python")
    assert Path(path).exists(), f"there is no {path}; `make .venv-frameworks/.installed` makes it"
    return path


@pytest.mark.parametrize("name", COMMANDS)
def test_it_saves_at_the_warning_and_goes_on_there(
    host: Host, python: str, name: str, eventually: Callable[..., object]
) -> None:
    kind = "time_limit" if "slurm" in name else "preempted"
    code = {path.name: path.read_text() for path in PROGRAMS.glob("*.py")}
    command = f"set -eo pipefail\nexport PYTHON={python}\n{COMMANDS[name]}"
    job = host.submit(command, code=code, grace_s=3, warn_before_s=3)
    log = Path(host.job(job).at("logs", "training.log"))
    eventually(lambda: log.exists() and "begins at step 0 after nothing\n" in log.read_text(), timeout_s=120)
    interrupt(host.root, job, kind, by="ann", name="1")
    eventually(lambda: "saved at step" in log.read_text(), timeout_s=60)
    status = host.wait(job)
    said = host.log(job)
    assert (status["state"], status["reason"]) == ("FAILED", kind), said
    assert "DataLoader worker" not in said
    assert "the next line" not in said
    step = int(re.findall(r"saved at step (\d+)", said)[-1])
    assert 0 < step < 400
    host.submit(command, job_id=job, request_key="2", code=code)
    status = host.wait(job, timeout_s=180)
    assert status["state"] == "SUCCEEDED", host.log(job)
    assert f"begins at step {step} after " in host.log(job)
