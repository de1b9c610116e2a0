"""Whether this API server is about to end, which waits for answers that go on; so these have to end by themselves."""

from __future__ import annotations

import signal


def is_ending() -> bool:
    """Return whether uvicorn, which has set the handler of SIGTERM, was told to end."""
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return bool(getattr(server, "should_exit", False))
