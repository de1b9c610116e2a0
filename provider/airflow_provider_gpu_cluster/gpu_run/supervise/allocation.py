"""The GPUs that an attempt runs on, and their node or nodes, for its use alone until it has ended."""

from __future__ import annotations

import contextlib
import os
import time
from types import MappingProxyType
from typing import TYPE_CHECKING, Callable, Mapping, NamedTuple

from ..linux import processes
from ..store import records

if TYPE_CHECKING:
    from ..protocol.records import LeasedGpu, SlurmRun

_NOTE_BYTES = 64
_NEW_S = 2.0
_LONGEST_START_S = 86400.0
_LOOK_S = 0.02


class Allocation(NamedTuple):
    """
    GPUs for the use of one attempt alone.

    :param gpus: ``key`` and ``index`` of each.
    :param since: when the attempt got them.
    :param told_since: path of a file in which the scheduler says that, in seconds since the epoch; None where it says
        it at once.
    :param fds: the open files that are their leases; none where a scheduler assigns GPUs.
    :param nodes: the number of nodes, which have the same number of GPUs each.
    :param node_names: what the scheduler calls those nodes; None for this host.
    :param visible: what the scheduler sets CUDA_VISIBLE_DEVICES to; None where it does not set it.
    :param master: address of the first node, for the others.
    :param master_port: a port there that the scheduler gives to no other job.
    :param launcher: the command that runs another on every node; empty where this is the only node.
    :param first_failure: path of a file that says which node's script failed first, and with which exit code.
    :param claimed: further contents of the claim.
    :param is_scheduled: whether a scheduler has given the allocation, and may take it back at any moment.
    :param gives_reasons: whether the scheduler can say why it took it back.
    :param stand_ins: signals that the scheduler sends in the place of others, and those others.
    :param ends_at: when the scheduler takes it back at the latest, in seconds since the epoch; None when it does not
        say.
    :param warning: the signal by which the scheduler says that the job is about to be stopped.
    :param is_taken_back: whether the scheduler has begun to take it back, and has told only what the job has started
        with its help. It is called with whether the job was ended by a TERM, and with its last errors.
    :param warns_steps: whether a signal is for what the job's script has started with ``srun``, if it has.
    """

    gpus: list[LeasedGpu]
    since: str
    fds: list[int]
    told_since: str | None = None
    nodes: int = 1
    node_names: str | None = None
    visible: str | None = None
    master: str = "localhost"
    master_port: int | None = None
    launcher: tuple[str, ...] = ()
    first_failure: str | None = None
    claimed: SlurmRun | None = None
    is_scheduled: bool = False
    gives_reasons: bool = True
    stand_ins: Mapping[int, int] = MappingProxyType({})
    warns_steps: bool = False
    ends_at: float | None = None
    warning: int | None = None
    is_taken_back: Callable[[bool, bytes], bool] | None = None

    @property
    def is_explained(self) -> bool:
        """Return whether a scheduler can say why the allocation ended."""
        return self.is_scheduled and self.gives_reasons

    def first_failed(self) -> tuple[int, int] | None:
        """Return the number of the node whose script failed first, and its exit code; None when none is noted."""
        if self.first_failure is None:
            return None
        try:
            with open(self.first_failure, encoding="ascii") as file:
                rank, code = file.read(_NOTE_BYTES).split()
            return int(rank), int(code)
        except (OSError, ValueError):
            return None

    @property
    def leased_at(self) -> str:
        """Return when the attempt got them, as the scheduler says if it does."""
        if self.told_since is not None:
            with contextlib.suppress(OSError, ValueError, OverflowError), open(self.told_since, "rb") as file:
                while not (told := file.read(_NOTE_BYTES)) and self._is_new():
                    # The job has ended at once, before the scheduler could answer.
                    time.sleep(_LOOK_S)
                at = records.time_of(float(told))
                # The job can write to the file.
                return at if 0 <= records.seconds_between(at, self.since) < _LONGEST_START_S else self.since
        return self.since

    def _is_new(self) -> bool:
        return records.seconds_between(self.since, records.now()) < _NEW_S

    @property
    def host(self) -> str:
        """Return where the allocation is, for a person to read."""
        return self.node_names or processes.hostname()

    def variables(self) -> dict[str, str]:
        """Return the environment variables that describe it; NODE_RANK differs on every other node."""
        per_node = str(len(self.gpus) // self.nodes)
        variables = {
            "GPU_COUNT": per_node,
            "GPUS_PER_NODE": per_node,
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
            "NNODES": str(self.nodes),
            "NODE_RANK": "0",
            "MASTER_ADDR": self.master,
            "MASTER_PORT": str(self.master_port or 20000 + os.getpid() % 20000),
        }
        if not self.is_scheduled:
            variables["CUDA_VISIBLE_DEVICES"] = ",".join(gpu.get("visible", str(gpu["index"])) for gpu in self.gpus)
        elif self.visible is not None:
            variables["CUDA_VISIBLE_DEVICES"] = self.visible
        return variables
