"""The ends of attempts that were only taken back here, as their job was placed on another cluster."""

from __future__ import annotations

from typing import Any, Mapping

from ..protocol.placement import MARKS


def is_no_end(line: Mapping[str, Any]) -> bool:
    """Return whether the line of an end is none of the job's: it was not to run here any more, and had used nothing."""
    return line.get("placement") in MARKS and not line.get("gpu_seconds")
