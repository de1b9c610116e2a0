"""
The attempts that wait or run: a small note of each in ``.gpu-run/unfinished``, so that they are counted without a look
at every job that there ever was.

A note is there from before its attempt until after the line of its end is in the ledger. Whoever counts removes those
that were left behind.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, Any, Iterator, Mapping, NamedTuple

from ..ledger.ledger import is_booked
from ..ledger.who import line_of
from ..protocol.ledger import END
from . import records

if TYPE_CHECKING:
    from ..protocol.notes import UnfinishedNote

# How long after its note an attempt is there at the latest.
_MADE_WITHIN_S = 300.0


class Unfinished(NamedTuple):
    """
    An attempt that waits or runs, or whose end is not in the ledger yet.

    :param path: of its folder.
    """

    path: str
    note: UnfinishedNote


def unfinished_note(request: Mapping[str, Any], *, is_held: bool = False) -> UnfinishedNote:
    """
    Return the note of an attempt.

    :param request: its request, as it arrives or as it is recorded.
    :param is_held: whether it must wait for its budget.
    """
    spec = request["spec"]
    line = line_of(END, "", "", request.get("by") or request.get("record"))
    return {
        "gpus": int(spec["gpus"]) * int(spec.get("nodes") or 1),
        "time_limit_s": spec.get("time_limit_s"),
        "dag_id": line.get("dag_id", ""),
        "user": line["user"],
        "owner": line.get("owner", ""),
        "noted_at": time.time(),
        "is_held": is_held,
    }


def note_unfinished(job: str, number: int, note: UnfinishedNote) -> None:
    """
    Write or replace the note of an attempt, if the disk has room.

    :param job: path of the job's directory.
    """
    with contextlib.suppress(OSError):
        path = _path(job, number)
        try:
            records.write_json(path, note, sync=False)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            records.write_json(path, note, sync=False)


def is_noted(job: str, number: int) -> bool:
    """Return whether there is a note of an attempt."""
    return os.path.lexists(_path(job, number))


def forget_unfinished(job: str, number: int) -> None:
    """Remove the note of an attempt whose end is in the ledger."""
    with contextlib.suppress(OSError):
        os.unlink(_path(job, number))


def all_unfinished(root: str) -> Iterator[Unfinished]:
    """
    Yield the attempts that have a note, and remove the notes that were left behind.

    :param root: path of the root.
    """
    folder = _folder(root)
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return
    for name in names:
        job_id, _, number = name[: -len(".json")].rpartition(".")
        if not name.endswith(".json") or not number.isdigit():
            continue
        path = os.path.join(root, job_id, ".job", "attempts", number)
        # A job can write to the notes.
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            note: UnfinishedNote | None = records.read_json(os.path.join(folder, name))
            if note is None:
                continue
            if is_booked(path) or not (os.path.isdir(path) or abs(time.time() - note["noted_at"]) < _MADE_WITHIN_S):
                os.unlink(os.path.join(folder, name))
                continue
            yield Unfinished(path, note)


def unfinished_ids(root: str) -> Iterator[tuple[str, int]]:
    """Yield job and number of the attempts that have a note, and leave all notes as they are."""
    try:
        names = os.listdir(_folder(root))
    except OSError:
        return
    for name in names:
        job_id, _, number = name[: -len(".json")].rpartition(".")
        if name.endswith(".json") and number.isdigit():
            yield job_id, int(number)


def _folder(root: str) -> str:
    return os.path.join(root, ".gpu-run", "unfinished")


def _path(job: str, number: int) -> str:
    return os.path.join(_folder(os.path.dirname(job)), f"{os.path.basename(job)}.{number}.json")
