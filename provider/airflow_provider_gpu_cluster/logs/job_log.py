"""What a task's log says about its job, whichever way the task waits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Protocol

from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError, GpuClusterFaultError
from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.gpu_run.protocol.idle_policy import WHOLE
from airflow_provider_gpu_cluster.jobs.advice import advice_of
from airflow_provider_gpu_cluster.jobs.idle import idle_text
from airflow_provider_gpu_cluster.jobs.progress import Pace, duration_text, progress_text
from airflow_provider_gpu_cluster.jobs.status import JobState, JobStatus
from airflow_provider_gpu_cluster.jobs.submission import Submission

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.gpu_run.protocol.recovery import PastAttempt

PROGRESS_EVERY_S = 5.0
PLACE_EVERY_S = 30.0
# Begins the line about each attempt that follows another by itself; its number is the rest.
GOES_ON = "GPU job goes on in attempt "
# Begin the lines about a job that leaves its GPUs idle, and about its end of that.
IS_IDLE, IS_IDLE_NO_MORE = "GPU job is idle: ", "GPU job is idle no more: it computes again, or shows other life"


class Log(Protocol):
    """The structured logger of a task."""

    def info(self, event: str, **fields: Any) -> Any:
        """Write a line."""
        ...

    def warning(self, event: str, **fields: Any) -> Any:
        """Write a warning."""
        ...


def tell_submission(submission: Submission, log: Log, *, cluster: str, duration_s: float) -> None:
    """Log that a job was launched or found."""
    handle, size = submission.handle, submission.handle.array_size
    what = "GPU job" if size is None else "GPU job array"
    elements = {"elements": size, "launched": submission.launched, "found": size - submission.launched} if size else {}
    log.info(
        f"{what} launched" if submission.created else f"{what} found again; it is not launched twice",
        job_id=handle.job_id,
        cluster=cluster,
        attempt=submission.status.attempt,
        state=str(submission.status.state),
        job_dir=handle.job_dir,
        duration=round(duration_s, 2),
        **elements,
    )


def _utc_now() -> datetime:
    return datetime.now(timezone.utc)


class JobLog:
    """
    Logs the life of one job, each event once.

    :attr:`memory` holds what was already logged: plain JSON values, for a task that continues in another process.

    :param log: where to write.
    :param job_id: the job.
    :param cluster: name of its cluster.
    :param memory: what an earlier log of this job remembered; it is copied.
    :param now: returns the time.
    """

    def __init__(
        self,
        log: Log,
        *,
        job_id: str,
        cluster: str,
        memory: dict[str, Any] | None = None,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        self.memory: dict[str, Any] = dict(memory or {})
        self._log = log
        self._job_id = job_id
        self._cluster = cluster
        self._now = now

    def skip_attempts(self, last: int) -> None:
        """Do not log again that the job went on after this attempt, or after those before it."""
        self.memory["went_on_from"] = max(last, self.memory.get("went_on_from", 0))

    def skip_idle(self, told: list[Any] | None) -> None:
        """
        Do not log again that the job is idle.

        :param told: the attempt and the level that were logged last; None when it was idle no more.
        """
        if told is not None:
            self.memory.setdefault("idle", told)

    def tell(self, status: JobStatus) -> None:
        """
        Log what is new.

        Places in the queue and progress are logged only every so often. What was held back is logged when this is
        called again later with the same status; the last progress is logged when the job has ended.
        """
        self.tell_state(status)
        self.tell_progress(status)

    def tell_state(self, status: JobStatus) -> None:
        """Log what is new of the job's state only: before output, which follows from it."""
        if status.state is JobState.QUEUED:
            self._tell_queued(status)
        else:
            self._tell_earlier_attempts(status)
        if status.state is JobState.RUNNING:
            self._once(
                "running",
                status.attempt,
                "GPU job runs",
                attempt=status.attempt,
                host=status.host,
                gpus=list(status.gpus),
                waited=_seconds_between(status.submitted_at, status.started_at),
            )
        elif status.state is JobState.UNKNOWN:
            self._once("unknown", status.message, "State of the GPU job is not known now", why=status.message)
        self._tell_idle(status)
        if status.notes != tuple(self.memory.get("notes", ())):
            self.memory["notes"] = list(status.notes)
            for note in status.notes:
                self._log.warning(f"GPU job: {note}", job_id=self._job_id)

    def tell_progress(self, status: JobStatus) -> None:
        """
        Log what is new of the job's progress only: after output, which it may refer to.

        Between two attempts, this is why there is another one.
        """
        if status.state is JobState.QUEUED:
            self._tell_earlier_attempts(status)
        if status.progress and (status.final or status.state is JobState.RUNNING):
            self._tell_progress(status)

    def tell_outage(self, error: GpuClusterConnectionError) -> float:
        """
        Log that the cluster cannot be reached: the first time, and then less and less often.

        :return: how long it has been unreachable, in seconds.
        """
        now = self._now()
        is_new = "unreachable_since" not in self.memory
        since = self.memory.setdefault("unreachable_since", now.isoformat())
        seconds = (now - datetime.fromisoformat(since)).total_seconds()
        if is_new or seconds >= 2 * self.memory["unreachable_told_s"]:
            self.memory["unreachable_told_s"] = max(seconds, 15)
            is_fault = isinstance(error, GpuClusterFaultError)
            what = "has a fault that passes" if is_fault else "cannot be reached"
            self._log.warning(
                f"GPU cluster {what}; the job is not affected, waiting on",
                job_id=self._job_id,
                cluster=self._cluster,
                unreachable_s=round(seconds),
                error=str(error),
            )
        return seconds

    def tell_reached(self) -> None:
        """Log that an outage is over, if there was one."""
        self.memory.pop("unreachable_told_s", None)
        since = self.memory.pop("unreachable_since", None)
        if since is not None:
            seconds = (self._now() - datetime.fromisoformat(since)).total_seconds()
            self._log.info(
                "GPU cluster is reached again",
                job_id=self._job_id,
                cluster=self._cluster,
                unreachable_s=round(seconds),
            )

    def tell_success(self, status: JobStatus) -> None:
        """Log that the job has succeeded, and the time and resources it took."""
        self._log.info(
            "GPU job succeeded",
            job_id=self._job_id,
            cluster=self._cluster,
            duration=_rounded(status.run_seconds),
            gpu_seconds=_rounded(status.gpu_seconds),
            peak_memory_bytes=status.peak_memory_bytes,
        )

    def tell_advice(self, status: JobStatus) -> None:
        """Log how the next job of this kind could use less, or be done sooner, if it could."""
        for sentence in advice_of(status):
            self._log.info(f"GPU job advice: {sentence}", job_id=self._job_id)

    def _tell_idle(self, status: JobStatus) -> None:
        """Log that the job leaves its GPUs idle, once for each level, and that it does so no more."""
        told = self.memory.get("idle")
        if status.state is JobState.RUNNING and status.idle is not None:
            now = [status.attempt, status.idle["level"]]
            if told != now:
                self.memory["idle"] = now
                self._log.warning(
                    IS_IDLE + idle_text(status.idle), job_id=self._job_id, attempt=now[0], idle_for=now[1]
                )
        elif status.state is JobState.RUNNING and told is not None:
            if told[0] == status.attempt:
                self._log.info(IS_IDLE_NO_MORE, job_id=self._job_id)
            del self.memory["idle"]
        elif status.final and status.reason == protocol.IDLE and told != [status.attempt, WHOLE]:
            # It was ended before anybody has seen that it was idle for its whole window.
            self.memory["idle"] = [status.attempt, WHOLE]
            self._log.warning(f"GPU job was idle, and is ended: {status.message}", job_id=self._job_id)

    def _tell_earlier_attempts(self, status: JobStatus) -> None:
        """Log each end after which the job goes on in a next attempt by itself."""
        told = self.memory.get("went_on_from", 0)
        for past in status.attempts:
            number = past.get("attempt", 0)
            if number <= told:
                continue
            self.memory["went_on_from"], self.memory["queued_told_at"] = number, self._now().timestamp()
            is_told = past is status.attempts[-1] and _tells_of_recovery(status)
            self._log.warning(
                f"{GOES_ON}{number + 1}",
                job_id=self._job_id,
                why=status.message if is_told else _how_it_ended(past),
                **({"checkpoint": past["checkpoint"]} if past.get("checkpoint") else {}),
            )

    def _tell_queued(self, status: JobStatus) -> None:
        now = self._now().timestamp()
        if _tells_of_recovery(status):
            # It was told with the end of the attempt before.
            self.memory["queued_told_at"] = now
            return
        attempt, place, _ = self.memory.get("queued") or (None, None, None)
        moved = attempt == status.attempt and place not in (None, status.queue_place)
        follows = status.attempt > status.log_number
        if follows and self.memory.get("went_on_from", 0) < status.attempt - 1:
            # Why there is another attempt comes first.
            return
        # After that, only a long wait is worth a line.
        if (moved or follows) and abs(now - self.memory.get("queued_told_at", 0)) < PLACE_EVERY_S:
            return
        is_told = self._once(
            "queued",
            [status.attempt, status.queue_place, status.message],
            "GPU job waits for its turn",
            place=status.queue_place,
            why=status.message,
        )
        if is_told:
            self.memory["queued_told_at"] = now

    def _tell_progress(self, status: JobStatus) -> None:
        kept: Any = self.memory.get("progress")
        if not isinstance(kept, dict) or kept.get("attempt") != status.attempt:
            # An attempt that goes on where another one ended has not yet made the progress that the status shows.
            told = kept.get("told", "") if isinstance(kept, dict) and status.attempt > status.log_number else ""
            kept = {"attempt": status.attempt, "pace": None, "told": told, "told_at": 0}
        now = self._now().timestamp()
        before = None if kept["pace"] is None else Pace(*kept["pace"])
        pace = Pace.seen(status.progress, before, now)
        told, told_at = kept["told"], kept["told_at"]
        text = progress_text(status.progress)
        if text not in ("", told) and (status.final or abs(now - told_at) >= PROGRESS_EVERY_S):
            # The time of an ended job's last step is not known, so it gives no pace.
            line = text if status.final else progress_text(status.progress, pace)
            self._log.info(f"GPU job progress: {line}", job_id=self._job_id)
            told, told_at = text, now
        self.memory["progress"] = {
            "attempt": status.attempt,
            "pace": None if pace is None else list(astuple(pace)),
            "told": told,
            "told_at": told_at,
        }

    def _once(self, topic: str, value: Any, event: str, **fields: Any) -> bool:
        """Write a line unless the last one on this topic had the same value; return whether it was written."""
        if self.memory.get(topic) == value:
            return False
        self.memory[topic] = value
        known = {name: field for name, field in fields.items() if field not in (None, "", [])}
        self._log.info(event, job_id=self._job_id, **known)
        return True


def _tells_of_recovery(status: JobStatus) -> bool:
    """Return whether a job waits only for the pause before its next attempt, of which its status says why it comes."""
    past = status.attempts[-1].get("attempt") if status.attempts else None
    return status.state is JobState.QUEUED and status.message.startswith(f"attempt {past} ")


def _how_it_ended(past: PastAttempt) -> str:
    number, started, ended = past.get("attempt", 0), past.get("started_at"), past.get("ended_at")
    seconds = _seconds_between(started, ended)
    ran = "" if seconds is None else f" after {duration_text(seconds)}"
    where = f" on {past['host']}" if past.get("host") else ""
    message = f": {past['message']}" if past.get("message") else ""
    return f"attempt {number} ended{ran}{where} ({past.get('kind') or past.get('reason')}){message}"


def _seconds_between(start: str | None, end: str | None) -> float | None:
    if start is None or end is None:
        return None
    return _rounded((datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds())


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 2)
