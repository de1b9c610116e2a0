"""
Which job directories are no longer used, and what the jobs in use need outside their own directories.

A job is in use while its latest attempt waits or runs, its state is unknown, or another attempt is to follow by itself;
while inputs are brought in; while it holds a lease; and for a while after a request about it
(:meth:`.store.directories.JobDirectory.use`). Such a request and the removal of the directory both take the job's lock
and then look again, so that one of them comes first.
"""

from __future__ import annotations

import contextlib
import json
import os
from datetime import datetime
from typing import TYPE_CHECKING, Iterator

from ..engines import engine_of
from ..environments import python_environment
from ..errors import Refused
from ..jobs.status import status_of
from ..linux import locks, processes, regular_files
from ..linux.paths import is_within
from ..store import arrays, records
from ..store.directories import Attempt, JobDirectory, Root
from ..store.next_attempt import is_followed

if TYPE_CHECKING:
    from ..engines.engine import Engine
    from ..protocol.inputs import InputNotes
    from ..protocol.records import Environment
    from ..protocol.settings import Settings

# A launch can take this long from its first request to its attempt, even if the retention is shorter.
_PREPARED_S = 3600.0
# The greatest difference between a request's note of use and the time in its attempt's record, which is truncated.
_MOMENT_S = 1.0
_TIMEOUT_S = 60.0


class Needs:
    """
    What the jobs in use need outside their own directories.

    :param programs: names of files in ``.gpu-run``.
    :param environments: paths of the Python environments of running jobs.
    :param groups: of waiting jobs, see :func:`.environments.python_environment.group`.
    :param paths: the targets of links among their inputs.
    """

    def __init__(self) -> None:
        self.programs: set[str] = set()
        self.environments: set[str] = set()
        self.groups: set[str] = set()
        self.paths: set[str] = set()

    def add(self, job: JobDirectory) -> None:
        """Note what a job needs, as far as its records show."""
        with contextlib.suppress(OSError, ValueError, AttributeError, TypeError):
            noted: InputNotes | None = records.read_json(job.at(".job", "inputs.json"), records.MOST_BYTES_OF_LISTS)
            for facts in (noted or {}).values():
                if facts.get("path"):
                    self.paths.add(os.path.realpath(facts["path"]))
        with contextlib.suppress(OSError, ValueError, AttributeError, TypeError, KeyError):
            for attempt in job.attempts()[-1:]:
                request = attempt.recorded_request()
                if request is not None:
                    self.programs.add(os.path.basename(request.get("program", "")))
                    parts = request.get("environment")
                    if parts:
                        self.groups.add(python_environment.group(parts))
                built: Environment | None = records.read_json(attempt.at("environment.json"))
                if built is not None:
                    self.environments.add(os.path.realpath(built["path"]))

    def are_in(self, job: JobDirectory) -> bool:
        """Return whether another job uses something in that job's directory."""
        top = os.path.realpath(job.path)
        return any(is_within(path, top) for path in self.paths)


