"""
The verb ``search-log``: look for a text in a log, line by line, a slice at a time.

Nobody finds out by a search what is hidden: a line with a secret is searched as it is shown.
"""

from __future__ import annotations

import contextlib
import re
import signal
import threading
import time
from bisect import bisect_right
from itertools import islice
from typing import TYPE_CHECKING, Callable, Iterator, Pattern

from .. import protocol
from ..errors import Refused
from ..protocol.logs import AFTER, BEFORE
from ..reply import Reply
from .hiding import read, window
from .log_part import LogPart, open_part

if TYPE_CHECKING:
    from types import FrameType

    from ..protocol.logs import LogHit, LogHits, SearchLogRequest
    from ..store.directories import Root

    # Yields where in bytes the matches begin, not more than one for each line.
    _Matcher = Callable[[bytes], Iterator[int]]

# How much of the processor a call may take before it begins another piece, and how long an expression may take for one,
# in seconds.
_SLICE_S = 0.15
_PIECE_S = 1.0
_PIECE_BYTES = 1 << 20
# Of a line that has several pieces, a match across their border is found up to this length.
_OVERLAP_BYTES = 4096
_MOST_TEXT = 1000
_MOST_HITS = 1000
_BEFORE_BYTES = 80
_EXCERPT_BYTES = 240


class _TooSlow(Exception):
    """An expression takes too long."""


def answer(root: Root, request: SearchLogRequest) -> Reply:
    """Carry out the verb ``search-log``."""
    search = _LogSearch(request)
    with open_part(root.job(request["job_id"]), request.get("attempt"), request["stream"]) as part:
        return Reply(search.slice(part, request.get("place")))


class _LogSearch:
    """
    A search through a log.

    :raises Refused: there is nothing to look for, or it is no regular expression.
    """

    def __init__(self, request: SearchLogRequest) -> None:
        self._is_back = request.get("way", AFTER) == BEFORE
        self._most = max(1, min(request.get("most", 100), _MOST_HITS))
        text, ignore_case = request["text"], request.get("ignore_case", False)
        if not text or len(text) > _MOST_TEXT:
            raise Refused(protocol.BAD_REQUEST, f"a text to search for has 1 to {_MOST_TEXT} characters")
        is_regex = request.get("is_regex", False)
        self._needle, self._folds = text.encode("utf-8", "surrogateescape"), ignore_case
        self._pattern: Pattern[str] | None = None
        if is_regex or (ignore_case and not text.isascii()):
            self._pattern = _compiled(text if is_regex else re.escape(text), ignore_case)
        elif ignore_case:
            self._needle = self._needle.lower()

    def slice(self, part: LogPart, place: int | None) -> LogHits:
        """Search for a moment from a place on, and return what was found."""
        start, stop = part.file["start"], part.file["stop"]
        at = (stop if self._is_back else start) if place is None else max(start, min(place, stop))
        hits: list[LogHit] = []
        until = time.process_time() + _SLICE_S
        following: int | None = None if part.fd is None else at
        while following is not None and len(hits) < self._most:
            following = self._piece(part, following, hits)
            if time.process_time() >= until:
                break
        return {**part.file, "hits": hits, "next": following}

    def _piece(self, part: LogPart, at: int, hits: list[LogHit]) -> int | None:
        """Search the next piece, and return where to go on."""
        assert part.fd is not None
        start, stop = part.file["start"], part.file["stop"]
        begin, end = (max(start, at - _PIECE_BYTES), at) if self._is_back else (at, min(stop, at + _PIECE_BYTES))
        data = read(part.fd, begin, end)
        if not data:
            return None
        begin, data, following = self._of_lines(begin, data, start, stop)
        left = self._most - len(hits)
        found = self._hits(part, begin, data)
        if self._is_back:
            last = list(found)[-left:]
            hits.extend(reversed(last))
            if len(last) < left:
                return following
            return last[0]["line"] if last[0]["line"] > start else None
        first = list(islice(found, left))
        hits.extend(first)
        if len(first) < left:
            return following
        line = data.find(b"\n", first[-1]["offset"] - begin) + 1
        return begin + line if line else following

    def _of_lines(self, begin: int, data: bytes, start: int, stop: int) -> tuple[int, bytes, int | None]:
        """Return the whole lines of a piece, where they begin, and where to go on; all of it if it has none."""
        end = begin + len(data)
        if self._is_back:
            if begin <= start:
                return begin, data, None
            line = data.find(b"\n", 0, len(data) - 1) + 1
            return (begin + line, data[line:], begin + line) if line else (begin, data, begin + _OVERLAP_BYTES)
        if end >= stop:
            return begin, data, None
        line = data.rfind(b"\n") + 1
        return (begin, data[:line], begin + line) if line else (begin, data, end - _OVERLAP_BYTES)

    def _hits(self, part: LogPart, begin: int, data: bytes) -> Iterator[LogHit]:
        assert part.fd is not None
        if not self._may_be_in(data):
            return
        shown = window(part.fd, begin, begin + len(data), part.masks)
        if not shown.secrets:
            yield from (self._hit(data, at, begin + _line_of(data, at), begin + at) for at in self._matches(data))
            return
        hidden = shown.hidden()
        starts = [0, *(end.end() for end in re.finditer(rb"\n", shown.data))]
        with_secrets = {
            line
            for one, other in shown.secrets
            for line in range(bisect_right(starts, one) - 1, bisect_right(starts, other - 1))
        }
        number = seen = 0
        for at in self._matches(hidden):
            number += hidden.count(b"\n", seen, at)
            seen = at
            line = begin + starts[number]
            # In a line with a secret, what is shown is elsewhere than in the log.
            yield self._hit(hidden, at, line, line if number in with_secrets else line + at - _line_of(hidden, at))

    def _may_be_in(self, data: bytes) -> bool:
        return self._pattern is not None or self._needle in (data.lower() if self._folds else data)

    @staticmethod
    def _hit(data: bytes, at: int, line: int, offset: int) -> LogHit:
        end = data.find(b"\n", at)
        first = max(_line_of(data, at), at - _BEFORE_BYTES)
        excerpt = data[first : min(len(data) if end < 0 else end, first + _EXCERPT_BYTES)]
        return {"line": line, "offset": offset, "text": excerpt.decode("utf-8", "ignore")}

    def _matches(self, data: bytes) -> Iterator[int]:
        if self._pattern is None:
            return _matches_of_text(data.lower() if self._folds else data, self._needle)
        with _limited():
            return iter(list(_matches_of_pattern(data, self._pattern)))


