"""What an attempt runs on: GPUs, and the node or nodes they are in, that nobody else has until it has ended."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from ..linux import processes

if TYPE_CHECKING:
    from ..protocol.records import LeasedGpu, SlurmRun


class Allocation(NamedTuple):
    """
    GPUs that are an attempt's alone.

    :param gpus: ``key`` and ``index`` of each.
    :param since: when it got them.
    :param fds: the open files that are their leases; none where a scheduler gives them out.
    :param nodes: how many nodes they are in, with as many of them in each.
    :param node_names: what the scheduler calls those nodes; None for this host.
    :param visible: what the scheduler wants CUDA_VISIBLE_DEVICES to be; None where it does not say.
    :param master: address of the first node, for the others.
    :param master_port: a port there that no other job of the scheduler is told to use.
    :param launcher: the command that runs another on every node; none where there is only this one.
    :param claimed: what the claim says besides.
    :param is_scheduled: whether a scheduler gave it, and may take it back at any moment.
    :param gives_reasons: whether that can be asked why it has taken it back.
    """

    gpus: list[LeasedGpu]
    since: str
    fds: list[int]
    nodes: int = 1
    node_names: str | None = None
    visible: str | None = None
    master: str = "localhost"
    master_port: int | None = None
    launcher: tuple[str, ...] = ()
    claimed: SlurmRun | None = None
    is_scheduled: bool = False
    gives_reasons: bool = True

    @property
    def is_explained(self) -> bool:
        """Return whether a scheduler can say why it has ended."""
        return self.is_scheduled and self.gives_reasons

    @property
    def host(self) -> str:
        """Return where it is, for a person."""
        return self.node_names or processes.hostname()

    def variables(self) -> dict[str, str]:
        """Return the environment variables that tell of it; NODE_RANK is another on every other node."""
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
            variables["CUDA_VISIBLE_DEVICES"] = ",".join(str(gpu["index"]) for gpu in self.gpus)
        elif self.visible is not None:
            variables["CUDA_VISIBLE_DEVICES"] = self.visible
        return variables
