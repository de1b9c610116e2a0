"""The verb ``copy-log``: the bytes of a job's log without its secrets, piece by piece, for a copy of it."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from ..reply import Reply
from .hiding import Window, window
from .log_part import LogPart, open_part
from .log_window import cut, shown_until

if TYPE_CHECKING:
    from ..protocol.logs import CopyLogRequest, LogBytes
    from ..store.directories import Root

# In base64, 1 MiB.
_MOST_BYTES = 3 << 18


def answer(root: Root, request: CopyLogRequest) -> Reply:
    """Carry out the verb ``copy-log``."""
    with open_part(root.job(request["job_id"]), request.get("attempt"), request["stream"]) as part:
        return Reply(_piece(part, request.get("place"), request.get("most_bytes", _MOST_BYTES)))


def _piece(part: LogPart, place: int | None, most_bytes: int) -> LogBytes:
    stop = shown_until(part)
    begin = max(part.file["start"], min(place or 0, stop))
    end = min(stop, begin + max(1, min(most_bytes, _MOST_BYTES)))
    found = Window(begin, b"", []) if part.fd is None else window(part.fd, begin, end, part.masks)
    if found.secrets and found.secrets[-1][0] > 0 and found.secrets[-1][1] == len(found.data):
        # It may go on in the next piece, and is hidden once.
        found = cut(found, 0, found.secrets[-1][0])
    return {
        **part.file,
        "offset": begin,
        "end": begin + len(found.data),
        "at_end": begin + len(found.data) >= stop,
        "data": base64.b64encode(found.hidden()).decode("ascii"),
    }
