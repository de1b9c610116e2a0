"""The verb ``capacity``: the GPUs of a cluster, and how many jobs wait for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..reply import Reply

if TYPE_CHECKING:
    from .engine import Engine


def answer(engine: Engine) -> Reply:
    """Carry out the verb ``capacity``."""
    return Reply(engine.capacity())
