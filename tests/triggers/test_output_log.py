"""Batches in which triggers log output: what Airflow's main process has read when a batch is over."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import structlog

from airflow_provider_gpu_cluster.triggers import output_log
from airflow_provider_gpu_cluster.triggers.output_log import AHEAD_BYTES, LINE_BYTES, LOGGER, READ_BYTES, OutputLog
from tests.harness.deferral import TaskLogs


class MainProcess:
    """Answers one request in each of its rounds, and reads a piece of the log in each. It is a fake."""

    def __init__(self, logs: TaskLogs) -> None:
        self.requests = 0
        self.logged_before: list[int] = []
        self.busy = asyncio.Event()
        self.busy.set()
        self._logs = logs

    async def mask(self, secret: Any, name: str | None = None) -> None:
        assert secret == "", "nothing may come of asking"
        self.requests += 1
        self.logged_before.append(len(self._logs.output))
        await self.busy.wait()
        await asyncio.sleep(0)


@pytest.fixture
def main_process(logs: TaskLogs, monkeypatch: pytest.MonkeyPatch) -> MainProcess:
    main_process = MainProcess(logs)
    monkeypatch.setattr(output_log, "amask_secret", main_process.mask)
    return main_process


async def log(*lines: str) -> None:
    """Log lines as one trigger does, and return when they have been read."""
    output = OutputLog()
    async with output.batch():
        for line in lines:
            output.line(line)


@pytest.mark.parametrize(
    ("lines", "rounds"),
    [
        ([], 0),
        (["epoch 1"], 1),
        (["x" * (READ_BYTES - LINE_BYTES - 2)], 1),
        (["x" * (READ_BYTES - LINE_BYTES - 1)], 2),
        ([""] * 20, 1),
        ([""] * 40, 2),
        (["x" * 100] * 100, 8),
        # Its JSON is longer than it is itself.
        (["\x00" * 1000], 2),
    ],
)
def test_a_batch_ends_when_all_of_it_was_read(
    lines: list[str], rounds: int, logs: TaskLogs, main_process: MainProcess
) -> None:
    asyncio.run(log(*lines))
    # It may have answered before it read, in its last round.
    assert main_process.requests == (rounds + 1 if rounds else 0)
    # It is asked only after all has been logged.
    assert set(main_process.logged_before) <= {len(lines)}
    assert logs.output == lines


def test_what_was_read_of_one_batch_is_not_waited_for_in_the_next(main_process: MainProcess) -> None:
    async def run() -> None:
        await log("x" * READ_BYTES)
        assert main_process.requests == 3
        await log("epoch 1")

    asyncio.run(run())
    assert main_process.requests == 5


def test_a_batch_does_not_end_before_it_was_read(logs: TaskLogs, main_process: MainProcess) -> None:
    async def run() -> None:
        main_process.busy.clear()
        trigger = asyncio.create_task(log("epoch 1"))
        await rounds()
        assert logs.output == ["epoch 1"]
        assert not trigger.done()
        main_process.busy.set()
        await trigger

    asyncio.run(run())


def test_only_little_is_logged_ahead_of_what_was_read(logs: TaskLogs, main_process: MainProcess) -> None:
    """Otherwise all triggers would log into the one socket, until it is full and the event loop waits."""
    size = 2000
    names = [f"{number:02}" for number in range(50)]

    async def run() -> None:
        main_process.busy.clear()
        triggers = [asyncio.create_task(log(name + "x" * (size - LINE_BYTES - 4))) for name in names]
        await rounds()
        assert len(logs.output) == AHEAD_BYTES // size + 1
        main_process.busy.set()
        await asyncio.gather(*triggers)

    asyncio.run(run())
    # Whoever came first was first.
    assert [line[:2] for line in logs.output] == names


def test_who_has_logged_waits_for_all_that_waited_before(logs: TaskLogs, main_process: MainProcess) -> None:
    line = "x" * (AHEAD_BYTES + 1)

    async def trigger(name: str) -> None:
        for _ in range(3):
            await log(name + line)

    async def run() -> None:
        await asyncio.gather(*(trigger(name) for name in "abc"))

    asyncio.run(run())
    assert "".join(text[0] for text in logs.output) == "abcabcabc"


def test_the_main_process_is_asked_for_all_triggers_together(main_process: MainProcess) -> None:
    async def run() -> None:
        await asyncio.gather(*(log("epoch 1") for _ in range(10)))

    asyncio.run(run())
    assert main_process.requests < 5


def test_a_batch_that_is_broken_off_holds_nobody_up(logs: TaskLogs, main_process: MainProcess) -> None:
    async def run() -> None:
        main_process.busy.clear()
        broken_off = [asyncio.create_task(log(name + "x" * AHEAD_BYTES)) for name in "ab"]
        last = asyncio.create_task(log("c"))
        await rounds()
        # One waits until it is read, the other for its turn.
        assert len(logs.output) == 1
        for task in broken_off:
            task.cancel()
        await asyncio.wait(broken_off)
        assert all(task.cancelled() for task in broken_off)
        main_process.busy.set()
        await last

    asyncio.run(asyncio.wait_for(run(), 20))
    assert [text[0] for text in logs.output] == ["a", "c"]


async def rounds() -> None:
    """Let everybody go as far as it goes without the main process."""
    for _ in range(100):
        await asyncio.sleep(0)


def test_of_what_airflow_adds_to_each_line_only_the_trigger_is_kept(logs: TaskLogs, main_process: MainProcess) -> None:
    bound = {"ti_id": "1", "dag_id": "lab", "task_id": "wait", "run_id": "manual__1", "try_number": 1, "map_index": -1}

    async def trigger() -> None:
        structlog.contextvars.bind_contextvars(trigger_id=7, **bound)
        logs.keep(7, "log.trigger.1.log", None)  # type: ignore[arg-type]
        await log("epoch 1")
        structlog.get_logger("airflow.task").info("something else")

    asyncio.run(trigger())
    first, second = logs.raw
    assert first == {"logger": LOGGER, "event": "epoch 1", "trigger_id": 7}
    assert second == {"logger": "airflow.task", "event": "something else", "trigger_id": 7, **bound}


def test_percent_signs_are_text(logs: TaskLogs, main_process: MainProcess) -> None:
    asyncio.run(log("100% done %s %(name)s {}"))
    assert logs.output == ["100% done %s %(name)s {}"]


def test_outside_of_a_triggerer_nobody_is_asked(logs: TaskLogs) -> None:
    asyncio.run(log("x" * 10_000))
    assert logs.output == ["x" * 10_000]
