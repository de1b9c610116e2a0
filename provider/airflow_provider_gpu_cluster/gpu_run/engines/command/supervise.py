"""What the script of the site's launcher becomes: the supervisor of its attempt."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Mapping

from ... import protocol
from ...gpus.model import model_here
from ...linux import processes
from ...store import records
from ...store.directories import Attempt
from ...store.next_attempt import follow
from ...supervise.allocation import Allocation
from ...supervise.supervisor import supervise
from ..unstarted import build_environment
from .handover import BY

if TYPE_CHECKING:
    from ...protocol.records import LeasedGpu
    from ...protocol.spec import Spec


def supervise_launched(path: str) -> int:
    """
    Run an attempt, unless another process has begun it.

    :param path: its folder.
    :return: the exit code for the launcher: 0 when the attempt has succeeded, or another process runs it.
    """
    attempt = Attempt.at_path(path)
    if attempt.claimed() is not None:
        return 0
    allocation = allocation_of(os.environ, attempt.request()["spec"])
    if not build_environment(attempt, BY, allocation):
        return 1
    supervise(attempt, allocation)
    ended = attempt.ended()
    # The launcher is called from the login, with its variables and limits, and outside of what it has given this job.
    follow(attempt.job)
    if ended is None:
        claim = attempt.claimed()
        return 0 if claim is not None and processes.is_alive(claim) else 1
    return 0 if ended["state"] == protocol.SUCCEEDED else ended["exit_code"] or 1


def allocation_of(env: Mapping[str, str], spec: Spec) -> Allocation:
    """
    Return the GPUs that the launcher has given to this process.

    :param env: its environment. If it names no GPUs, they are as many as the job has asked for.
    """
    visible = env.get("CUDA_VISIBLE_DEVICES")
    named = [word.strip() for word in (visible or "").split(",") if word.strip()]
    indexes = [int(word) for word in named] if all(map(str.isdigit, named)) else list(range(len(named)))
    indexes = indexes or list(range(spec["gpus"]))
    gpus: list[LeasedGpu] = [{"key": str(index), "index": index} for index in indexes]
    gpu_type = model_here() or spec.get("gpu_type")
    if gpu_type:
        gpus = [{**gpu, "type": gpu_type} for gpu in gpus]
    return Allocation(
        gpus=gpus,
        since=records.now(),
        fds=[],
        visible=visible,
        is_scheduled=True,
        gives_reasons=False,
    )
