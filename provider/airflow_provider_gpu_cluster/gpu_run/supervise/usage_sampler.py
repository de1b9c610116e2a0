"""
A process beside the supervisor that looks at what a job uses.

It is not the supervisor itself, which has to keep the job to its limits whatever happens to a driver. It is no process
of the job either: it is nobody's child, keeps no file of theirs open, and ends when the supervisor says so or is gone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from functools import partial
from typing import TYPE_CHECKING, Callable, Protocol

from ..errors import traceback_text
from ..linux import processes
from ..linux.companion import CompanionLine, Ended, start_apart
from ..linux.tree_use import usable_cpus
from ..store.used import SO_FAR
from .idle_looks import IdleLooks
from .usage_nodes import NodesSampling, node_files, points_of_node
from .usage_rhythm import LONGEST_OF_NODES_S, Rhythm
from .usage_sampling import SampledNode, Sampling

if TYPE_CHECKING:
    from ..protocol.records import LeasedGpu
    from ..protocol.spec import Spec
    from ..protocol.usage import UsagePoint
    from ..store.directories import Attempt
    from .allocation import Allocation

_BEGIN, _END, _DONE = "begin", "end", "done"
# How long the end of a job waits for the last sample, and that for its GPUs.
_LAST_SAMPLE_S = 0.3
_LAST_LOOK_S = 0.15
_LONG_S = 3600.0


class _Looks(Protocol):
    pause_s: float

    def begin(self, root: int) -> None: ...

    def look(self, most_s: float | None = None) -> bool: ...


class UsageSampler:
    """
    That process, as the supervisor sees it. What goes wrong with it is no concern of the job.

    :param pid: its id; 0 when there is none.
    :param line: to it.
    """

    def __init__(self, pid: int = 0, line: CompanionLine | None = None) -> None:
        self._who = processes.identity(pid) if pid else None
        self._line = line

    def begin(self) -> None:
        """Begin to look at the processes below this one."""
        if self._line is not None:
            self._line.tell(f"{_BEGIN} {os.getpid()}")

    def end(self) -> None:
        """Let it take the last sample, and wait a moment for that."""
        if self._line is None:
            return
        self._line.tell(_END)
        with contextlib.suppress(Ended):
            if self._line.hear(_LAST_SAMPLE_S) != _DONE:
                self.kill()
        self.hang_up()

    def hang_up(self) -> None:
        """Close the line to it, by the end of which it hears that the supervisor is gone."""
        if self._line is not None:
            self._line.close()
            self._line = None

    def kill(self) -> None:
        """Kill it, if it is still there: it may be stopped, or wait for a disk or a driver."""
        if self._who is not None and processes.is_alive(self._who):
            processes.send_signal([self._who["pid"]], signal.SIGKILL)


def start_sampler(attempt: Attempt, allocation: Allocation) -> UsageSampler:
    """Start it for the job of an attempt. It begins when it is told to."""
    points = attempt.job.at("logs", "usage.jsonl")
    with contextlib.suppress(OSError):
        # Of an attempt that this one has followed by itself.
        os.rename(points, attempt.job.at("logs", f"usage.attempt-{attempt.number - 1}.jsonl"))
    if allocation.launcher:

        def at_nodes(line: CompanionLine) -> _Looks:
            idle = IdleLooks(attempt, allocation, time.monotonic())
            return NodesSampling(attempt, allocation.nodes, Rhythm(LONGEST_OF_NODES_S), idle.look)

        return _started(attempt, at_nodes)
    sampled = SampledNode(
        allocation.gpus,
        _words(allocation.visible),
        _cpus(attempt.request()["spec"]),
        points,
        attempt.at(SO_FAR),
    )

    def here(line: CompanionLine) -> _Looks:
        idle = IdleLooks(attempt, allocation, time.monotonic())
        return Sampling(attempt, sampled, Rhythm(gpus_s=idle.pause_s), line, idle.look)

    return _started(attempt, here)


def start_node_sampler(attempt: Attempt, rank: int, node: str) -> UsageSampler:
    """
    Start it for one node of a job on several.

    :param rank: of the node.
    :param node: its name.
    """
    request = attempt.request()
    points, so_far = node_files(attempt, rank)
    sampled = SampledNode(
        _gpus_of(attempt, rank, request["spec"]["gpus"]),
        _words(os.environ.get("CUDA_VISIBLE_DEVICES")),
        _cpus(request["spec"]),
        points,
        so_far,
        points_of_node(request["spec"].get("nodes") or 1),
        node,
    )
    # Whether the job is idle is a question for all nodes together.
    return _started(attempt, lambda line: Sampling(attempt, sampled, Rhythm(LONGEST_OF_NODES_S), line, _unheeded))


def _unheeded(point: UsagePoint, now: float, is_stopped: bool) -> None:
    pass


def _started(attempt: Attempt, looks: Callable[[CompanionLine], _Looks]) -> UsageSampler:
    try:
        return UsageSampler(*start_apart(partial(_sample, attempt, looks)))
    except OSError:
        # There is no room for another process.
        return UsageSampler()


def _sample(attempt: Attempt, looks: Callable[[CompanionLine], _Looks], line: CompanionLine) -> None:
    try:
        processes.rename(attempt.request()["program"], "sample-usage", attempt.job.job_id)
        with contextlib.suppress(Ended):
            _look_on(looks(line), line)
    except Exception:
        attempt.event("sampler_error", traceback=traceback_text())


def _look_on(looks: _Looks, line: CompanionLine) -> None:
    """
    Look until the job has ended.

    :raises Ended: the process below which it runs is gone.
    """
    while True:
        words = (line.hear(_LONG_S) or "").split()
        if words[:1] == [_BEGIN]:
            break
    looks.begin(int(words[1]))
    while True:
        is_told = looks.look()
        if line.hear(0.0 if is_told else looks.pause_s) == _END:
            break
    looks.look(_LAST_LOOK_S)
    line.tell(_DONE)


def _gpus_of(attempt: Attempt, rank: int, count: int) -> list[LeasedGpu]:
    """Return the GPUs of a node, by the indexes that it tells itself: the claim has those of the first node for all."""
    keys = [f"{rank}:{index}" for index in range(count)]
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        claim = attempt.claimed()
        if claim is not None:
            keys = [gpu["key"] for gpu in claim["gpus"] if gpu["key"].startswith(f"{rank}:")]
    told = _words(os.environ.get("SLURM_STEP_GPUS") or os.environ.get("CUDA_VISIBLE_DEVICES"))
    if len(told) != len(keys) or not all(map(str.isdigit, told)):
        told = [key.rpartition(":")[2] for key in keys]
    return [{"key": key, "index": int(index)} for key, index in zip(keys, told)]


def _words(names: str | None) -> list[str]:
    return [word.strip() for word in (names or "").split(",") if word.strip()]


def _cpus(spec: Spec) -> int:
    return min(usable_cpus(), spec.get("cpus") or usable_cpus())
