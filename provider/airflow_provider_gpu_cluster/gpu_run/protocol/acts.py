"""The audit trail of a job: the acts on it, and the verb ``audit`` that tells them."""

from __future__ import annotations

from typing import TypedDict

from .ledger import ActLine

STAGE = "stage"
SUBMIT = "submit"
# A request for a job that has found an attempt which another request had made.
JOIN = "join"
# A try that starts the next attempt of a job without having launched it.
RESUBMIT = "resubmit"
LAUNCH = "launch"
RECOVER = "recover"
CANCEL = "cancel"
# A job that waited or ran here was taken back, as it was placed on another cluster.
MOVE = "move"
INTERRUPT = "interrupt"
COLLECT = "collect"
# Its outputs were read for, or brought along from, another cluster.
CARRY = "carry"
END = "end"
GC = "gc"
ACTS = (STAGE, SUBMIT, JOIN, RESUBMIT, LAUNCH, RECOVER, CANCEL, MOVE, INTERRUPT, COLLECT, CARRY, END, GC)


class AuditRequest(TypedDict):
    """A job, or an array, whose acts are to be told."""

    job_id: str


class AuditReply(TypedDict):
    """
    The acts on a job, the oldest first.

    :param acts: a limited number, the last ones.
    :param is_from_ledger: whether the job's own record of them is gone, and these are what the ledger says.
    """

    acts: list[ActLine]
    is_from_ledger: bool
