"""What a job has printed since the last look; for people who look on, and so without a note of how far they are."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ..jobs.log_part import open_part
from ..jobs.log_window import log_window, shown_until
from ..protocol.logs import AFTER, BEFORE

if TYPE_CHECKING:
    from ..protocol.following import LogNews, TailPlace
    from ..store.directories import JobDirectory

# What is sent at once, and how much may wait to be sent: of more than that, the newest is.
PIECE_BYTES = 1 << 16
MOST_WAITING_BYTES = 1 << 17


class LogTail:
    """
    What is new in a job's log.

    :param place: where to go on; None for the log's present end.
    """

    def __init__(self, job: JobDirectory, place: TailPlace | None) -> None:
        self._job = job
        self._path = job.at("logs", "training.log")
        self._place = place
        self._seen: tuple[int, int] | None = None
        self._has_more = True

    def has_grown(self) -> bool:
        """Return whether there may be something new."""
        try:
            found = os.stat(self._path)
            seen = found.st_size, found.st_ino
        except OSError:
            seen = 0, 0
        is_news, self._seen = seen != self._seen, seen
        # What was held back, as a line or a secret may go on, is shown when the job ends.
        return is_news or self._has_more

    def news(self, attempt: int) -> LogNews | None:
        """
        Return what is new; None if nothing is. At first it is nothing, at the place after which all comes.

        :raises Refused: there is no log yet, or which secrets the job has is unknown.
        :raises OSError: it cannot be read now.
        """
        with open_part(self._job, None) as part:
            stop, file = shown_until(part), part.file["file"]
            self._has_more = part.file["grows"] and stop < part.file["stop"]
            if self._place is None:
                self._place = {"file": file, "offset": stop}
                return {**log_window(part, stop, AFTER), "skipped": 0}
            # Another try begins another log.
            is_same = self._place["file"] in ("", file) and self._place["offset"] <= part.file["size"]
            start = self._place["offset"] if is_same else 0
            if stop - start > MOST_WAITING_BYTES:
                window = log_window(part, stop, BEFORE, most_bytes=PIECE_BYTES)
            else:
                window = log_window(part, start, AFTER, most_bytes=PIECE_BYTES)
            self._place = {"file": file, "offset": window["end"]}
            self._has_more = self._has_more or window["end"] < stop
            if is_same and window["end"] == start:
                return None
            return {**window, "skipped": max(0, window["offset"] - start)}
