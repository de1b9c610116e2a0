"""The context of a running task, as far as this provider reads it."""

from __future__ import annotations

import contextvars
import uuid
from datetime import datetime, timedelta, timezone
from typing import Any, cast

from airflow.sdk import BaseOperator, Context
from airflow.sdk.bases.operator import ExecutorSafeguard
from pydantic import JsonValue, TypeAdapter


class TaskInstance:
    """A task instance that keeps its XComs to itself."""

    def __init__(self, task_id: str = "train", *, try_number: int = 1, max_tries: int = 0, map_index: int = -1) -> None:
        self.id = uuid.uuid4()
        self.dag_id = "lab"
        self.run_id = "manual__1"
        self.task_id = task_id
        self.try_number = try_number
        self.max_tries = max_tries
        self.map_index = map_index
        self.hostname = "worker-1"
        self.start_date = datetime.now(timezone.utc)
        self.first_reschedule: datetime | None = None
        self.xcoms: dict[str, Any] = {}
        self.state: str | None = "running"
        self.state_error: Exception | None = None

    def xcom_push(self, key: str, value: Any) -> None:
        self.xcoms[key] = value

    def get_first_reschedule_date(self, context: Context) -> datetime | None:
        return self.first_reschedule

    def get_task_states(self, **asked: Any) -> dict[str, dict[str, str | None]]:
        if self.state_error is not None:
            raise self.state_error
        key = self.task_id if self.map_index < 0 else f"{self.task_id}_{self.map_index}"
        return {self.run_id: {key: self.state}}


class DagRun:
    """A run of the DAG that a user started."""

    logical_date = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
    run_after = logical_date
    triggering_user_name = "ada"


_JSON: TypeAdapter[Any] = TypeAdapter(JsonValue)


class StateStore(dict[str, Any]):
    """What a task remembers between its tries; as Airflow's, it takes plain JSON values alone, and no tuples."""

    def set(self, key: str, value: Any, *, retention: timedelta | None = None) -> None:
        self[key] = _JSON.validate_python(value)

    def delete(self, key: str) -> None:
        self.pop(key, None)


def task_context(ti: TaskInstance | None = None, *, store: StateStore | None = None) -> Context:
    """Return the context of a running task."""
    values = {
        "ti": ti or TaskInstance(),
        "dag_run": DagRun(),
        "task_state_store": StateStore() if store is None else store,
    }
    return cast(Context, values)


def execute(operator: BaseOperator, context: Context) -> Any:
    """Run an operator as Airflow's task runner does."""
    variables = contextvars.copy_context()
    variables.run(ExecutorSafeguard.tracker.set, operator)
    return variables.run(operator.execute, context)
