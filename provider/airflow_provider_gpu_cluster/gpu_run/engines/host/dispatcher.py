"""
The one process that serves a root's waiting jobs, alive only while some wait.

Every quarter of a second it looks which job is next, leases GPUs, and starts a supervisor, which inherits the leases as
open files. Environments are built before a job joins those that want GPUs. A problem with one job, with the GPUs or
with the disk does not end the dispatcher: it notes the problem in the waiting jobs' status, and tries again.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

from ... import protocol
from ...environments.builds import Builds
from ...environments.python_environment import BuildFailed
from ...errors import Refused, traceback_text
from ...gpus.allocator import Grant
from ...gpus.schedule import QueuedJob, Wait
from ...store import records
from ...store.budgets import why_held
from ...store.claims import claim_by
from ...store.directories import Attempt
from ...store.settling import settle
from ...store.writing import write_text
from . import supervisor_start
from .root_queue import RootQueue

if TYPE_CHECKING:
    from ...protocol.notes import Lease, WaitNotes
    from ...protocol.records import AttemptRequest

_TICK_S = 0.25
_STARTING_TICK_S = 0.02
_STARTING_AT_ONCE = max(2, os.cpu_count() or 1)
_TROUBLE_S = 2.0
_RECHECK_S = 10.0
_STARTS = 3
# How often a job that waits for its budget is looked at.
_BUDGET_S = 1.0


class _Waiting(NamedTuple):
    name: str
    attempt: Attempt
    request: AttemptRequest
    queued: QueuedJob


class _Trouble(NamedTuple):
    """A job that could not be started: how often this happened, why, and when to try again."""

    times: int
    message: str
    until: float


class _Held(NamedTuple):
    """Why a job waits for its budget, and until when that is believed."""

    why: str
    until: float


class Dispatcher:
    """
    Serves one queue until no job waits.

    :param lock: the queue's lock, held as an open file.
    :param program: path of this program.
    """

    def __init__(self, queue: RootQueue, lock: int, program: str) -> None:
        self._queue = queue
        self._lock = lock
        self._program = program
        self._allocator = queue.allocator(queue.owner())
        self._builds = Builds()
        self._waiting: dict[str, _Waiting] = {}
        self._starting: dict[str, supervisor_start.Process] = {}
        self._running: list[tuple[supervisor_start.Process, Attempt | None]] = []
        self._trouble: dict[str, _Trouble] = {}
        self._held: dict[str, _Held] = {}
        self._waits: dict[str, Wait] = {}
        self._checked = time.monotonic()

    def run(self) -> None:
        """Serve the queue until no job waits."""
        os.set_inheritable(self._lock, False)
        try:
            while self._tick():
                pass
        finally:
            self._allocator.close()
            os.close(self._lock)

    def _tick(self) -> bool:
        """Look once, and pause; return False when no job waits."""
        self._read_queue()
        self._check_starts()
        waits: dict[str, Wait] = {}
        ready = [waiting for waiting in list(self._waiting.values()) if self._is_ready(waiting, waits)]
        pause = _TICK_S
        try:
            # A GPU is leased only if its supervisor can start at once, not while the supervisor waits for a processor.
            at_most = max(0, _STARTING_AT_ONCE - len(self._starting))
            grants, whys = self._allocator.grant([waiting.queued for waiting in ready], at_most)
            waits.update((queued.job_id, wait) for queued, wait in whys.items())
        except (Refused, OSError) as error:
            grants = {}
            waits.update((waiting.queued.job_id, Wait(0, str(error))) for waiting in ready)
            pause = _TROUBLE_S
        for waiting in ready:
            if waiting.queued in grants:
                self._start(waiting, grants[waiting.queued])
        self._tell(waits)
        if not self._waiting and not self._starting:
            return False
        time.sleep(_STARTING_TICK_S if self._starting else pause)
        return True

    # -- waiting jobs --------------------------------------------------------------------------------------------

    def _read_queue(self) -> None:
        names = self._queue.entries()
        recheck = time.monotonic() - self._checked > _RECHECK_S
        for name in set(self._waiting) - set(names):
            self._forget(name)
        for name in names:
            if name not in self._waiting:
                self._admit(name)
            elif recheck and name not in self._starting and self._is_over(self._waiting[name].attempt):
                self._queue.remove(name)
        if recheck:
            self._checked = time.monotonic()

    def _admit(self, name: str) -> None:
        try:
            attempt = self._queue.read(name)
            if attempt is None:
                return
            if not self._is_over(attempt):
                request = attempt.request()
                queued = self._queue.queued_job(attempt, request, self._allocator.name)
                self._waiting[name] = _Waiting(name, attempt, request, queued)
                return
        except OSError:
            # The entry cannot be read now.
            return
        except (Refused, ValueError, KeyError, TypeError):
            print(records.now(), f"{name} is no entry and is removed:\n{traceback_text()}", file=sys.stderr)
        self._queue.remove(name)

    def _forget(self, name: str) -> None:
        self._waiting.pop(name, None)
        self._trouble.pop(name, None)
        self._held.pop(name, None)

    def _is_over(self, attempt: Attempt) -> bool:
        """Return whether an attempt needs no start: it was started, is cancelled, or its directory was deleted."""
        return not os.path.exists(attempt.at("request.json")) or os.path.exists(attempt.at("claim.json"))

    def _is_ready(self, waiting: _Waiting, waits: dict[str, Wait]) -> bool:
        """Return whether a job can use GPUs as soon as it gets them; otherwise note in ``waits`` why not."""
        if waiting.name in self._starting:
            return False
        trouble = self._trouble.get(waiting.name)
        if trouble is not None and time.monotonic() < trouble.until:
            waits[waiting.queued.job_id] = Wait(0, trouble.message)
            return False
        recovery = waiting.request.get("recovery")
        if recovery is not None and time.time() < recovery["not_before"]:
            waits[waiting.queued.job_id] = Wait(0, recovery["why"])
            return False
        held = self._why_held(waiting)
        if held:
            waits[waiting.queued.job_id] = Wait(0, held)
            return False
        parts = waiting.request.get("environment")
        if not parts:
            return True
        try:
            ready = self._builds.is_ready(waiting.attempt, waiting.request, parts)
        except BuildFailed as error:
            with contextlib.suppress(OSError):
                write_text(waiting.attempt.job.at("logs", "environment.log"), f"{error}\n")
            self._give_up(waiting, f"its Python environment could not be built: {error}")
            return False
        except OSError as error:
            waits[waiting.queued.job_id] = Wait(0, f"its Python environment cannot be built now: {error}")
            return False
        if not ready:
            waits[waiting.queued.job_id] = Wait(0, "its Python environment is being built")
        return ready

    def _why_held(self, waiting: _Waiting) -> str:
        """Return why a job must wait for its budget, looked at now and then; an empty text when it may start."""
        if not waiting.request.get("over_budget"):
            return ""
        told = self._held.get(waiting.name)
        if told is None or time.monotonic() > told.until:
            told = _Held(why_held(waiting.attempt, waiting.request), time.monotonic() + _BUDGET_S)
            self._held[waiting.name] = told
        return told.why

    # -- starts --------------------------------------------------------------------------------------------------

    def _start(self, waiting: _Waiting, grant: Grant) -> None:
        """Start the supervisor and pass it the leases."""
        lease: Lease = {
            "fds": grant.fds,
            "gpus": grant.leased,
            "leased_at": records.now(),
        }
        try:
            parts = waiting.request.get("environment")
            if parts:
                environment = self._builds.environment(parts)
                records.write_json(waiting.attempt.at("environment.json"), environment)
                waiting.attempt.event("environment_ready", **environment)
            program = waiting.request["program"]
            process = supervisor_start.start(program, waiting.attempt, lease, running=self._program)
            self._starting[waiting.name] = process
        except OSError as error:
            self._note_trouble(waiting, f"its supervisor could not be started: {error}")
        finally:
            for fd in grant.fds:
                os.close(fd)

    def _check_starts(self) -> None:
        """Remove started jobs from the queue; start those again whose supervisor died before it began."""
        running, self._running = self._running, []
        for process, attempt in running:
            if process.poll() is None:
                self._running.append((process, attempt))
            elif attempt is not None:
                # It may have found the ledger locked.
                settle(attempt.job)
        for name, process in list(self._starting.items()):
            waiting = self._waiting.get(name)
            ended = process.poll() is not None
            if waiting is None or self._is_over(waiting.attempt):
                self._queue.remove(name)
                self._forget(name)
                self._running.append((process, None if waiting is None else waiting.attempt))
                del self._starting[name]
            elif ended:
                del self._starting[name]
                log = waiting.attempt.at("supervisor.log")
                self._note_trouble(waiting, f"its supervisor ended before it could begin; see {log}")

    def _note_trouble(self, waiting: _Waiting, message: str) -> None:
        """Try again a little later, but only a few times."""
        before = self._trouble.get(waiting.name)
        times = 1 if before is None else before.times + 1
        self._trouble[waiting.name] = _Trouble(times, message, time.monotonic() + _TROUBLE_S * (times - 1))
        if times >= _STARTS:
            self._give_up(waiting, f"{message} ({times} times)")

    def _give_up(self, waiting: _Waiting, message: str) -> None:
        try:
            if waiting.attempt.claim(claim_by("dispatcher")):
                waiting.attempt.finish(
                    protocol.FAILED,
                    protocol.LAUNCH_FAILED,
                    message,
                    submitted_at=waiting.request["requested_at"],
                )
        except OSError as error:
            # Most likely the disk is full, which may also be the cause of the trouble. Waiting for room loses nothing.
            times = self._trouble[waiting.name].times if waiting.name in self._trouble else 1
            self._trouble[waiting.name] = _Trouble(times, f"{message}; {error}", time.monotonic() + _RECHECK_S)
            return
        self._queue.remove(waiting.name)
        self._forget(waiting.name)

    def _tell(self, waits: dict[str, Wait]) -> None:
        """Write down why jobs wait, for status requests."""
        if waits != self._waits:
            with contextlib.suppress(OSError):
                told: WaitNotes = {job_id: list(wait) for job_id, wait in waits.items()}
                records.write_json(self._queue.waits_path, told, sync=False)
                self._waits = waits


def dispatch(path: str, lock: str, *, program: str) -> int:
    """
    Serve the queue at ``path``, and make sure that a job added at the last moment is not left waiting.

    :param lock: the number of the open file that is the dispatcher's lock.
    """
    queue = RootQueue.at_path(path)
    Dispatcher(queue, int(lock), program).run()
    queue.ensure_dispatcher(program)
    return 0
