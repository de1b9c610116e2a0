"""A trigger in a process of its own, as in a triggerer, killed at a step of what it does for a job of a pool."""

from __future__ import annotations

import asyncio
import itertools
import json
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import TaskDeferred
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
from airflow.sdk.execution_time.xcom import XCom

from airflow_provider_gpu_cluster.operators.gpu_job import SubmitGpuJobOperator
from airflow_provider_gpu_cluster.pools import holding, keeping, moving
from airflow_provider_gpu_cluster.triggers import first_request, place_keeping
from airflow_provider_gpu_cluster.triggers.gpu_job import GpuJobTrigger
from airflow_provider_gpu_cluster.watch.watcher import Watcher
from tests.harness.deferral import dto, through_the_database
from tests.harness.own_log import begin_own_log
from tests.harness.patience import PATIENCE_S
from tests.harness.pool_site import be_patient
from tests.harness.task_context import StateStore, TaskInstance, execute, task_context

_lock = threading.Lock()


@dataclass(frozen=True)
class DeferredTask:
    """
    A task that waits for its trigger.

    :param store: what it remembers.
    :param kwargs: what its trigger is told.
    :param xcoms: a file with its XComs.
    :param log: a file for what its triggers say.
    """

    ti: TaskInstance
    store: StateStore
    kwargs: dict[str, Any]
    xcoms: Path
    log: Path

    def trigger_process(self, *, killed_at: int = 0, ended_at: int = 0) -> Any:
        """
        Start its trigger in a process.

        :param killed_at: the step before or after which the process is killed; 0 for never.
        :param ended_at: the step at which a user ends the task, likewise.
        """
        # Not forked: a copy of a process with threads may wait for ever for a lock that one of them held.
        process = multiprocessing.get_context("spawn").Process(
            target=_be_triggerer, args=(self, killed_at, ended_at), daemon=True
        )
        process.start()
        return process

    def is_killed_at(self, step: int, meanwhile: Callable[[], object] = lambda: None) -> bool:
        """Run its trigger in a process that is killed at a step; return False if it came to its end before."""
        process = self.trigger_process(killed_at=step)
        meanwhile()
        process.join(2 * PATIENCE_S)
        assert process.exitcode in (0, -signal.SIGKILL), self.log.read_text()
        return bool(process.exitcode)

    def is_ended_at(self, step: int) -> bool:
        """Run its trigger until a user ends the task at a step; return False if it came to its end before."""
        process = self.trigger_process(ended_at=step)
        process.join(2 * PATIENCE_S)
        assert process.exitcode == 0, self.log.read_text()
        return not self.xcoms.with_suffix(".event").exists()

    def fires(self, meanwhile: Callable[[], object] = lambda: None) -> dict[str, Any]:
        """Run its trigger anew in another process, and return what it fires."""
        process = self.trigger_process()
        meanwhile()
        process.join(2 * PATIENCE_S)
        process.kill()
        fired = self.xcoms.with_suffix(".event")
        assert fired.exists(), self.log.read_text()
        event: dict[str, Any] = json.loads(fired.read_text())
        return event

    @property
    def job_id(self) -> str:
        """The job."""
        asked = self.kwargs["launch"] or self.kwargs["job"]
        return str(asked["job_id"])


def defer(folder: Path, number: int, **options: Any) -> DeferredTask:
    """Run one of the instances of a mapped task on a worker until it is deferred."""
    ti, store = TaskInstance("train", map_index=number), StateStore()
    operator = SubmitGpuJobOperator(task_id="train", wait_for_completion=True, deferrable=True, **options)
    try:
        execute(operator, task_context(ti, store=store))
    except TaskDeferred as deferral:
        kwargs = through_the_database(deferral.trigger.serialize()[1])
        return DeferredTask(ti, store, kwargs, folder / f"xcoms-{number}", folder / f"trigger-{number}.log")
    raise AssertionError("it has not deferred")


def _be_triggerer(task: DeferredTask, killed_at: int, ended_at: int) -> None:
    """Run in the process."""
    log = begin_own_log(task.log)
    first_request._is_answered = True
    be_patient(pytest.MonkeyPatch())
    holding.MARGIN_S = 1.0
    place_keeping.LOOK_EVERY_S = keeping.MOVE_EVERY_S = 0.3
    keeping.PLACE_EVERY_S = keeping.TELL_EVERY_S = 0.5
    moving.APART_S = 0.1
    is_ended = threading.Event()
    _count_steps(task, {killed_at: lambda: os.kill(os.getpid(), signal.SIGKILL), ended_at: is_ended.set}, is_ended)
    try:
        asyncio.run(_fire(task, is_ended))
    except BaseException:
        traceback.print_exc(file=log)
    log.flush()
    os._exit(0)


async def _fire(task: DeferredTask, is_ended: threading.Event) -> None:
    trigger = GpuJobTrigger(**task.kwargs)
    trigger.task_instance = dto(task.ti)  # type: ignore[assignment]
    running = asyncio.ensure_future(anext(trigger.run()))
    while not running.done() and not is_ended.is_set():
        await asyncio.sleep(0.002)
    if is_ended.is_set():
        # As the triggerer does then.
        running.cancel()
        await trigger.on_kill()
        # What was begun in threads goes on.
        for threads in (place_keeping._placing_threads, place_keeping._threads):
            await asyncio.to_thread(threads.shutdown)
    else:
        task.xcoms.with_suffix(".event").write_text(json.dumps(running.result().payload))


def _count_steps(task: DeferredTask, acts: dict[int, Callable[[], object]], is_ended: threading.Event) -> None:
    """Do something at a step: before or after this process writes something down, or a cluster is asked something."""
    count = itertools.count(1)

    def step(*_: object) -> None:
        with _lock:
            acts.get(next(count), lambda: None)()

    def get_one(*, key: str, **place: Any) -> Any:
        return json.loads(task.xcoms.read_text()).get(key) if task.xcoms.exists() else None

    def put(key: str, value: Any, **place: Any) -> None:
        step()
        with _lock:
            known = json.loads(task.xcoms.read_text()) if task.xcoms.exists() else {}
            draft = task.xcoms.with_suffix(".draft")
            draft.write_text(json.dumps({**known, key: value}))
            draft.rename(task.xcoms)
        step()

    XCom.get_one, XCom.set = get_one, put

    def states(**asked: Any) -> dict[str, Any]:
        return {task.ti.run_id: {f"train_{task.ti.map_index}": "failed" if is_ended.is_set() else "deferred"}}

    RuntimeTaskInstance.get_task_states = states  # type: ignore[method-assign, assignment]
    call, launch = Watcher.call, Watcher.launch

    def counted_call(self: Watcher, verb: str, request: dict[str, Any]) -> Any:
        if verb != "renew":
            step()
        future = call(self, verb, request)
        if verb != "renew":
            future.add_done_callback(step)
        return future

    def counted_launch(self: Watcher, request: Any) -> Any:
        step()
        future = launch(self, request)
        future.add_done_callback(step)
        return future

    Watcher.call, Watcher.launch = counted_call, counted_launch  # type: ignore[method-assign]
