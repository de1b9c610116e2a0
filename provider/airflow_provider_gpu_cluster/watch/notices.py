"""Tells people what a cluster says is due: in threads of their own, because mail servers may be slow, and once."""

from __future__ import annotations

import contextvars
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from airflow_provider_gpu_cluster.connection.words import words_of
from airflow_provider_gpu_cluster.stats import metrics
from airflow_provider_gpu_cluster.stats.sending import count

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.gpu_run.protocol.notices import Notice, NotifyWhen
    from airflow_provider_gpu_cluster.jobs.status import JobStatus
    from airflow_provider_gpu_cluster.logs.job_log import Log

# How many messages a process sends at the same time.
_AT_ONCE = 8
# How long a task that is about to leave its worker waits for its messages.
LONGEST_WAIT_S = 40.0
_PAUSE_S = 0.1
# What had to wait for longer, behind messages to servers that do not answer, may not be true any more, and the cluster
# lets somebody else tell it.
_WORTH_SENDING_S = 90.0
_FACTS = ("limit_s", "for_s", "left_s")

_pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="gpu-job-notices")
_lock = threading.Lock()
# What this process is sending: the cluster says again that it is due if that takes very long.
_under_way: set[str] = set()


class Notices:
    """
    Tells people about the jobs that one task waits for.

    :param when: what is to be told.
    :param notifier: the path of the notifier's class, and its arguments.
    :param conn_id: connection of the cluster.
    :param ti: the task instance; None if it is not known.
    :param log: the task's log.
    :param note_told: notes on the cluster what was sent, from any thread; None to have the caller do it, see
        :meth:`take_sent`.
    """

    def __init__(
        self,
        when: NotifyWhen,
        notifier: Sequence[Any],
        *,
        conn_id: str,
        ti: Any,
        log: Log,
        note_told: Callable[[str, Notice], object] | None = None,
    ) -> None:
        self.when = when
        self._notifier = notifier
        self._conn_id = conn_id
        self._ti = ti
        self._log = log
        self._sent: deque[tuple[str, Notice]] = deque()
        self._note_told = note_told or (lambda job_id, notice: self._sent.append((job_id, notice)))
        self._begun: list[Future[None]] = []

    def tell(self, status: JobStatus, *, cluster: str) -> None:
        """
        Begin to send what is due, and do not wait for it.

        :param status: of a job; its :attr:`.JobStatus.due` says what is due.
        :param cluster: name of the cluster.
        """
        for notice in status.due:
            event_id = f"{status.job_id}/{notice['attempt']}/{notice['event']}"
            with _lock:
                if event_id in _under_way:
                    continue
                _under_way.add(event_id)
            # What another thread logs belongs into the same task's log.
            context = contextvars.copy_context()
            until = time.monotonic() + _WORTH_SENDING_S
            self._begun.append(_pool.submit(context.run, self._send, event_id, status, notice, cluster, until))

    def wait(self, pause: Callable[[float], None]) -> None:
        """
        Wait a while until everything was sent or has failed.

        :param pause: waits for that many seconds; an exception from it ends the wait.
        """
        until = time.monotonic() + LONGEST_WAIT_S
        while not all(one.done() for one in self._begun) and time.monotonic() < until:
            pause(_PAUSE_S)

    def take_sent(self) -> list[tuple[str, Notice]]:
        """Return what was sent since the last call, each with its job; it is to be noted on the cluster."""
        return [self._sent.popleft() for _ in range(len(self._sent))]

    def give_back(self, job_id: str, notice: Notice) -> None:
        """Keep what could not be noted for the next time."""
        self._sent.append((job_id, notice))

    def _send(self, event_id: str, status: JobStatus, notice: Notice, cluster: str, until: float) -> None:
        tags = {"conn_id": self._conn_id, "event": notice["event"]}
        try:
            if time.monotonic() > until:
                raise TimeoutError("others took too long to send")
            path, arguments = self._notifier
            is_sent = resolve_name(path)(**arguments).send_event(
                notice["event"],
                status,
                cluster=cluster,
                conn_id=self._conn_id,
                ti=self._ti,
                event_id=event_id,
                attempt=notice["attempt"],
                facts={name: value for name, value in notice.items() if name in _FACTS},
            )
        except Exception as error:
            count(metrics.MESSAGES_FAILED, tags)
            self._log.warning(
                "People could not be told about the GPU job; trying again later",
                job_id=status.job_id,
                about=notice["event"],
                error=words_of(error),
            )
        else:
            self._note_told(status.job_id, notice)
            # The notifier may be one that tells nothing of this.
            if is_sent is not False:
                count(metrics.MESSAGES_SENT, tags)
                self._log.info("People were told about the GPU job", job_id=status.job_id, event_id=event_id)
        finally:
            with _lock:
                _under_way.discard(event_id)


def notices_of(
    when: NotifyWhen | None, notifier: Sequence[Any] | None, *, conn_id: str, ti: Any, log: Log, **how: Any
) -> Notices | None:
    """Return what tells people about jobs; None if nobody is to be told. See :class:`Notices` for the parameters."""
    return Notices(when, notifier, conn_id=conn_id, ti=ti, log=log, **how) if when and notifier is not None else None
