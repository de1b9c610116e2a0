"""
Hiding a job's secrets in what is shown of its files: its logs, its outputs, what it reports.

A file is shown in windows, and a secret may lie across the border of one. So a little more than the window is read, and
what of a secret is in the window is hidden.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from .. import protocol
from ..errors import Refused
from ..linux.regular_files import NotRegular
from ..protocol.masks import HIDDEN, are_masks, joined, longest, places

if TYPE_CHECKING:
    from ..protocol.masks import Masks
    from ..protocol.records import AttemptRequest
    from ..store.directories import Attempt, JobDirectory

MOST_BYTES_OF_CHARACTER = 4
"""In UTF-8."""


class Window(NamedTuple):
    """
    Some bytes of a file.

    :param start: their place in the file.
    :param data: the bytes, with all secrets.
    :param secrets: where in them secrets are, or parts of secrets: begin and end, in order.
    """

    start: int
    data: bytes
    secrets: list[tuple[int, int]]

    def hidden(self) -> bytes:
        """Return the bytes with each secret replaced; line by line, so that there are as many lines."""
        pieces, at = [], 0
        for begin, end in self.secrets:
            lines = (HIDDEN.encode() if line.strip() else line for line in self.data[begin:end].split(b"\n"))
            pieces += [self.data[at:begin], b"\n".join(lines)]
            at = end
        return b"".join([*pieces, self.data[at:]])


def masks_of(job: JobDirectory) -> Masks | None:
    """
    Return masks of all secrets that a job was given, in any attempt; None if there were none.

    The directory of an array has no files of a job; each element is a job with secrets of its own.

    :raises Refused: the job has deleted or spoilt the records that tell them.
    :raises OSError: they cannot be read now.
    """
    found: list[Masks] = []
    before: int | None = None
    for attempt in reversed(job.attempts()):
        if before is not None and attempt.number >= before:
            continue
        request = _request_of(attempt)
        # Attempts that follow each other by themselves, of which there may be a thousand, have the same.
        before = request.get("recovery", {}).get("first", attempt.number)
        masks = request.get("masks")
        if masks is not None and masks not in found:
            found.append(masks)
    return joined(found)


def _request_of(attempt: Attempt) -> AttemptRequest:
    path = attempt.at("request.json")
    try:
        request = attempt.request()
        first, masks = request.get("recovery", {}).get("first", 1), request.get("masks")
        if not isinstance(first, int) or not (masks is None or are_masks(masks)):
            raise ValueError(f"{path} is not as it was written")
    except (ValueError, TypeError, AttributeError, NotRegular) as error:
        raise Refused(
            protocol.NO_SUCH_JOB,
            f"which secrets job {attempt.job.job_id} has is unknown, since its records were overwritten, by the "
            f"job itself perhaps ({error}); so its files are not shown here: see {attempt.job.path} on the cluster",
        ) from error
    return request


def window(fd: int, start: int, end: int, masks: Masks | None) -> Window:
    """
    Return the bytes of an open file from one place to another, or to its end if that is nearer.

    :raises OSError: they cannot be read.
    """
    around = MOST_BYTES_OF_CHARACTER * longest(masks)
    first = max(0, start - around)
    data = read(fd, first, end + around)
    shown = data[start - first : end - first]
    secrets = []
    for begin, stop in _secrets(data, masks) if masks else ():
        begin, stop = max(0, begin + first - start), min(len(shown), stop + first - start)
        if begin < stop:
            secrets.append((begin, stop))
    return Window(start, shown, secrets)


def hidden_window(fd: int, start: int, end: int, masks: Masks | None) -> bytes:
    """Return the same bytes with each secret replaced, and each part of one."""
    return window(fd, start, end, masks).hidden()


def finished(data: bytes, masks: Masks | None) -> int:
    """
    Return how much may be shown of the end of a log that grows.

    The beginning of a secret cannot be told from other text. A program that does not write line by line may have
    written half of one, and nothing more for a while: the end of a line that is not finished has to wait.
    """
    most = MOST_BYTES_OF_CHARACTER * longest(masks)
    if not most:
        return len(data)
    line = data.rfind(b"\n") + 1
    # A progress bar writes over itself; the one before is as good.
    bar = data.rfind(b"\r", line)
    return bar if bar >= 0 else max(line, len(data) - most)


def read(fd: int, start: int, end: int) -> bytes:
    """Return the bytes of an open file between two places; the file may have fewer."""
    pieces = []
    while start < end:
        piece = os.pread(fd, end - start, start)
        if not piece:
            break
        pieces.append(piece)
        start += len(piece)
    return b"".join(pieces)


def _secrets(data: bytes, masks: Masks) -> list[tuple[int, int]]:
    """Return where in bytes of a file secrets are."""
    text = data.decode("utf-8", "surrogateescape")
    found = places(text, masks)
    if not found or len(text) == len(data):
        return found
    converted, at, offset = [], 0, 0
    for place in found:
        ends = []
        for index in place:
            offset += len(text[at:index].encode("utf-8", "surrogateescape"))
            at = index
            ends.append(offset)
        converted.append((ends[0], ends[1]))
    return converted
