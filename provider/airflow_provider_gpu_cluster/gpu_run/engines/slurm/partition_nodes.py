"""The nodes of Slurm's partitions, as far as they decide what fits there. Nothing here runs anything."""

from __future__ import annotations

import re
from typing import NamedTuple, Sequence

from .commands import gpus_of

_FIELDS = (
    ("NodeList", 128),
    ("Partition", 64),
    ("StateLong", 32),
    ("Gres", 256),
    ("GresUsed", 256),
    ("Memory", 24),
    ("CPUs", 16),
    ("Time", 24),
)
_UP = re.compile(r"(idle|mixed|allocated|completing|planned)[+~#]?\Z")


class PartitionNode(NamedTuple):
    """
    A node in one of its partitions.

    :param is_usual: whether this is the partition of jobs that name none.
    :param limit_s: how long a job may run in this partition, in seconds; None if there is no limit.
    :param is_up: whether the node takes jobs now.
    :param gpus: how many it has of each type, and how many of them are in use.
    """

    name: str
    partition: str
    is_usual: bool
    limit_s: float | None
    is_up: bool
    gpus: dict[str, tuple[int, int]]
    memory_mb: int
    cpus: int

    def could_have(self, gpus: int, kind: str | None, memory_mb: float, cpus: int) -> bool:
        """
        Return whether a job of that size could run on it, if nothing else did.

        :param kind: of GPUs, as Slurm calls it; None for any.
        """
        there = [total for name, (total, _) in self.gpus.items() if kind in (None, name)]
        return sum(there) >= gpus and self.memory_mb >= memory_mb and self.cpus >= cpus


def listed() -> list[str]:
    """Return the command that lists all nodes, once for each of their partitions."""
    return ["sinfo", "--noheader", "--Node", "--Format=" + ",".join(f"{name}:{width}" for name, width in _FIELDS)]


def nodes_in(output: str, partition: str | None) -> list[PartitionNode]:
    """
    Parse the output of :func:`listed`.

    :param partition: its nodes, or those of several with commas between them; None for the usual one.
    """
    found = [_node(line) for line in output.splitlines() if line.strip()]
    if partition is not None:
        names = partition.split(",")
        return [node for node in found if node.partition in names]
    return [node for node in found if node.is_usual] or found


def _node(line: str) -> PartitionNode:
    values = []
    for _, width in _FIELDS:
        values.append(line[:width].strip())
        line = line[width:]
    name, partition, state, gres, used, memory, cpus, limit = values
    in_use = dict(gpus_of(used))
    return PartitionNode(
        name=name,
        partition=partition.rstrip("*"),
        is_usual=partition.endswith("*"),
        limit_s=seconds_of(limit),
        is_up=_UP.match(state) is not None,
        gpus={kind: (total, min(total, in_use.get(kind, 0))) for kind, total in gpus_of(gres)},
        memory_mb=_whole(memory),
        cpus=_whole(cpus),
    )


def _whole(text: str) -> int:
    # What Slurm does not say keeps no job away.
    return int(text) if text.isdigit() else 1 << 60


def seconds_of(text: str) -> float | None:
    """
    Return a duration in one of Slurm's forms in seconds; None when it has no end, or has none of these forms.

    Its forms are minutes, minutes:seconds, hours:minutes:seconds, and days-hours, with minutes and seconds perhaps.
    """
    days, dash, rest = text.rpartition("-")
    parts = rest.split(":")
    if not all(part.isdigit() for part in ([days, *parts] if dash else parts)) or len(parts) > 3:
        return None
    numbers = [int(part) for part in parts]
    if dash:
        hours, minutes, seconds = [*numbers, 0, 0][:3]
        return ((int(days) * 24 + hours) * 60 + minutes) * 60.0 + seconds
    if len(numbers) == 3:
        return (numbers[0] * 60 + numbers[1]) * 60.0 + numbers[2]
    return numbers[0] * 60.0 + sum(numbers[1:])


def free_and_all(nodes: Sequence[PartitionNode], kind: str | None) -> tuple[int, int]:
    """
    Return how many GPUs of a type are free on nodes that take jobs, and how many there are on all of these.

    :param kind: as Slurm calls it; None for any.
    """
    free = total = 0
    for node in {node.name: node for node in nodes if node.is_up}.values():
        for name, (count, used) in node.gpus.items():
            if kind in (None, name):
                free, total = free + count - used, total + count
    return free, total
