"""Arrays in Airflow's trigger runner, on a real cluster: their output through restarts, and what ends them."""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
from airflow.triggers.base import TaskSuccessEvent, TriggerEvent

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.jobs.status import JobState
from airflow_provider_gpu_cluster.triggers import gpu_job
from airflow_provider_gpu_cluster.watch.subscriptions import Subscription
from tests.harness import jobs
from tests.harness.deferral import TaskLogs, Triggerer, XComs
from tests.harness.patience import PATIENCE_S
from tests.harness.task_context import TaskInstance
from tests.triggers.test_output import arguments, until

pytestmark = pytest.mark.usefixtures("gpu_cluster_conn")

ELEMENTS = 3


@pytest.fixture
def counting(cluster: Cluster, tmp_path: Path) -> tuple[JobHandle, Callable[[int], None]]:
    """Return an array whose elements print numbered lines, and a function that lets them print more, up to 300."""
    gate = tmp_path / "gate"
    gate.write_text("0")
    script = tmp_path / "count.py"
    script.write_text(
        "import pathlib, time\n"
        "printed = 0\n"
        "while printed < 300:\n"
        f"    allowed = int(pathlib.Path({str(gate)!r}).read_text() or 0)\n"
        "    for number in range(printed, allowed):\n"
        "        print('line', number, flush=True)\n"
        "    printed = max(printed, allowed)\n"
        "    time.sleep(0.02)\n"
    )
    handle = jobs.submit_array(cluster, f"{sys.executable} {script}", [{}] * ELEMENTS).handle

    def allow(lines: int) -> None:
        gate.with_suffix(".new").write_text(str(lines))
        gate.with_suffix(".new").replace(gate)

    return handle, allow


def output(logs: TaskLogs, index: int) -> list[str]:
    """Return the lines of output of one element."""
    prefix = f"[{index}/{ELEMENTS}] "
    return [line.removeprefix(prefix) for line in logs.output if line.startswith(prefix)]


@pytest.mark.usefixtures("xcoms")
def test_lines_of_each_element_come_once_though_acknowledgements_are_lost(
    counting: tuple[JobHandle, Callable[[int], None]], logs: TaskLogs, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle, allow = counting
    ti = TaskInstance("wait")
    acknowledge = Subscription.ack

    def shown(count: int) -> bool:
        return len(logs.output) == count

    async def run() -> TriggerEvent:
        # The second triggerer is killed between logging and acknowledging.
        for number, allowed, ack in ((1, 50, acknowledge), (2, 200, lambda *_: None)):
            monkeypatch.setattr(Subscription, "ack", ack)
            triggerer = Triggerer(logs, job_id=number)
            await triggerer.start(ti, *arguments(handle))
            allow(allowed)
            await until(functools.partial(shown, ELEMENTS * allowed))
            await triggerer.shut_down()
        monkeypatch.setattr(Subscription, "ack", acknowledge)
        triggerer = Triggerer(logs, job_id=3)
        trigger_id = await triggerer.start(ti, *arguments(handle))
        allow(300)
        return await triggerer.event(trigger_id)

    assert type(asyncio.run(run())) is TaskSuccessEvent
    for index in range(ELEMENTS):
        assert output(logs, index) == [f"line {number}" for number in range(300)]
    assert logs.events.count("GPU job array ended") == 1


@pytest.mark.parametrize(("state", "is_cancelled"), [("failed", True), ("success", True), ("deferred", False)])
def test_user_who_ends_the_task_ends_all_elements(
    state: str, is_cancelled: bool, cluster: Cluster, logs: TaskLogs, xcoms: XComs, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = jobs.submit_array(cluster, "exec sleep 60", [{}] * 6).handle
    ti = TaskInstance("wait")
    ti.state = state
    xcoms["wait", -1, "return_value"] = handle.to_json()
    monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", ti.get_task_states)
    if not is_cancelled:
        # How long it waits for the task to become something else.
        monkeypatch.setattr(gpu_job, "KILL_TIMEOUT_S", 2.0)

    async def run() -> None:
        triggerer = Triggerer(logs)
        trigger_id = await triggerer.start(ti, *arguments(handle, cancel_on_kill=True))
        await until(lambda: sum(event.endswith("GPU job runs") for event in logs.events) == 4)
        await triggerer.user_ends_task(trigger_id)
        await asyncio.wait({triggerer.task(trigger_id)}, timeout=PATIENCE_S)

    asyncio.run(run())
    if is_cancelled:
        assert jobs.wait(cluster, handle.job_id).message.startswith("of 6 elements 6 were cancelled")
    else:
        assert cluster.statuses([handle.job_id])[0].state is JobState.RUNNING


def test_an_element_that_cannot_be_watched_ends_the_watch_of_all(logs: TaskLogs) -> None:
    # No job has such an id, which the cluster refuses for each element.
    bad = JobHandle("not a job", "gpu_cluster_default", "/jobs/x", "host", None, 1, array_size=ELEMENTS)

    async def run() -> TriggerEvent:
        triggerer = Triggerer(logs)
        return await triggerer.event(await triggerer.start(TaskInstance("wait"), *arguments(bad)))

    event = asyncio.run(run())
    assert event.payload["error"]["class"] == "InvalidJobError"
    # Nobody waits any more: the fixture of all tests here looks for that.
