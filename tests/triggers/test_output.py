"""A job's output in the logs of triggers: every byte of it, each line once, whatever becomes of the triggers."""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.triggers.base import TaskSuccessEvent, TriggerEvent

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.jobs.status import JobState
from airflow_provider_gpu_cluster.logs.relay import LogPosition
from airflow_provider_gpu_cluster.triggers import output_log
from airflow_provider_gpu_cluster.triggers.gpu_job import GpuJobTrigger
from airflow_provider_gpu_cluster.triggers.shown_lines import shown_lines
from airflow_provider_gpu_cluster.watch.end import WatchEnd
from airflow_provider_gpu_cluster.watch.subscriptions import Subscription
from tests.harness import jobs
from tests.harness.deferral import TaskLogs, Triggerer, XComs, dto
from tests.harness.task_context import TaskInstance
from tests.triggers.fake_watcher import FakeWatcher, printed, status

Kwargs = dict[str, Any]


def arguments(handle: JobHandle, **more: Any) -> tuple[str, Kwargs]:
    """Return a trigger for a job, as it goes through the database."""
    return GpuJobTrigger(handle.to_json(), **{"end_from_trigger": True, **more}).serialize()


# -- byte for byte ----------------------------------------------------------------------------------------------------

SMALL = "\N{LATIN SMALL LETTER E WITH ACUTE}".encode()
ROCKET = "\N{ROCKET}".encode()

# What a job prints, with a pause between the pieces, and the lines that the log shows.
AWKWARD: list[tuple[list[bytes], list[str]]] = [
    ([b"plain\n"], ["plain"]),
    ([b"\n", b"\n\n"], ["", "", ""]),
    ([b"  spaces \t\n"], ["  spaces \t"]),
    ([b"invalid \xff\xfe\xc3( end\n"], ["invalid \\xff\\xfe\\xc3( end"]),
    ([b"cut in two: ", SMALL[:1], SMALL[1:], b"\n"], ["cut in two: \N{LATIN SMALL LETTER E WITH ACUTE}"]),
    ([ROCKET[:1], ROCKET[1:3], ROCKET[3:], b"\n"], ["\N{ROCKET}"]),
    ([b"cut for good: ", ROCKET[:3], b"\n"], ["cut for good: \\xf0\\x9f\\x9a"]),
    ([b" 0%\r", b" 50%\r", b"100%", b"\n"], ["100%"]),
    ([b" 0%\r100%\r\n"], ["100%"]),
    ([b"dos\r\n"], ["dos"]),
    ([b"nul \x00 and bell \x07\n"], ["nul \\x00 and bell \\x07"]),
    ([b"\x1b[31mred\x1b[0m \x1b[2Kerased\n"], ["\x1b[31mred\x1b[0m erased"]),
    ([b"100% %s %(x)s {x} {{ x }}\n"], ["100% %s %(x)s {x} {{ x }}"]),
    ([b'{"event": "x", "trigger_id": 1, "logger": "a"}\n'], ['{"event": "x", "trigger_id": 1, "logger": "a"}']),
    ([b"\xe2\x80\xa8 is no line end, \x0b and \x0c are none\n"], ["\u2028 is no line end, \\x0b and \\x0c are none"]),
    ([b"no end"], ["no end"]),
]


@pytest.mark.usefixtures("gpu_cluster_conn", "xcoms")
def test_output_is_in_the_log_byte_for_byte(cluster: Cluster, logs: TaskLogs, tmp_path: Path) -> None:
    pieces = [piece for printed, _ in AWKWARD for piece in printed]
    script = tmp_path / "print.py"
    script.write_text(f"import os, time\nfor piece in {pieces!r}:\n    os.write(1, piece)\n    time.sleep(0.02)\n")
    handle = jobs.submit(cluster, f"{sys.executable} {script}").handle

    async def run() -> TriggerEvent:
        triggerer = Triggerer(logs)
        return await triggerer.event(await triggerer.start(TaskInstance("wait"), *arguments(handle)))

    assert type(asyncio.run(run())) is TaskSuccessEvent
    assert Path(handle.job_dir, "logs/training.log").read_bytes() == b"".join(pieces)
    assert logs.output == [line for _, lines in AWKWARD for line in lines]


