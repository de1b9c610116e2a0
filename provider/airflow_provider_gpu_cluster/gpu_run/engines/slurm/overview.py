"""What a Slurm cluster looks like: its nodes by partition, who has their GPUs, and who waits for some."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Iterable, Mapping, NamedTuple, Sequence

from ... import protocol
from ...errors import Refused
from ...protocol import overview as view_words
from ...store import records
from ...store.directories import Attempt
from ..own_jobs import SPOILT
from . import words
from .batch import Batch
from .commands import SEPARATOR, gpus_of, said, seconds
from .hostlist import nodes_of
from .runner import run

if TYPE_CHECKING:
    from ...protocol.overview import EngineView, OverviewGpu, OverviewJob, OverviewNode

_TIMEOUT_S = 8.0
_NODE_FIELDS = (
    ("NodeList", 128),
    ("Partition", 64),
    ("StateLong", 32),
    ("Gres", 256),
    ("GresUsed", 256),
    ("Reason", 160),
)
_RUNNING_FIELDS = (
    ("JobArrayID", 64),
    ("UserName", 64),
    ("Partition", 64),
    ("NodeList", 512),
    ("tres-alloc", 256),
    ("tres-per-node", 128),
    ("StartTime", 24),
    ("EndTime", 24),
)
_WAITING_FIELDS = "%i %u %P %D %b %r %S %V".replace(" ", SEPARATOR)
_UP = re.compile(r"(idle|mixed|allocated|completing|planned)[+~#]?\Z")
_NOTHING = ("", "N/A", "(null)", "none", "Unknown", "None")


class SlurmJob(NamedTuple):
    """A job that has GPUs: how many on each of its nodes."""

    id: str
    user: str
    partition: str
    gpus_by_node: dict[str, int]
    since: float | None
    until: float | None


class WaitingJob(NamedTuple):
    """A job that waits: for how many GPUs, why, and when Slurm expects to start it."""

    id: str
    user: str
    partition: str
    gpus: int
    reason: str
    expected: float | None
    submitted: float | None


def nodes() -> list[str]:
    """Return the command that lists all nodes, once for each of their partitions."""
    return ["sinfo", "--noheader", "--Node", _format(_NODE_FIELDS)]


def running() -> list[str]:
    """Return the command that lists the jobs that have nodes."""
    states = "RUNNING,COMPLETING,SUSPENDED,CONFIGURING,STOPPED,RESIZING,SIGNALING,STAGE_OUT"
    return ["squeue", "--noheader", "--array", f"--states={states}", _format(_RUNNING_FIELDS)]


def waiting() -> list[str]:
    """Return the command that lists the jobs that wait, in the order in which Slurm will look at them."""
    return ["squeue", "--noheader", "--array", "--states=PENDING", "--sort=-p,i", f"--format={_WAITING_FIELDS}"]


def _format(fields: Sequence[tuple[str, int]]) -> str:
    return "--Format=" + ",".join(f"{name}:{width}" for name, width in fields)


def _cut(line: str, fields: Sequence[tuple[str, int]]) -> list[str]:
    values = []
    for _, width in fields:
        values.append(line[:width].strip())
        line = line[width:]
    return values


def node_list(output: str) -> list[OverviewNode]:
    """Parse the output of :func:`nodes`: those with GPUs, each once. What uses a GPU is not known from it."""
    found: dict[str, OverviewNode] = {}
    for line in output.splitlines():
        name, partition, state, gres, used, reason = _cut(line, _NODE_FIELDS)
        # A star marks the default partition, or a node that does not respond.
        partition = partition.rstrip("*")
        if name in found:
            found[name]["partitions"].append(partition)
            continue
        kinds, in_use = gpus_of(gres), dict(gpus_of(used))
        if not kinds:
            continue
        is_up = _UP.match(state) is not None
        gpus: list[OverviewGpu] = []
        for kind, count in kinds:
            gpus += [{"state": _state(is_up, number < in_use.get(kind, 0)), "type": kind} for number in range(count)]
        found[name] = {"name": name, "is_up": is_up, "gpus": gpus, "state": state, "partitions": [partition]}
        if reason not in _NOTHING:
            found[name]["reason"] = reason
    return list(found.values())


def _state(is_up: bool, is_used: bool) -> str:
    return view_words.LEASED if is_used else view_words.FREE if is_up else view_words.DOWN


def running_jobs(output: str) -> list[SlurmJob]:
    """Parse the output of :func:`running`: the jobs that have GPUs."""
    found = []
    for line in output.splitlines():
        job, user, partition, node_words, alloc, per_node, start, end = _cut(line, _RUNNING_FIELDS)
        names = nodes_of(node_words) if node_words not in _NOTHING else []
        if not names:
            continue
        gpus = {name: share for name, share in zip(names, _shares(alloc, per_node, len(names))) if share}
        if gpus:
            found.append(SlurmJob(job, user, partition, gpus, seconds(start), seconds(end)))
    return found


def _shares(alloc: str, per_node: str, count: int) -> list[int]:
    """Return how many GPUs a job has on each node; Slurm says it of all together, unless they are alike."""
    each = sum(number for _, number in gpus_of(per_node))
    if each:
        return [each] * count
    # As "gres/gpu=4,gres/gpu:a100=4": the whole, and the same by kind.
    kinds = dict(gpus_of(alloc))
    total = kinds.pop("gpu", 0) or sum(kinds.values())
    return [total // count + (1 if place < total % count else 0) for place in range(count)]


def waiting_jobs(output: str) -> list[WaitingJob]:
    """Parse the output of :func:`waiting`."""
    found = []
    for line in output.splitlines():
        fields = line.split(SEPARATOR)
        if len(fields) == 8:
            job, user, partition, count, gres, reason, start, submitted = fields
            gpus = sum(number for _, number in gpus_of(gres)) * (int(count) if count.isdigit() else 1)
            found.append(WaitingJob(job, user, partition, gpus, reason, seconds(start), seconds(submitted)))
    return found


def by_slurm_id(attempts: Iterable[Attempt]) -> dict[str, Attempt]:
    """Return attempts, and the others of their arrays, by what Slurm calls them, as far as it has told."""
    found: dict[str, Attempt] = {}
    known: set[str] = set()
    for attempt in attempts:
        if attempt.path in known:
            continue
        # What a job does to its own records matters to no other.
        with contextlib.suppress(*SPOILT):
            batch = Batch.of(attempt)
            known.update(member.path for member in batch.attempts)
            for piece in batch.pieces():
                for job in piece.note.get("ids") or ():
                    for index in piece.indexes:
                        found[f"{job}_{index}" if batch.is_array else job] = batch.attempts[index]
    return found


def slurm_view(own: Mapping[str, Attempt], partition: str | None) -> tuple[EngineView, dict[int, Attempt]]:
    """
    Look at a Slurm cluster.

    :param own: the jobs of this root, by what Slurm calls them.
    :param partition: where jobs go that name none.
    :return: what is known, and which of the jobs in it are this root's.
    :raises Refused: Slurm cannot be asked.
    """
    found = node_list(_answer(nodes()))
    with_gpus, wait = running_jobs(_answer(running())), waiting_jobs(_answer(waiting()))
    return view_of(found, with_gpus, wait, own, partition)


def _answer(command: Sequence[str]) -> str:
    answer = run(command, timeout_s=_TIMEOUT_S)
    if answer.code != 0:
        raise Refused(
            protocol.GPUS_UNAVAILABLE,
            f"Slurm cannot be asked: {said(answer.errors) or f'{command[0]} ended with exit code {answer.code}'}",
        )
    return answer.output


def view_of(
    found: Sequence[OverviewNode],
    with_gpus: Sequence[SlurmJob],
    wait: Sequence[WaitingJob],
    own: Mapping[str, Attempt],
    partition: str | None,
) -> tuple[EngineView, dict[int, Attempt]]:
    """Put together what Slurm has said; see :func:`slurm_view`."""
    jobs: list[OverviewJob] = []
    ours: dict[int, Attempt] = {}
    free_cells = {
        node["name"]: iter([gpu for gpu in node["gpus"] if gpu["state"] == view_words.LEASED]) for node in found
    }
    for job in sorted(with_gpus, key=lambda job: job.id not in own)[: view_words.MOST_RUNNING]:
        if job.id in own:
            ours[len(jobs)] = own[job.id]
        for name, count in job.gpus_by_node.items():
            for _, gpu in zip(range(count), free_cells.get(name, iter(()))):
                gpu["job"] = len(jobs)
        jobs.append(_running(job))
    place = 0
    for job_that_waits in wait:
        if not job_that_waits.gpus:
            continue
        place += 1
        if place > view_words.MOST_WAITING and job_that_waits.id not in own:
            continue
        if job_that_waits.id in own:
            ours[len(jobs)] = own[job_that_waits.id]
        jobs.append(_waiting(job_that_waits, place))
    listed, left_out = _bounded(found)
    view: EngineView = {
        "nodes": listed,
        "jobs": jobs,
        "waiting_jobs": place,
        "waiting_gpus": sum(job_that_waits.gpus for job_that_waits in wait),
    }
    if left_out:
        view["left_out"] = left_out
    if partition:
        view["partition"] = partition
    return view, ours


def _bounded(found: Sequence[OverviewNode]) -> tuple[list[OverviewNode], int]:
    listed: list[OverviewNode] = []
    count = left_out = 0
    for node in found:
        count += len(node["gpus"])
        if count <= view_words.MOST_GPUS:
            listed.append(node)
        else:
            left_out += len(node["gpus"])
    return listed, left_out


def _running(job: SlurmJob) -> OverviewJob:
    told: OverviewJob = {
        "is_running": True,
        "user": job.user,
        "gpus": sum(job.gpus_by_node.values()),
        "scheduler_id": job.id,
        "partition": job.partition,
    }
    if job.since is not None:
        told["since"] = records.time_of(job.since)
    if job.until is not None:
        told["until"] = records.time_of(job.until)
    return told


def _waiting(job: WaitingJob, place: int) -> OverviewJob:
    told: OverviewJob = {
        "is_running": False,
        "user": job.user,
        "gpus": job.gpus,
        "scheduler_id": job.id,
        "partition": job.partition,
        "place": place,
        "why": words.PENDING_REASONS.get(job.reason, job.reason),
    }
    if job.expected is not None:
        told["expected_at"] = records.time_of(job.expected)
    if job.submitted is not None:
        told["submitted_at"] = records.time_of(job.submitted)
    return told
