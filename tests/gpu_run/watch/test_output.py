"""The log of a job, for readers that come again and again."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.gpu_run.store.directories import JobDirectory, Root
from airflow_provider_gpu_cluster.gpu_run.watch import output


@pytest.fixture
def root(tmp_path: Path) -> Root:
    root = Root(str(tmp_path / "root"))
    root.job("job").create()
    return root


@pytest.fixture
def job(root: Root) -> JobDirectory:
    return root.job("job")


@pytest.fixture(autouse=True)
def state(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return the status that the job has, to be changed by the test."""
    status = {"job_id": "job", "state": protocol.RUNNING, "attempt": 1}
    monkeypatch.setattr(output, "status_or_unknown", lambda *arguments, **more: dict(status))
    return status


# Nothing of it is read here.
REQUEST: Any = {}


def write(job: JobDirectory, text: bytes) -> None:
    with open(job.at("logs", "training.log"), "ab") as file:
        file.write(text)


def read(
    root: Root, *, reader: str = "r", ack: tuple[int, int] | None = None, max_bytes: int = 1000
) -> tuple[int, int, bytes]:
    """Return the attempt, the offset and the bytes of one reply."""
    place = None if ack is None else {"attempt": ack[0], "offset": ack[1]}
    request = {"job_id": "job", "reader": reader, "ack": place, "max_bytes": max_bytes}
    reply, log = output.open_log(root, None, request)  # type: ignore[arg-type]
    data = b""
    if log is not None:
        with log:
            data = log.read(reply["length"])
    assert len(data) == reply["length"]
    return reply["attempt"], reply["offset"], data


def test_before_there_is_anything(root: Root, job: JobDirectory) -> None:
    assert read(root) == (0, 0, b"")
    job.add_attempt(1, REQUEST, {})
    assert read(root) == (1, 0, b"")


def test_each_byte_comes_until_it_is_acknowledged(root: Root, job: JobDirectory) -> None:
    job.add_attempt(1, REQUEST, {})
    write(job, b"0123456789")
    assert read(root, max_bytes=4) == (1, 0, b"0123")
    # That reply got lost, so nothing was acknowledged.
    assert read(root, max_bytes=4) == (1, 0, b"0123")
    assert read(root, ack=(1, 4), max_bytes=4) == (1, 4, b"4567")
    # So did this acknowledgement's reply, and it comes again.
    assert read(root, ack=(1, 4), max_bytes=4) == (1, 4, b"4567")
    assert read(root, ack=(1, 8)) == (1, 8, b"89")
    assert read(root, ack=(1, 10)) == (1, 10, b"")
    write(job, b"ab")
    # The place is kept on the cluster: a new process goes on where the last one was.
    assert read(root) == (1, 10, b"ab")


def test_an_old_acknowledgement_does_not_go_back(root: Root, job: JobDirectory) -> None:
    job.add_attempt(1, REQUEST, {})
    write(job, b"0123456789")
    read(root, ack=(1, 8))
    assert read(root, ack=(1, 3)) == (1, 8, b"89")


def test_readers_do_not_disturb_each_other(root: Root, job: JobDirectory) -> None:
    job.add_attempt(1, REQUEST, {})
    write(job, b"0123")
    assert read(root, reader="a", ack=(1, 2)) == (1, 2, b"23")
    assert read(root, reader="../../b é") == (1, 0, b"0123")
    assert read(root, reader="a") == (1, 2, b"23")


def test_a_new_attempt_begins_with_a_new_log(root: Root, job: JobDirectory, state: dict[str, Any]) -> None:
    job.add_attempt(1, REQUEST, {})
    write(job, b"first")
    read(root, ack=(1, 5))
    Path(job.at("logs", "training.log")).unlink()
    job.add_attempt(2, REQUEST, {})
    state.update(attempt=2, state=protocol.QUEUED)
    assert read(root) == (2, 0, b"")
    state.update(state=protocol.RUNNING)
    write(job, b"second")
    # An acknowledgement of the first attempt that comes late says nothing about the second.
    assert read(root, ack=(1, 5)) == (2, 0, b"second")
    assert read(root, ack=(2, 3)) == (2, 3, b"ond")


FOLLOWS: Any = {"recovery": {"first": 1}}