# -- each line once ---------------------------------------------------------------------------------------------------


@pytest.fixture
def counting(cluster: Cluster, gpu_cluster_conn: Any, tmp_path: Path) -> tuple[JobHandle, Callable[[int], None]]:
    """Return a job that prints numbered lines, and a function that lets it print more, up to a last one."""
    gate = tmp_path / "gate"
    gate.write_text("0")
    script = tmp_path / "count.py"
    script.write_text(
        "import pathlib, time\n"
        "printed = 0\n"
        "while printed < 900:\n"
        f"    allowed = int(pathlib.Path({str(gate)!r}).read_text() or 0)\n"
        "    for number in range(printed, allowed):\n"
        "        print('line', number, '\\n' if number % 7 == 0 else '', flush=True)\n"
        "    printed = max(printed, allowed)\n"
        "    time.sleep(0.02)\n"
    )
    handle = jobs.submit(cluster, f"{sys.executable} {script}").handle

    def allow(lines: int) -> None:
        gate.with_suffix(".new").write_text(str(lines))
        gate.with_suffix(".new").replace(gate)

    return handle, allow


def expected(first: int, last: int) -> list[str]:
    lines = []
    for number in range(first, last):
        lines += [f"line {number} ", ""] if number % 7 == 0 else [f"line {number} "]
    return lines


async def until(check: Callable[[], bool], timeout_s: float = 30) -> None:
    async def wait() -> None:
        while not check():
            await asyncio.sleep(0.01)

    await asyncio.wait_for(wait(), timeout_s)


Counting = tuple[JobHandle, Callable[[int], None]]


@pytest.mark.usefixtures("xcoms")
def test_triggerer_that_is_restarted_goes_on_where_it_was(counting: Counting, logs: TaskLogs) -> None:
    handle, allow = counting
    ti = TaskInstance("wait")

    def shown(count: int) -> bool:
        return len(logs.output) >= count

    async def run() -> TriggerEvent:
        for number, allowed in enumerate((300, 600), start=1):
            before = len(logs.output)
            triggerer = Triggerer(logs, job_id=number)
            await triggerer.start(ti, *arguments(handle))
            allow(allowed)
            # In the middle of a batch, as like as not.
            await until(functools.partial(shown, before + 101))
            await triggerer.shut_down()
        allow(900)
        triggerer = Triggerer(logs, job_id=3)
        return await triggerer.event(await triggerer.start(ti, *arguments(handle)))

    assert type(asyncio.run(run())) is TaskSuccessEvent
    assert logs.output == expected(0, 900)
    # So it is in the files, too, from which Airflow's UI takes the log.
    logs.close()
    assert shown_lines(dto(ti)) == expected(0, 900)


