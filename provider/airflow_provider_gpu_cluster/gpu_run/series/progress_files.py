"""The files in which a job has reported its progress, whose attempt each part is, and when it was written."""

from __future__ import annotations

import contextlib
import os
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any, Iterator, NamedTuple, Sequence

from ..linux import regular_files
from .byte_clock import ByteClock
from .slices import OpenFile

if TYPE_CHECKING:
    from ..protocol.series import Section
    from ..store.directories import Attempt, JobDirectory

_ASIDE = re.compile(r"(progress|usage)\.attempt-([0-9]{1,9})\.jsonl")
# Of which attempts the records are read: a job may have thousands of them.
_MOST_ATTEMPTS = 200
_MOST_USAGE_BYTES = 1 << 22
_SIZE = re.compile(rb'"progress_bytes": ?([0-9]{1,18})')
_TIME = re.compile(rb'^{"t": ?([0-9]{1,12}(?:\.[0-9]{1,9})?)')


class HistoryFile(NamedTuple):
    """
    A file of which each attempt that was asked for begins a new one.

    :param until_attempt: the last attempt that has written to it; None for that which is written to now.
    :param path: of the file.
    """

    until_attempt: int | None
    path: str


def history_files(job: JobDirectory, kind: str) -> list[HistoryFile]:
    """
    Return the files of a kind, the oldest first.

    :param kind: ``progress`` or ``usage``.
    """
    found = []
    with contextlib.suppress(OSError):
        for name in os.listdir(job.at("logs")):
            match = _ASIDE.fullmatch(name)
            if match and match[1] == kind:
                found.append(HistoryFile(int(match[2]), job.at("logs", name)))
    return [*sorted(found), HistoryFile(None, job.at("logs", f"{kind}.jsonl"))]


class OpenFiles:
    """
    The files of a kind, opened; use it in a ``with`` block.

    :param files: those that can be opened, the oldest first, each with its size.
    :param problems: why others cannot be read, as sentences.
    """

    def __init__(self, files: list[HistoryFile]) -> None:
        self.names: list[HistoryFile] = []
        self.files: list[OpenFile] = []
        self.problems: list[str] = []
        for one in files:
            try:
                # A job may keep its progress elsewhere, and put a link here.
                fd = regular_files.open_to_read(one.path, follow=True)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                why = str(error) if isinstance(error, regular_files.NotRegular) else error.strerror
                self.problems.append(f"{one.path} cannot be read: {why}.")
                continue
            self.names.append(one)
            self.files.append(OpenFile(fd, os.fstat(fd).st_size))

    def __enter__(self) -> OpenFiles:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self.files:
            os.close(file.fd)

    def before(self, index: int) -> int:
        """Return how many bytes the files before one have."""
        return sum(file.size for file in self.files[:index])

    def cut_at(self, until: int) -> None:
        """Leave out what is beyond a place: it has come since the first slice was read."""
        left = until
        for index, file in enumerate(self.files):
            self.files[index] = OpenFile(file.fd, max(0, min(file.size, left)))
            left -= file.size


def clocks(job: JobDirectory, files: OpenFiles, parts: Sequence[Section]) -> list[ByteClock]:
    """
    Return for each file when its lines were written, as the samples of the job's use tell it.

    :param parts: the sections; nothing of an attempt was written before it began.
    """
    usage = history_files(job, "usage")
    found = []
    after = 0
    for index, (name, file) in enumerate(zip(files.names, files.files)):
        until = name.until_attempt
        paths = [one.path for one in usage if after < (one.until_attempt or _LAST) <= (until or _LAST)]
        begins = [
            (_seconds(one["started_at"]), (one["at"] or 0) - files.before(index))
            for one in parts
            if one["at"] is not None
        ]
        sizes = list(_sizes(paths))
        if sizes:
            sizes += [(t, size) for t, size in begins if t is not None and 0 <= size <= file.size]
            sizes.sort()
        if sizes and until is None and sizes[-1][1] < file.size:
            # What has come since the last sample.
            sizes.append((max(sizes[-1][0], os.fstat(file.fd).st_mtime), file.size))
        found.append(ByteClock(sizes))
        after = until or after
    return found


_LAST = 10**9


def _sizes(paths: list[str]) -> Iterator[tuple[float, int]]:
    left = _MOST_USAGE_BYTES
    for path in reversed(paths):
        if left <= 0:
            return
        with contextlib.suppress(OSError):
            data = regular_files.read_end(path, left)
            left -= len(data)
            for line in data.split(b"\n"):
                time, size = _TIME.search(line), _SIZE.search(line)
                if time and size:
                    yield float(time[1]), int(size[1])


def _seconds(moment: str | None) -> float | None:
    try:
        return datetime.fromisoformat(moment or "").timestamp()
    except ValueError:
        return None


def sections(job: JobDirectory, files: OpenFiles) -> list[Section]:
    """Return which part of the history is of which attempt, in their order."""
    found: list[Section] = []
    for attempt in job.attempts()[-_MOST_ATTEMPTS:]:
        start = _start(attempt)
        ends = [index for index, name in enumerate(files.names) if attempt.number <= (name.until_attempt or _LAST)]
        record = _times(attempt)
        found.append(
            {
                "attempt": attempt.number,
                "at": None if start is None or not ends else files.before(ends[0]) + start,
                "started_at": record.get("started_at"),
                "ended_at": record.get("ended_at"),
                "reason": record.get("reason"),
                "resumed_from": record.get("resumed_from"),
            }
        )
    return found


def _start(attempt: Attempt) -> int | None:
    with contextlib.suppress(OSError):
        if attempt.log_number == attempt.number:
            return 0
    return attempt.log_starts().get("progress")


def _times(attempt: Attempt) -> dict[str, str | None]:
    found: dict[str, Any] = {}
    # The job can write to its records.
    with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
        found.update(attempt.ended() or {})
    if not found:
        with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
            claim: Any = attempt.claimed() or {}
            found["started_at"] = claim.get("at")
    return {name: value for name, value in found.items() if isinstance(value, str) and len(value) < 200}
