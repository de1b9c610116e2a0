"""
Two processes per running attempt: the supervisor runs run.sh, keeps its output, and records how it ended; its parent,
the guard, keeps the GPU leases and outlives it.

Both are subreapers (prctl(2)). So whatever the job leaves behind stays below the supervisor, or below the guard if the
supervisor is killed, and can be found and ended.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from functools import partial
from typing import TYPE_CHECKING

from .. import protocol
from ..errors import traceback_text
from ..gpus.leases import leases_of
from ..linux import processes
from ..linux.logout import logout_of_user, with_logout
from ..protocol.grace import grace_s
from ..recovery.words import beginning
from ..store import records
from ..store.claims import claim_by
from ..store.directories import Attempt
from ..store.restoring import make_folder
from ..store.writing import write_text
from . import guard
from .allocation import Allocation
from .diagnosis import TAIL_BYTES, diagnose, read_end
from .killed_workers import KilledWorkers
from .signals import HANDED_ON
from .variables import job_variables

if TYPE_CHECKING:
    from ..protocol.cancellation import CancelRecord
    from ..protocol.records import EndFacts

_TICK_S = 0.5
_LEFTOVER_GRACE_S = 2.0
_KILL_TIMEOUT_S = 10.0
_RECORD_TIMEOUT_S = 60.0
_TERM_TIMEOUT_S = 1.0
_END_TIMEOUT_S = 0.05
_PIECE = 1 << 16
_MEMORY_MARGIN = 1.25
# The largest share of time for looking at the job's memory, which slows down the job as well.
_MEMORY_SHARE = 0.05
_MEMORY_PAUSE_S = 10.0


def supervise(attempt: Attempt, allocation: Allocation, *, waited: bool = False) -> None:
    """
    Run an attempt from claim to exit record, and return when all its processes have ended and its GPUs are free.

    :param waited: this process has claimed the attempt before, in order to wait.
    """
    fds = allocation.fds
    for fd in fds:
        os.set_inheritable(fd, False)
    run = _AttemptRun(attempt, allocation)
    processes.become_subreaper()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, guard.SIGNALS)
    pid = processes.start_copy(partial(_begin, run, waited))
    try:
        leases = leases_of(run.request["settings"])
        status = guard.stand_guard(pid, leases, [gpu["key"] for gpu in allocation.gpus], fds)
        guard.record_loss(attempt, run.token, status, run.facts(), is_explained=allocation.is_explained)
    finally:
        # What this process starts afterwards would inherit the blocked signals.
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _begin(run: _AttemptRun, waited: bool) -> None:
    """Run as the supervisor, below the guard."""
    processes.become_subreaper()
    processes.die_with_parent(signal.SIGTERM)
    if os.getppid() != run.guard:
        # It was killed before the kernel knew that this process wants to hear of it.
        return
    # A cancel looks for the claim and then sends a signal, so listening begins before the claim.
    run.listen()
    if run.claim(waited):
        run.to_the_end()


class _AttemptRun:
    def __init__(self, attempt: Attempt, allocation: Allocation) -> None:
        self.attempt = attempt
        self.job = attempt.job
        self.request = attempt.request()
        self.spec = self.request["spec"]
        self.allocation = allocation
        self.started_at: str | None = None
        self.code_ended_at: str | None = None
        self.pid = 0
        self.status: int | None = None
        self.peak_memory = 0
        self.memory_due = 0.0
        self.last_errors = b""
        self.stop_reason: tuple[str, str, str] | None = None
        self.kill_at: float | None = None
        self.is_told_to_end = False
        self.heard: set[int] = set()
        self.is_taken_away = False
        self.taken_at: float | None = None
        # Only this attempt's processes have this in their environment.
        self.token = f"GPU_RUN_ATTEMPT={records.new_name()}"
        # The supervisor is a copy of the process that makes this.
        self.guard = os.getpid()

    def listen(self) -> None:
        """Catch the signals to the supervisor, and let them interrupt its waiting."""
        self.wakeup, wakeup_out = os.pipe()
        for fd in (self.wakeup, wakeup_out):
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
        self.is_told_to_end = True

    def _note_signal(self, number: int, frame: object) -> None:
        # A launcher's hang-up is about its own connection.
        if number != signal.SIGHUP or not self.allocation.is_scheduled or self.allocation.gives_reasons:
            self.heard.add(number)

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
        try:
            self._start()
            self._watch()
            self._record_end()
        except Exception:
            self._kill_all()
            message = "its supervisor could not run it: " + traceback_text().strip().splitlines()[-1]
            self.attempt.event("supervisor_error", traceback=traceback_text())
            self._finish(protocol.FAILED, protocol.LAUNCH_FAILED, message, {})

    # -- start ---------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        env = job_variables(self.attempt, self.request, self.allocation)
        name, value = self.token.split("=", 1)
        env[name] = value
        for folder in (("outputs", "checkpoints"), ("logs", "tensorboard"), ("code",)):
            make_folder(self.job.path, *folder)
        self.attempt.clear_markers()
        self.attempt.note_checkpoint()
        self.log = _log_file(self.job.at("logs", "training.log"))
        self.error_log = _log_file(self.job.at("logs", "error.log"))
        self._begin_logs()
        self.errors, errors_out = os.pipe()
        os.set_blocking(self.errors, False)
        self.killed_workers = KilledWorkers()
        self.started_at = records.now()
        process = subprocess.Popen(
            [*(self.allocation.launcher or ("bash",)), self.job.at("run.sh")],
            cwd=self.request.get("cwd") or self.job.at("code"),
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=errors_out,
            start_new_session=True,
            # If guard and supervisor are killed together, at least this process dies with them.
            preexec_fn=partial(_become_job, self.request["umask"]),
        )
        os.close(errors_out)
        self.pid = process.pid
        # This class waits for the process, together with everything else that ends below the supervisor.
        process.returncode = 0
        self.began = time.monotonic()
        self.attempt.event("started", pid=self.pid, gpus=[gpu["index"] for gpu in self.allocation.gpus])
        with contextlib.suppress(OSError):
            write_text(self.job.at("logs", "start_time.log"), self.started_at + "\n")
            write_text(self.job.at("outputs", "status.txt"), f"RUNNING since {self.started_at}\n")

    def _begin_logs(self) -> None:
        """Say in the log why it goes on, if it does, and note where this attempt's output begins."""
        recovery = self.request.get("recovery")
        if recovery is not None:
            if _ends_within_a_line(self.log):
                _write_all(self.log, b"\n")
            _write_all(self.log, f"gpu-run: {beginning(recovery, self.attempt.number)}\n".encode())
        with contextlib.suppress(OSError):
            self.attempt.note_log_starts(
                {"training": os.fstat(self.log).st_size, "error": os.fstat(self.error_log).st_size}
            )

    # -- run -----------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Wait for the user's code, relay its errors, and hold it to its limits."""
        selector = selectors.DefaultSelector()
        selector.register(self.errors, selectors.EVENT_READ)
        selector.register(self.wakeup, selectors.EVENT_READ)
        look_at = time.monotonic()
        while self.status is None:
            for key, _ in selector.select(max(0.0, look_at - time.monotonic())):
                if key.fd == self.errors:
                    if not self._relay_errors():
                        selector.unregister(self.errors)
                else:
                    _drain(self.wakeup)
            self._reap()
            if self.is_told_to_end:
                self._heed_signal()
            if self.status is None:
                self._hand_on()
            if self.status is None and time.monotonic() >= look_at:
                look_at = time.monotonic() + _TICK_S
                self._check_limits()
        self.code_ended_at = records.now()
        if self.stop_reason is None and _is_signal(self.status, signal.SIGTERM):
            self._await_signal(_TERM_TIMEOUT_S)
        elif self.allocation.is_scheduled:
            self._await_signal(_END_TIMEOUT_S)
        self._end_leftovers()
        while self._relay_errors():
            pass

    def _hand_on(self) -> None:
        """Hand on what was heard to the job's main process, which may have set a trap for it."""
        while self.heard:
            number = self.heard.pop()
            number = self.allocation.stand_ins.get(number, number)
            self.attempt.event("signal_handed_on", number=number)
            steps = processes.topmost_named(self._tree(), "srun") if self.allocation.warns_steps else []
            processes.send_signal(steps or [self.pid], number)

    def _relay_errors(self) -> bool:
        """Copy what the job wrote to stderr to both logs; return False when nothing more will come."""
        try:
            piece = os.read(self.errors, _PIECE)
        except BlockingIOError:
            # Nothing now. At the end, a process that left the process tree may still keep the pipe open.
            return self.status is None
        self.last_errors = (self.last_errors + piece)[-TAIL_BYTES:]
        for fd in (self.log, self.error_log):
            _write_all(fd, piece)
        return bool(piece)

    def _reap(self) -> bool:
        """Reap children that have ended; return False when none are left, which the kernel knows for sure."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            # This covers memory that grew and was freed between two looks.
            self.peak_memory = max(self.peak_memory, usage.ru_maxrss * 1024)
            if pid == self.pid:
                self.status = status

    def _check_limits(self) -> None:
        now = time.monotonic()
        if os.access(self.attempt.at("cancel.json"), os.F_OK) and self.attempt.cancellation() is not None:
            # A cancel comes as a signal, but only if this process or its scheduler can be reached, and the claim read.
            self._heed_signal()
        time_limit = self.spec.get("time_limit_s")
        if time_limit and now - self.began > time_limit:
            self._stop(protocol.FAILED, protocol.TIME_LIMIT, _too_long(time_limit))
        if now >= self.memory_due:
            self._check_memory()
            took = time.monotonic() - now
            self.memory_due = now + min(took / _MEMORY_SHARE, _MEMORY_PAUSE_S)
        if self.kill_at is not None and time.monotonic() >= self.kill_at:
            self.attempt.event("killed")
            self._kill_all()

    def _check_memory(self) -> None:
        limit = self.spec.get("memory_bytes")
        sizes = processes.residents(self._tree())
        self.killed_workers.look(sizes)
        memory = processes.memory_bytes(sizes, above=limit or self.peak_memory)
        self.peak_memory = max(self.peak_memory, memory)
        if limit and memory > limit:
            self._stop(protocol.FAILED, protocol.OUT_OF_MEMORY, _too_much(memory, limit))
            if memory > limit * _MEMORY_MARGIN:
                # It would grow on through its grace; the host's other jobs come first.
                self.kill_at = time.monotonic()

    def _heed_signal(self) -> None:
        """End the job, since a cancel or a signal without a word of why says so."""
        if self.stop_reason is not None:
            return
        asked = self.attempt.cancellation()
        end = self._end_by_signal(asked)
        if self.status is not None and (asked is None or self.allocation.is_scheduled):
            # The same signal has reached the job's processes too, and some of them end sooner, even with code 0.
            self.stop_reason = end
        if self.allocation.is_scheduled and asked is None:
            self.is_taken_away = self.allocation.gives_reasons
            self.taken_at = None if self.allocation.gives_reasons else time.monotonic()
        self._stop(*end)

    def _end_by_signal(self, asked: CancelRecord | None) -> tuple[str, str, str]:
        """Return how a job ended whose supervisor was told to end it."""
        if asked is not None:
            return protocol.CANCELLED, protocol.REASON_CANCELLED, "cancelled by {}".format(asked["by"])
        if os.getppid() != self.guard:
            message = f"its guard (process {self.guard}) was killed"
        elif self.request.get("waiter") and logout_of_user() is None:
            # A person knows the id of the guard, and ends the job by a kill.
            return protocol.CANCELLED, protocol.REASON_CANCELLED, "somebody on the host ended its process"
        else:
            who = (
                "its launcher, or somebody on the host," if self.allocation.is_scheduled else "somebody, or the system,"
            )
            message = f"{who} ended its supervisor (process {os.getpid()}) by a signal"
        if not self.allocation.is_explained:
            message = with_logout(message)
        return protocol.LOST, protocol.REASON_LOST, message

    def _await_signal(self, timeout_s: float) -> None:
        """Wait a moment: if a signal has ended the job's processes, it may be about to arrive here as well."""
        deadline = time.monotonic() + timeout_s
        while not self.is_told_to_end and time.monotonic() < deadline:
            time.sleep(0.01)
        if self.is_told_to_end:
            self._heed_signal()

    def _stop(self, state: str, reason: str, message: str) -> None:
        """Ask the job to end, and kill it when its grace is over. The first cause is recorded."""
        if self.stop_reason is not None or self.status is not None:
            return
        self.stop_reason = (state, reason, message)
        self.kill_at = time.monotonic() + grace_s(self.spec, self.request["settings"])
        self.attempt.event("stopping", reason=reason)
        tree = self._tree()
        processes.send_signal(tree, signal.SIGTERM)
        # A stopped process does not handle a TERM.
        processes.send_signal(tree, signal.SIGCONT)

    # -- end -----------------------------------------------------------------------------------------------------

    def _tree(self) -> set[int]:
        """Return the job's processes, which are all those below this one."""
        return processes.descendants(os.getpid())

    def _end_leftovers(self) -> None:
        """End what the user's code left running: when that code has ended, the job has."""
        if not self._reap():
            return
        left = self._tree()
        self.attempt.event("ending_leftovers", count=len(left))
        processes.send_signal(left, signal.SIGTERM)
        processes.send_signal(left, signal.SIGCONT)
        deadline = time.monotonic() + _LEFTOVER_GRACE_S
        while self._reap() and time.monotonic() < deadline:
            self._relay_errors()
            time.sleep(0.02)
        self._kill_all()

    def _kill_all(self) -> None:
        """Kill every process of the job."""
        deadline = time.monotonic() + _KILL_TIMEOUT_S
        while self._reap() and time.monotonic() < deadline:
            processes.send_signal(self._tree(), signal.SIGKILL)
            time.sleep(0.01)

    def _record_end(self) -> None:
        assert self.status is not None
        exit_code = os.WEXITSTATUS(self.status) if os.WIFEXITED(self.status) else None
        number = os.WTERMSIG(self.status) if os.WIFSIGNALED(self.status) else None
        first = self.allocation.first_failed() if self.status and self.stop_reason is None else None
        if first is not None:
            # The others may have failed because of it, or have been killed for it.
            exit_code, number = first[1], None
        if self.taken_at is not None:
            self.stop_reason = self._limit_reached(self.taken_at) or self.stop_reason
        if self.stop_reason is not None:
            state, reason, message = self.stop_reason
        elif _is_gone(self.attempt.path):
            state, reason, message = protocol.FAILED, protocol.USER_ERROR, "it deleted its own job directory"
        elif exit_code == 0:
            state, reason, message = protocol.SUCCEEDED, None, ""
        elif exit_code is not None and exit_code == self._checkpoint_exit_code():
            message = f"it saved its state and asked to be started again (exit code {exit_code})"
            state, reason = protocol.FAILED, protocol.CHECKPOINTED
        else:
            state = protocol.FAILED
            # Take the errors from memory, since a full disk may have lost the message about itself.
            words = self.last_errors + self._last_output()
            text = words.decode("utf-8", "replace")
            counted, worker_killed = self.killed_workers.has_counted(), self.killed_workers.is_likely(text)
            reason, message = diagnose(
                exit_code, number, counted, text, worker_killed=worker_killed, run_script=self._run_script()
            )
            if first is not None:
                message += f", first where NODE_RANK is {first[0]}"
        if self.is_taken_away:
            # Its scheduler knows why; the process that asks the scheduler makes the exit record from this note.
            self.attempt.note_stop(state, reason, message, {**self.facts(), "exit_code": exit_code, "signal": number})
        else:
            self._finish(state, reason, message, {"exit_code": exit_code, "signal": number})

    def _checkpoint_exit_code(self) -> int | None:
        """Return the exit code that asks for a next attempt; None when the job may not ask for one."""
        return self.spec.get("checkpoint_exit_code") if protocol.CHECKPOINTED in self.spec.get("recover", {}) else None

    def _last_output(self) -> bytes:
        log, start = self.job.at("logs", "training.log"), self.attempt.log_starts()["training"]
        return read_end(log, min(TAIL_BYTES, max(0, os.fstat(self.log).st_size - start)))

    def _run_script(self) -> str:
        return read_end(self.job.at("run.sh"), TAIL_BYTES).decode("utf-8", "replace")

    def _limit_reached(self, at: float) -> tuple[str, str, str] | None:
        """Return how it ended if it was over a limit when its launcher ended it without saying why."""
        memory, time_limit = self.spec.get("memory_bytes"), self.spec.get("time_limit_s")
        if memory and self.peak_memory > memory:
            return protocol.FAILED, protocol.OUT_OF_MEMORY, _too_much(self.peak_memory, memory)
        if time_limit and at - self.began > time_limit:
            return protocol.FAILED, protocol.TIME_LIMIT, _too_long(time_limit)
        return None

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
        gpus = self.allocation.gpus
        return {
            "submitted_at": self.request["requested_at"],
            "leased_at": self.allocation.since,
            "started_at": self.started_at,
            "ended_at": self.code_ended_at or released_at,
            "released_at": released_at,
            "gpus": [gpu["index"] for gpu in gpus],
            "gpu_keys": [gpu["key"] for gpu in gpus],
            "gpu_seconds": round(len(gpus) * records.seconds_between(self.allocation.since, released_at), 3),
            "peak_memory_bytes": self.peak_memory,
            "host": self.allocation.host,
            "pid": os.getpid(),
        }


