"""The engines, one per kind of cluster, that run jobs; see :mod:`.engine` for what they have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import protocol
from ..errors import Refused

if TYPE_CHECKING:
    from ..protocol.settings import Settings
    from ..store.directories import Root
    from .engine import Engine


def engine_of(root: Root, settings: Settings, program: str, *, timeout_s: float) -> Engine:
    """
    Return the engine that a cluster's settings name.

    :param settings: its ``engine`` is the name; without one, it is the host.
    :param program: path of this program, for the processes it starts.
    :param timeout_s: how long a look at a job may wait for a scheduler's answer.
    :raises Refused: there is no such engine.
    """
    # The chosen engine is imported late, since every request starts a process.
    name = settings.get("engine") or "host"
    if name == "host":
        from .host.engine import HostEngine

        return HostEngine(root, settings, program)
    if name == "slurm":
        from .slurm.engine import SlurmEngine

        return SlurmEngine(root, settings, program, timeout_s)
    if name == "command":
        from .command.engine import CommandEngine

        return CommandEngine(root, settings, program)
    raise Refused(protocol.BAD_REQUEST, f"there is no engine {name!r}; there are 'host', 'slurm' and 'command'")
