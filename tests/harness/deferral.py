"""
What Airflow does around a task that is deferred: a triggerer for its trigger, logs, XComs, and the way there and back.

The parts of Airflow are its own wherever they work without a database: its trigger runner, its encoding of what goes
through the database, its format of log files.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, cast

import pytest
import structlog
from airflow.executors.workloads.task import TaskInstanceDTO
from airflow.executors.workloads.trigger import RunTrigger
from airflow.jobs.triggerer_job_runner import TriggerLoggingFactory, TriggerRunner
from airflow.models.trigger import Trigger
from airflow.sdk import DAG
from airflow.sdk._shared.secrets_masker import redact
from airflow.sdk.execution_time.xcom import XCom
from airflow.sdk.log import logging_processors
from airflow.sdk.serde import deserialize, serialize
from airflow.serialization.serialized_objects import DagSerialization
from airflow.triggers.base import TriggerEvent
from airflow.utils.helpers import log_filename_template_renderer

from airflow_provider_gpu_cluster.triggers import watchers
from airflow_provider_gpu_cluster.triggers.output_log import LOGGER
from airflow_provider_gpu_cluster.watch import loop
from tests.harness.patience import PATIENCE_S
from tests.harness.task_context import DagRun, TaskInstance


def through_the_database(values: dict[str, Any]) -> dict[str, Any]:
    """Return what becomes of values that a task gives Airflow for later: of its trigger, or of its next method."""
    restored = deserialize(json.loads(json.dumps(serialize(values))))
    assert isinstance(restored, dict)
    return restored


def dto(ti: TaskInstance) -> TaskInstanceDTO:
    """Return a task instance as a triggerer knows it."""
    names = ("id", "dag_id", "run_id", "task_id", "map_index", "try_number", "hostname")
    return TaskInstanceDTO(
        **{name: getattr(ti, name) for name in names}, dag_version_id=uuid.uuid4(), pool_slots=1, priority_weight=1
    )


@dataclass(frozen=True)
class Record:
    """A line of a task's log."""

    logger: str
    event: str
    fields: dict[str, Any] = field(default_factory=dict)


class TaskLogs:
    """
    Takes what operators, sensors and triggers of this process log.

    What a trigger logs that runs in a :class:`Triggerer` goes into the file of its task's try, too.
    """

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.raw: list[dict[str, Any]] = []
        """What triggers gave, as it leaves their process."""
        self._files: dict[int, TriggerLoggingFactory] = {}

    def __call__(self, logger: Any, method: str, values: dict[str, Any]) -> Any:
        """Take a line, as the last of structlog's processors."""
        values = dict(values)
        event, name = redact(values.pop("event")), str(logger.name or "")
        trigger_id = values.get("trigger_id")
        self.raw.append({"logger": name, "event": event, **values})
        fields = {key: value for key, value in values.items() if key not in _OF_THE_TRIGGER}
        self.records.append(Record(name, str(event), fields))
        if trigger_id is not None:
            processors = logging_processors(json_output=True)
            getattr(self._files[trigger_id](processors), method)(event, logger=name, **fields)
        raise structlog.DropEvent

    def keep(self, trigger_id: int, path: str, ti: TaskInstanceDTO) -> None:
        """Write what a trigger logs into a file, as the triggerer's main process does."""
        self._files[trigger_id] = TriggerLoggingFactory(log_path=path, ti=cast(Any, ti))

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()  # type: ignore[no-untyped-call]

    @property
    def output(self) -> list[str]:
        """The lines of jobs' output: a trigger logs them apart, and a worker's have no fields."""
        return [record.event for record in self.records if record.logger == LOGGER or _is_plain(record)]

    @property
    def events(self) -> list[str]:
        """What was said of jobs."""
        return [record.event for record in self.told]

    @property
    def told(self) -> list[Record]:
        """What was said of jobs, with all that was said."""
        return [record for record in self.records if "job_id" in record.fields]


_OF_THE_TRIGGER = ("trigger_id", "ti_id", "dag_id", "task_id", "run_id", "try_number", "map_index")
_OPERATORS = "airflow_provider_gpu_cluster.operators", "airflow_provider_gpu_cluster.sensors"


def _is_plain(record: Record) -> bool:
    return not record.fields and any(name in record.logger for name in _OPERATORS)


@contextlib.contextmanager
def task_logs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TaskLogs]:
    """Take all that is logged through structlog, with the folder as Airflow's for log files."""
    monkeypatch.setenv("AIRFLOW__LOGGING__BASE_LOG_FOLDER", str(folder))
    before = structlog.get_config()
    logs = TaskLogs()
    processors = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.PositionalArgumentsFormatter(),
        logs,
    ]
    structlog.configure(**{**before, "processors": processors, "cache_logger_on_first_use": False})
    try:
        yield logs
    finally:
        structlog.configure(**before)
        logs.close()


