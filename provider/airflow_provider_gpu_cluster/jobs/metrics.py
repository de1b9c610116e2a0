"""The metrics that a job leaves behind, as values that fit into XCom."""

from __future__ import annotations

import json
import math
from typing import Any

METRICS_FILE = "metrics.json"
MAX_METRICS_BYTES = 1 << 20


def parse_metrics(content: bytes) -> Any:
    """
    Parse a ``metrics.json``.

    Training code writes ``NaN`` and ``Infinity``, which JSON columns of databases do not accept. They become the
    texts ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``, which ``float()`` turns back into numbers.

    :raises ValueError: it is not JSON.
    """
    try:
        return storable(json.loads(content))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def storable(value: Any) -> Any:
    """Return JSON values in which numbers that databases do not accept are texts."""
    if isinstance(value, dict):
        return {name: storable(item) for name, item in value.items()}
    if isinstance(value, list):
        return [storable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
