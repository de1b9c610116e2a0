"""Where a trigger keeps what it remembers of its job's placement: in XComs of its task."""

from __future__ import annotations

from typing import Any

from airflow.sdk.bases.xcom import BaseXCom

from airflow_provider_gpu_cluster.pools.holding import is_newer
from airflow_provider_gpu_cluster.pools.placement_record import PlacementRecord, PlacementStore
from airflow_provider_gpu_cluster.pools.stores import KeyedStore, NoStore
from airflow_provider_gpu_cluster.tasks.job_notes import place_of


def trigger_store(ti: Any, given: PlacementRecord | None) -> PlacementStore:
    """
    Return the store of a trigger, which another triggerer that goes on with it has as well.

    :param ti: the task instance; None in ``dag.test()``, where triggers have no XComs.
    :param given: what the worker knew when it deferred the task.
    """
    if ti is None:
        store = NoStore()
        if given is not None:
            store.save(given)
        return store
    place = place_of(ti, ti.task_id, ti.map_index)
    return _TriggerStore(
        given,
        get=lambda name: BaseXCom.get_one(key=name, **place),
        put=lambda name, value: BaseXCom.set(name, value, **place),
        is_first=ti.try_number == 1,
    )


class _TriggerStore(KeyedStore):
    def __init__(self, given: PlacementRecord | None, *, get: Any, put: Any, is_first: bool) -> None:
        super().__init__(get, put, is_first=is_first or given is not None)
        self._given = given

    def load(self) -> PlacementRecord | None:
        """Return the later one of what a trigger has stored, and what the worker has given to this one."""
        stored = super().load()
        given = self._given
        if given is None or (stored is not None and stored.job_id == given.job_id and not is_newer(given, stored)):
            return stored
        return given
