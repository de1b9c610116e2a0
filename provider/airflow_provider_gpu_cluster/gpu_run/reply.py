"""What a verb answers."""

from __future__ import annotations

from typing import BinaryIO, Callable, Mapping, NamedTuple


class Reply(NamedTuple):
    """
    A line of JSON, and what may come behind it.

    :param value: what is answered.
    :param body: called when the reply is out, with the open file to go on in; None where nothing follows.
    """

    value: Mapping[str, object]
    body: Callable[[BinaryIO], object] | None = None
