"""What is to be done once on a cluster, over the connection of its watcher, and the future for the result of each."""

from __future__ import annotations

import contextlib
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from airflow_provider_gpu_cluster.exceptions import GpuClusterError
from airflow_provider_gpu_cluster.jobs.status import JobStatus
from airflow_provider_gpu_cluster.jobs.submission import Submission
from airflow_provider_gpu_cluster.watch.keys import next_key

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.gpu_run.protocol.notices import Notice
    from airflow_provider_gpu_cluster.gpu_run.protocol.requests import SubmitRequest

_Result = TypeVar("_Result")
_Sent = TypeVar("_Sent", bound="SentErrand[Any]")


@dataclass(frozen=True, slots=True)
class Errand(Generic[_Result]):
    """Something to do once on the cluster, and the future for its result."""

    future: Future[_Result] = field(default_factory=Future, kw_only=True)

    def succeed(self, result: _Result) -> None:
        """Set the result."""
        # The requester may have given up waiting.
        with contextlib.suppress(InvalidStateError):
            self.future.set_result(result)

    def fail(self, error: GpuClusterError) -> None:
        """Set the error."""
        with contextlib.suppress(InvalidStateError):
            self.future.set_exception(error)


@dataclass(frozen=True, slots=True)
class Cancellation(Errand[JobStatus]):
    """
    A job to cancel; the result is its status after that.

    :param request_key: of a launch of it that may still be on its way.
    """

    job_id: str
    requested_by: str
    request_key: str | None = None


@dataclass(frozen=True, slots=True)
class SentErrand(Errand[_Result]):
    """
    An errand that the cluster answers when it is done.

    :param key: by which its answer is known.
    """

    key: int = field(default_factory=next_key, kw_only=True)


@dataclass(frozen=True, slots=True)
class Launch(SentErrand[Submission]):
    """
    A job to launch.

    Its future can be cancelled until the cluster is asked. After that it ends with an answer, or with a connection
    error that leaves open whether the job was launched.

    :param request: from :func:`.submit_request`, without files to send.
    """

    request: SubmitRequest

    def begin(self) -> bool:
        """Note that the cluster is asked, perhaps again; False if the launch was cancelled."""
        return self.future.running() or self.future.set_running_or_notify_cancel()


@dataclass(frozen=True, slots=True)
class TellNote(SentErrand[None]):
    """That people were told about something that was due; the cluster is to note it."""

    job_id: str
    notice: Notice


@dataclass(frozen=True, slots=True)
class VerbCall(SentErrand[Any]):
    """A verb of :data:`.protocol.CALLS`; the result is its reply."""

    verb: str
    request: dict[str, Any]


class Tray(Generic[_Sent]):
    """Errands without an answer, and which of them are new."""

    def __init__(self) -> None:
        self.open: dict[int, _Sent] = {}
        self._new: list[_Sent] = []

    def add(self, errand: _Sent) -> None:
        """Put one in, which counts as new."""
        self.open[errand.key] = errand
        self._new.append(errand)

    def forget(self, errand: _Sent) -> None:
        """Take one out that has its answer, or that nobody waits for."""
        self.open.pop(errand.key, None)

    def all(self) -> list[_Sent]:
        """Return all; none of them counts as new any more."""
        self._new.clear()
        return list(self.open.values())

    def take(self) -> list[_Sent]:
        """Return those that are new."""
        new, self._new = self._new, []
        return new
