"""The verb ``read-series``. It changes nothing, and counts as no question about the job."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import protocol
from ..errors import Refused
from ..jobs.hiding import masks_of
from ..protocol.masks import hidden_in
from ..protocol.series import PROGRESS, USAGE
from ..reply import Reply
from .progress_series import progress_series
from .usage_series import usage_series

if TYPE_CHECKING:
    from ..protocol.series import SeriesRequest
    from ..store.directories import Root

_READERS = {PROGRESS: progress_series, USAGE: usage_series}


def answer(root: Root, request: SeriesRequest) -> Reply:
    """
    Carry out the verb.

    :raises Refused: there is no such job here, or its secrets are unknown.
    """
    job = root.job(request["job_id"])
    if not job.exists():
        raise Refused(protocol.NO_SUCH_JOB, f"there is no {job.path} here: the job was deleted")
    read = _READERS.get(request["what"])
    if read is None:
        raise Refused(protocol.BAD_REQUEST, f"there are no series of {request['what']!r}")
    masks = masks_of(job)
    reply = read(job, masks, request)
    reply["sections"] = hidden_in(reply["sections"], masks)
    return Reply(reply)
