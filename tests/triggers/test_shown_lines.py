"""The lines of output that a try's log files hold already."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.logs.job_log import IS_IDLE, IS_IDLE_NO_MORE
from airflow_provider_gpu_cluster.triggers.output_log import LOGGER
from airflow_provider_gpu_cluster.triggers.shown_lines import shown_lines, told_attempts, told_idle
from tests.harness.deferral import TaskLogs, dto
from tests.harness.task_context import TaskInstance


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return Airflow's folder for logs."""
    monkeypatch.setenv("AIRFLOW__LOGGING__BASE_LOG_FOLDER", str(tmp_path))
    return tmp_path


def task(run_id: str = "manual__1", **changes: Any) -> Any:
    ti = TaskInstance("group.wait", **changes)
    ti.run_id = run_id
    return dto(ti)


def record(event: str, logger: str = LOGGER) -> bytes:
    values = {"timestamp": "2026-01-01T00:00:00.000000Z", "level": "info", "event": event, "logger": logger}
    return json.dumps(values).encode() + b"\n"


def write(folder: Path, path: str, *records: bytes, modified: float = 0) -> None:
    file = folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"".join(records))
    os.utime(file, (modified, modified))


OF_TRY_1 = "dag_id=lab/run_id=manual__1/task_id=group.wait/attempt=1.log"


def test_no_log_has_no_lines(folder: Path) -> None:
    assert shown_lines(task()) == []


def test_lines_of_several_triggerers_come_in_the_order_of_their_work(folder: Path) -> None:
    write(folder, f"{OF_TRY_1}.trigger.9.log", record("one"), record("two"), modified=1000)
    write(folder, f"{OF_TRY_1}.trigger.10.log", record("three"), modified=2000)
    write(folder, f"{OF_TRY_1}.trigger.2.log", record("four"), modified=3000)
    assert shown_lines(task()) == ["one", "two", "three", "four"]


def test_only_output_counts(folder: Path) -> None:
    write(
        folder,
        f"{OF_TRY_1}.trigger.1.log",
        record("trigger starting", "airflow.jobs.triggerer_job_runner"),
        record("one"),
        record("GPU job runs", "airflow_provider_gpu_cluster.triggers.gpu_job.GpuJobTrigger"),
        b'"text"\n',
        b"\n",
        b'{"event": "of nobody"}\n',
        record("two"),
    )
    assert shown_lines(task()) == ["one", "two"]


def test_what_was_said_of_attempts_that_follow(folder: Path) -> None:
    assert told_attempts(task()) == 0
    logger = "airflow_provider_gpu_cluster.triggers.gpu_job.GpuJobTrigger"
    said = [record(f"GPU job goes on in attempt {number}", logger) for number in (2, 3)]
    of_the_job = record("GPU job goes on in attempt 9")
    write(folder, f"{OF_TRY_1}.trigger.1.log", said[0], of_the_job, modified=1000)
    write(folder, f"{OF_TRY_1}.trigger.2.log", said[1], record("GPU job goes on in attempt x", logger), modified=2000)
    assert told_attempts(task()) == 2


def test_a_record_that_was_cut_off_does_not_count(folder: Path) -> None:
    """A line was logged whole or not at all, as far as the next trigger is concerned."""
    whole = record("two")
    for length in range(1, len(whole) - 1):
        write(folder, f"{OF_TRY_1}.trigger.1.log", record("one"), whole[:length])
        assert shown_lines(task()) == ["one"]


def test_bytes_that_are_no_text_do_not_matter(folder: Path) -> None:
    write(folder, f"{OF_TRY_1}.trigger.1.log", record("one"), b"\xff\xfe\x00\n", record("two"))
    assert shown_lines(task()) == ["one", "two"]


def test_other_tries_and_what_workers_logged_do_not_count(folder: Path) -> None:
    write(folder, OF_TRY_1, record("of a worker"))
    write(folder, f"{OF_TRY_1}.trigger.1.log", record("one"))
    write(folder, OF_TRY_1.replace("attempt=1.log", "attempt=2.log.trigger.1.log"), record("of the second try"))
    write(folder, OF_TRY_1.replace("attempt=1.log", "attempt=11.log.trigger.1.log"), record("of the eleventh try"))
    assert shown_lines(task()) == ["one"]
    assert shown_lines(task(try_number=2)) == ["of the second try"]


def test_mapped_tasks_have_logs_of_their_own(folder: Path) -> None:
    path = "dag_id=lab/run_id=manual__1/task_id=group.wait/map_index={}/attempt=1.log.trigger.1.log"
    write(folder, path.format(0), record("of the first"))
    write(folder, path.format(1), record("of the second"))
    assert shown_lines(task(map_index=1)) == ["of the second"]
    assert shown_lines(task(map_index=0)) == ["of the first"]
    assert shown_lines(task()) == []


@pytest.mark.parametrize("run_id", ["manual__[1]", "what?*", "scheduled__2026-01-01T00:00:00+00:00"])
def test_what_a_run_is_called_is_no_pattern(folder: Path, run_id: str) -> None:
    path = "dag_id=lab/run_id={}/task_id=group.wait/attempt=1.log.trigger.1.log"
    write(folder, path.format(run_id), record("its own"))
    write(folder, path.format("manual__1"), record("another run's"))
    write(folder, path.format("whatever"), record("another run's"))
    assert shown_lines(task(run_id)) == ["its own"]


def test_what_airflow_writes_is_read(logs: TaskLogs) -> None:
    """The file is written by Airflow's own code here, at the place where Airflow puts it."""
    import structlog
    from airflow.utils.helpers import log_filename_template_renderer

    ti = task(map_index=2)
    logs.keep(7, log_filename_template_renderer()(ti=ti) + ".trigger.1.log", ti)
    lines = ["plain", "", "  spaces  ", 'a "quoted" \\ one', "\x1b[31mred\x1b[0m", "Grüße 🚀", "tab\there", "100% %s"]
    with structlog.contextvars.bound_contextvars(trigger_id=7):
        structlog.get_logger("airflow.task").info("something else")
        for line in lines:
            structlog.get_logger(LOGGER).info(line)
    logs.close()
    assert shown_lines(ti) == lines


def test_that_a_job_is_idle_is_told_once(folder: Path) -> None:
    def idle(level: str) -> bytes:
        said = {"event": f"{IS_IDLE}its GPUs were not used", "logger": "task", "attempt": 2, "idle_for": level}
        return json.dumps(said).encode() + b"\n"

    assert told_idle(task()) is None
    path = f"{OF_TRY_1}.trigger.1.log"
    write(folder, path, idle("half"), idle("whole"), record(f"{IS_IDLE}printed by the job"))
    assert told_idle(task()) == [2, "whole"]
    write(folder, path, idle("half"), record(IS_IDLE_NO_MORE, "task"))
    assert told_idle(task()) is None
