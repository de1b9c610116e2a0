"""What a notifier does as a callback of a task or a DAG: find the jobs, ask about them for a short while, and tell."""

from __future__ import annotations

import contextlib
import logging
import tempfile
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from airflow_provider_gpu_cluster.connection.words import words_of
from airflow_provider_gpu_cluster.exceptions import GpuClusterError, GpuJobError, NoSpaceError
from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.jobs.metrics import MAX_METRICS_BYTES, METRICS_FILE, parse_metrics
from airflow_provider_gpu_cluster.jobs.status import JobState, JobStatus
from airflow_provider_gpu_cluster.messages.builder import About, message_of_end, message_of_error
from airflow_provider_gpu_cluster.notifications.jobs_of_callback import FoundJob, jobs_of_callback
from airflow_provider_gpu_cluster.plugins.cluster_access import open_hook
from airflow_provider_gpu_cluster.pools import parts
from airflow_provider_gpu_cluster.sinks.local import LocalSink

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.hooks.gpu_cluster import GpuClusterHook
    from airflow_provider_gpu_cluster.messages.message import JobMessage

log = logging.getLogger(__name__)

Send: TypeAlias = "Callable[[JobMessage], bool]"

# The DAG processor ends a callback after 50 s by default, and a worker's task does not end before its callbacks have.
_ASK_FOR_S = 10.0
_NOTE_FOR_S = 5.0
_TAIL_BYTES = 16 * 1024
_AT_ONCE = 8


def tell_of_callback(
    send: Send, context: Mapping[str, Any], *, notifier: object, only: Collection[str], receivers: str
) -> None:
    """
    Tell about the job or the jobs of a callback. Nothing is raised: what goes wrong is an error in the log.

    :param send: sends a message.
    :param notifier: the callback.
    :param only: the kinds of messages to send.
    :param receivers: a word for those who get it, who are told of each end once.
    """

    def tell(found: FoundJob) -> None:
        try:
            _tell(send, found, only, receivers)
        except Exception as error:
            log.error("Nobody was told about a GPU job: %s. The task itself is not affected", words_of(error))

    try:
        jobs = list(jobs_of_callback(context, notifier))
    except Exception as error:
        log.error("Nobody was told about GPU jobs, which could not be found: %s", words_of(error))
        return
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        # What another thread logs belongs into the same log.
        list(pool.map(lambda found: copy_context().run(tell, found), jobs))


def _tell(send: Send, found: FoundJob, only: Collection[str], receivers: str) -> None:
    about = About(conn_id=found.conn_id, handle=found.handle, task=found.task)
    with contextlib.ExitStack() as stack:
        status, hook = None, None
        if found.handle is not None:
            try:
                hook = stack.enter_context(open_hook(found.conn_id))
                with _interrupting(hook, _ASK_FOR_S):
                    status, about = _asked(hook, found.handle, about)
            except Exception as error:
                about = replace(about, note=f"Its cluster could not be asked just now: {words_of(error)}.")
                status, hook = _known_status(found), None
        message = _message(found, status, about)
        if message is None or message.kind not in only:
            return
        if hook is not None and status is not None and status.attempt and message.event:
            _send_once(send, message, f"{message.event}-{receivers}", hook, status)
        else:
            send(message)


def _send_once(send: Send, message: JobMessage, event: str, hook: GpuClusterHook, status: JobStatus) -> None:
    """
    Send a message unless these receivers have got it, or are just getting it: Airflow may call a callback twice.

    A cluster that cannot note it, such as one with a full disk, keeps nobody from being told.
    """
    if not _on_cluster(hook, lambda: hook.cluster.take_to_tell(status.job_id, event, status.attempt), otherwise=1):
        log.info("This was told before: %s", message.subject)
    elif send(message):
        _on_cluster(
            hook, lambda: hook.cluster.note_told(status.job_id, {"event": event, "attempt": status.attempt}), None
        )


def _on_cluster(hook: GpuClusterHook, call: Callable[[], Any], otherwise: Any) -> Any:
    try:
        with _interrupting(hook, _NOTE_FOR_S):
            return call()
    except GpuClusterError as error:
        log.warning("The cluster has not noted that people are told: %s", words_of(error))
        return otherwise


def _asked(hook: GpuClusterHook, handle: JobHandle, about: About) -> tuple[JobStatus, About]:
    """Return what the cluster says about a job."""
    about = replace(about, cluster=hook.settings.name)
    if handle.parts:
        return _status_of_parts(handle), replace(about, cluster=", ".join(handle.conn_ids))
    (status,) = hook.cluster.retrying_for(_ASK_FOR_S).statuses([handle.job_id], tail_bytes=_TAIL_BYTES)
    if status.state is JobState.SUCCEEDED and handle.array_size is None:
        with contextlib.suppress(GpuClusterError, OSError, ValueError):
            about = replace(about, metrics=_metrics(hook, handle.job_id))
    return status, about


def _status_of_parts(handle: JobHandle) -> JobStatus:
    with contextlib.ExitStack() as stack:
        hooks = {conn_id: stack.enter_context(open_hook(conn_id)) for conn_id in handle.conn_ids}
        clusters = {conn_id: hook.cluster.retrying_for(_ASK_FOR_S) for conn_id, hook in hooks.items()}
        return parts.status_of(handle, clusters.__getitem__, tail_bytes=_TAIL_BYTES)


def _metrics(hook: GpuClusterHook, job_id: str) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        sink = _MetricsFiles(Path(folder))
        found = hook.cluster.collect(job_id, sink, include=[METRICS_FILE])
        return parse_metrics(sink.read(METRICS_FILE)) if found else None


class _MetricsFiles(LocalSink):
    """Receives nothing that is larger than a ``metrics.json`` should be."""

    def check_space(self, sizes: Iterable[int]) -> None:
        if sum(sizes) > MAX_METRICS_BYTES:
            raise NoSpaceError(f"{METRICS_FILE} is too large for a message")
        super().check_space([])


@contextlib.contextmanager
def _interrupting(hook: GpuClusterHook, after_s: float) -> Iterator[None]:
    # A cluster that accepts the call and then stays silent must not hold up the end of a task.
    limit = threading.Timer(after_s, hook.cluster.interrupt)
    limit.daemon = True
    limit.start()
    try:
        yield
    finally:
        limit.cancel()


def _message(found: FoundJob, status: JobStatus | None, about: About) -> JobMessage | None:
    """Return what there is to tell; None if nothing has ended."""
    is_of_job = isinstance(found.error, GpuJobError)
    if status is not None and status.final and (status.state is not JobState.SUCCEEDED or not found.has_failed):
        return message_of_end(status, about, error=None if is_of_job else found.error)
    if found.has_failed:
        return message_of_error(found.error, status, about)
    log.info(
        "GPU job %s has not ended, so that there is nothing to tell yet; the task that waits for it tells its end",
        found.handle.job_id if found.handle else "",
    )
    return None


def _known_status(found: FoundJob) -> JobStatus | None:
    """Return what is known about the end of a job without its cluster."""
    error = found.error
    if isinstance(error, GpuJobError):
        return JobStatus(
            error.job_id,
            JobState(error.state),
            reason=error.reason,
            kind=error.kind,
            message=error.cause or str(error),
            remedy=error.remedy,
            exit_code=error.exit_code,
            attempt=error.attempt,
            log_tail=error.log_tail,
            recovered=error.recovered,
        )
    if found.has_awaited and found.handle is not None:
        return JobStatus(found.handle.job_id, JobState.SUCCEEDED)
    return None
