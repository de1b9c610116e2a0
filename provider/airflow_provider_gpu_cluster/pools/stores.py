"""Where a task keeps what it remembers of its job's placement."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog

from airflow_provider_gpu_cluster.pools.placement_record import CHOSEN, Mark, PlacementRecord

PLACEMENT_KEY = "gpu_cluster_placement"

log = structlog.get_logger(__name__)


class NoStore:
    """Remembers nothing beyond this process: for a launch outside of a task."""

    is_precise = False

    def __init__(self) -> None:
        self._record: PlacementRecord | None = None

    @property
    def latest(self) -> PlacementRecord | None:
        """What this process has saved."""
        return self._record

    def load(self) -> PlacementRecord | None:
        """Return what this process has saved."""
        return self._record

    def save(self, record: PlacementRecord) -> None:
        """Keep a record for this process."""
        self._record = record

    def mark_of(self, conn_id: str) -> Mark | None:
        """Return None: nothing is known of others."""
        return None


class KeyedStore:
    """
    Keeps JSON values by keys, in Airflow's task state store or in XComs.

    :param get: returns the value of a key; None if there is none.
    :param put: stores the value of a key; when it returns, ``get`` finds that, wherever it is called.
    :param key: of the record.
    :param is_first: whether this is known to be the first try of the task, so that what is not there was never there.
    """

    def __init__(
        self,
        get: Callable[[str], Any],
        put: Callable[[str, Any], None],
        *,
        key: str = PLACEMENT_KEY,
        is_first: bool = False,
    ) -> None:
        self._get = get
        self._put = put
        self._key = key
        self._is_first = is_first
        self._is_precise = False
        self._latest: PlacementRecord | None = None

    @property
    def latest(self) -> PlacementRecord | None:
        """The last record that this process has found or was about to keep."""
        return self._latest

    @property
    def is_precise(self) -> bool:
        """Whether the last :meth:`load` has told everything."""
        return self._is_precise

    def load(self) -> PlacementRecord | None:
        """Return the record; None if there is none, or something else is in its place."""
        value = self._get(self._key)
        self._is_precise = value is not None or self._is_first
        if value is None:
            return None
        try:
            self._latest = PlacementRecord.from_json(value)
        except ValueError as error:
            log.warning(
                "What Airflow has stored of the job's placement cannot be read", key=self._key, error=str(error)
            )
            self._is_precise = False
            return None
        return self._latest

    def save(self, record: PlacementRecord) -> None:
        """Keep a record, and for a choice the mark of the chosen cluster."""
        self._latest = record
        if record.stage == CHOSEN and record.conn_id is not None:
            self._put(self._mark_key(record.conn_id), list(Mark(record.job_id, record.epoch, record.key)))
        self._put(self._key, record.to_json())

    def mark_of(self, conn_id: str) -> Mark | None:
        """Return the last mark of a cluster; None if it was never chosen."""
        value = self._get(self._mark_key(conn_id))
        if value is None:
            return None
        match value:
            case [str(job_id), int(epoch), str(key)]:
                return Mark(job_id, epoch, key)
        # Somebody has chosen it, and more than that is not known.
        return Mark("", 0, "")

    def _mark_key(self, conn_id: str) -> str:
        return f"{self._key}.{conn_id}"
