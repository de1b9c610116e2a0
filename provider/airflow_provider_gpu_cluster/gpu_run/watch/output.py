"""Send the job's output to readers that return: each gets every byte once, and its position is kept here."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO

from .. import protocol
from ..errors import Refused
from ..jobs.counts import count
from ..jobs.notices import take_notices
from ..jobs.status import status_or_unknown
from ..linux import regular_files
from ..reply import Reply
from ..store import records
from ..store.asked import note_asked
from ..store.directories import JobDirectory, Root
from ..store.writing import write_text

if TYPE_CHECKING:
    from ..engines.engine import Engine
    from ..protocol.notes import CursorNote
    from ..protocol.replies import LogReply, LogsReply
    from ..protocol.requests import Acknowledgement, LogRequest, LogsRequest, Position


def answer(root: Root, engine: Engine, request: LogRequest | LogsRequest) -> Reply:
    """Carry out the verb ``logs``, for one job or for several."""
    if "jobs" in request:
        replies, pieces = read_logs(root, engine, request)
        return Reply(replies, lambda out: out.writelines(pieces))
    value, log = open_log(root, engine, request)
    return Reply(value) if log is None else Reply(value, partial(_copy, log, value["length"]))


def _copy(log: BinaryIO, length: int, out: BinaryIO) -> None:
    with log:
        out.write(log.read(length))


def open_log(root: Root, engine: Engine, request: LogRequest) -> tuple[LogReply, BinaryIO | None]:
    """
    Return the status of a job, and its output from its reader's position on.

    The position moves when the reader acknowledges what it has shown, not when something is sent: after a lost reply,
    the same output is sent again. The state is read before the output, so output with a final state is complete.

    :return: the reply, whose ``length`` says how many bytes of the open file follow.
    """
    job = root.job(request["job_id"])
    note_asked(job.path)
    status = status_or_unknown(root, engine, request["job_id"], request.get("tail_bytes", 0))
    take_notices(root, status, request.get("notify"))
    reply: LogReply = {"status": status, "attempt": 0, "offset": 0, "log_bytes": 0, "length": 0}
    reply["counted"] = count(root, [status])
    attempt = status.get("attempt")
    if not attempt or not job.attempts():
        return reply, None
    number = status.get("log_attempt", attempt)
    cursor = Cursor(job, request["reader"])
    cursor.place_in(number, attempt)
    ack = request.get("ack")
    if ack is not None:
        cursor.move(ack)
        # On a full disk, the reader acknowledges the same again, or gets some output twice.
        with contextlib.suppress(OSError):
            cursor.save()
    offset, note = cursor.place_in(number, attempt)
    reply["attempt"], reply["offset"], reply["note"] = number, offset, note
    # Until the first attempt with a log runs, there may be that of an attempt before.
    is_begun = status["state"] != protocol.QUEUED or number != attempt
    log = open_log_of(job, number) if is_begun else None
    if log is None:
        return reply, None
    size = log.seek(0, os.SEEK_END)
    log.seek(offset)
    reply["log_bytes"], reply["length"] = size, max(0, min(size - offset, request["max_bytes"]))
    return reply, log


def read_logs(root: Root, engine: Engine, request: LogsRequest) -> tuple[LogsReply, list[bytes]]:
    """
    Do the same for several jobs at once, and read their output.

    A job whose status cannot be found does not affect the others.

    :return: the reply, and the output that follows it.
    :raises Refused: one of them has no valid job id.
    """
    for one in request["jobs"]:
        root.job(one["job_id"])
    replies: list[LogReply] = []
    pieces: list[bytes] = []
    left = request["max_bytes"]
    for one in request["jobs"]:
        try:
            reply, log = open_log(root, engine, {**one, "max_bytes": left})
        except Refused:
            status = status_or_unknown(root, engine, one["job_id"])
            reply, log = {"status": status, "attempt": 0, "offset": 0, "log_bytes": 0, "length": 0}, None
        if log is not None:
            with log:
                pieces.append(log.read(reply["length"]))
            reply["length"] = len(pieces[-1])
            left -= reply["length"]
        replies.append(reply)
    return {"jobs": replies}, pieces


def open_log_of(job: JobDirectory, number: int) -> BinaryIO | None:
    """
    Return the output of a job; None when there is none yet, when the job has made it impossible to read, or when a
    later attempt has begun another log.

    :param number: of the log, see :attr:`.store.directories.Attempt.log_number`.
    :raises OSError: it cannot be read now.
    """
    try:
        # A job may keep its output elsewhere, and put a link here.
        log = os.fdopen(regular_files.open_to_read(job.at("logs", "training.log"), follow=True), "rb")
    except (FileNotFoundError, NotADirectoryError, PermissionError, regular_files.NotRegular):
        # The status says why.
        return None
    try:
        # Check afterwards: the next attempt exists before its log does.
        is_latest = [latest.log_number for latest in job.attempts()[-1:]] == [number]
    except BaseException:
        log.close()
        raise
    if not is_latest:
        log.close()
        return None
    return log


class Cursor:
    """
    A reader's position in the output of a job: number of the log, offset in it, and a note of the reader's own.

    It is kept in the job's directory, but may be lost; then the reader gets some output again.

    :param reader: any name.
    """

    def __init__(self, job: JobDirectory, reader: str) -> None:
        self._reader = reader
        self._path = job.at(".job", "cursors", hashlib.sha256(reader.encode()).hexdigest()[:16] + ".json")
        self._place = (0, 0)
        self._note: Any = None
        self._is_saved = True
        # A crash of the host may have truncated it, or the job may have destroyed it.
        with contextlib.suppress(ValueError, KeyError, TypeError, OverflowError, regular_files.NotRegular):
            kept: CursorNote | None = records.read_json(self._path)
            if kept is not None:
                self._place = (int(kept["place"]["attempt"]), int(kept["place"]["offset"]))
                self._note = kept.get("note")

    def place_in(self, number: int, latest: int) -> tuple[int, Any]:
        """
        Return the offset in a log, and the note; a new log is read from its start.

        :param number: of the log.
        :param latest: number of the latest attempt that writes to it. Programs that knew of no attempts which follow by
            themselves have counted places by that.
        """
        if not number <= self._place[0] <= latest:
            return 0, None
        self._place = (number, self._place[1])
        return self._place[1], self._note

    def move(self, ack: Acknowledgement) -> None:
        """
        Move to a position that the reader has acknowledged, never backwards.
        """
        place, note = (ack["attempt"], ack["offset"]), ack.get("note")
        if place > self._place or (place == self._place and note is not None and note != self._note):
            self._place, self._note, self._is_saved = place, note, False

    def save(self) -> Position:
        """
        Write the position down, and return it.

        :raises OSError: the job's directory is gone, or cannot be written to.
        """
        place: Position = {"attempt": self._place[0], "offset": self._place[1]}
        if not self._is_saved:
            # Only this folder is made, so as not to recreate the directory of a deleted job.
            with contextlib.suppress(FileExistsError):
                os.mkdir(os.path.dirname(self._path))
            note: CursorNote = {"reader": self._reader, "place": place, "note": self._note}
            write_text(self._path, json.dumps(note))
            self._is_saved = True
        return place
