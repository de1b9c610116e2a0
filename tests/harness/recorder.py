"""A notifier that only remembers what it is to send, and that is as slow or broken as a test wants it."""

from __future__ import annotations

import threading
from typing import Any

PATH = f"{__name__}.Recorder"
sent: list[dict[str, Any]] = []


class Recorder:
    """
    Takes what a :class:`.GpuJobNotifier` takes. It is a fake, and sends nothing.

    :param fails: how it fails; empty if it does not.
    :param tells: whether the event is one of those that it tells.
    """

    hold = threading.Event()
    """What :meth:`send_event` waits for; set unless a test clears it."""
    hold.set()

    def __init__(self, fails: str = "", *, tells: bool = True) -> None:
        self.fails = fails
        self.tells = tells

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return PATH, {"fails": self.fails, "tells": self.tells}

    def send_event(self, event: str, status: Any, **about: Any) -> bool:
        assert self.hold.wait(30)
        if self.fails:
            raise OSError(self.fails)
        sent.append({"event": event, "state": str(status.state), **about})
        return self.tells