@pytest.mark.usefixtures("xcoms")
def test_lines_whose_acknowledgement_was_lost_are_not_repeated(
    counting: Counting, cluster: Cluster, logs: TaskLogs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A triggerer that is killed between logging and acknowledging; what it wrote is on the disk."""
    handle, allow = counting
    ti = TaskInstance("wait")
    acknowledge = Subscription.ack

    async def run() -> TriggerEvent:
        first = Triggerer(logs, job_id=1)
        await first.start(ti, *arguments(handle))
        allow(200)
        await until(lambda: len(logs.output) == len(expected(0, 200)))
        await first.shut_down()

        monkeypatch.setattr(Subscription, "ack", lambda subscription, position, note: None)
        second = Triggerer(logs, job_id=2)
        await second.start(ti, *arguments(handle))
        allow(500)
        await until(lambda: len(logs.output) == len(expected(0, 500)))
        await second.shut_down()
        monkeypatch.setattr(Subscription, "ack", acknowledge)
        # The cluster knows nothing of what the second one has shown.
        cursor = cluster.read_log(handle.job_id, reader=f"try-{ti.id}", max_bytes=0).start
        assert cursor == LogPosition(1, size_of(expected(0, 200)))

        third = Triggerer(logs, job_id=3)
        trigger_id = await third.start(ti, *arguments(handle))
        allow(900)
        return await third.event(trigger_id)

    assert type(asyncio.run(run())) is TaskSuccessEvent
    assert logs.output == expected(0, 900)


def size_of(lines: list[str]) -> int:
    return sum(len(line) + 1 for line in lines)


# -- the same, with a cluster whose memory the test decides on ------------------------------------------------------

LOG = b"".join(b"line %d\n" % number for number in range(20))
LINES = LOG.decode().splitlines()
HANDLE = JobHandle("job-1", "gpu_cluster_default", "/jobs/job-1", "host", "2026-01-01T00:00:00+00:00", 1)


def shown_from(
    cursor: int, note: Any, logs: TaskLogs, monkeypatch: pytest.MonkeyPatch, ti: TaskInstance, job_id: int
) -> list[str]:
    """Return what a new trigger shows of the whole log, when its reader is at the start of that line."""
    place = sum(len(line) + 1 for line in LINES[:cursor])
    watcher = FakeWatcher(status(JobState.SUCCEEDED, LOG), *printed(LOG, place, note=note))
    monkeypatch.setattr("airflow_provider_gpu_cluster.triggers.watchers.watcher_of", lambda conn_id: watcher)
    before = len(logs.output)

    async def run() -> None:
        triggerer = Triggerer(logs, job_id=job_id)
        await triggerer.event(await triggerer.start(ti, *arguments(HANDLE)))

    asyncio.run(run())
    logs.close()
    return logs.output[before:]


def test_log_tells_what_was_shown_beyond_the_place(logs: TaskLogs, monkeypatch: pytest.MonkeyPatch) -> None:
    ti = TaskInstance("wait")
    assert shown_from(15, None, logs, monkeypatch, ti, job_id=1) == LINES[15:]
    # The log holds five lines, the last three of them beyond the place.
    note = {"log": str(ti.id), "lines": 2}
    assert shown_from(17, note, logs, monkeypatch, ti, job_id=2) == []


def test_log_of_another_try_tells_nothing(logs: TaskLogs, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown_from(15, None, logs, monkeypatch, TaskInstance("wait"), job_id=1) == LINES[15:]
    # How many lines are in the first try's log says nothing of the second's.
    note = {"log": "of the first try", "lines": 3}
    second = TaskInstance("wait", try_number=2)
    assert shown_from(17, note, logs, monkeypatch, second, job_id=1) == LINES[17:]
    assert shown_from(17, note, logs, monkeypatch, second, job_id=2) == []


def test_log_that_is_lost_repeats_lines_and_loses_none(logs: TaskLogs, monkeypatch: pytest.MonkeyPatch) -> None:
    ti = TaskInstance("wait")
    note = {"log": str(ti.id), "lines": 12}
    assert shown_from(10, note, logs, monkeypatch, ti, job_id=1) == LINES[10:]


def test_each_place_is_acknowledged_with_how_much_of_the_log_led_there(
    logs: TaskLogs, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = b"".join(b"%099d\n" % number for number in range(100))
    watcher = FakeWatcher(status(JobState.SUCCEEDED, log), *printed(log))
    monkeypatch.setattr("airflow_provider_gpu_cluster.triggers.watchers.watcher_of", lambda conn_id: watcher)
    ti = TaskInstance("wait")

    async def run() -> None:
        triggerer = Triggerer(logs)
        await triggerer.event(await triggerer.start(ti, *arguments(HANDLE)))

    asyncio.run(run())
    acks = watcher.subscriptions["job-1"].acks
    assert [(position.offset, note) for position, note in acks] == [
        (position.offset, {"log": str(ti.id), "lines": position.offset // 100}) for position, _ in acks
    ]
    # Not all at once: between two batches the others have theirs.
    assert len(acks) > 3
    assert acks[-1][0] == LogPosition(1, len(log))


# -- many triggers ----------------------------------------------------------------------------------------------------


def test_a_flood_in_one_job_does_not_hold_up_the_others(logs: TaskLogs, monkeypatch: pytest.MonkeyPatch) -> None:
    flood = b"".join(b"flood %090d\n" % number for number in range(20_000))
    log = b"line\n" * 10
    watcher = FakeWatcher()

    async def answer(secret: Any, name: str | None = None) -> None:
        await asyncio.sleep(0)  # the main process takes a moment

    monkeypatch.setattr(output_log, "amask_secret", answer)
    monkeypatch.setattr("airflow_provider_gpu_cluster.triggers.watchers.watcher_of", lambda conn_id: watcher)

    async def run() -> None:
        triggerer = Triggerer(logs)
        flooding = await triggerer.start(TaskInstance("flood"), *arguments(handle("flood")))
        others = [await triggerer.start(TaskInstance(name), *arguments(handle(name))) for name in names]
        await until(lambda: len(watcher.subscriptions) == 21)
        watcher.subscriptions["flood"].tell(status(JobState.RUNNING, flood), *printed(flood))
        await until(lambda: len(logs.output) > 100)
        for name in names:
            watcher.subscriptions[name].tell(status(JobState.SUCCEEDED, log), *printed(log))
        for trigger_id in others:
            assert type(await triggerer.event(trigger_id)) is TaskSuccessEvent
        shown = sum(line.startswith("flood") for line in logs.output)
        assert 100 < shown < 10_000
        assert logs.output.count("line") == 200
        # Its own end is not held up either: a worker shows the rest.
        watcher.subscriptions["flood"].tell(status(JobState.SUCCEEDED, flood))
        event = await triggerer.event(flooding)
        assert WatchEnd.from_json(event.payload).reader is not None
        assert sum(line.startswith("flood") for line in logs.output) < 10_000

    names = [f"job-{number}" for number in range(20)]
    asyncio.run(run())


def handle(job_id: str) -> JobHandle:
    return JobHandle(job_id, "gpu_cluster_default", f"/jobs/{job_id}", "host", "2026-01-01T00:00:00+00:00", 1)


# -- a job that goes on by itself -------------------------------------------------------------------------------------


def test_a_job_that_goes_on_by_itself_is_one_job_to_its_task(
    cluster: Cluster, gpu_cluster_conn: Any, logs: TaskLogs, xcoms: XComs, tmp_path: Path
) -> None:
    """The first triggerer is gone before the second attempt begins."""
    gate = tmp_path / "gate"
    command = (
        'echo "attempt $ATTEMPT begins"; printf "no line end"; touch "$CHECKPOINT_DIR/$ATTEMPT.pt"\n'
        f'until [ -e "{gate}$ATTEMPT" ]; do sleep 0.02; done\n'
        'test "$ATTEMPT" = 2 || exit 85'
    )
    handle = jobs.submit(cluster, command, recover={"checkpointed": 5}, checkpoint_exit_code=85).handle
    ti = TaskInstance("wait")

    async def run() -> TriggerEvent:
        first = Triggerer(logs, job_id=1)
        await first.start(ti, *arguments(handle))
        await until(lambda: "attempt 1 begins" in logs.output)
        Path(f"{gate}1").touch()
        await until(lambda: "GPU job goes on in attempt 2" in logs.events)
        await first.shut_down()
        await asyncio.to_thread(jobs.wait, cluster, handle.job_id, JobState.RUNNING)
        last = Triggerer(logs, job_id=2)
        trigger_id = await last.start(ti, *arguments(handle))
        await until(lambda: "attempt 2 begins" in logs.output)
        Path(f"{gate}2").touch()
        return await last.event(trigger_id)

    assert type(asyncio.run(run())) is TaskSuccessEvent
    log = Path(handle.job_dir, "logs", "training.log").read_text()
    assert logs.output == log.splitlines()
    assert [line for line in logs.output if not line.startswith("gpu-run: ")] == [
        *("attempt 1 begins", "no line end", "attempt 2 begins", "no line end")
    ]
    assert "; attempt 2 goes on from checkpoints/1.pt" in logs.output[2]
    whys = [record.fields["why"] for record in logs.told if record.event == "GPU job goes on in attempt 2"]
    # The second triggerer sees in the log what the first has said.
    assert len(whys) == 1
    assert whys[0].startswith("attempt 1 saved and asked to go on after ")
