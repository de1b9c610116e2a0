"""How long a job may take to end after it was asked to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import GRACE_S

if TYPE_CHECKING:
    from .settings import Settings
    from .spec import Spec


def grace_s(spec: Spec, settings: Settings) -> float:
    """Return a job's grace, in seconds: its own, that of its connection, or the usual one."""
    for own in (spec.get("grace_s"), settings.get("grace_s")):
        if own is not None:
            return own
    return GRACE_S
