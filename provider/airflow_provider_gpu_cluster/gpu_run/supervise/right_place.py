"""Looks, right before the user's code begins, whether it still is to run on this cluster."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Callable

from ..store.directories import Root
from ..store.placed_launches import misplaced
from ..store.placements import WITHDRAWAL_S, job_and_array, placement_note

if TYPE_CHECKING:
    from ..protocol.records import AttemptRequest
    from ..store.directories import Attempt
    from ..store.placed_launches import Misplaced

_PAUSE_S = 0.1
# How long the records may be out of reach, such as those on a network file system.
_PATIENCE_S = 60.0


def found_misplaced(
    attempt: Attempt, request: AttemptRequest, *, is_here: bool, is_told_to_end: Callable[[], bool]
) -> Misplaced | None:
    """
    Return why an attempt that this process has claimed must not run here; None if it may.

    While it is just being decided whether it is taken back, this waits for that.

    :param is_here: whether this is certainly the host that was told of its placement.
    :param is_told_to_end: whether it is to end anyway.
    :raises OSError: the records cannot be read.
    """
    began = time.monotonic()
    while True:
        try:
            # In this order: a decision that falls between the two is seen.
            is_open = _is_being_withdrawn(attempt, request)
            why = misplaced(attempt.job, request, is_here=is_here)
        except OSError:
            if time.monotonic() - began > _PATIENCE_S:
                raise
        else:
            # Who has begun to take it back, and was killed, keeps it only so long.
            if why is not None or not is_open or time.monotonic() - began > WITHDRAWAL_S:
                return why
        if is_told_to_end():
            return None
        time.sleep(_PAUSE_S)


def _is_being_withdrawn(attempt: Attempt, request: AttemptRequest) -> bool:
    root = Root(os.path.dirname(attempt.job.path))
    notes = (placement_note(root, job_id) for job_id in job_and_array(attempt.job.job_id, request))
    return any("withdrawal" in note for note in notes if note is not None)
