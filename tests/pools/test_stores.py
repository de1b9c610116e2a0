"""What a task remembers of its job's placement, and what it makes of what it cannot read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest
from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time.comms import ErrorResponse

from airflow_provider_gpu_cluster.exceptions import GpuClusterError
from airflow_provider_gpu_cluster.hooks.placement_stores import task_store
from airflow_provider_gpu_cluster.pools.placement_record import CHOSEN, SENT, Elsewhere, Mark, PlacementRecord
from airflow_provider_gpu_cluster.pools.stores import PLACEMENT_KEY, KeyedStore
from tests.harness.task_context import StateStore, TaskInstance, task_context

RECORD = PlacementRecord(
    "job",
    3,
    "try-2",
    "gpu02",
    ("gpu01", "gpu02"),
    CHOSEN,
    start_by=12.5,
    gone_after_s=60.0,
    elsewhere={"gpu01": Elsewhere(2, None)},
    clear={"gpu03": (1, "try-1")},
)


def _over(values: dict[str, Any], *, is_first: bool = False) -> KeyedStore:
    return KeyedStore(values.get, values.__setitem__, is_first=is_first)


def test_a_record_comes_back_in_the_next_try_with_the_mark_of_its_cluster() -> None:
    state = StateStore()
    task_store(task_context(store=state)).save(RECORD)
    store = task_store(task_context(TaskInstance(try_number=2), store=state))
    assert store.load() == RECORD
    assert store.is_precise
    assert store.mark_of("gpu02") == Mark("job", 3, "try-2")
    assert store.mark_of("gpu01") is None
    assert all(type(key) is str for key in state)


def test_what_was_about_to_be_kept_is_known_without_a_call() -> None:
    def fail(*_: object) -> None:
        raise GpuClusterError("Airflow is away")

    values = {PLACEMENT_KEY: RECORD.to_json()}
    store = KeyedStore(values.get, fail)
    assert store.latest is None
    assert store.load() == store.latest == RECORD
    with pytest.raises(GpuClusterError):
        store.save(replace(RECORD, epoch=4))
    assert store.latest == replace(RECORD, epoch=4)


def test_only_a_choice_sets_a_mark() -> None:
    values: dict[str, Any] = {}
    _over(values).save(replace(RECORD, stage=SENT))
    assert list(values) == [PLACEMENT_KEY]


@pytest.mark.parametrize(
    "content",
    [
        "text",
        7,
        [],
        {},
        {**RECORD.to_json(), "epoch": "3"},
        {**RECORD.to_json(), "stage": "gone"},
        {**RECORD.to_json(), "elsewhere": ["gpu01"]},
        {**RECORD.to_json(), "start_by": "soon"},
        {**RECORD.to_json(), "start_by": float("nan")},
        {**RECORD.to_json(), "members": None},
        {**RECORD.to_json(), "clear": {"gpu01": 3}},
    ],
)
def test_what_is_broken_or_of_others_says_nothing(content: Any) -> None:
    store = _over({PLACEMENT_KEY: content}, is_first=True)
    assert store.load() is None
    assert not store.is_precise


def test_nothing_is_an_answer_only_in_the_first_try() -> None:
    for is_first in (True, False):
        store = _over({}, is_first=is_first)
        assert store.load() is None
        assert store.is_precise is is_first


def test_a_record_of_a_later_version_can_be_read() -> None:
    assert _over({PLACEMENT_KEY: {**RECORD.to_json(), "new": 1}}).load() == RECORD


def test_a_mark_that_cannot_be_read_is_one_of_any_job() -> None:
    assert _over({f"{PLACEMENT_KEY}.gpu01": {"what": "ever"}}).mark_of("gpu01") == Mark("", 0, "")


def test_a_store_that_refuses_is_told_in_words() -> None:
    class Refusing(StateStore):
        def set(self, key: str, value: Any, **how: Any) -> None:
            raise AirflowRuntimeError(ErrorResponse(error=ErrorType.GENERIC_ERROR, detail={"reason": "not_found"}))

    with pytest.raises(GpuClusterError, match=r"task state store.*nothing is launched"):
        task_store(task_context(store=cast("StateStore", Refusing()))).save(RECORD)
