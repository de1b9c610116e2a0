"""The reply of a verb."""

from __future__ import annotations

from typing import BinaryIO, Callable, Mapping, NamedTuple


class Reply(NamedTuple):
    """
    A line of JSON, and what may follow it.

    :param value: the contents of the line.
    :param body: called after the line was sent, with the open file to go on in; None when nothing follows.
    """

    value: Mapping[str, object]
    body: Callable[[BinaryIO], object] | None = None
