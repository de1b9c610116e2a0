"""Launches of jobs that were placed on this cluster, or on another one: which are refused."""

from __future__ import annotations

import contextlib
import os
import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Iterator, Mapping, NamedTuple

from .. import protocol
from ..errors import Refused
from ..protocol.placement import CLAIM, EXPIRED, FENCE, FENCED_OFF, WITHDRAWN, order
from .directories import JobDirectory, Root
from .placements import forget_promise, is_outranked, job_and_array, new_note, note_placement, placement_note, placing
from .renewals import note_renewed
from .start_dates import is_later, is_past, start_date

if TYPE_CHECKING:
    from ..protocol.notes import PlacementNote
    from ..protocol.placement import Placement
    from ..protocol.requests import Submit


class Misplaced(NamedTuple):
    """
    Why an attempt must not start on this cluster.

    :param mark: the word for it in the record of its end.
    :param message: the sentence there.
    """

    mark: str
    message: str


def misplaced(job: JobDirectory, request: Mapping[str, Any], *, is_here: bool = False) -> Misplaced | None:
    """
    Return why an attempt must not start on this cluster; None if it may.

    :param request: its ``request.json``.
    :param is_here: whether this is certainly the host that was told of its placement.
    :raises Refused: which cluster has the job cannot be read; another look does not help.
    :raises OSError: it cannot be read now.
    """
    own: Placement | None = request.get("placement")
    root = Root(os.path.dirname(job.path))
    date = None
    for job_id in job_and_array(job.job_id, request):
        note = placement_note(root, job_id)
        if note is None:
            continue
        if note["kind"] != CLAIM:
            if own is None or order(note["placement"]) >= order(own):
                return _outranked(note)
        else:
            # What waits or runs here belongs to the highest claim: a later one has found it here.
            own, date = note["placement"], note.get("start_by")
    if own is None or "start_by" not in own:
        return None
    if is_past(date, is_here=is_here) if date is not None else time.time() > own["start_by"]:
        when = f"{datetime.fromtimestamp(own['start_by'], timezone.utc):%Y-%m-%d %H:%M:%S} UTC"
        return Misplaced(EXPIRED, f"nobody was in contact until its last moment to start here ({when})")
    return None


def _outranked(note: PlacementNote) -> Misplaced:
    return Misplaced(FENCED_OFF if note["kind"] == FENCE else WITHDRAWN, moved_words(note["placement"]))


def moved_words(placement: Placement) -> str:
    """Return in words that a job was placed elsewhere."""
    where = placement.get("conn_id")
    return f"moved to another cluster ({where})" if where else "moved to another cluster"


@contextlib.contextmanager
def placed_launch(root: Root, request: Submit) -> Iterator[None]:
    """
    Keep others from placing a job while it is being launched, if it was placed; before the job's own lock is taken.
    """
    if "placement" not in request:
        yield
        return
    with placing(root, request["job_id"]):
        yield


def check_placed(root: Root, request: Submit) -> None:
    """
    Refuse to launch a job that was placed on another cluster, or for which it is too late here.

    :raises Refused: it was, or it is.
    """
    placement = request.get("placement")
    for job_id in job_and_array(request["job_id"], request):
        _check(root, job_id, placement)
    if placement is not None and time.time() > placement.get("start_by", float("inf")):
        raise _expired(request["job_id"])


def _check(root: Root, job_id: str, placement: Placement | None) -> None:
    note = placement_note(root, job_id)
    if note is None or (placement is None and note["kind"] == CLAIM):
        return
    if placement is None or is_outranked(note, placement):
        where = note["placement"].get("conn_id")
        # The highest one may also be this one, taken back.
        on = f"on another cluster ({where})" if note["kind"] != CLAIM and where else "anew"
        raise Refused(
            protocol.PLACEMENT_OUTRANKED,
            f"job {job_id} was placed {on} meanwhile, and this request launches nothing here; ask where it is",
        )
    if order(note["placement"]) == order(placement) and "start_by" in note and is_past(note["start_by"]):
        raise _expired(job_id)


def _expired(job_id: str) -> Refused:
    return Refused(
        protocol.PLACEMENT_EXPIRED,
        f"the request to launch job {job_id} has arrived after its last moment to start (start_by), and launches "
        "nothing; choose a cluster anew",
    )


def note_launch(root: Root, request: Submit) -> None:
    """
    Keep the placement of a job that is about to be launched; call inside of :func:`placed_launch`.

    :raises Refused: it cannot be kept.
    """
    if "placement" not in request:
        return
    job_id, placement = request["job_id"], request["placement"]
    known = placement_note(root, job_id)
    if known is None or order(known["placement"]) < order(placement):
        note_placement(root, new_note(job_id, placement, CLAIM, known))
    elif "start_by" in placement:
        put_off(root, known, placement["start_by"])
    note_renewed(root, job_id)


def put_off(root: Root, note: PlacementNote, start_by: float | None) -> None:
    """
    Note a later last moment at which attempts of a placement may start; call while placing it.

    :param start_by: an earlier one changes nothing; None lets them start at any time.
    :raises Refused: that cannot be kept.
    """
    if "start_by" not in note:
        return
    date = None if start_by is None else start_date(start_by)
    if date is None:
        del note["start_by"]
        note["placement"].pop("start_by", None)
    elif is_later(date, note["start_by"]):
        note["start_by"], note["placement"]["start_by"] = date, date["at"]
    else:
        return
    note_placement(root, note)


def note_launched(root: Root, request: Submit) -> None:
    """Keep no GPUs any more for a job that waits for its own by now."""
    if "placement" in request:
        forget_promise(root, request["job_id"])
