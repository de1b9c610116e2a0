"""How long ago a job has saved anything in its outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..linux.disk_clock import time_of_disk
from ..linux.newest_file import newest_file

if TYPE_CHECKING:
    from ..store.directories import JobDirectory


def saved_ago_s(job: JobDirectory) -> float:
    """
    Return how long ago a job has last written a file in ``outputs``, in seconds; infinity when there is none.

    While nobody can tell, since nothing can be written to the disk now, that is 0.
    """
    newest = newest_file(job.at("outputs"))
    if newest is None:
        return float("inf")
    try:
        ago_s = time_of_disk(job.at(".job")) - newest.modified_ns / 1e9
    except OSError:
        return 0.0
    # A file that was given a time in the future says nothing.
    return ago_s if ago_s > -1 else float("inf")