class OldJobs:
    """
    Decides which jobs are old.

    :param settings: of the request; jobs with records have their own.
    :param program: path of this program.
    :param older_than_s: how long a job must have been unused, in seconds.
    :param now: in seconds since the epoch.
    """

    def __init__(self, root: Root, settings: Settings, program: str, older_than_s: float, now: float) -> None:
        self._root = root
        self._settings = settings
        self._program = program
        self._older_than_s = older_than_s
        self._now = now
        self._refused: dict[str, Refused] = {}

    def is_in_use(self, job: JobDirectory) -> bool:
        """
        Return whether a job waits, runs, is being staged or might be.

        :raises Exception: its records cannot be read; jobs can write to them, so they may contain anything.
        """
        attempts = job.attempts()
        return _is_staged_into(job) or (bool(attempts) and not self._has_ended(attempts[-1]))

    def _has_ended(self, attempt: Attempt) -> bool:
        claim = attempt.claimed()
        if attempt.ended() is None:
            if claim is None:
                # It waits. Asking for its state would queue it if it is not queued.
                return False
            status_of(attempt, self._engine_of([attempt])[1])
        ended = attempt.ended()
        if ended is None or is_followed(ended):
            return False
        # A job can forge its exit record, but not the death of its supervisor.
        if claim is None or claim["by"] not in ("supervisor", "waiter"):
            return True
        return claim["host"] != processes.hostname() or processes.is_alive(claim) is False

    def _engine_of(self, attempts: list[Attempt]) -> tuple[str, Engine]:
        """Return the engine of a job with those attempts, and a name that is unique to that engine."""
        request = attempts[-1].recorded_request() if attempts else None
        settings = self._settings if request is None else request["settings"]
        return json.dumps(settings, sort_keys=True), engine_of(
            self._root, settings, self._program, timeout_s=_TIMEOUT_S
        )

    def is_old(self, job: JobDirectory) -> bool:
        """
        Return whether a job that is not in use was unused for long enough, and holds no lease.

        :raises Exception: see :meth:`is_in_use`.
        """
        prepared_before = self._now - max(self._older_than_s, _PREPARED_S)
        asked_for = _changed(job.at(".job", "lock"))
        attempts = job.attempts()
        if not attempts:
            # An array is needed as long as it has elements.
            is_old = max([asked_for, *_times(job)]) < prepared_before and not self._has_elements(job)
        elif asked_for > _seconds(attempts[-1], "request.json", "requested_at") + _MOMENT_S > _MOMENT_S:
            # Another request for the job came after its launch: for its result, or for another attempt.
            is_old = max(asked_for, _ended_at(attempts[-1])) < prepared_before
        else:
            is_old = _ended_at(attempts[-1]) < self._now - self._older_than_s
        return is_old and not self._still_runs(job, attempts)

    def _has_elements(self, job: JobDirectory) -> bool:
        return any(self._root.job(job_id).exists() for job_id in arrays.all_elements_of(job))

    def _still_runs(self, job: JobDirectory, attempts: list[Attempt]) -> bool:
        name, engine = self._engine_of(attempts)
        if name in self._refused:
            raise self._refused[name]
        try:
            return engine.still_runs(job.job_id)
        except Refused as refusal:
            # This refusal has taken its time, and would take it again for every job.
            self._refused[name] = refusal
            raise


def _times(job: JobDirectory) -> Iterator[float]:
    """Yield the times at which a job that was never launched was changed."""
    for path in (job.path, job.at(".job")):
        yield _changed(path)
    for name in os.listdir(job.at(".job")):
        yield _changed(job.at(".job", name))


def _changed(path: str) -> float:
    try:
        return os.lstat(path).st_mtime
    except FileNotFoundError:
        return 0.0


def _ended_at(attempt: Attempt) -> float:
    return _seconds(attempt, "exit.json", "ended_at")


def _seconds(attempt: Attempt, record: str, name: str) -> float:
    """Return a time from an attempt's record; without one, the time of modification of the record."""
    try:
        return datetime.fromisoformat((records.read_json(attempt.at(record)) or {})[name]).timestamp()
    except (KeyError, TypeError, ValueError, OverflowError, regular_files.NotRegular):
        return _changed(attempt.at(record))


def _is_staged_into(job: JobDirectory) -> bool:
    """Return whether a live process makes an input in this directory; see :mod:`.staging.inputs`."""
    for name in os.listdir(job.at(".job")):
        if name.startswith("incoming-"):
            with contextlib.suppress(NotADirectoryError, regular_files.NotRegular):
                if locks.is_locked(job.at(".job", name, "lock")):
                    return True
    return False


@contextlib.contextmanager
def alone_with(job: JobDirectory) -> Iterator[bool]:
    """Keep every request for a job waiting, and yield True; yield False if a request is in progress."""
    path = job.at(".job", "lock")
    try:
        fd = locks.lock(path)
    except PermissionError:
        # The job has taken away its own user's permissions.
        os.chmod(job.path, 0o700)
        os.chmod(job.at(".job"), 0o700)
        if not os.path.islink(path) and os.path.exists(path):
            os.chmod(path, 0o600)
        fd = locks.lock(path)
    try:
        yield fd is not None
    finally:
        if fd is not None:
            os.close(fd)
