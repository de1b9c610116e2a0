"""
One process per running attempt: it holds the GPU leases, runs run.sh, keeps its output, and records how it ended.

It is a subreaper (prctl(2)), so that whatever the job leaves behind stays below it and can be found and ended. A
second, tiny process, the guard, waits for the supervisor's death on a pipe: should the supervisor be killed, the
guard kills the whole job. The guard keeps the leases open as well, so that GPUs are free when nothing runs on them
any more, a few milliseconds after the supervisor's death.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import selectors
import signal
import subprocess
import time
import traceback
import uuid
from typing import Any

from . import leases, processes, protocol, records
from .diagnosis import diagnose
from .store import Attempt, write_text

_TICK_S = 0.5
_LEFTOVER_GRACE_S = 2.0
_KILL_PATIENCE_S = 10.0
_FRESH_S = 3600.0
_PIECE = 1 << 16
_MEMORY_MARGIN = 1.25
_PR_SET_CHILD_SUBREAPER = 36
# What sshd and systemd set for the connection that happened to start all this; it says nothing about the job.
_FOREIGN = (
    "SSH_CLIENT",
    "SSH_CONNECTION",
    "SSH_TTY",
    "SSH_AUTH_SOCK",
    "XDG_SESSION_ID",
    "OLDPWD",
    "CUDA_VISIBLE_DEVICES",
)


def supervise(attempt: Attempt, gpus: list[dict[str, Any]], fds: list[int], leased_at: str) -> None:
    """
    Run an attempt from claim to exit record.

    :param gpus: ``key`` and ``index`` of each leased GPU.
    :param fds: the open files that are the leases.
    :param leased_at: when they were leased.
    """
    for fd in fds:
        os.set_inheritable(fd, False)
    run = _Run(attempt, gpus, fds, leased_at)
    # A cancel looks for the claim and then sends a signal, so this comes before the claim.
    run.listen()
    claim = dict(processes.identity(), by="supervisor", at=records.now(), leased_at=leased_at, gpus=gpus)
    if not attempt.claim(dict(claim, token=run.token)):
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        run.start()
        run.watch()
        run.record_end()
    except Exception:
        run.kill_all()
        message = "its supervisor could not run it: " + traceback.format_exc().strip().splitlines()[-1]
        attempt.event("supervisor_error", traceback=traceback.format_exc())
        attempt.finish(protocol.FAILED, protocol.LAUNCH_FAILED, message, **run.facts())
    run.dismiss_guard()


class _Run:
    def __init__(self, attempt: Attempt, gpus: list[dict[str, Any]], fds: list[int], leased_at: str) -> None:
        self.attempt = attempt
        self.job = attempt.job
        self.request = attempt.request()
        self.spec: dict[str, Any] = self.request["spec"]
        self.gpus = gpus
        self.fds = fds
        self.leased_at = leased_at
        self.started_at: str | None = None
        self.code_ended_at: str | None = None
        self.pid = 0
        self.status: int | None = None
        self.peak_memory = 0
        self.stop_reason: tuple[str, str, str] | None = None
        self.kill_at: float | None = None
        self.cancel_asked = False
        self.guard_pid = 0
        self.guard_pipe = -1
        # Only this attempt's processes have this in their environment.
        self.token = f"GPU_RUN_ATTEMPT={uuid.uuid4().hex}"

    # -- start ---------------------------------------------------------------------------------------------------

    def listen(self) -> None:
        """Catch the signals that are for the supervisor, and have them end its waiting."""
        self.wakeup, wakeup_out = os.pipe()
        for fd in (self.wakeup, wakeup_out):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(wakeup_out, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.signal(signal.SIGTERM, self._note_cancel)
        signal.signal(signal.SIGINT, self._note_cancel)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def _note_cancel(self, number: int, frame: object) -> None:
        self.cancel_asked = True

    def start(self) -> None:
        env = self._environment()
        self._prepare_folders()
        self.log = _log_file(self.job.at("logs", "training.log"))
        self.error_log = _log_file(self.job.at("logs", "error.log"))
        self.errors, errors_out = os.pipe()
        os.set_blocking(self.errors, False)
        self._start_guard()
        self.oom_kills = processes.oom_kills()
        self.started_at = records.now()
        process = subprocess.Popen(
            ["bash", self.job.at("run.sh")],
            cwd=self.request.get("cwd") or self.job.at("code"),
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=errors_out,
            start_new_session=True,
        )
        os.close(errors_out)
        self.pid = process.pid
        os.write(self.guard_pipe, b"%d " % self.pid)
        # It is this class that waits for it, together with everything else that ends below the supervisor.
        process.returncode = 0
        self.began = time.monotonic()
        self.attempt.event("started", pid=self.pid, gpus=[gpu["index"] for gpu in self.gpus])
        with contextlib.suppress(OSError):
            write_text(self.job.at("logs", "start_time.log"), self.started_at + "\n")
            write_text(self.job.at("outputs", "status.txt"), f"RUNNING since {self.started_at}\n")

    def _environment(self) -> dict[str, str]:
        env = {name: value for name, value in os.environ.items() if name not in _FOREIGN}
        job = self.job
        env.update(
            JOB_ID=job.job_id,
            JOB_DIR=job.path,
            OUTPUT_DIR=job.at("outputs"),
            LOG_DIR=job.at("logs"),
            DATA_DIR=job.at("data"),
            MODEL_DIR=job.at("models"),
            CHECKPOINT_DIR=job.at("outputs", "checkpoints"),
            PROGRESS_FILE=job.at("logs", "progress.jsonl"),
            ATTEMPT=str(self.attempt.number),
            GPU_COUNT=str(len(self.gpus)),
            CUDA_DEVICE_ORDER="PCI_BUS_ID",
            CUDA_VISIBLE_DEVICES=",".join(str(gpu["index"]) for gpu in self.gpus),
            PYTHONUNBUFFERED="1",
        )
        if self.spec.get("cpus"):
            env["OMP_NUM_THREADS"] = str(self.spec["cpus"])
        if self.request["settings"].get("python"):
            env["PYTHON"] = os.path.expanduser(self.request["settings"]["python"])
        built = records.read_json(self.attempt.at("environment.json"))
        if built:
            env["VIRTUAL_ENV"] = built["path"]
            env.pop("PYTHON", None)
        env.update(self.request.get("context", {}))
        env.update(records.read_json(self.attempt.at("env.json")) or {})
        # It has been read; a secret in it shall not lie on the disk for longer than needed.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.attempt.at("env.json"))
        name, value = self.token.split("=", 1)
        env[name] = value
        return env

    def _prepare_folders(self) -> None:
        for folder in ("outputs/checkpoints", "logs/tensorboard", "code"):
            os.makedirs(self.job.at(folder), exist_ok=True)
        self.attempt.clear_markers()

    def _start_guard(self) -> None:
        """Fork the process that kills the job when this one dies, which it learns by a pipe that closes."""
        reads, self.guard_pipe = os.pipe()
        self.guard_pid = os.fork()
        if self.guard_pid:
            os.close(reads)
            return
        try:
            os.close(self.guard_pipe)
            os.close(self.errors)
            os.setsid()
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
            _guard(reads, self.token)
        finally:
            os._exit(0)

    # -- run -----------------------------------------------------------------------------------------------------

    def watch(self) -> None:
        """Wait for the user's code, relay its errors, and hold it to its limits."""
        selector = selectors.DefaultSelector()
        selector.register(self.errors, selectors.EVENT_READ)
        selector.register(self.wakeup, selectors.EVENT_READ)
        fresh_at = time.monotonic() + _FRESH_S
        look_at = time.monotonic()
        while self.status is None:
            for key, _ in selector.select(max(0.0, look_at - time.monotonic())):
                if key.fd == self.errors:
                    if not self._relay_errors():
                        selector.unregister(self.errors)
                else:
                    _drain(self.wakeup)
            self._reap()
            if self.cancel_asked:
                self._cancel()
            if self.status is None and time.monotonic() >= look_at:
                look_at = time.monotonic() + _TICK_S
                self._check_limits()
                if time.monotonic() > fresh_at:
                    leases.keep_fresh(self.fds)
                    fresh_at = time.monotonic() + _FRESH_S
        self.code_ended_at = records.now()
        self._end_leftovers()
        while self._relay_errors():
            pass

    def _relay_errors(self) -> bool:
        """Copy what the job wrote to stderr into both logs; False when there is no more."""
        try:
            piece = os.read(self.errors, _PIECE)
        except BlockingIOError:
            # Nothing now. At the end, something that left the process tree may still keep the pipe open.
            return self.status is None
        for fd in (self.log, self.error_log):
            _write_all(fd, piece)
        return bool(piece)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self.pid:
                self.status = status

    def _check_limits(self) -> None:
        memory_limit = self.spec.get("memory_bytes")
        memory = processes.memory_bytes(self._tree(), above=memory_limit or self.peak_memory)
        self.peak_memory = max(self.peak_memory, memory)
        ran = time.monotonic() - self.began
        time_limit = self.spec.get("time_limit_s")
        if time_limit and ran > time_limit:
            self._stop(protocol.FAILED, protocol.TIME_LIMIT, f"it ran longer than its time limit of {time_limit:g} s")
        if memory_limit and memory > memory_limit:
            self._stop(
                protocol.FAILED,
                protocol.OUT_OF_MEMORY,
                f"it used {memory / 2**30:.2f} GiB of host memory; its limit is {memory_limit / 2**30:.2f} GiB",
            )
            if memory > memory_limit * _MEMORY_MARGIN:
                # It goes on growing through its grace; the host's other jobs come first.
                self.kill_at = time.monotonic()
        if self.kill_at is not None and time.monotonic() >= self.kill_at:
            self.attempt.event("killed")
            self.kill_all()

    def _cancel(self) -> None:
        asked = records.read_json(self.attempt.at("cancel.json"))
        message = "cancelled by {}".format(asked["by"]) if asked else "somebody on the host ended its supervisor"
        self._stop(protocol.CANCELLED, protocol.REASON_CANCELLED, message)

    def _stop(self, state: str, reason: str, message: str) -> None:
        """Ask the job to end; it is killed when its grace is over. The first cause is the one that is recorded."""
        if self.stop_reason is not None or self.status is not None:
            return
        self.stop_reason = (state, reason, message)
        self.kill_at = time.monotonic() + self.spec.get("grace_s", 10.0)
        self.attempt.event("stopping", reason=reason)
        tree = self._tree()
        processes.send_signal(tree, signal.SIGTERM)
        # A stopped process does not see a TERM.
        processes.send_signal(tree, signal.SIGCONT)

    # -- end -----------------------------------------------------------------------------------------------------

    def _tree(self) -> list[int]:
        """Return the job's processes: all below this one but the guard."""
        below = processes.descendants(os.getpid()) - {self.guard_pid}
        return [pid for pid in below if processes.start_ticks(pid) is not None]

    def _end_leftovers(self) -> None:
        """End what the user's code left running: when it has ended, the job has."""
        left = self._tree()
        if left:
            self.attempt.event("ending_leftovers", count=len(left))
            processes.send_signal(left, signal.SIGTERM)
            deadline = time.monotonic() + _LEFTOVER_GRACE_S
            while self._tree() and time.monotonic() < deadline:
                self._relay_errors()
                self._reap()
                time.sleep(0.02)
            self.kill_all()

    def kill_all(self) -> None:
        """Kill every process of the job."""
        deadline = time.monotonic() + _KILL_PATIENCE_S
        while time.monotonic() < deadline:
            left = self._tree()
            if not left:
                return
            processes.send_signal(left, signal.SIGKILL)
            time.sleep(0.01)
            self._reap()

    def facts(self) -> dict[str, Any]:
        """Return what the exit record says besides how it ended."""
        released_at = records.now()
        return {
            "submitted_at": self.request["requested_at"],
            "leased_at": self.leased_at,
            "started_at": self.started_at,
            "ended_at": self.code_ended_at or released_at,
            "released_at": released_at,
            "gpus": [gpu["index"] for gpu in self.gpus],
            "gpu_keys": [gpu["key"] for gpu in self.gpus],
            "gpu_seconds": round(len(self.gpus) * records.seconds_between(self.leased_at, released_at), 3),
            "peak_memory_bytes": self.peak_memory,
            "host": processes.hostname(),
            "pid": os.getpid(),
        }

    def record_end(self) -> None:
        assert self.status is not None
        exit_code = os.WEXITSTATUS(self.status) if os.WIFEXITED(self.status) else None
        number = os.WTERMSIG(self.status) if os.WIFSIGNALED(self.status) else None
        if self.stop_reason is not None:
            state, reason, message = self.stop_reason
        elif not os.path.isdir(self.attempt.path):
            state, reason, message = protocol.FAILED, protocol.USER_ERROR, "it deleted its own job directory"
        elif exit_code == 0:
            state, reason, message = protocol.SUCCEEDED, None, ""
        else:
            killed_for_memory = processes.oom_kills() > self.oom_kills
            reason, message = diagnose(exit_code, number, killed_for_memory, self.job.at("logs"))
            state = protocol.FAILED
        self.attempt.finish(state, reason, message, exit_code=exit_code, signal=number, **self.facts())

    def dismiss_guard(self) -> None:
        """Let the guard go, and the leases with it."""
        if self.guard_pid:
            with contextlib.suppress(OSError):
                os.write(self.guard_pipe, b".")
                os.close(self.guard_pipe)
                os.waitpid(self.guard_pid, 0)
        for fd in self.fds:
            os.close(fd)


def _guard(pipe: int, token: str) -> None:
    """Wait for a full stop, or for the supervisor's death; then kill what it ran."""
    heard = b""
    while not heard.endswith(b"."):
        piece = os.read(pipe, 64)
        if not piece:
            with contextlib.suppress(ValueError, OSError):
                os.killpg(int(heard), signal.SIGKILL)
            processes.kill_with_environment(token, _KILL_PATIENCE_S)
            return
        heard += piece


def _log_file(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


def _write_all(fd: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(fd, data) :]
        except OSError:
            # A full disk must not block the job, nor end its supervisor.
            return


def _drain(fd: int) -> None:
    with contextlib.suppress(BlockingIOError):
        while os.read(fd, 4096):
            pass