@contextlib.contextmanager
def own_watchers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let no test meet a watcher of another's cluster, and leave none behind."""
    before = set(threading.enumerate())
    monkeypatch.setattr(watchers, "watchers_by_connection", {})
    monkeypatch.setattr(loop, "LINGER_S", 0.1)
    yield
    for thread in set(threading.enumerate()) - before:
        if thread.name.startswith("watcher of "):
            thread.join(PATIENCE_S)
            assert not thread.is_alive(), "somebody still waits for a job"


class XComs(dict[tuple[str, int, str], Any]):
    """XComs of one DAG run, by task id, map index and key; what triggers see of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        monkeypatch.setattr(XCom, "get_one", self._get_one)
        monkeypatch.setattr(XCom, "set", self._set)

    def _get_one(self, *, key: str, dag_id: str, task_id: str, run_id: str, map_index: int) -> Any:
        assert (dag_id, run_id) == (TaskInstance().dag_id, TaskInstance().run_id)
        return self.get((task_id, map_index, key))

    def _set(self, key: str, value: Any, *, dag_id: str, task_id: str, run_id: str, map_index: int) -> None:
        json.dumps(value)
        self[task_id, map_index, key] = value


class Triggerer:
    """
    Airflow's own trigger runner, without its main process. It works in the event loop that is running.

    :param logs: where the triggers' lines go.
    :param job_id: number of the triggerer; one that was started again has another.
    """

    def __init__(self, logs: TaskLogs, *, job_id: int = 1) -> None:
        self._logs = logs
        self._runner = TriggerRunner()  # type: ignore[no-untyped-call]
        self._runner.job_id = job_id
        self._job_id = job_id

    async def start(
        self,
        ti: TaskInstance,
        classpath: str,
        kwargs: dict[str, Any],
        *,
        dag: DAG | None = None,
        timeout: timedelta | None = None,
    ) -> int:
        """
        Start the trigger of a task, as it comes out of the database.

        :param dag: the task's DAG, where the scheduler has started the trigger.
        :return: its id.
        """
        trigger_id = next(_trigger_ids)
        task = dto(ti)
        path = log_filename_template_renderer()(ti=task)
        self._logs.keep(trigger_id, f"{path}.trigger.{self._job_id}.log", task)
        from_scheduler = {"dag_data": DagSerialization.to_dict(dag), "dag_run_data": _dag_run(ti)} if dag else {}
        self._runner.to_create.append(
            RunTrigger(
                id=trigger_id,
                classpath=classpath,
                encrypted_kwargs=Trigger.encrypt_kwargs(kwargs),
                ti=task,
                timeout_after=None if timeout is None else datetime.now(timezone.utc) + timeout,
                **from_scheduler,
            )
        )
        await self._runner.create_triggers()  # type: ignore[no-untyped-call]
        assert not self._runner.failed_triggers, self._runner.failed_triggers
        return trigger_id

    def task(self, trigger_id: int) -> asyncio.Task[None]:
        """Return the asyncio task in which a trigger runs."""
        task: asyncio.Task[None] = self._runner.triggers[trigger_id]["task"]
        return task

    async def event(self, trigger_id: int, timeout_s: float = PATIENCE_S) -> TriggerEvent:
        """Return what a trigger fires, when it has ended."""
        await asyncio.wait_for(self.task(trigger_id), timeout_s)
        (event,) = (entry.event for entry in self._runner.events if entry.trigger_id == trigger_id)
        # It goes through a socket on its way to the main process.
        return type(event).model_validate_json(event.model_dump_json())

    async def user_ends_task(self, trigger_id: int) -> None:
        """Tell a trigger that its task waits no more; Airflow does so once a second until the trigger has ended."""
        self._runner.to_cancel.append(trigger_id)
        await self._runner.cancel_triggers()  # type: ignore[no-untyped-call]

    async def shut_down(self) -> None:
        """End as a triggerer does that is stopped."""
        tasks = [details["task"] for details in self._runner.triggers.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


_trigger_ids = iter(range(1, 1 << 30))


def _dag_run(ti: TaskInstance) -> dict[str, Any]:
    missing = ("data_interval_start", "data_interval_end", "end_date", "partition_key")
    return {
        "dag_id": ti.dag_id,
        "run_id": ti.run_id,
        "logical_date": DagRun.logical_date,
        "run_after": DagRun.run_after,
        "start_date": DagRun.logical_date,
        "run_type": "manual",
        "state": "running",
        "consumed_asset_events": [],
        **dict.fromkeys(missing),
    }
