"""How long tests wait for what is to come: long, as it costs time only where it does not come."""

from __future__ import annotations

# Eight workers on two cores make everything many times as slow as it is alone.
PATIENCE_S = 90.0
