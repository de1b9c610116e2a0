"""A job's log, a part at a time: the verbs ``read-log``, ``copy-log`` and ``search-log``."""

from __future__ import annotations

from typing import TypedDict

# What a job has printed to stdout and stderr, to stderr alone, and why its Python environment could not be built.
OUTPUT = "output"
ERRORS = "errors"
ENVIRONMENT = "environment"
STREAMS = (OUTPUT, ERRORS, ENVIRONMENT)

# Where a window is, seen from its place.
AFTER = "after"
BEFORE = "before"
AROUND = "around"

MOST_BYTES = 1 << 18
MOST_LINES = 5000


class _OneLog(TypedDict):
    job_id: str
    attempt: int | None
    stream: str


class ReadLogRequest(_OneLog, total=False):
    """
    A window of a job's log that is asked for.

    :param attempt: what this attempt has printed; None for the newest log, in which attempts go on that follow each
        other by themselves.
    :param place: in bytes; None for the start or, if the way is not ``after``, for the end.
    :param way: whether the window is ``after`` the place, ``before`` it or ``around`` it.
    :param most_bytes: how large it may be.
    :param most_lines: how many lines it may have.
    """

    place: int | None
    way: str
    most_bytes: int
    most_lines: int


class CopyLogRequest(_OneLog, total=False):
    """
    The bytes of a job's log that are asked for, as those of :class:`ReadLogRequest` are.

    :param place: where they begin.
    :param most_bytes: how many at most.
    """

    place: int | None
    most_bytes: int


class LogFile(TypedDict):
    """
    The part of a log that is asked for. All places are in bytes of the log.

    :param log: number of the attempt with which the log begins; a later try begins another.
    :param size: of the log.
    :param start: where the part begins.
    :param stop: where it ends, for now.
    :param grows: whether more may be added to it.
    :param file: changes when there is another file in its place.
    :param problem: why it cannot be read, as a sentence; empty if it can, or if there is none yet.
    """

    log: int
    size: int
    start: int
    stop: int
    grows: bool
    file: str
    problem: str


class LogWindow(LogFile):
    """
    A window of a log.

    :param offset: where the window begins.
    :param end: where it ends.
    :param lines: its lines without their ends and without secrets. What is no UTF-8 is written like ``\\x80``.
    :param bytes: the number of bytes of each line in the log, its end included.
    :param whole_start: whether its first line begins with it.
    :param whole_end: whether its last line ends with it.
    :param at_end: whether there is nothing behind it that could be shown now.
    """

    offset: int
    end: int
    lines: list[str]
    bytes: list[int]
    whole_start: bool
    whole_end: bool
    at_end: bool


class LogBytes(LogFile):
    """
    A window of a log, as bytes without secrets.

    :param offset: where the window begins.
    :param end: where it ends.
    :param at_end: whether there is nothing behind it that could be shown now.
    :param data: the bytes, in base64.
    """

    offset: int
    end: int
    at_end: bool
    data: str


class SearchLogRequest(_OneLog, total=False):
    """
    A text to look for in a log, line by line.

    :param text: the text, or a regular expression of Python.
    :param is_regex: whether it is one.
    :param ignore_case: whether capital letters are as good as small ones.
    :param place: where to begin, in bytes; None for the start, or for the end if the way is ``before``.
    :param way: ``after`` or ``before``.
    :param most: how many lines to find.
    """

    text: str
    is_regex: bool
    ignore_case: bool
    place: int | None
    way: str
    most: int


class LogHit(TypedDict):
    """
    A line that was found.

    :param line: where it begins, in bytes of the log; of a very long line, where the piece begins that was looked at.
    :param offset: where in the log its first match begins.
    :param text: the match and a little around it.
    """

    line: int
    offset: int
    text: str


class LogHits(LogFile):
    """
    What was found in a slice of a log.

    :param hits: in the order of the search.
    :param next: where to go on; None when all was searched.
    """

    hits: list[LogHit]
    next: int | None
