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
    """

    token: str
