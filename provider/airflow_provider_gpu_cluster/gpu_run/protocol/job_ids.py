"""Job ids: each is the name of a directory, part of a Slurm job's name, and an argument of commands."""

from __future__ import annotations

import re

MAX_LENGTH = 100
_VALID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


def fault_of(job_id: object) -> str | None:
    """Return what is wrong with a job id, in words; None when it is valid."""
    if isinstance(job_id, str) and len(job_id) <= MAX_LENGTH and _VALID.fullmatch(job_id):
        return None
    shown = repr(job_id) if len(repr(job_id)) <= 2 * MAX_LENGTH else repr(job_id)[: 2 * MAX_LENGTH] + "..."
    return f"{shown} is no job id: use up to {MAX_LENGTH} of A-Z a-z 0-9 . _ - and begin with a letter, a digit or _"
