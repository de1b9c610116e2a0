"""The trigger of a job of a pool: what it is told survives, what it does when its cluster is gone, and who goes on."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator
from concurrent.futures import Future
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import structlog

from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError
from airflow_provider_gpu_cluster.jobs.handle import ArrayPart, JobHandle
from airflow_provider_gpu_cluster.jobs.status import JobState, JobStatus
from airflow_provider_gpu_cluster.jobs.submission import Submission
from airflow_provider_gpu_cluster.pools import holding
from airflow_provider_gpu_cluster.pools.placement_record import LAUNCHED, PlacementRecord
from airflow_provider_gpu_cluster.triggers import place_keeping, pool_job, watchers
from airflow_provider_gpu_cluster.triggers.gpu_job import GpuJobTrigger
from airflow_provider_gpu_cluster.triggers.placement_store import TriggerStore
from airflow_provider_gpu_cluster.triggers.pool_job import PoolJob
from airflow_provider_gpu_cluster.watch.end import WatchEnd
from airflow_provider_gpu_cluster.watch.events import Outage
from tests.harness.deferral import XComs, dto, through_the_database
from tests.harness.task_context import TaskInstance
from tests.triggers.fake_watcher import FakeWatcher

HANDLE = JobHandle("job-1", "a", "/jobs/job-1", "host", None, 1)
RECORD = PlacementRecord("job-1", 1, "k", "a", ("a", "b"), LAUNCHED, 1e9, 30.0)
ARGUMENT: Any = {
    "members": [("a", 1.0, None), ("b", 2.0, 0.5)],
    "policy": "soonest",
    "key": "k",
    "spec": {},
    "failover_after_s": 60.0,
    "move_gain_s": None,
    "launch": None,
    "record": RECORD.to_json(),
    "is_precise": True,
}
OUTAGE = Outage(GpuClusterConnectionError("a is away"))


class PoolWatcher(FakeWatcher):
    """A watcher whose cluster answers the words of a placement."""

    def __init__(self, *events: Any) -> None:
        super().__init__(*events)
        self.called: list[Any] = []

    def call(self, verb: str, request: dict[str, Any]) -> Future[Any]:
        self.called.append((verb, request))
        answer: Future[Any] = Future()
        answer.set_result({"jobs": [True for _ in request["jobs"]], "now": 5000.0})
        return answer


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> dict[str, PoolWatcher]:
    """Return the watchers of the two clusters."""
    found = {"a": PoolWatcher(), "b": PoolWatcher()}
    monkeypatch.setattr(watchers, "watchers_by_connection", found)
    monkeypatch.setattr(place_keeping, "LOOK_EVERY_S", 0.02)
    return found


def trigger(**changes: Any) -> GpuJobTrigger:
    pool: Any = {**ARGUMENT, **changes}
    path, kwargs = GpuJobTrigger(HANDLE.to_json(), get_logs=False, pool=pool).serialize()
    assert path.endswith("GpuJobTrigger")
    return GpuJobTrigger(**through_the_database(kwargs))


async def first(events: AsyncIterator[Any]) -> Any:
    return (await anext(events)).payload


def test_only_a_job_of_a_pool_gives_its_trigger_a_new_argument() -> None:
    assert "pool" not in GpuJobTrigger(HANDLE.to_json()).serialize()[1]
    assert trigger().pool is not None
    assert PlacementRecord.from_json(trigger().pool["record"]) == RECORD  # type: ignore[index]


def test_the_later_one_of_two_records_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    xcoms = XComs(monkeypatch)
    ti = dto(TaskInstance("train"))
    store = TriggerStore(ti, RECORD, is_precise=True)
    assert store.load() == RECORD
    later = replace(RECORD, start_by=2e9)
    store.save(later)
    # Another triggerer goes on.
    assert TriggerStore(ti, RECORD, is_precise=True).load() == later
    # A worker has gone on meanwhile.
    newest = replace(RECORD, epoch=2, conn_id="b", start_by=None)
    assert TriggerStore(ti, newest, is_precise=True).load() == newest
    assert xcoms["train", -1, "gpu_cluster_placement"]["start_by"] == 2e9
    alone = TriggerStore(None, RECORD, is_precise=True)
    alone.save(later)
    assert alone.load() == later


def test_what_is_done_in_a_thread_is_told_in_the_tasks_log() -> None:
    # By its context, the triggerer knows whose log a line belongs to.
    whose = contextvars.ContextVar("whose", default="nobody's")

    async def said() -> list[str]:
        whose.set("the task's")
        return [await place_keeping.in_thread(whose.get), await place_keeping.in_placing_thread(whose.get)]

    assert asyncio.run(said()) == ["the task's"] * 2


def test_the_time_for_a_launch_begins_with_its_first_failure(
    watched: dict[str, PoolWatcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    now, tries = [0.0], []
    monkeypatch.setattr(pool_job, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(pool_job, "PLACE_EVERY_S", 0)
    job = PoolJob("job-1", ARGUMENT, None, log=structlog.get_logger(), unreachable_timeout_s=7200)

    def place() -> Any:
        tries.append(now[0])
        # The first time, its turn came late, as many others were placed before.
        now[0] += 1000 if len(tries) == 1 else 50
        raise GpuClusterConnectionError("no cluster of the pool has answered")

    monkeypatch.setattr(job, "_place", place)
    with pytest.raises(GpuClusterConnectionError):
        asyncio.run(job.begin())
    assert tries == [0, 1000, 1050, 1100]


def test_a_trigger_renews(watched: dict[str, PoolWatcher], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holding, "RENEWALS", 6000)  # every 10 ms

    async def run() -> None:
        running = asyncio.ensure_future(first(trigger().run()))
        while not any(verb == "renew" and request["jobs"] for verb, request in watched["a"].called):
            for subscription in watched["a"].subscriptions.values():
                subscription.tell(JobStatus("job-1", JobState.RUNNING, attempt=1))
            await asyncio.sleep(0.01)
        watched["a"].subscriptions["job-1"].tell(JobStatus("job-1", JobState.SUCCEEDED, attempt=1))
        end = WatchEnd.from_json(await running)
        assert end.status is not None
        assert end.placement is not None
        assert end.placement["conn_id"] == "a"

    asyncio.run(run())
    renewal = next(request["jobs"][0] for verb, request in watched["a"].called if request["jobs"])
    assert (renewal["epoch"], renewal["key"]) == (1, "k")


def test_a_worker_goes_on_where_only_it_has_the_files(
    watched: dict[str, PoolWatcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    watched["a"].events = (JobStatus("job-1", JobState.CANCELLED, attempt=1, placement="expired"),)
    payload = asyncio.run(first(trigger().run()))
    end = WatchEnd.from_json(payload)
    assert (end.status, end.error, end.handle) == (None, None, HANDLE)
    assert PlacementRecord.from_json(end.placement) == RECORD


def test_a_trigger_goes_on_where_it_has_launched_the_job(
    watched: dict[str, PoolWatcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    there = replace(HANDLE, gpu_cluster_conn_id="b")

    def place(self: PoolJob) -> tuple[Submission, PlacementRecord]:
        record = replace(RECORD, epoch=2, conn_id="b")
        self._store.save(record)
        return Submission(there, JobStatus("job-1", JobState.QUEUED, attempt=1), created=True), record

    monkeypatch.setattr(PoolJob, "_place", place)
    watched["a"].events = (JobStatus("job-1", JobState.QUEUED, attempt=1), OUTAGE)
    watched["b"].events = (JobStatus("job-1", JobState.SUCCEEDED, attempt=1),)
    # It is long gone.
    record = replace(RECORD, start_by=1.0, gone_after_s=0.0).to_json()
    end = WatchEnd.from_json(asyncio.run(first(trigger(record=record, failover_after_s=0.05).run())))
    assert end.handle == there
    assert end.status is not None
    assert end.placement is not None
    assert end.placement["epoch"] == 2
    assert watched["a"].subscriptions["job-1"].closed


def test_a_sensors_trigger_follows_a_job_that_was_moved(
    watched: dict[str, PoolWatcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_B", '{"conn_type": "gpu_cluster", "host": "h", "extra": {"root_dir": "/b"}}')
    watched["a"].events = (JobStatus("job-1", JobState.UNKNOWN, moved_to="b"),)
    watched["b"].events = (JobStatus("job-1", JobState.SUCCEEDED, attempt=1),)
    one = GpuJobTrigger(HANDLE.to_json(), get_logs=False, gpu_cluster_conn_id="a")
    end = WatchEnd.from_json(asyncio.run(first(one.run())))
    assert end.handle == replace(HANDLE, gpu_cluster_conn_id="b", job_dir="/b/job-1")
    assert end.placement is None


def test_each_part_of_an_array_keeps_its_place_and_a_worker_gets_them_all(
    watched: dict[str, PoolWatcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holding, "RENEWALS", 6000)  # every 10 ms
    parts = (
        ArrayPart("job-1", "a", "/jobs/job-1", "host", 0, 1),
        ArrayPart("job-1.p2", "b", "/b/job-1.p2", "host", 1, 2),
    )
    array = replace(HANDLE, array_size=3, parts=parts)
    long_gone = replace(RECORD, start_by=1.0, gone_after_s=0.0)
    own = {
        "job-1": {"record": RECORD.to_json(), "is_precise": True, "move_gain_s": None},
        "job-1.p2": {
            "record": replace(long_gone, job_id="job-1.p2", conn_id="b").to_json(),
            "is_precise": True,
            "move_gain_s": None,
        },
    }
    pool: Any = {**ARGUMENT, "failover_after_s": 0.5, "parts": own}
    kwargs = GpuJobTrigger(array.to_json(), get_logs=False, pool=pool).serialize()[1]
    made = GpuJobTrigger(**through_the_database(kwargs))

    async def run() -> Any:
        running = asyncio.ensure_future(first(made.run()))
        while not any(verb == "renew" and request["jobs"] for verb, request in watched["a"].called):
            for job_id, subscription in watched["a"].subscriptions.items():
                subscription.tell(JobStatus(job_id, JobState.RUNNING, attempt=1))
            await asyncio.sleep(0.01)
        assert len(watched["b"].subscriptions) == 2
        for subscription in watched["b"].subscriptions.values():
            subscription.tell(OUTAGE)
        return await running

    end = WatchEnd.from_json(asyncio.run(run()))
    assert (end.status, end.error, end.handle) == (None, None, array)
    assert end.placement is not None
    records = {job_id: PlacementRecord.from_json(one) for job_id, one in end.placement["parts"].items()}
    assert {job_id: record.conn_id for job_id, record in records.items()} == {"job-1": "a", "job-1.p2": "b"}
    # What was renewed last is told as well.
    renewed = [request["jobs"][0]["job_id"] for verb, request in watched["a"].called if request["jobs"]]
    assert set(renewed) == {"job-1"}
    assert records["job-1.p2"].start_by == 1.0
