"""Stops a job that has been idle for its whole ``utilization_window``, if its ``on_idle`` says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import protocol
from ..protocol.idle_policy import CANCEL, WHOLE, idle_policy
from ..recovery.words import duration
from ..store.idle_notes import idle_note
from .stop import Cause

if TYPE_CHECKING:
    from ..protocol.records import AttemptRequest
    from ..store.directories import Attempt


class IdleLimit:
    """Tells when a job is to be stopped because it is idle, which its sampler has found."""

    def __init__(self, attempt: Attempt, request: AttemptRequest) -> None:
        self._path = attempt.path
        self._policy = idle_policy(request["spec"], request["settings"])

    def reached(self) -> Cause | None:
        """Return the cause to stop the job if it is idle."""
        if self._policy.on_idle != CANCEL or self._policy.min_percent <= 0:
            return None
        note = idle_note(self._path)
        if note is None or note["level"] != WHOLE:
            return None
        message = (
            f"its GPU use was {note['percent']:.3g} % in the mean for {duration(note['idle_s'])}, less than "
            f"min_gpu_utilization={self._policy.min_percent:g}"
        )
        return Cause(protocol.FAILED, protocol.IDLE, message)
