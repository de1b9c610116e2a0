"""How long to believe signs of life of a cluster that brings nothing else."""

from __future__ import annotations

import time

from airflow_provider_gpu_cluster.connection.session import ANSWER_AFTER_FILES_WITHIN_S
from airflow_provider_gpu_cluster.gpu_run.protocol import lines

# A sign of life comes every five seconds; a cluster that sends more of them has nothing else to say.
_MOST_SIGNS = 100_000


class Patience:
    """Counts signs of life between two messages."""

    def __init__(self) -> None:
        self._until = time.monotonic() + ANSWER_AFTER_FILES_WITHIN_S
        self._left = _MOST_SIGNS

    def sign_of_life(self) -> None:
        """
        Note that one has come.

        :raises GarbledStream: too many have come, for too long.
        """
        self._left -= 1
        if self._left < 0 or time.monotonic() > self._until:
            raise lines.GarbledStream("only signs of life come, and nothing else")
