"""
When the placement of a job was last renewed: the time of the last change of a file beside its record.

For a job that is kept only as long as it is renewed, this is what :mod:`.asked` is for others.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any, Mapping

from ..errors import Refused
from ..protocol.placement import CLAIM
from .asked import marked_at, note_mark, unmarked_s
from .directories import Root
from .placements import job_and_array, placement_note


def note_renewed(root: Root, job_id: str) -> None:
    """Note that a job is renewed now. On a full disk that is possible from the second time on."""
    note_mark(_path(root.path, job_id))


def is_renewed_only(job: str, request: Mapping[str, Any]) -> bool:
    """
    Return whether only renewals keep an attempt alive.

    :param job: path of the job's directory.
    :param request: its ``request.json``.
    """
    placement = request.get("placement")
    if not isinstance(placement, dict):
        return False
    root, job_id = os.path.split(job)
    for known in job_and_array(job_id, request):
        with contextlib.suppress(OSError, Refused):
            note = placement_note(Root(root), known)
            if note is not None and note["kind"] == CLAIM:
                # Whoever has found the attempt here may keep it otherwise.
                placement = note["placement"]
    return placement.get("renewed_only") is True


def renewed_at(job: str, request: Mapping[str, Any]) -> float | None:
    """
    Return when an attempt was last renewed, itself or its array, by the clock of its disk; None if it never was.

    :param job: path of the job's directory.
    :param request: its ``request.json``.
    :raises OSError: that cannot be looked at now.
    """
    found = [at for at in map(marked_at, _paths(job, request)) if at is not None]
    return max(found, default=None)


def unrenewed_s(job: str, folder: str, request: Mapping[str, Any]) -> float | None:
    """
    Return for how long an attempt was not renewed, in seconds; None when that cannot be told.

    :param folder: one on the same disk, in which the clock of the disk is read.
    """
    found = [seconds for seconds in (unmarked_s(path, folder) for path in _paths(job, request)) if seconds is not None]
    return min(found, default=None)


def _paths(job: str, request: Mapping[str, Any]) -> list[str]:
    root, job_id = os.path.split(job)
    return [_path(root, known) for known in job_and_array(job_id, request)]


def _path(root: str, job_id: str) -> str:
    return os.path.join(root, ".gpu-run", "placements", f"{job_id}.renewed")
