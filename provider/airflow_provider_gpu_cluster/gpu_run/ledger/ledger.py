"""
The ledger of a cluster: one line for each end of an attempt, each transfer, and each act on a job.

It is a folder with a file of JSON lines for each month (UTC). Any number of processes on any hosts append to it under
its lock. A line is there as a whole or not at all, and the line of an end is there once. To that purpose an attempt has
a note, ``booking.json``, that says where its line is to begin; it is written before the line, and renamed to
``booked.json`` after it. Whoever finds a note of the first name looks whether the line is there.

The books never keep a job from ending: a line that cannot be written now is left to whoever looks at the job later.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from datetime import datetime, timezone
from itertools import islice
from typing import TYPE_CHECKING, Any, Iterable, Iterator, Mapping

from ..linux import locks, regular_files
from ..protocol.ledger import ACT, END, TRANSFER
from .month import Month, put_aside

if TYPE_CHECKING:
    from ..protocol.ledger import EndLine, LedgerLine

KINDS = (END, TRANSFER, ACT)
#: How long the end of a job waits for the ledger's lock, in seconds.
MOMENT_S = 0.5
_MOST_NOTE_BYTES = 4096
_FIRST = ("kind", "at", "job_id", "user", "dag_id", "task_id")
#: What is added up of the lines of ends, which comes before all else in them.
BRIEF = (
    *("attempt", "state", "reason", "follows_at", "follows_reason", "gpu_seconds", "used_gpu_seconds"),
    *("idle_gpu_seconds", "energy_j", "queued_s", "received_bytes", "sent_bytes", "placement"),
)
_THEN = ("engine",)
_AFTER_BRIEF = b', "engine": '
_AT_ONCE = 256


class Ledger:
    """
    The ledger of a cluster.

    :param own: path of the folder ``.gpu-run`` of the root.
    """

    def __init__(self, own: str) -> None:
        self.folder = os.path.join(own, "ledger")

    # -- writing -------------------------------------------------------------------------------------------------

    def append(self, line: LedgerLine, *, wait_s: float = MOMENT_S) -> bool:
        """
        Append a line; return whether that was possible.

        :param line: its ``at`` chooses the month; a later one than the present time becomes that.
        :param wait_s: how long to wait for other writers, in seconds.
        """
        return self.append_all([line], wait_s=wait_s)

    def append_all(self, lines: Iterable[LedgerLine], *, wait_s: float = MOMENT_S) -> bool:
        """
        Append lines that belong together; return whether that was possible for all of them.

        :param wait_s: see :meth:`append`.
        """
        with contextlib.suppress(OSError, ValueError):
            texts: dict[str, list[bytes]] = {}
            for line in lines:
                name, text = _written(line)
                texts.setdefault(name, []).append(text)
            with self._locked(wait_s) as is_alone:
                if is_alone:
                    for name, together in texts.items():
                        with Month.open(os.path.join(self.folder, name)) as month:
                            month.append(*together)
                    return True
        return False

    def append_end(self, line: EndLine, attempt: str, *, wait_s: float = MOMENT_S) -> bool:
        """
        Append the line of an attempt's end, unless it is there; return whether it is there now.

        :param attempt: path of the attempt's folder.
        :param wait_s: how long to wait for other writers, in seconds.
        """
        if is_booked(attempt):
            return True
        with contextlib.suppress(OSError, ValueError), self._locked(wait_s) as is_alone:
            if is_alone:
                if not is_booked(attempt):
                    self._book(line, attempt)
                return True
        return False

    def _book(self, line: EndLine, attempt: str) -> None:
        booking, booked = _notes(attempt)
        is_kept = os.path.isdir(attempt)
        if not self._is_there(line, booking):
            name, text = _written(line)
            with Month.open(os.path.join(self.folder, name)) as month:
                if is_kept:
                    _write_note(booking, {"file": name, "offset": month.size})
                month.append(text, sync=True)
        if is_kept:
            os.replace(booking, booked)

    def _is_there(self, line: EndLine, booking: str) -> bool:
        """Return whether the line of an attempt is at the place that its note names."""
        with contextlib.suppress(
            OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError
        ):
            note = json.loads(regular_files.read(booking, _MOST_NOTE_BYTES))
            name = os.path.basename(note["file"])
            with Month.open(os.path.join(self.folder, name), create=False) as month:
                there = json.loads(month.line_at(int(note["offset"])))
            names = ("kind", "job_id", "attempt")
            return [there.get(name) for name in names] == [dict(line).get(name) for name in names]
        return False

    @contextlib.contextmanager
    def _locked(self, wait_s: float) -> Iterator[bool]:
        """Keep other writers waiting, and yield True; yield False when one of them takes too long."""
        fd = self._lock(wait_s)
        try:
            yield fd is not None
        finally:
            if fd is not None:
                os.close(fd)

    def _lock(self, wait_s: float) -> int | None:
        path = os.path.join(self.folder, "lock")
        for is_last in (False, True):
            try:
                os.makedirs(self.folder, mode=0o700, exist_ok=True)
                with contextlib.suppress(FileNotFoundError):
                    regular_files.check(os.lstat(path), path)
                break
            except (FileExistsError, regular_files.NotRegular) as error:
                if is_last:
                    raise
                put_aside(path if isinstance(error, regular_files.NotRegular) else self.folder)
        return locks.lock(path, timeout_s=wait_s)

    # -- reading -------------------------------------------------------------------------------------------------

    def months(self) -> list[str]:
        """Return the names of the files, oldest first."""
        with contextlib.suppress(OSError):
            return sorted(name for name in os.listdir(self.folder) if _is_month(name))
        return []

    def lines(
        self,
        since: str | None = None,
        until: str | None = None,
        kinds: Iterable[str] = KINDS,
        *,
        are_brief: bool = False,
    ) -> Iterator[dict[str, Any]]:
        """
        Yield the lines of a time, in the order in which they were written, month by month.

        What is no line is passed over. Whatever the size of the ledger, this takes little memory.

        :param since: the first moment, in the form of all records, in UTC; None begins with the first line.
        :param until: the first moment that does not belong to it.
        :param kinds: of lines.
        :param are_brief: see :meth:`lines_from`.
        """
        kinds = tuple(kinds)
        for name in self.months():
            if (since and name[:7] < since[:7]) or (until and name[:7] > until[:7]):
                continue
            for _, line in self.lines_from(name, 0, kinds, are_brief=are_brief):
                at = line["at"]
                if (since is None or at >= since) and (until is None or at < until):
                    yield line

    def lines_from(
        self, name: str, offset: int, kinds: Iterable[str] = KINDS, *, are_brief: bool = False
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """
        Yield the lines of a month from a place on, each with the place where the next begins.

        :param name: one of :meth:`months`.
        :param offset: where a line begins, in bytes.
        :param are_brief: leave out what comes after :data:`BRIEF` in the lines of ends, and need not be added up.
        """
        starts = tuple(f'{{"kind": "{kind}"'.encode() for kind in kinds)
        try:
            month = Month.open(os.path.join(self.folder, name), create=False)
        except OSError:
            return
        with month:
            wanted = ((end, text) for end, text in month.lines_from(offset) if text.startswith(starts))
            while batch := list(islice(wanted, _AT_ONCE)):
                for (end, _), line in zip(batch, _parsed([text for _, text in batch], are_brief)):
                    if line is not None:
                        yield end, line


def is_booked(attempt: str) -> bool:
    """Return whether the line of an attempt's end is known to be in the ledger."""
    return os.path.lexists(_notes(attempt)[1])


