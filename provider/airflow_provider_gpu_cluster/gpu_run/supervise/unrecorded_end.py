"""The end of an attempt whose processes are gone, or told to end, without a word of why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import protocol
from ..linux.logout import with_logout
from ..protocol.cancellation import words_of
from ..store.directories import Attempt

if TYPE_CHECKING:
    from ..protocol.records import End


def unrecorded_end(attempt: Attempt, message: str, *, may_be_logout: bool = False) -> End:
    """
    Return how such an attempt ended: it was cancelled if somebody has asked for that, and is lost otherwise.

    :param message: what is known of its end.
    :param may_be_logout: whether the processes ran on this host, where a logout may have ended them.
    """
    asked = attempt.cancellation()
    if asked is not None:
        message = f"{words_of(asked)}; {message}"
        return {"state": protocol.CANCELLED, "reason": protocol.REASON_CANCELLED, "message": message}
    message = with_logout(message) if may_be_logout else message
    return {"state": protocol.LOST, "reason": protocol.REASON_LOST, "message": message}
