"""What the script of a Slurm job becomes: the supervisor of its attempt, on the GPUs of its allocation."""

from __future__ import annotations

import os
import re
import signal
import time
from typing import TYPE_CHECKING, Mapping

from ... import protocol
from ...linux import detached, processes
from ...store import records
from ...store.directories import Attempt
from ...supervise.allocation import Allocation
from ...supervise.signals import HANDED_ON
from ...supervise.supervisor import supervise
from ..unstarted import build_environment
from . import words
from .batch import attempt_of_script
from .submitter import BY
from .warning_signal import WARNS, asked

if TYPE_CHECKING:
    from ...protocol.records import Claim
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
    claim = attempt.claimed()
    if claim is not None:
        _end_requeued(attempt, claim, allocation)
        return 0
    if not build_environment(attempt, BY):
        return 1
    supervise(attempt, allocation)
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
    return Allocation(
        gpus=[{"key": f"{rank}:{index}", "index": index} for rank in range(nodes) for index in indexes],
        since=records.now(),
        fds=[],
        nodes=nodes,
        node_names=env.get("SLURM_JOB_NODELIST"),
        visible=visible,
        master=processes.hostname() if nodes > 1 else "localhost",
        master_port=_FIRST_PORT + int(env["SLURM_JOB_ID"]) % _PORTS,
        first_failure=first_failure if nodes > 1 else None,
        claimed={
            "slurm_job": job,
            "nodes": env.get("SLURM_JOB_NODELIST"),
            "restarts": _restarts(env),
            "unix_time": time.time(),
        },
        is_scheduled=True,
        ends_at=_ends_at(env),
    )


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


def _end_requeued(attempt: Attempt, claim: Claim, allocation: Allocation) -> None:
    """End an attempt that an earlier run of the same job has begun."""
    mine = allocation.claimed or {}
    if claim["by"] == "supervisor" and claim["slurm_job"] == mine["slurm_job"] and claim["restarts"] < mine["restarts"]:
        attempt.finish(protocol.FAILED, protocol.PREEMPTED, words.REQUEUED, started_at=claim["at"], host=claim["host"])
