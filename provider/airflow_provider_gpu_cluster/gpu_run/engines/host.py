"""A bare Linux host with GPUs and no scheduler: leases, a line of waiting jobs, and a supervisor for each that runs."""

from __future__ import annotations

import os
import signal
from typing import Any

from .. import processes, protocol, records
from ..errors import Refused
from ..gpus import Gpu, find_busy, find_gpus
from ..line import Line
from ..schedule import Wait
from ..store import Attempt, Root

POOL_FILE = "pool.json"
_MOST_TYPES_SHOWN = 6
_MOST_SAID = 4000


class HostEngine:
    """
    Runs jobs on the host this program runs on.

    :param settings: ``virtual_gpus``, ``lease_dir``, ``python``.
    :param program: path of this program, for the processes it starts.
    """

    name = "host"

    def __init__(self, root: Root, settings: dict[str, Any], program: str) -> None:
        self._root = root
        self._settings = settings
        self._program = program
        self._line = Line(root, settings)
        self._virtual = settings.get("virtual_gpus")
        self._waits: dict[str, Wait] | None = None
        self._in_line: set[str] | None = None

    def check(self, spec: dict[str, Any]) -> None:
        """
        Refuse what this host can never run.

        :raises Refused: it has not that many GPUs, or none of that type.
        """
        if not self._fits(spec, self._known_gpus()):
            # What is remembered may be from before somebody put in another card.
            gpus = self._list_gpus()
            if not self._fits(spec, gpus):
                raise Refused(protocol.NOT_ENOUGH_GPUS, _too_few(spec, gpus))
        self._line.open_leases()

    def _fits(self, spec: dict[str, Any], gpus: list[Gpu]) -> bool:
        wanted: int = spec["gpus"]
        return sum(gpu.is_a(spec.get("gpu_type")) for gpu in gpus) >= wanted

    def _known_gpus(self) -> list[Gpu]:
        if self._virtual is not None:
            return find_gpus(self._virtual)
        known = records.read_json(self._inventory())
        if known is None:
            return self._list_gpus()
        return [Gpu(*values) for values in known["gpus"]]

    def _list_gpus(self) -> list[Gpu]:
        gpus = find_gpus(self._virtual)
        if self._virtual is None:
            records.write_json(self._inventory(), {"gpus": [list(gpu) for gpu in gpus]})
        return gpus

    def _inventory(self) -> str:
        return os.path.join(self._root.own, f"gpus-{processes.boot_id()}.json")

    def launch(self, attempt: Attempt, request: dict[str, Any]) -> None:
        """Put an attempt in line, and see to it that the line is served."""
        self._line.add(attempt, request)
        self.nudge()

    def share_pool(self) -> None:
        """Note which pool of GPUs this root's jobs come from, for a person's own calls on the host."""
        path = os.path.join(self._root.own, POOL_FILE)
        pool = {name: self._settings.get(name) for name in ("virtual_gpus", "lease_dir")}
        if records.read_json(path) != pool:
            records.write_json(path, pool)

    def nudge(self) -> None:
        """See to it that the line is served."""
        self._line.ensure_dispatcher(self._program)

    @property
    def waits(self) -> dict[str, Wait]:
        """Why each waiting job waits; read once, as this program runs once per request."""
        if self._waits is None:
            self._waits = self._line.waits()
        return self._waits

    def trouble(self) -> str:
        """Return what keeps the line from being served, as far as its dispatcher could still say it."""
        path = os.path.join(self._line.path, "dispatcher.log")
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                said = file.read()[-_MOST_SAID:].strip().splitlines()
        except OSError:
            return ""
        return f"nobody serves its line; the last line of {path} is: {said[-1]}" if said else ""

    def in_line(self, attempt: Attempt) -> bool:
        """Tell whether an attempt has its place in line."""
        if self._in_line is None:
            self._in_line = {Line.job_id(name) for name in self._line.entries()}
        return attempt.job.job_id in self._in_line

    def leave(self, attempt: Attempt) -> None:
        """Take an attempt out of the line."""
        for name in self._line.entries():
            if Line.job_id(name) == attempt.job.job_id:
                self._line.remove(name)

    def stop(self, claim: dict[str, Any]) -> None:
        """Tell the supervisor of a running attempt to end it."""
        if processes.is_alive(claim):
            processes.send_signal([claim["pid"]], signal.SIGTERM)

    def holds_lease(self, job_id: str) -> bool:
        """Tell whether a supervisor of that job holds GPUs, even if the job's directory is gone."""
        return self._line.open_leases().held_by(job_id, self._line.owner())

    def capacity(self) -> dict[str, Any]:
        """Return every GPU with who has it, and how many jobs of all users wait."""
        gpus = self._list_gpus()
        busy = find_busy(self._virtual)
        leases = self._line.open_leases()
        with leases.mutex():
            slots = leases.slots(gpus, busy)
            waiting = leases.tickets()
        return {
            "gpus": [
                {
                    "index": slot.gpu.number,
                    "key": slot.gpu.key,
                    "type": slot.gpu.type,
                    "memory_mb": slot.gpu.memory_mb,
                    "free": slot.free_at == 0,
                    "used_by": slot.note,
                }
                for slot in slots
            ],
            "free_gpus": sum(slot.free_at == 0 for slot in slots),
            "waiting_jobs": len(waiting),
            "waiting_gpus": sum(ticket.gpus for ticket in waiting),
        }


def _too_few(spec: dict[str, Any], gpus: list[Gpu]) -> str:
    kinds: dict[str, int] = {}
    for gpu in gpus:
        kinds[gpu.type] = kinds.get(gpu.type, 0) + 1
    has = ", ".join(f"{count} x {kind}" for kind, count in sorted(kinds.items())[:_MOST_TYPES_SHOWN])
    wanted = "{} GPU{}".format(spec["gpus"], "" if spec["gpus"] == 1 else "s")
    if spec.get("gpu_type"):
        wanted += " of type {!r}".format(spec["gpu_type"])
    return "the job asks for {}, but {} has {}".format(wanted, processes.hostname(), has or "none")