def test_an_attempt_that_follows_by_itself_goes_on_in_the_same_log(
    root: Root, job: JobDirectory, state: dict[str, Any]
) -> None:
    job.add_attempt(1, REQUEST, {})
    write(job, b"first")
    assert read(root, ack=(1, 2)) == (1, 2, b"rst")
    job.add_attempt(2, FOLLOWS, {})
    state.update(attempt=2, log_attempt=1, state=protocol.QUEUED)
    # A reader that lags behind gets the rest of it, also while the next attempt waits.
    assert read(root) == (1, 2, b"rst")
    write(job, b"second")
    state.update(state=protocol.RUNNING)
    assert read(root, ack=(1, 5)) == (1, 5, b"second")
    # A program that knows of no such attempts counts the same bytes by the latest one.
    cursor = output.Cursor(job, "r")
    cursor.move({"attempt": 2, "offset": 8})
    cursor.save()
    assert read(root) == (1, 8, b"ond")
    assert read(root, ack=(1, 10)) == (1, 10, b"d")
    # An attempt that Airflow asks for has a new log.
    job.add_attempt(3, REQUEST, {})
    state.update(attempt=3)
    del state["log_attempt"]
    assert read(root)[:2] == (3, 0)


def test_while_it_waits_the_log_of_the_attempt_before_is_not_its_own(
    root: Root, job: JobDirectory, state: dict[str, Any]
) -> None:
    job.add_attempt(1, REQUEST, {})
    write(job, b"stale")
    state["state"] = protocol.QUEUED
    assert read(root) == (1, 0, b"")


def cursor_file(job: JobDirectory) -> Path:
    (path,) = Path(job.at(".job", "cursors")).iterdir()
    return path


def test_a_note_is_kept_with_the_place_it_was_made_at(root: Root, job: JobDirectory) -> None:
    job.add_attempt(1, REQUEST, {})
    cursor = output.Cursor(job, "r")
    assert cursor.place_in(1, 1) == (0, None)
    cursor.move({"attempt": 1, "offset": 4, "note": {"lines": 2}})
    assert cursor.save() == {"attempt": 1, "offset": 4}
    assert output.Cursor(job, "r").place_in(1, 1) == (4, {"lines": 2})
    # A note can be made anew; without one, coming back to the same place says nothing.
    cursor.move({"attempt": 1, "offset": 4, "note": {"lines": 3}})
    cursor.move({"attempt": 1, "offset": 4})
    cursor.move({"attempt": 1, "offset": 3, "note": "old"})
    cursor.save()
    assert output.Cursor(job, "r").place_in(1, 1) == (4, {"lines": 3})
    assert output.Cursor(job, "r").place_in(2, 2) == (0, None)
    request = {"job_id": "job", "reader": "r", "ack": None, "max_bytes": 0}
    reply, _ = output.open_log(root, None, request)  # type: ignore[arg-type]
    assert (reply["offset"], reply["note"]) == (4, {"lines": 3})
    # Who goes on without a note has none.
    read(root, ack=(1, 5))
    assert output.Cursor(job, "r").place_in(1, 1) == (5, None)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"place": 3}', '{"place": {"attempt": null, "offset": 1}}'])
def test_a_place_that_was_lost_in_a_crash_is_the_beginning(root: Root, job: JobDirectory, content: str) -> None:
    job.add_attempt(1, REQUEST, {})
    write(job, b"0123")
    read(root, ack=(1, 3))
    cursor_file(job).write_text(content)
    assert read(root) == (1, 0, b"0123")
    assert read(root, ack=(1, 2)) == (1, 2, b"23")
    assert read(root) == (1, 2, b"23")


def test_a_place_is_not_kept_for_a_job_that_is_gone(job: JobDirectory) -> None:
    cursor = output.Cursor(job, "r")
    cursor.move({"attempt": 1, "offset": 4})
    shutil.rmtree(job.path)
    with pytest.raises(FileNotFoundError):
        cursor.save()
    assert not Path(job.path).exists()


def test_the_log_of_the_attempt_after_is_not_taken_for_this_one(job: JobDirectory) -> None:
    job.add_attempt(1, REQUEST, {})
    assert output.open_log_of(job, 1) is None
    write(job, b"first")
    with output.open_log_of(job, 1) as log:  # type: ignore[union-attr]
        assert log.read() == b"first"
    job.add_attempt(2, REQUEST, {})
    assert output.open_log_of(job, 1) is None
