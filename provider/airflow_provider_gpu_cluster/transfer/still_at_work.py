"""A line in the task's log every so often, as long as something goes on that says nothing else."""

from __future__ import annotations

import logging
import threading
import time
from types import TracebackType

from airflow_provider_gpu_cluster.jobs.progress import duration_text

log = logging.getLogger(__name__)

TELL_EVERY_S = 15.0


class StillAtWork:
    """
    Says every :data:`TELL_EVERY_S` seconds what goes on.

    :param doing: what goes on, in words; may change meanwhile.
    """

    def __init__(self, doing: str) -> None:
        self.doing = doing
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._tell, daemon=True, name="still-at-work")

    def __enter__(self) -> StillAtWork:
        self._began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._thread.join()

    def _tell(self) -> None:
        while not self._is_over.wait(TELL_EVERY_S):
            log.info("%s, for %s now", self.doing, duration_text(time.monotonic() - self._began))
