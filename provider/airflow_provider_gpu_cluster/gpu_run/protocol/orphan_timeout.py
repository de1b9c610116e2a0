"""After how long a job is ended about which nobody asks any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .settings import Settings
    from .spec import Spec


def orphan_timeout_s(spec: Spec, settings: Settings) -> float | None:
    """Return a job's own time, or that of its connection, in seconds; None when it may run on alone for ever."""
    own = spec.get("orphan_timeout_s")
    return own if own is not None else settings.get("orphan_timeout_s")
