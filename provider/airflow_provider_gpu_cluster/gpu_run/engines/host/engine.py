"""A bare Linux host with GPUs and no scheduler: leases, a queue of jobs, and a supervisor for each running job."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING, Sequence

from ... import protocol
from ...errors import Refused
from ...gpus.inventory import BrokenGpu, Gpu, Inventory, fitting, take_inventory
from ...gpus.schedule import Wait
from ...linux import processes, regular_files
from ...recovery.words import waiting
from ...store import records
from ...store.budgets import is_held
from ...store.directories import Attempt, Root
from ...supervise.unrecorded_end import unrecorded_end
from ..lost import settle_lost_supervisor, unseen
from ..unstarted import record_unstarted
from .root_queue import RootQueue

if TYPE_CHECKING:
    from ...protocol.appraisal import Prospect
    from ...protocol.notes import GpuNote
    from ...protocol.overview import EngineView
    from ...protocol.records import Claim
    from ...protocol.replies import Capacity
    from ...protocol.settings import Settings
    from ...protocol.spec import Spec
    from ...protocol.status import Standing
    from ...store.placements import Promise
    from ..wanted import Wanted

POOL_FILE = "pool.json"
_MOST_TYPES_SHOWN = 6
_MOST_SAID = 4000
_SERVED_WITHIN_S = 20.0


class HostEngine:
    """
    Runs jobs on the host where this program runs.

    :param settings: ``virtual_gpus``, ``lease_dir``, ``python``.
    :param program: path of this program, for the processes it starts.
    """

    name = "host"

    def __init__(self, root: Root, settings: Settings, program: str) -> None:
        self._root = root
        self._settings = settings
        self._program = program
        self._queue = RootQueue(root, settings)
        self._virtual = settings.get("virtual_gpus")
        self._why_unserved = ""
        self.refresh()

    def refresh(self) -> None:
        """Forget what was looked at only once."""
        self._known_waits: dict[str, Wait] | None = None
        self._known_queue: set[str] | None = None

    def check(self, spec: Spec) -> None:
        """
        Refuse a job that this host can never run.

        :raises Refused: the host has too few GPUs, or none of that type.
        """
        if (spec.get("nodes") or 1) > 1:
            raise Refused(
                protocol.NOT_ENOUGH_GPUS,
                "the job asks for {} nodes, and {} is one host; take a connection whose engine is slurm".format(
                    spec["nodes"], processes.hostname()
                ),
            )
        if not _fits(spec, self._known_gpus()):
            # The remembered list may be older than a card that was added.
            found = self._list_gpus(with_use=False)
            if not _fits(spec, found):
                raise Refused(protocol.NOT_ENOUGH_GPUS, _too_few(spec, found))
        self._queue.open_leases()

    def _known_gpus(self) -> Inventory:
        if self._virtual is None:
            with contextlib.suppress(ValueError, KeyError, TypeError, regular_files.NotRegular):
                known: GpuNote | None = records.read_json(self._note())
                if known is not None:
                    broken = [BrokenGpu(*words) for words in known.get("broken", [])]
                    return Inventory([Gpu(*values) for values in known["gpus"]], broken)
        return self._list_gpus(with_use=False)

    def _list_gpus(self, *, with_use: bool) -> Inventory:
        found = take_inventory(self._virtual, with_use=with_use)
        if self._virtual is None:
            note: GpuNote = {"gpus": [list(gpu) for gpu in found.gpus], "broken": [list(gpu) for gpu in found.broken]}
            records.write_json(self._note(), note)
        return found

    def _note(self) -> str:
        return os.path.join(self._root.own, f"gpus-{processes.boot_id()}.json")

    def launch(self, attempts: Sequence[Attempt]) -> None:
        """Put attempts into the queue, and make sure that the queue is served."""
        self._share_pool()
        for attempt in attempts:
            self._queue.add(attempt, attempt.request())
        self.nudge()

    def _share_pool(self) -> None:
        """Note which pool of GPUs this root's jobs use, for calls that a person makes on the host."""
        path = os.path.join(self._root.own, POOL_FILE)
        pool: Settings = {
            "virtual_gpus": self._settings.get("virtual_gpus"),
            "lease_dir": self._settings.get("lease_dir"),
        }
        if records.is_spoilt(path) or records.read_json(path) != pool:
            records.write_json(path, pool)

    def nudge(self) -> None:
        """Make sure that the queue is served."""
        try:
            self._queue.ensure_dispatcher(self._program)
        except OSError as error:
            self._why_unserved = f"nobody can serve its queue: {error}"
            raise
        self._why_unserved = ""

    # -- the state of attempts -----------------------------------------------------------------------------------

    def standing(self, attempt: Attempt, claim: Claim | None) -> Standing | None:
        """Return the state of an attempt, which depends on whether the process that has claimed it lives."""
        if claim is None:
            return self._waiting(attempt)
        alive = processes.is_alive(claim)
        if alive is None:
            return {"state": protocol.UNKNOWN, "message": unseen(claim)}
        if alive:
            return {"state": protocol.RUNNING} if claim["by"] == "supervisor" else self._waiting(attempt)
        # It may have ended since the caller looked.
        if attempt.ended() is None:
            _settle_lost(attempt, claim)
        return None

    def _waiting(self, attempt: Attempt) -> Standing:
        request = attempt.request()
        standing: Standing = {
            "state": protocol.QUEUED,
            "submitted_at": request["requested_at"],
            "host": request["host"],
        }
        if request["host"] != processes.hostname():
            message = "it waits on {}, this is {}".format(request["host"], processes.hostname())
            return {**standing, "state": protocol.UNKNOWN, "message": message}
        if not request.get("waiter") and not self._is_queued(attempt) and attempt.claimed() is None:
            # The process that made the attempt died before it queued it.
            self.launch([attempt])
        why = waiting(request, attempt.number)
        if why:
            return {**standing, "message": why}
        wait = self._waits.get(attempt.job.job_id)
        if wait is None and is_held(attempt, request):
            return {**standing, "message": request["over_budget"]}
        if wait is None:
            is_new = records.seconds_between(request["requested_at"], records.now()) < _SERVED_WITHIN_S
            trouble = self._why_unserved or ("" if is_new else self._trouble())
            return {**standing, "message": trouble or "it was just put into the queue"}
        return {**standing, "queue_place": wait.place or None, "message": wait.why}

    @property
    def _waits(self) -> dict[str, Wait]:
        """Why each waiting job waits."""
        if self._known_waits is None:
            self._known_waits = self._queue.waits()
        return self._known_waits

    def _is_queued(self, attempt: Attempt) -> bool:
        if self._known_queue is None:
            self._known_queue = {RootQueue.job_id(name) for name in self._queue.entries()}
        return attempt.job.job_id in self._known_queue

    def _trouble(self) -> str:
        """Return what keeps the queue from being served, if its dispatcher could still report it."""
        path = os.path.join(self._queue.path, "dispatcher.log")
        try:
            said = regular_files.read_end(path, _MOST_SAID).decode("utf-8", "replace").strip().splitlines()
        except OSError:
            return ""
        return f"nobody serves its queue; the last line of {path} is: {said[-1]}" if said else ""

    # -- the end of attempts -------------------------------------------------------------------------------------

    def leave(self, attempt: Attempt) -> None:
        """Take an attempt out of the queue."""
        for name in self._queue.entries():
            if RootQueue.job_id(name) == attempt.job.job_id:
                self._queue.remove(name)

    def stop(self, attempt: Attempt, claim: Claim) -> None:
        """Tell the supervisor of a running attempt to end it."""
        if processes.is_alive(claim):
            processes.send_signal([claim["pid"]], signal.SIGTERM)

    def still_runs(self, job_id: str) -> bool:
        """
        Return whether a supervisor of that job holds GPUs, even if the job's directory is gone.

        :raises Refused: that cannot be determined now.
        """
        folder = self._queue.lease_dir
        try:
            os.stat(folder)
        except (FileNotFoundError, NotADirectoryError):
            # Opening the leases would create their folder. Without a folder, nobody holds any.
            return False
        except OSError as error:
            raise Refused(protocol.GPUS_UNAVAILABLE, f"{folder} cannot be read: {error.strerror}") from error
        return self._queue.leases.held_by(job_id, self._queue.owner())

    # -- the host ------------------------------------------------------------------------------------------------

    def warnings(self) -> list[str]:
        """Return problems to expect on this host."""
        # Imported where it is needed, since every request starts a process.
        from ...linux.logout import logout_warnings

        return logout_warnings()

    def capacity(self) -> Capacity:
        """Return every GPU and who uses it, and how many jobs of all users wait."""
        found = self._list_gpus(with_use=True)
        leases = self._queue.open_leases()
        with leases.mutex():
            slots = leases.slots(found.gpus, found.in_use_without_lease(leases.held(found.gpus)))
            waiting = leases.queued_jobs()
        return {
            "broken_gpus": [{"gpu": gpu.gpu, "why": gpu.why} for gpu in found.broken],
            "remarks": found.remarks,
            "gpus": [
                {
                    "index": slot.gpu.number,
                    "key": slot.gpu.key,
                    "type": slot.gpu.type,
                    "memory_mb": slot.gpu.memory_mb,
                    "free": slot.free_at == 0,
                    "used_by": slot.note,
                    "state": "leased" if slot.is_leased else "free" if slot.free_at == 0 else "other",
                }
                for slot in slots
            ],
            "free_gpus": sum(slot.free_at == 0 for slot in slots),
            "waiting_jobs": len(waiting),
            "waiting_gpus": sum(queued.gpus for queued in waiting),
        }

    def prospects(self, wanted: Sequence[Wanted], promises: Sequence[Promise], *, within_s: float) -> list[Prospect]:
        """Return for each of these jobs whether it fits, and when it could start, from queue and time limits."""
        # Imported where it is needed, since every request starts a process.
        from .prospects import host_prospects

        return host_prospects(self._queue, self._settings, wanted, promises, self.check)

    def overview(self) -> EngineView:
        """Return every GPU, who has it and how busy it is, and the jobs of all users that wait."""
        # Imported where it is needed, since every request starts a process.
        from .overview import host_view

        return host_view(self._root, self._queue)


