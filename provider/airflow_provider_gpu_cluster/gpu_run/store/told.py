"""
Who tells people of an event of a job: each event is told once, however many processes look at the job.

A note per event says that somebody is sending a message, and then that it was sent. A sender that is gone, or that
could not send, leaves the first; after a while the next one that looks takes over. So a message may be sent twice if
its sender dies just after it was sent, and never gets lost while the job is looked at.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from . import records
from .directories import JobDirectory

if TYPE_CHECKING:
    from ..protocol.notices import ToldNote

SENDING = "sending"
SENT = "sent"
# How long a sender has; after each try, the next one has twice as much.
TAKEN_OVER_AFTER_S = 120.0
_LONGEST_S = 3600.0


class ToldEvent:
    """
    The note of one event.

    :param job: the job, or the array, in whose folder the note is.
    :param folder: the folder of the note below that, as its parts.
    :param event: its name.
    """

    def __init__(self, job: JobDirectory, folder: tuple[str, ...], event: str) -> None:
        self._job = job
        self._path = job.at(*folder, f"{event}.json")

    def is_sent(self) -> bool:
        """Return whether it was told."""
        note = self._note()
        return note is not None and note["state"] == SENT

    def take(self) -> int:
        """
        Become the one who tells it; return the number of this try, or 0 if somebody else does or has done so.

        :raises OSError: the disk has a fault, or is full.
        :raises Refused: likewise.
        """
        # Only this folder is made, so as not to recreate the directory of a deleted job.
        with contextlib.suppress(FileExistsError):
            os.mkdir(os.path.dirname(self._path), 0o700)
        if records.create_json(self._path, _sending(1)):
            return 1
        if not self._is_over():
            return 0
        with self._job.lock():
            note = self._note()
            if note is None or not self._is_over():
                return 0
            tries = note["tries"] + 1
            records.write_json(self._path, _sending(tries))
            return tries

    def note_sent(self) -> None:
        """
        Note that it was told.

        :raises OSError: the disk has a fault, or is full.
        """
        note = self._note()
        if note is not None:
            sent: ToldNote = {"state": SENT, "at": records.now(), "tries": note["tries"]}
            records.write_json(self._path, sent)

    def _is_over(self) -> bool:
        """Return whether the time of the present sender is over."""
        note = self._note()
        if note is None or note["state"] == SENT:
            return False
        patience_s = min(_LONGEST_S, TAKEN_OVER_AFTER_S * 2.0 ** min(note["tries"] - 1, 10))
        # A clock may have been set back since.
        return abs(records.seconds_between(note["at"], records.now())) > patience_s

    def _note(self) -> ToldNote | None:
        """Return the note; one that the job has spoilt counts as told, so that it is not told again and again."""
        spoilt: ToldNote = {"state": SENT, "at": records.now(), "tries": 1}
        try:
            note: ToldNote | None = records.read_json(self._path)
            if note is not None:
                records.seconds_between(note["at"], records.now())
                note["tries"] = max(1, int(note["tries"]))
                if note["state"] not in (SENDING, SENT):
                    return spoilt
            return note
        except (ValueError, KeyError, TypeError, OverflowError):
            return spoilt
        except OSError:
            return spoilt if os.path.lexists(self._path) else None


def _sending(tries: int) -> ToldNote:
    return {"state": SENDING, "at": records.now(), "tries": tries}


def is_counted_now(path: str) -> bool:
    """
    Make an empty file that says that something was counted; return whether this call has made it.

    :param path: of the file, in a folder that exists.
    """
    with contextlib.suppress(OSError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
        return True
    return False
