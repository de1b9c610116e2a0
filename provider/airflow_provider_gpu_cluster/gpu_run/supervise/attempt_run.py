"""One attempt, from its claim to the record of its end, as its supervisor sees it."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import time
from functools import partial
from typing import TYPE_CHECKING

from .. import protocol
from ..errors import traceback_text
from ..linux import processes
from ..linux.logout import logout_of_user, with_logout
from ..protocol.acts import LAUNCH
from ..protocol.cancellation import words_of
from ..protocol.grace import grace_s
from ..recovery.words import beginning
from ..store import markers, records
from ..store.acts import note_act
from ..store.claims import claim_by
from ..store.restoring import make_folder
from ..store.used import gpu_percent
from ..store.writing import write_text
from .errors_relay import ErrorsRelay
from .evidence import verdict_of
from .hang import HangLimit
from .idle_limit import IdleLimit
from .interruptions import Interruptions
from .job_processes import JobProcesses
from .killed_workers import KilledWorkers
from .launchers import TOKEN
from .limits import Limits
from .main_process import catching
from .node_orders import NodeOrders
from .orphan import OrphanLimit, orphan_mark
from .right_place import found_misplaced
from .signals import HANDED_ON
from .stack_dump import stack_dump
from .start_check import looked
from .stop import Cause, Stop
from .usage_sampler import UsageSampler
from .variables import job_variables
from .witness import has_had_term

if TYPE_CHECKING:
    from ..protocol.cancellation import CancelRecord
    from ..protocol.records import EndFacts
    from ..store.directories import Attempt
    from ..store.placed_launches import Misplaced
    from .allocation import Allocation

_TICK_S = 0.5
# While a job is being stopped: the end of what is below a stopped shell is not reported.
_STOPPING_TICK_S = 0.05
_RECORD_TIMEOUT_S = 60.0
_TERM_TIMEOUT_S = 1.0
_END_TIMEOUT_S = 0.05
# From the lease of the GPUs to the start of this process, at the longest.
_START_S = 60.0
_MOMENT_S = 1.0


class AttemptRun:
    """
    The run of an attempt.

    :param allocation: the GPUs that it runs on.
    """

    def __init__(self, attempt: Attempt, allocation: Allocation) -> None:
        self.attempt = attempt
        self.request = attempt.request()
        self.allocation = allocation
        # By a clock that nobody sets.
        self._began_at = time.clock_gettime(time.CLOCK_BOOTTIME)
        #: Only this attempt's processes have this in their environment.
        self.token = f"{TOKEN}={records.new_name()}"
        #: The supervisor is a copy of the process that makes this.
        self.guard = os.getpid()
        #: See :mod:`.witness`; None where nobody but the supervisor is told to end.
        self.witness: int | None = None
        #: Looks at what the job uses.
        self.sampler = UsageSampler()
        self._spec = self.request["spec"]
        self._job = JobProcesses()
        orders = NodeOrders(attempt) if allocation.launcher else None
        self._stop = Stop(attempt, self._job, self._spec, grace_s(self._spec, self.request["settings"]), orders)
        self._interruptions = Interruptions(attempt, self._stop)
        self._started_at: str | None = None
        self._code_ended_at: str | None = None
        # The same by a clock that is never set.
        self._started_clock = 0.0
        self._ran_s: float | None = None
        self._is_told_to_end = False
        self._heard: set[int] = set()
        self._is_taken_away = False
        self._taken_at: float | None = None

    def listen(self) -> None:
        """Catch the signals to the supervisor, and let them interrupt its waiting."""
        self._wakeup, wakeup_out = os.pipe()
        for fd in (self._wakeup, wakeup_out):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(wakeup_out, warn_on_full_buffer=False)
        # Handlers, even empty ones, are reset for the job; ignored signals would stay ignored in the job.
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        for number in HANDED_ON:
            # Such as a hang-up of a login that was told not to end what it has started.
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._note_signal)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note_end)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def _note_end(self, number: int, frame: object) -> None:
        self._is_told_to_end = True

    def _note_signal(self, number: int, frame: object) -> None:
        # A launcher's hang-up is about its own connection.
        if number != signal.SIGHUP or not self.allocation.is_scheduled or self.allocation.gives_reasons:
            self._heard.add(number)

    def claim(self, waited: bool) -> bool:
        """Claim the attempt; return False when another process has claimed it."""
        claim = claim_by("supervisor")
        claim["leased_at"], claim["gpus"], claim["token"] = self.allocation.since, self.allocation.gpus, self.token
        if self.allocation.claimed is not None:
            claim = {**claim, **self.allocation.claimed}
        if waited:
            records.write_json(self.attempt.at("claim.json"), claim)
            return True
        return self.attempt.claim(claim)

    def to_the_end(self) -> None:
        """Run the job, and record how it ended."""
        try:
            self._prepare()
            elsewhere = self._found_misplaced()
            if elsewhere is not None:
                self._finish(
                    protocol.CANCELLED,
                    protocol.REASON_CANCELLED,
                    f"{elsewhere.message}; it was not started",
                    {"placement": elsewhere.mark},
                )
                return
            self._start()
            self._watch()
            self.sampler.end()
            self._record_end()
        except Exception:
            self._job.kill()
            message = "its supervisor could not run it: " + traceback_text().strip().splitlines()[-1]
            self.attempt.event("supervisor_error", traceback=traceback_text())
            self._finish(protocol.FAILED, protocol.LAUNCH_FAILED, message, {})

    # -- start ---------------------------------------------------------------------------------------------------

    def _found_misplaced(self) -> Misplaced | None:
        return found_misplaced(
            self.attempt,
            self.request,
            is_here=not self.allocation.is_scheduled,
            is_told_to_end=lambda: self._is_told_to_end,
        )

    def _prepare(self) -> None:
        job = self.attempt.job
        self._env = job_variables(self.attempt, self.request, self.allocation)
        name, value = self.token.split("=", 1)
        self._env[name] = value
        for folder in (("outputs", "checkpoints"), ("logs", "tensorboard"), ("code",)):
            make_folder(job.path, *folder)
        markers.clear(job.at("outputs"))
        self.attempt.note_checkpoint()
        self._errors = ErrorsRelay(job.at("logs", "training.log"), job.at("logs", "error.log"))
        recovery = self.request.get("recovery")
        with contextlib.suppress(OSError):
            starts = self._errors.begin("" if recovery is None else beginning(recovery))
            self.attempt.note_log_starts({**starts, "progress": _size(job.at("logs", "progress.jsonl"))})
        self._killed_workers = KilledWorkers()

    def _start(self) -> None:
        job, env = self.attempt.job, {**self._env, **looked(self.attempt, self.request)}
        self._started_at, self._started_clock = records.now(), time.clock_gettime(time.CLOCK_BOOTTIME)
        self._job.start(
            [*(self.allocation.launcher or ("bash",)), job.at("run.sh")],
            cwd=self.request.get("cwd") or job.at("code"),
            env=env,
            out=self._errors.log,
            errors=self._errors.end,
            umask=self.request["umask"],
        )
        self._errors.started()
        self.sampler.begin()
        self._limits = Limits(self._spec, self._job, self._killed_workers)
        self._orphan_limit = OrphanLimit(self.attempt, self.request)
        self._idle_limit = IdleLimit(self.attempt, self.request)
        self._hang_limit = HangLimit(
            job, self._spec, self.allocation.gpus, self._job.tree, gpu_percent=partial(gpu_percent, self.attempt.path)
        )
        self._path = env.get("PATH", "")
        gpus = [gpu["index"] for gpu in self.allocation.gpus]
        self.attempt.event("started", pid=self._job.top, gpus=gpus)
        told = "on {}, GPUs {}".format(self.allocation.host, ", ".join(map(str, gpus)) or "none of its own")
        note_act(job.path, LAUNCH, attempt=self.attempt.number, details=told, asked=self.request)
        with contextlib.suppress(OSError):
            write_text(job.at("logs", "start_time.log"), self._started_at + "\n")
            write_text(job.at("outputs", "status.txt"), f"RUNNING since {self._started_at}\n")

    # -- run -----------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Wait for the user's code, relay its errors, and hold it to its limits."""
        selector = selectors.DefaultSelector()
        selector.register(self._errors.source, selectors.EVENT_READ)
        selector.register(self._wakeup, selectors.EVENT_READ)
        self._until_over(selector)
        self._note_code_end()
        if self._is_told_to_end:
            # The job has heard the same signal, and may have ended before this process could heed it.
            self._heed_signal()
        if self._stop.cause is None and _is_signal(self._job.status, signal.SIGTERM):
            self._await_signal(_TERM_TIMEOUT_S)
        elif self.allocation.is_scheduled:
            self._await_signal(_END_TIMEOUT_S)
        # Who has ended run.sh may have left its program the time to save.
        self._until_over(selector)
        self._note_code_end()
        self._stop.finish()
        if self._job.reap():
            self.attempt.event("ending_leftovers", count=len(self._job.tree()))
            self._job.end_leftovers(self._errors.copy)
        self._errors.copy_rest()

    def _note_code_end(self) -> None:
        self._code_ended_at = records.now()
        self._ran_s = time.clock_gettime(time.CLOCK_BOOTTIME) - self._started_clock

    def _until_over(self, selector: selectors.BaseSelector) -> None:
        look_at = time.monotonic()
        while not self._stop.is_over():
            for key, _ in selector.select(max(0.0, look_at - time.monotonic())):
                if key.fd == self._wakeup:
                    _drain(self._wakeup)
                elif self._errors.copy() is False:
                    selector.unregister(self._errors.source)
            self._job.reap()
            if self._is_told_to_end:
                self._heed_signal()
            if self._job.status is None:
                self._hand_on()
            if self._job.status is None and time.monotonic() >= look_at:
                self._check_limits()
            self._stop.go_on()
            if time.monotonic() >= look_at:
                look_at = time.monotonic() + (_TICK_S if self._stop.cause is None else _STOPPING_TICK_S)

    def _hand_on(self) -> None:
        """Hand on what was heard to the job's main process, which may have set a trap for it."""
        while self._heard:
            number = self._heard.pop()
            number = self.allocation.stand_ins.get(number, number)
            if number == self.allocation.warning:
                self._stop.warn()
                continue
            if number == signal.SIGCONT and self._stop.cause is not None:
                # Shells are kept from going on.
                continue
            self.attempt.event("signal_handed_on", number=number)
            steps = processes.topmost_named(self._job.tree(), "srun") if self.allocation.warns_steps else []
            processes.send_signal(steps or catching(self._job.tops(), number) or [self._job.top], number)

    def _check_limits(self) -> None:
        if os.access(self.attempt.at("cancel.json"), os.F_OK) and self.attempt.cancellation() is not None:
            # A cancel comes as a signal, but only if this process or its scheduler can be reached, and the claim read.
            self._heed_signal()
        if self.allocation.is_explained and self._is_ended_by_another():
            # Its scheduler has given this node up, and another attempt may follow. It must not run beside that one.
            self.attempt.event("ended_by_another")
            self._stop.begin(Cause(protocol.LOST, protocol.REASON_LOST, "another process has recorded its end"))
            self._stop.kill_soon()
        self._interruptions.look()
        if self._limits.is_warning_due() and not self._stop.was_warned and self._stop.cause is None:
            # A program that has just begun may not listen yet.
            self._stop.warn()
        time_is_up = self._limits.time_is_up()
        if time_is_up:
            self._stop.begin(time_is_up)
        too_much, is_urgent = self._limits.look_at_memory()
        if too_much:
            self._stop.begin(too_much)
        if is_urgent:
            self._stop.kill_soon()
        if self._stop.cause is None:
            self._look_for_life()

    def _look_for_life(self) -> None:
        """Stop the job if nobody wants it any more, if it hangs, or if it leaves its GPUs idle."""
        orphaned = self._orphan_limit.reached()
        if orphaned:
            self._stop.begin(orphaned, is_from_outside=True)
            return
        hangs = self._hang_limit.reached()
        if hangs:
            self._errors.tell(stack_dump(self._job.tree(), self._path))
            self._stop.begin(hangs)
        idle = self._idle_limit.reached()
        if idle:
            self._stop.begin(idle)

    def _is_ended_by_another(self) -> bool:
        with contextlib.suppress(OSError, ValueError):
            return os.access(self.attempt.at("exit.json"), os.F_OK) and self.attempt.ended() is not None
        return False

    def _heed_signal(self) -> None:
        """End the job, since a cancel or a signal without a word of why says so."""
        if self._stop.cause is not None:
            return
        asked = self.attempt.cancellation()
        cause = self._cause_of_signal(asked)
        is_told = asked is None and self._was_for_all()
        if self.allocation.is_scheduled and asked is None:
            self._is_taken_away = self.allocation.gives_reasons
            self._taken_at = None if self.allocation.gives_reasons else time.monotonic()
        if self._job.status is None or is_told:
            self._stop.begin(cause, is_from_outside=True, is_told=is_told)
        elif asked is None or self.allocation.is_scheduled:
            # The same signal has reached the job's processes too, and some of them end sooner, even with code 0.
            self._stop.cause = cause

    def _was_for_all(self) -> bool:
        """Return whether the TERM that has come was for every process of the job."""
        if self.witness is not None:
            return has_had_term(self.witness)
        return _is_signal(self._job.status, signal.SIGTERM)

    def _cause_of_signal(self, asked: CancelRecord | None) -> Cause:
        """Return how a job ended whose supervisor was told to end it."""
        if asked is not None:
            return Cause(protocol.CANCELLED, protocol.REASON_CANCELLED, words_of(asked))
        if os.getppid() != self.guard:
            message = f"its guard (process {self.guard}) was killed"
        elif self.request.get("waiter") and logout_of_user() is None:
            # A person knows the id of the guard, and ends the job by a kill.
            return Cause(protocol.CANCELLED, protocol.REASON_CANCELLED, "somebody on the host ended its process")
        else:
            who = (
                "its launcher, or somebody on the host," if self.allocation.is_scheduled else "somebody, or the system,"
            )
            message = f"{who} ended its supervisor (process {os.getpid()}) by a signal"
        if not self.allocation.is_explained:
            message = with_logout(message)
        return Cause(protocol.LOST, protocol.REASON_LOST, message)

    def _await_signal(self, timeout_s: float) -> None:
        """Wait a moment: if a signal has ended the job's processes, it may be about to arrive here as well."""
        deadline = time.monotonic() + timeout_s
        while not self._is_told_to_end and time.monotonic() < deadline:
            time.sleep(0.01)
        if self._is_told_to_end:
            self._heed_signal()

    # -- end -----------------------------------------------------------------------------------------------------

    def _record_end(self) -> None:
        status = self._stop.status()
        assert status is not None
        exit_code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        details: EndFacts = {}
        cause = self._stop.cause
        if cause is None and self._is_taken_back(status):
            self._is_taken_away = True
            cause = Cause(protocol.LOST, protocol.REASON_LOST, "its scheduler has taken its nodes back")
        first = self.allocation.first_failed() if status or cause is not None else None
        if first is not None:
            # The others may have failed because of it, or have been killed for it.
            exit_code, number = first[1], None
        details["exit_code"], details["signal"] = exit_code, number
        if self._taken_at is not None:
            # It was over a limit when its launcher ended it without saying why.
            cause = self._limits.over_memory() or self._limits.time_is_up(self._taken_at) or cause
        if cause is not None:
            state, reason, message = cause
            if reason == protocol.ORPHANED:
                details.update(orphan_mark(self.attempt, self.request))
        elif _is_gone(self.attempt.path):
            state, reason, message = protocol.FAILED, protocol.USER_ERROR, "it deleted its own job directory"
        elif exit_code == 0:
            state, reason, message = protocol.SUCCEEDED, None, ""
        elif exit_code is not None and exit_code == self._checkpoint_exit_code():
            message = f"it saved its state and asked to be started again (exit code {exit_code})"
            state, reason = protocol.FAILED, protocol.CHECKPOINTED
        else:
            state = protocol.FAILED
            reason, kind, message, remedy = verdict_of(
                self.attempt, self._errors.last(), self._killed_workers, exit_code, number
            )
            details["kind"], details["remedy"] = kind, remedy
            if first is not None:
                message += f", first where NODE_RANK is {first[0]}"
        if self._is_taken_away:
            # Its scheduler knows why; the process that asks the scheduler makes the exit record from this note.
            facts = self.facts()
            facts.update(details)
            self.attempt.note_stop(state, reason, message, facts)
        else:
            self._finish(state, reason, message, details)

    def _is_taken_back(self, status: int) -> bool:
        """Return whether the scheduler has made the job end, and has not told this process yet."""
        asks = self.allocation.is_taken_back
        return asks is not None and asks(_is_signal(status, signal.SIGTERM), self._errors.last())

    def _checkpoint_exit_code(self) -> int | None:
        """Return the exit code that asks for a next attempt; None when the job may not ask for one."""
        may_ask = protocol.CHECKPOINTED in self._spec.get("recover", {})
        return self._spec.get("checkpoint_exit_code") if may_ask else None

    def _finish(self, state: str, reason: str | None, message: str, details: EndFacts) -> None:
        """Write the exit record. If even the space set aside for it is not enough, somebody may make room."""
        deadline = time.monotonic() + _RECORD_TIMEOUT_S
        while True:
            try:
                facts = self.facts()
                facts.update(details)
                return self.attempt.finish(state, reason, message, **facts)
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(1)

    def facts(self) -> EndFacts:
        """Return the facts of the exit record besides the end itself."""
        released_at = records.now()
        leased_at, gpus = self.allocation.leased_at, self.allocation.gpus
        facts: EndFacts = {
            "submitted_at": self.request["requested_at"],
            "leased_at": leased_at,
            "started_at": self._started_at,
            "ended_at": self._code_ended_at or released_at,
            "released_at": released_at,
            "gpus": [gpu["index"] for gpu in gpus],
            "gpu_keys": [gpu["key"] for gpu in gpus],
            "gpu_seconds": round(len(gpus) * self._leased_s(leased_at, released_at), 3),
            "peak_memory_bytes": self._peak_memory(),
            "host": self.allocation.host,
            "pid": os.getpid(),
        }
        if self._ran_s is not None:
            facts["seconds"] = {"running": round(self._ran_s, 3)}
        return facts

    def _leased_s(self, leased_at: str, released_at: str) -> float:
        """Return for how long it has had its GPUs, even if the clock of this host was set meanwhile."""
        by_clock = records.seconds_between(leased_at, released_at)
        lived = time.clock_gettime(time.CLOCK_BOOTTIME) - self._began_at
        if self.allocation.is_scheduled:
            # The scheduler says since when, perhaps from long before this process was started.
            return max(0.0, by_clock)
        return by_clock if -_MOMENT_S < by_clock - lived < _START_S else lived

    def _peak_memory(self) -> int:
        limits = getattr(self, "_limits", None)
        return 0 if limits is None else limits.note_peak()


def _is_gone(path: str) -> bool:
    """Return whether a folder does not exist; one that cannot be looked at does."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _is_signal(status: int | None, number: int) -> bool:
    """Return whether a signal has ended a process, or a child whose end a shell reports in its exit code."""
    if status is None:
        return False
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status) == number
    return os.WEXITSTATUS(status) == 128 + number


def _drain(fd: int) -> None:
    with contextlib.suppress(BlockingIOError):
        while os.read(fd, 4096):
            pass