def _matches_of_text(data: bytes, needle: bytes) -> Iterator[int]:
    at = data.find(needle)
    while at >= 0:
        yield at
        line = data.find(b"\n", at + len(needle))
        at = data.find(needle, line + 1) if line >= 0 else -1


def _matches_of_pattern(data: bytes, pattern: Pattern[str]) -> Iterator[int]:
    text = data.decode("utf-8", "surrogateescape")
    is_ascii, known, offset, at = len(text) == len(data), 0, 0, 0
    while True:
        found = pattern.search(text, at)
        if found is None or found.start() == len(text):
            return
        if not is_ascii:
            offset += len(text[known : found.start()].encode("utf-8", "surrogateescape"))
            known = found.start()
        yield found.start() if is_ascii else offset
        line = text.find("\n", max(found.start(), found.end() - 1))
        if line < 0:
            return
        at = line + 1


def _line_of(data: bytes, at: int) -> int:
    """Return where the line of a place begins."""
    return data.rfind(b"\n", 0, at) + 1


def _compiled(text: str, ignore_case: bool) -> Pattern[str]:
    try:
        with _limited():
            return re.compile(text, re.MULTILINE | (re.IGNORECASE if ignore_case else 0))
    except (re.error, OverflowError, RecursionError) as error:
        raise Refused(protocol.BAD_REQUEST, f"{text!r} is no regular expression of Python: {error}") from error


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    """
    Limit how long an expression may take; some take longer than the universe exists.

    :raises Refused: it has taken longer.
    """
    if threading.current_thread() is not threading.main_thread():
        raise Refused(protocol.INTERNAL, "only the main thread can search for a regular expression")

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise _TooSlow

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, _PIECE_S)
    try:
        yield
    except _TooSlow:
        raise Refused(
            protocol.BAD_REQUEST,
            f"this regular expression takes too long: over {_PIECE_S:g} s for {_PIECE_BYTES >> 20} MiB of the log; "
            "write it so that it need not try many ways, without a repetition in a repetition such as (a+)+",
        ) from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