def _notes(attempt: str) -> tuple[str, str]:
    return os.path.join(attempt, "booking.json"), os.path.join(attempt, "booked.json")


def _write_note(path: str, note: Mapping[str, object]) -> None:
    """Write a note that is on the disk before the line is."""
    draft = f"{path}.{os.urandom(8).hex()}.tmp"
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            json.dump(note, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except OSError:
        os.unlink(draft)
        raise


def _written(line: Mapping[str, Any]) -> tuple[str, bytes]:
    """Return the name of a line's month, and its text. Its kind comes first, then its time."""
    now = datetime.now(timezone.utc)
    at = now
    with contextlib.suppress(KeyError, TypeError, ValueError, OverflowError):
        # In UTC, as lines are compared by the text of their time.
        at = min(now, datetime.fromisoformat(line["at"]).astimezone(timezone.utc))
    line = {**line, "at": at.isoformat(timespec="milliseconds")}
    line = {**{name: line[name] for name in (*_FIRST, *BRIEF, *_THEN) if name in line}, **line}
    text = json.dumps(line, allow_nan=False)
    return f"{at.year:04}-{at.month:02}.jsonl", text.encode("ascii") + b"\n"


def _parsed(texts: list[bytes], are_brief: bool) -> list[dict[str, Any] | None]:
    """Return lines from their texts; None for what is no line."""
    if are_brief:
        texts = list(map(_brief, texts))
    try:
        # Together, as that takes half of the time.
        lines = json.loads(b"[" + b",".join(texts) + b"]")
        if len(lines) == len(texts):
            return list(map(_checked, lines))
    except (ValueError, RecursionError):
        pass
    return list(map(_parsed_alone, texts))


def _parsed_alone(text: bytes) -> dict[str, Any] | None:
    try:
        return _checked(json.loads(text))
    except (ValueError, RecursionError):
        return None


def _checked(line: Any) -> dict[str, Any] | None:
    is_line = isinstance(line, dict) and isinstance(line.get("at"), str) and isinstance(line.get("job_id"), str)
    return line if is_line else None


def _brief(text: bytes) -> bytes:
    # In a text of a line, this would have backslashes.
    head, rest, _ = text.partition(_AFTER_BRIEF)
    return head + b"}" if rest and b', "gpu_seconds": ' in head else text


def _is_month(name: str) -> bool:
    return re.match(r"^\d{4}-\d{2}\.jsonl$", name) is not None