def _fits(spec: Spec, found: Inventory) -> bool:
    """Return whether the job can run here, now or when the broken GPUs work again, which may well be of its type."""
    fits = len(fitting(found.gpus, spec["gpus"], spec.get("gpu_type")))
    return fits >= spec["gpus"] or (fits > 0 and fits + len(found.broken) >= spec["gpus"])


def _too_few(spec: Spec, found: Inventory) -> str:
    kinds: dict[str, int] = {}
    for gpu in found.gpus:
        kinds[gpu.type] = kinds.get(gpu.type, 0) + 1
    has = ", ".join(f"{count} x {kind}" for kind, count in sorted(kinds.items())[:_MOST_TYPES_SHOWN])
    wanted = "{} GPU{}".format(spec["gpus"], "" if spec["gpus"] == 1 else "s")
    if spec.get("gpu_type"):
        wanted += " of type {!r}".format(spec["gpu_type"])
    told = "the job asks for {}, but {} has {}".format(wanted, processes.hostname(), has or "none")
    if spec["gpus"] > 1 and any(gpu.is_instance for gpu in found.gpus):
        told += (
            "; a process can use only one MIG instance, so a job gets several only if its gpu_type names their "
            "profile, such as '1g.10gb'"
        )
    return "; ".join([told, *map(str, found.broken), *found.remarks])


def _settle_lost(attempt: Attempt, claim: Claim) -> None:
    """
    Record that the process that had claimed the attempt vanished before its end.

    The guard of a supervisor has killed the job; if the guard is gone too, this does it.
    """
    if claim["by"] == "cancel":
        record_unstarted(attempt, claim)
    elif claim["by"] == "supervisor":
        settle_lost_supervisor(attempt, claim)
    else:
        end = unrecorded_end(attempt, "the process that waited for it was killed", may_be_logout=True)
        attempt.finish(end["state"], end["reason"], end["message"])
