"""Where a trigger keeps what it remembers of its job's placement: in XComs of its task."""

from __future__ import annotations

from typing import Any

from airflow.sdk.bases.xcom import BaseXCom

from airflow_provider_gpu_cluster.pools.holding import is_newer
from airflow_provider_gpu_cluster.pools.placement_record import PlacementRecord
from airflow_provider_gpu_cluster.pools.stores import PLACEMENT_KEY, KeyedStore
from airflow_provider_gpu_cluster.tasks.job_notes import place_of


class TriggerStore(KeyedStore):
    """
    The store of a trigger, which another triggerer that goes on with it has as well.

    :param ti: the task instance; None in ``dag.test()``, where triggers have no XComs, and only one runs.
    :param given: what the worker knew when it deferred the task.
    :param is_precise: whether that was all that there was to know.
    :param key: of the record.
    """

    def __init__(self, ti: Any, given: PlacementRecord | None, *, is_precise: bool, key: str = PLACEMENT_KEY) -> None:
        self._given = given
        if ti is None:
            values: dict[str, Any] = {}
            super().__init__(values.get, values.__setitem__, key=key, is_first=is_precise)
            return
        place = place_of(ti, ti.task_id, ti.map_index)
        super().__init__(
            lambda name: BaseXCom.get_one(key=name, **place),
            lambda name, value: BaseXCom.set(name, value, **place),
            key=key,
            is_first=is_precise,
        )

    def load(self) -> PlacementRecord | None:
        """Return the later one of what a trigger has stored, and what the worker has given to this one."""
        stored, given = super().load(), self._given
        if given is None or (stored is not None and stored.job_id == given.job_id and not is_newer(given, stored)):
            return stored
        self._latest = given
        return given
