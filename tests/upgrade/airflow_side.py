"""
What one Airflow side does with jobs, in plain JSON values: the calls that the tests make, on either side.

It takes from the package only what DAGs and Airflow name, which stays where it is in every version: operators, hook and
trigger. Run as a program, it carries out calls from standard input, with whatever version it finds to import.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import traceback
import uuid
from typing import Any

import structlog
from airflow.sdk.exceptions import TaskDeferred

import airflow_provider_gpu_cluster
from airflow_provider_gpu_cluster.exceptions import GpuJobError
from airflow_provider_gpu_cluster.hooks.gpu_cluster import GpuClusterHook
from airflow_provider_gpu_cluster.operators.gpu_job import StageGpuJobOperator, SubmitGpuJobOperator
from airflow_provider_gpu_cluster.triggers.gpu_job import GpuJobTrigger
from tests.harness.task_context import TaskInstance, execute, task_context


def package() -> str:
    """Return the folder of the package that this side works with."""
    return os.path.dirname(airflow_provider_gpu_cluster.__file__)


def connect(name: str, value: str) -> None:
    """Make a connection known, by its environment variable."""
    os.environ[name] = value


# -- what tasks do ------------------------------------------------------------------------------------------------


def stage(conn_id: str, task_id: str, **parameters: Any) -> Any:
    """Stage as a task, and return the handle that it leaves in XCom."""
    operator = StageGpuJobOperator(task_id=task_id, gpu_cluster_conn_id=conn_id, **parameters)
    return execute(operator, task_context(_ti(task_id)))


def submit(conn_id: str, task_id: str, *, try_number: int = 1, **parameters: Any) -> Any:
    """Launch as a task, in one of its tries, and return the handle that it leaves in XCom."""
    return execute(_operator(conn_id, task_id, parameters), task_context(_ti(task_id, try_number)))


def defer(conn_id: str, task_id: str, **parameters: Any) -> dict[str, Any]:
    """Launch as a task that waits in the triggerer, and return what Airflow keeps of it."""
    try:
        execute(_waiting_operator(conn_id, task_id, parameters), task_context(_ti(task_id)))
    except TaskDeferred as deferred:
        path, arguments = deferred.trigger.serialize()
        return {"trigger": path, "arguments": arguments, "method": deferred.method_name}
    raise AssertionError("the task was not deferred")


def resume(conn_id: str, task_id: str, *, method: str, event: dict[str, Any], **parameters: Any) -> Any:
    """Go on as that task with what a trigger has said; return what it leaves in XCom, or the name of its error."""
    operator = _waiting_operator(conn_id, task_id, parameters)
    try:
        return getattr(operator, method)(task_context(_ti(task_id)), event)
    except GpuJobError as error:
        return type(error).__name__


def _operator(conn_id: str, task_id: str, parameters: dict[str, Any]) -> SubmitGpuJobOperator:
    return SubmitGpuJobOperator(task_id=task_id, gpu_cluster_conn_id=conn_id, **parameters)


def _waiting_operator(conn_id: str, task_id: str, parameters: dict[str, Any]) -> SubmitGpuJobOperator:
    return _operator(conn_id, task_id, {**parameters, "wait_for_completion": True, "deferrable": True})


def _ti(task_id: str, try_number: int = 1) -> TaskInstance:
    ti = TaskInstance(task_id, try_number=try_number, max_tries=5)
    # Airflow's database has it; each try has another.
    ti.id = uuid.uuid5(uuid.NAMESPACE_URL, f"{task_id}/{try_number}")
    return ti


# -- what triggers do ---------------------------------------------------------------------------------------------


def follow(handle: dict[str, Any]) -> dict[str, Any]:
    """Watch a job to its end; see :func:`run_trigger`."""
    return run_trigger(f"{GpuJobTrigger.__module__}.{GpuJobTrigger.__name__}", {"job": handle, "reader": "follow"})


def run_trigger(path: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Make a trigger of what Airflow has kept of it, and return its ``event`` and the ``lines`` of output it shows."""
    module, _, name = path.rpartition(".")
    assert (module, name) == (GpuJobTrigger.__module__, GpuJobTrigger.__name__)
    lines: list[str] = []

    def take(logger: Any, method: str, values: dict[str, Any]) -> Any:
        # What is told about a job says about which; its output comes without anything.
        if values.keys() == {"event"}:
            lines.append(values["event"])
        raise structlog.DropEvent

    async def event() -> Any:
        return (await anext(GpuJobTrigger(**arguments).run())).payload

    before = structlog.get_config()
    structlog.configure(**{**before, "processors": [take], "cache_logger_on_first_use": False})
    try:
        return {"event": asyncio.run(event()), "lines": lines}
    finally:
        structlog.configure(**before)


# -- what the hook does -------------------------------------------------------------------------------------------


_hooks: dict[str, GpuClusterHook] = {}


def _hook(conn_id: str) -> GpuClusterHook:
    return _hooks.setdefault(conn_id, GpuClusterHook(conn_id))


def disconnect() -> None:
    """Close the connections that the calls below have opened."""
    while _hooks:
        _hooks.popitem()[1].close()


def statuses(handles: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return how jobs of one cluster stand."""
    hook = _hook(handles[0]["gpu_cluster_conn_id"])
    return [dict(status.to_json()) for status in hook.statuses(handles, tail_bytes=1000)]


def cancel(handle: dict[str, Any]) -> dict[str, Any]:
    """Cancel a job, and return how it stands when it is gone."""
    return dict(_hook(handle["gpu_cluster_conn_id"]).cancel(handle, wait_s=60).to_json())


def collect(handle: dict[str, Any], destination: str) -> dict[str, Any]:
    """Bring a job's outputs home."""
    return _hook(handle["gpu_cluster_conn_id"]).collect(handle, destination)


def collect_garbage(conn_id: str, older_than: float) -> dict[str, Any]:
    """Clear what was of no use for so many seconds."""
    return _hook(conn_id).collect_garbage(older_than)


def capacity(conn_id: str) -> dict[str, Any]:
    """Return which GPUs are free, and how many jobs wait."""
    return _hook(conn_id).capacity()


# -- calls --------------------------------------------------------------------------------------------------------


def answer(name: str, *args: Any, **kwargs: Any) -> Any:
    """Carry out one call, with a result that has been JSON."""
    return json.loads(json.dumps(globals()[name](*args, **kwargs)))


def main() -> None:
    """Carry out calls until there are no more."""
    # Nothing but answers may get there.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        name, args, kwargs = json.loads(line)
        try:
            reply = {"result": answer(name, *args, **kwargs)}
        except Exception:
            reply = {"error": traceback.format_exc()}
        print(json.dumps(reply), file=out, flush=True)


if __name__ == "__main__":
    main()
