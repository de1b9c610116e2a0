"""
The verb ``renew``: whoever waits for a job that was placed here says that it still is to run here.

That lets its attempts start for longer, and keeps one that is kept only by renewals. What was too late once stays so,
also for a renewal: who places the job elsewhere may count on it.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from .. import protocol
from ..errors import Refused
from ..protocol.placement import CLAIM, order
from ..reply import Reply
from ..store.directories import Root
from ..store.placed_launches import put_off
from ..store.placements import is_moment, placement_note, placing, sound_placement
from ..store.renewals import note_renewed
from ..store.start_dates import is_past
from .placing import end_if_expired, latest_attempts

if TYPE_CHECKING:
    from ..engines.engine import Engine
    from ..protocol.placement import Renewal, RenewReply
    from ..protocol.requests import RenewCall


def answer(root: Root, engine: Engine, request: RenewCall) -> Reply:
    """Carry out the verb ``renew``."""
    for one in request["jobs"]:
        root.job(one["job_id"])
        sound_placement({"epoch": one.get("epoch"), "key": one.get("key")})
        if one.get("start_by") is not None and not is_moment(one["start_by"]):
            raise Refused(protocol.BAD_REQUEST, "start_by={!r} is no time".format(one["start_by"]))
    reply: RenewReply = {"jobs": [_renewed(root, engine, one) for one in request["jobs"]], "now": time.time()}
    return Reply(reply)


def _renewed(root: Root, engine: Engine, renewal: Renewal) -> bool:
    job_id = renewal["job_id"]
    if placement_note(root, job_id) is None:
        return False
    start_by = renewal.get("start_by")
    with placing(root, job_id):
        note = placement_note(root, job_id)
        if note is None or note["kind"] != CLAIM or order(note["placement"]) != (renewal["epoch"], renewal["key"]):
            return False
        if start_by is not None and time.time() > start_by:
            # It was held up on its way, and who has sent it may count on having had no answer.
            return False
        if "start_by" in note and is_past(note["start_by"]) and not _has_begun(root, engine, job_id):
            return False
        note_renewed(root, job_id)
        if "start_by" in renewal:
            # On a full disk an attempt may start for no longer, but what runs goes on.
            with contextlib.suppress(Refused):
                put_off(root, note, start_by)
    return True


def _has_begun(root: Root, engine: Engine, job_id: str) -> bool:
    """Return whether an attempt has begun in time and still runs; end those that have not."""
    has_begun = False
    for attempt in latest_attempts(root, root.job(job_id)):
        if attempt.ended() is None and not end_if_expired(attempt, engine):
            has_begun = True
    return has_begun
