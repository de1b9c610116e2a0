"""
Settle the lines of ends that are not in the ledger: a full disk or a long lock has kept them out, the process that was
to write them died, or an older version of this program knew no ledger.

Whoever looks at a job does this. It costs a look for each attempt.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from ..ledger.ledger import is_booked
from .booking import book_end
from .job_folders import jobs_of

if TYPE_CHECKING:
    from .directories import JobDirectory, Root


def settle_all(root: Root, *, wait_s: float = 0.0) -> bool:
    """Do what :func:`settle` does for all jobs; return False as soon as that is not possible."""
    try:
        return all(settle(job, wait_s=wait_s) for job in jobs_of(root))
    except OSError:
        return False


def settle(job: JobDirectory, *, wait_s: float = 0.0) -> bool:
    """
    Write the missing lines of a job's ends; return whether none is missing now.

    :param wait_s: how long to wait for other writers, in seconds; whoever shows a status does not wait.
    """
    # A job can write to its records, and whoever looks at it goes on whatever is in them.
    with contextlib.suppress(Exception):
        for attempt in job.attempts():
            if is_booked(attempt.path):
                continue
            ended = None
            with contextlib.suppress(ValueError):
                ended = attempt.ended()
            if ended is None:
                continue
            if not book_end(job.path, attempt.number, ended, attempt.request_or_none(), wait_s=wait_s):
                return False
        return True
    return False
