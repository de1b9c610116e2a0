"""Which part of which file a reader of a job's log gets."""

from __future__ import annotations

import contextlib
import os
import re
from typing import TYPE_CHECKING, Iterator, NamedTuple

from .. import protocol
from ..errors import Refused
from ..linux import processes, regular_files
from ..protocol.logs import ENVIRONMENT, ERRORS, OUTPUT, STREAMS
from ..store import arrays
from ..store.next_attempt import is_followed
from .hiding import masks_of

if TYPE_CHECKING:
    from ..protocol.logs import LogFile
    from ..protocol.masks import Masks
    from ..store.directories import Attempt, JobDirectory

_STEMS = {OUTPUT: "training", ERRORS: "error", ENVIRONMENT: "environment"}


class LogPart(NamedTuple):
    """
    The part of a log, open for reading.

    :param fd: None when there is nothing to read.
    :param file: what is known of it.
    :param masks: of the secrets of the job.
    """

    fd: int | None
    file: LogFile
    masks: Masks | None


class _FilePlace(NamedTuple):
    path: str
    log: int
    start: int
    stop: int | None
    grows: bool


@contextlib.contextmanager
def open_part(job: JobDirectory, attempt: int | None, stream: str = OUTPUT) -> Iterator[LogPart]:
    """
    Open what an attempt of a job has printed; see :class:`.protocol.logs.ReadLogRequest`.

    :raises Refused: there is no such job or attempt, or which secrets it has is unknown.
    :raises OSError: the log cannot be read now.
    """
    place = _place_of(job, attempt, stream)
    masks = masks_of(job)
    fd, problem = None, ""
    try:
        # A job may keep its output elsewhere, and put a link here.
        fd = regular_files.open_to_read(place.path, follow=True)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (regular_files.NotRegular, PermissionError) as error:
        what = error if isinstance(error, regular_files.NotRegular) else f"{place.path} may not be read"
        problem = f"The log cannot be shown: {what} on {processes.hostname()}."
    try:
        found = os.fstat(fd) if fd is not None else None
        size = found.st_size if found else 0
        # It may be shorter than it was: a job can truncate its log.
        stop = size if place.stop is None else min(size, place.stop)
        file: LogFile = {
            "log": place.log,
            "size": size,
            "start": min(place.start, stop),
            "stop": stop,
            "grows": place.grows,
            "file": f"{found.st_dev:x}-{found.st_ino:x}" if found else "",
            "problem": problem,
        }
        yield LogPart(fd, file, masks)
    finally:
        if fd is not None:
            os.close(fd)


def _place_of(job: JobDirectory, number: int | None, stream: str) -> _FilePlace:
    if stream not in STREAMS:
        raise Refused(protocol.BAD_REQUEST, f"there is no log {stream!r} of a job; there are {', '.join(STREAMS)}")
    attempts = job.attempts()
    if not attempts:
        raise Refused(protocol.NO_SUCH_JOB, _why_no_log(job))
    latest = attempts[-1]
    if stream == ENVIRONMENT:
        return _FilePlace(job.at("logs", "environment.log"), latest.number, 0, None, grows=False)
    stem = _STEMS[stream]
    if number is None:
        return _FilePlace(job.at("logs", f"{stem}.log"), latest.log_number, 0, None, _grows(latest))
    if number not in [attempt.number for attempt in attempts]:
        raise Refused(protocol.NO_SUCH_JOB, f"job {job.job_id} has no attempt {number}; it has {len(attempts)}")
    return _place_of_attempt(job, number, latest, stem)


def _place_of_attempt(job: JobDirectory, number: int, latest: Attempt, stem: str) -> _FilePlace:
    aside = min((last for last in _put_aside(job, stem) if last >= number), default=None)
    name = f"{stem}.log" if aside is None else f"{stem}.attempt-{aside}.log"
    last = latest if aside is None else job.attempt(aside)
    first, path = last.log_number, job.at("logs", name)
    if first > number:
        # It has not printed anything, so the next log is that of others.
        return _FilePlace(job.at("logs", f"{stem}.attempt-{number}.log"), number, 0, None, grows=False)
    start = 0 if number == first else _start_of(job.attempt(number), stem)
    stop = None if number == last.number else _start_of(job.attempt(number + 1), stem)
    grows = number == latest.number and _grows(latest)
    if start is None:
        # It has not begun.
        return _FilePlace(path, first, 1 << 62, None, grows)
    return _FilePlace(path, first, start, stop, grows)


def _put_aside(job: JobDirectory, stem: str) -> list[int]:
    """Return the numbers of the last attempts of the logs of earlier tries."""
    try:
        names = os.listdir(job.at("logs"))
    except (FileNotFoundError, NotADirectoryError):
        return []
    found = (re.fullmatch(rf"{stem}\.attempt-(\d+)\.log", name, re.ASCII) for name in names)
    return [int(match.group(1)) for match in found if match]


def _start_of(attempt: Attempt, stem: str) -> int | None:
    """Return where an attempt's part of a log begins that goes on; None if it has not begun."""
    if not os.path.exists(attempt.at("log_starts.json")):
        return None
    starts = attempt.log_starts()
    return starts["training"] if stem == "training" else starts["error"]


def _grows(latest: Attempt) -> bool:
    """Return whether more may be printed: the job runs, waits, or goes on by itself."""
    try:
        ended = latest.ended()
        return ended is None or is_followed(ended)
    except ValueError:
        return True


def _why_no_log(job: JobDirectory) -> str:
    if not job.exists():
        return (
            f"there is no {job.path} on {processes.hostname()}, and so no log: it was deleted, or the connection has "
            "another root_dir"
        )
    if arrays.elements_of(job):
        return f"{job.job_id} is an array; each of its elements has a log of its own"
    return f"job {job.job_id} is staged and was not launched, so there is no log yet"
