"""
How a job is stopped.

Without ``warn_before``: the stop signal to its main process, and when the grace is over, KILL to whatever is left.

With ``warn_before``: the warning signal comes first, that long before the time limit. When the stop comes from outside,
such as a cancel, the warning is sent at once, the stop signal when the grace is over, and KILL when it is over once
more: such a stop takes twice the grace at most. Nobody is warned who would die of it.
"""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING, NamedTuple

from ..linux import processes
from .main_process import catching
from .node_orders import NodeOrders, NodesTold
from .signals import name_of, number_of
from .telling import Telling

if TYPE_CHECKING:
    from ..protocol.spec import Spec
    from ..store.directories import Attempt
    from .job_processes import JobProcesses


class Cause(NamedTuple):
    """Why a job is stopped, which is how it has ended."""

    state: str
    reason: str
    message: str


class Stop:
    """
    The stop of a job, if it comes to that.

    :param attempt: where to note what was done.
    :param job: its processes.
    :param grace_s: its grace.
    :param orders: to its nodes, if it runs on several.
    """

    def __init__(
        self, attempt: Attempt, job: JobProcesses, spec: Spec, grace_s: float, orders: NodeOrders | None = None
    ) -> None:
        self._attempt = attempt
        self._job = job
        self._grace_s = grace_s
        self._orders = orders
        self._number = number_of(spec.get("stop_signal") or "TERM") or int(signal.SIGTERM)
        self._to_all = spec.get("stop_signal_to") == "all"
        self._warn_before_s = spec.get("warn_before_s") or 0.0
        self._warning = number_of(spec.get("warn_signal") or "USR1") or int(signal.SIGUSR1)
        self._warned_at: float | None = None
        self._signal_at: float | None = None
        self._kill_at: float | None = None
        self._telling: Telling | NodesTold | None = None
        #: The first cause; None as long as the job is not to be stopped.
        self.cause: Cause | None = None

    @property
    def was_warned(self) -> bool:
        """Whether the job has had its warning."""
        return self._warned_at is not None

    @property
    def warning_name(self) -> str:
        """The name of the warning signal."""
        return name_of(self._warning)

    def warn(self, *, is_rehearsed: bool = False) -> list[int]:
        """
        Send the warning to those whom it is for, and return them; there may be nobody, or nobody yet.

        :param is_rehearsed: the real one comes in its time nevertheless.
        """
        pids = catching(self._job.tops(), self._warning) if self._orders is None else [self._job.top]
        if pids:
            self._warned_at = self._warned_at if is_rehearsed else time.monotonic()
            self._attempt.event("warned", number=self._warning, pids=pids)
            if self._orders is None:
                processes.send_signal(pids, self._warning)
            else:
                self._orders.warn(self._warning)
        return pids

    def begin(
        self, cause: Cause, *, is_from_outside: bool = False, is_told: bool = False, is_time_limit: bool = False
    ) -> None:
        """
        Begin to stop the job; only the first cause counts.

        :param is_from_outside: it is no limit of the job's own.
        :param is_told: every process of the job has just had a TERM.
        :param is_time_limit: the stop signal comes as long after the warning as at the time limit.
        """
        if self.cause is not None:
            return
        self.cause = cause
        self._attempt.event("stopping", reason=cause.reason)
        now = time.monotonic()
        self._signal_at = now
        if is_from_outside and self._warn_before_s:
            after_s = self._warn_before_s if is_time_limit else self._grace_s
            if self._warned_at is None or self._warned_at + after_s < now:
                self.warn()
            if self._warned_at is not None:
                self._signal_at = max(now, self._warned_at + after_s)
        if is_told:
            self._kill_at = self._signal_at + self._grace_s
            self._telling = self._tell(is_told=True)
        self.go_on()

    def kill_soon(self) -> None:
        """Let the grace be over."""
        self._kill_at = time.monotonic()

    def go_on(self) -> None:
        """Do what is due."""
        now = time.monotonic()
        if self._telling is None and self._signal_at is not None and now >= self._signal_at:
            self._telling = self._tell()
            self._kill_at = now + self._grace_s if self._kill_at is None else self._kill_at
            self._attempt.event("stop_signal", number=self._number, pids=self._telling.told)
        if self._kill_at is not None and now >= self._kill_at:
            self._attempt.event("killed")
            if self._orders is not None:
                self._orders.kill()
            self._job.kill()

    def _tell(self, *, is_told: bool = False) -> Telling | NodesTold:
        if self._orders is not None:
            return NodesTold(self._orders, self._job, self._number, to_all=self._to_all, is_told=is_told)
        number = int(signal.SIGTERM) if is_told else self._number
        return Telling(self._job, number, to_all=self._to_all, is_told=is_told)

    def described(self) -> str:
        """Return what is done about the job, as a sentence."""
        name, now = name_of(self._number), time.monotonic()
        if self._telling is not None:
            whom = " and ".join(str(pid) for pid in self._telling.told) or "nobody"
            return f"{name} was sent to process {whom}; what is left in {self._grace_s:g} s is killed"
        in_s = max(0.0, (self._signal_at or now) - now)
        then = f"{name} follows in {in_s:.0f} s, and what is left {self._grace_s:g} s after that is killed"
        return f"{self.warning_name} was sent; {then}"

    def is_over(self) -> bool:
        """Return whether the job has ended, as far as anybody has to wait for it."""
        is_left = self._job.reap()
        if self._telling is None or not is_left:
            return self._job.status is not None
        return self._telling.is_over()

    def finish(self) -> None:
        """Take away what was only kept from going on, when the stop is over."""
        if self._telling is not None:
            self._telling.end_shells()
            self._job.reap_top()

    def status(self) -> int | None:
        """Return the exit status of the job's main process."""
        told = None if self._telling is None else self._telling.status()
        return self._job.status if told is None else told
