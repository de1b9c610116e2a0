"""Where a task of Airflow keeps what it remembers of its job's placement."""

from __future__ import annotations

import contextlib
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowRuntimeError

from airflow_provider_gpu_cluster.connection.words import words_of
from airflow_provider_gpu_cluster.exceptions import GpuClusterError
from airflow_provider_gpu_cluster.hooks.airflow_outage import outlast
from airflow_provider_gpu_cluster.pools.placement_record import PlacementStore
from airflow_provider_gpu_cluster.pools.stores import PLACEMENT_KEY, KeyedStore, NoStore

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# No task tries for that long.
RETENTION = timedelta(days=365)


def task_store(context: Mapping[str, Any], *, key: str = PLACEMENT_KEY) -> PlacementStore:
    """
    Return the store of a running task, which its later tries have as well.

    :param key: of the record, for a task that launches several jobs.
    """
    state = context.get("task_state_store")
    if state is None:
        return NoStore()

    def get(name: str) -> Any:
        with _in_words():
            return outlast(lambda: state.get(name))

    def put(name: str, value: Any) -> None:
        with _in_words():
            outlast(lambda: state.set(name, value, retention=RETENTION))

    return KeyedStore(get, put, key=key, is_first=context["ti"].try_number == 1)


@contextlib.contextmanager
def _in_words() -> Iterator[None]:
    try:
        yield
    except AirflowRuntimeError as error:
        raise GpuClusterError(
            "Airflow's task state store, which remembers on which cluster a job is, cannot be used "
            f"({words_of(error)}). Without it nothing is launched; see that Airflow's API server answers, and try again"
        ) from error


def store_of_job(context: Mapping[str, Any], job_id: str, *, is_own: bool) -> PlacementStore:
    """
    Return the store of a running task for one of its jobs.

    :param is_own: whether the job is the one that the task has its identity from.
    """
    return task_store(context, key=PLACEMENT_KEY if is_own else f"{PLACEMENT_KEY}:{job_id}")
