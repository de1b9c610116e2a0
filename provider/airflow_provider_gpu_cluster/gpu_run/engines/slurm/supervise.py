"""What the script of a Slurm job becomes: the supervisor of its attempt, on the GPUs of its allocation."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from functools import partial
from typing import TYPE_CHECKING, Mapping

from ... import protocol
from ...errors import Refused
from ...gpus.model import model_here
from ...linux import detached, processes
from ...store import records
from ...store.directories import Attempt
from ...store.next_attempt import follow
from ...supervise.allocation import Allocation
from ...supervise.signals import HANDED_ON
from ...supervise.supervisor import supervise
from ..unstarted import build_environment
from . import commands
from .batch import Batch, attempt_of_script
from .next_submission import go_on, is_taken_back
from .requeued import settle_requeued
from .runner import start
from .submitter import BY
from .warning_signal import WARNS, asked

if TYPE_CHECKING:
    from ...protocol.records import LeasedGpu, SlurmRun
    from ...protocol.spec import Spec

_FIRST_PORT = 20000
_PORTS = 20000


def supervise_slurm(path: str) -> int:
    """
    Run the attempt of this allocation, unless it was begun before.

    :param path: the attempt's folder, or that of an array of attempts.
    :return: the exit code for Slurm: 0 when the attempt has succeeded, or this allocation does not run it.
    """
    for number in HANDED_ON:
        # Its script ignores them, and so would everything that is started here.
        signal.signal(number, lambda number, frame: None)
    attempt, job = attempt_of_script(path, os.environ)
    if "_" not in job:
        for name in [name for name in os.environ if name.startswith("SLURM_ARRAY_")]:
            del os.environ[name]
    waiting = _unclaimed(attempt, job, _restarts(os.environ))
    if waiting is None:
        return 0
    attempt = waiting
    request = attempt.request()
    spec = request["spec"]
    allocation = allocation_of(os.environ, job, spec, attempt.at("first_failure"))
    if allocation.nodes > 1:
        on_node = detached.own_command(request["program"], "run-on-node", attempt.path)
        launcher = (*_launcher(allocation.nodes, spec), *on_node)
        allocation = allocation._replace(launcher=launcher)
    warning = asked([*(request["settings"].get("sbatch_options") or ()), *(spec.get("sbatch_options") or ())])
    if warning is None and spec.get("warn_before_s"):
        allocation = allocation._replace(warning=WARNS)
    elif warning is not None:
        allocation = allocation._replace(
            stand_ins={warning.sent: warning.number}, warns_steps=warning.to_steps and allocation.nodes == 1
        )
    allocation = allocation._replace(is_taken_back=partial(is_taken_back, job, allocation.nodes))
    if not _start_time(os.environ):
        allocation = allocation._replace(told_since=_ask_since(attempt, job))
    assert allocation.claimed is not None
    allocation.claimed["output_start"] = _size(Batch.of(attempt).output_of(attempt))
    if not build_environment(attempt, BY, allocation):
        return 1
    supervise(attempt, allocation)
    go_on(attempt, job)
    ended = attempt.ended()
    if ended is None:
        # Slurm says how it ended.
        return 1
    return 0 if ended["state"] == protocol.SUCCEEDED else ended["exit_code"] or 1


def allocation_of(env: Mapping[str, str], job: str, spec: Spec, first_failure: str = "") -> Allocation:
    """
    Return what Slurm has allocated to this job.

    :param env: the environment of its script.
    :param job: what Slurm calls it.
    :param first_failure: path of a file in which the first node whose script fails is noted.
    """
    nodes = int(env.get("SLURM_JOB_NUM_NODES") or 1)
    visible = env.get("CUDA_VISIBLE_DEVICES")
    named = [word for word in (env.get("SLURM_JOB_GPUS") or visible or "").split(",") if word]
    # Some sites name GPUs by other words than their indexes, and some do not name them.
    indexes = [int(word) for word in named] if all(map(str.isdigit, named)) else list(range(len(named)))
    indexes = indexes or list(range(spec["gpus"]))
    claimed: SlurmRun = {
        "slurm_job": job,
        "nodes": env.get("SLURM_JOB_NODELIST"),
        "restarts": _restarts(env),
        "unix_time": time.time(),
    }
    memory_mb = _memory_mb(env)
    if memory_mb:
        claimed["memory_limit_bytes"] = memory_mb << 20
    gpus: list[LeasedGpu] = [{"key": f"{rank}:{index}", "index": index} for rank in range(nodes) for index in indexes]
    gpu_type = model_here() if nodes == 1 else None
    gpu_type = gpu_type or spec.get("gpu_type")
    if gpu_type:
        gpus = [{**gpu, "type": gpu_type} for gpu in gpus]
    return Allocation(
        gpus=gpus,
        since=records.time_of(min(_start_time(env) or time.time(), time.time())),
        fds=[],
        nodes=nodes,
        node_names=env.get("SLURM_JOB_NODELIST"),
        visible=visible,
        master=processes.hostname() if nodes > 1 else "localhost",
        master_port=_FIRST_PORT + int(env["SLURM_JOB_ID"]) % _PORTS,
        first_failure=first_failure if nodes > 1 else None,
        claimed=claimed,
        is_scheduled=True,
        ends_at=_ends_at(env),
    )


def _memory_mb(env: Mapping[str, str]) -> int:
    """Return how much memory the job may use on each node; 0 where Slurm sets no limit."""
    for name, count in (("SLURM_MEM_PER_NODE", "1"), ("SLURM_MEM_PER_CPU", env.get("SLURM_CPUS_ON_NODE", "1"))):
        text = env.get(name, "")
        if text.isdigit() and count.isdigit():
            return int(text) * int(count)
    return 0


def _start_time(env: Mapping[str, str]) -> float:
    """Return when Slurm has given the job its nodes, in seconds since the epoch; 0 before Slurm 23.02."""
    text = env.get("SLURM_JOB_START_TIME") or ""
    return float(text) if text.isdigit() else 0.0


def _ask_since(attempt: Attempt, job: str) -> str:
    """Ask Slurm for the same, and return the path of the file into which it is to write the answer."""
    path = attempt.at("allocated_at")
    with contextlib.suppress(OSError, Refused):
        start(commands.start_of(job), path, SLURM_TIME_FORMAT="%s")
    return path


def _ends_at(env: Mapping[str, str]) -> float | None:
    text = env.get("SLURM_JOB_END_TIME") or ""
    return float(text) if text.isdigit() else None


def _restarts(env: Mapping[str, str]) -> int:
    text = env.get("SLURM_RESTART_COUNT") or "0"
    return int(text) if re.match(r"^\d+$", text) else 0


def _launcher(nodes: int, spec: Spec) -> tuple[str, ...]:
    command = [
        "srun",
        f"--nodes={nodes}",
        f"--ntasks={nodes}",
        "--ntasks-per-node=1",
        "--gres=gpu:{}".format(spec["gpus"]),
        # The job was submitted with few variables, and its steps would get only those.
        "--export=ALL",
        "--kill-on-bad-exit=1",
        "--mem=0",
    ]
    if spec.get("cpus"):
        command.append("--cpus-per-task={}".format(spec["cpus"]))
    return tuple(command)


def _unclaimed(attempt: Attempt, job: str, restarts: int) -> Attempt | None:
    """
    Return the attempt that this run of a job is for; None when it is for none.

    :param attempt: the first one that was to run as this job.
    :param restarts: how often Slurm has requeued the job.
    """
    while True:
        claim = attempt.claimed()
        if claim is None:
            return attempt
        if claim["by"] != "supervisor" or claim["slurm_job"] != job or claim["restarts"] >= restarts:
            return None
        if attempt.ended() is None:
            settle_requeued(attempt, claim, job, runs_again=True)
        follow(attempt.job)
        following = attempt.job.attempt(attempt.number + 1)
        if not os.path.exists(following.path) or Batch.of(following).requeued is None:
            return None
        attempt = following


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:
        return 0
