"""Records of who has cancelled a job."""

from __future__ import annotations

from typing import TypedDict


class _CancelRecord(TypedDict):
    by: str
    at: str


class CancelRecord(_CancelRecord, total=False):
    """
    ``cancel.json``: who has cancelled an attempt, or an array.

    :param token: unique among the cancellations of the array.
    :param placement: why it is not to run on this cluster, if that is what it was cancelled for; see :mod:`.placement`.
    :param message: what the record of its end is to say; by default, by whom it was cancelled.
    """

    token: str
    placement: str
    message: str


def words_of(asked: CancelRecord) -> str:
    """Return what the record of an end says that was asked for."""
    message = asked.get("message")
    return message if isinstance(message, str) and message else "cancelled by {}".format(asked["by"])