def _become_job(umask: int) -> None:
    """Die with the supervisor, and make files under the umask of the user's login; gpu-run's own files are private."""
    processes.die_with_parent(signal.SIGKILL)
    os.umask(umask)


def _is_gone(path: str) -> bool:
    """Return whether a folder does not exist; one that cannot be looked at does."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def _too_much(memory: int, limit: int) -> str:
    return f"it used {memory / 2**30:.2f} GiB of host memory; its limit is {limit / 2**30:.2f} GiB"


def _too_long(limit_s: float) -> str:
    return f"it ran longer than its time limit of {limit_s:g} s"


def _is_signal(status: int, number: int) -> bool:
    """Return whether a signal has ended a process, or a child whose end a shell reports in its exit code."""
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status) == number
    return os.WEXITSTATUS(status) == 128 + number


def _log_file(path: str) -> int:
    with records.log_file(path) as file:
        return os.dup(file.fileno())


def _ends_within_a_line(log: int) -> bool:
    size = os.fstat(log).st_size
    with contextlib.suppress(OSError), open(f"/proc/self/fd/{log}", "rb") as file:
        file.seek(max(0, size - 1))
        return file.read(1) not in (b"", b"\n")
    return False


def _write_all(fd: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(fd, data) :]
        except OSError:
            # A full disk must neither block the job nor end its supervisor.
            return


def _drain(fd: int) -> None:
    with contextlib.suppress(BlockingIOError):
        while os.read(fd, 4096):
            pass
