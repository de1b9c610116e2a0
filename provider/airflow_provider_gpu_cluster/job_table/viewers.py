"""Notes for the process that fills the table, which may be another one, that somebody looks at the list."""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone

from airflow.utils.session import create_session

from airflow_provider_gpu_cluster.connection.words import words_of
from airflow_provider_gpu_cluster.job_table import places

log = logging.getLogger(__name__)

LOOKS_FOR_S = 45.0
"""For how long somebody who has asked for the list is taken to look at it."""
_NOTE_EVERY_S = 10.0


class Viewers:
    """Whether somebody looks, as far as this process knows."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._noted_at: float | None = None
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="gpu-job-viewers")

    def note(self) -> None:
        """Note that somebody looks now. This neither waits nor fails."""
        now = time.monotonic()
        with self._lock:
            if self._noted_at is not None and now < self._noted_at + _NOTE_EVERY_S:
                return
            self._noted_at = now
        self._pool.submit(self._write)

    def _write(self) -> None:
        try:
            with create_session(scoped=False) as session:
                places.note_viewer(session, datetime.now(timezone.utc) + timedelta(seconds=LOOKS_FOR_S))
        except Exception as error:
            log.warning("it cannot be noted in Airflow's database that somebody looks at GPU jobs: %s", words_of(error))


_viewers = Viewers()


def note_viewer() -> None:
    """Note that somebody looks at the list now. This neither waits nor fails."""
    _viewers.note()
