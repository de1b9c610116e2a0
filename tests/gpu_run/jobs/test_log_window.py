"""A page sees any part of a job's log, whatever the log is, and none of its secrets."""

from __future__ import annotations

import base64
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from airflow_provider_gpu_cluster.gpu_run.errors import Refused
from airflow_provider_gpu_cluster.gpu_run.jobs import log_copy, log_window, status, submission
from airflow_provider_gpu_cluster.gpu_run.protocol.masks import Masks, masks_of
from airflow_provider_gpu_cluster.gpu_run.store import arrays
from airflow_provider_gpu_cluster.gpu_run.store.directories import JobDirectory, Root
from tests.gpu_run.host import Host

SECRET = "hf_0123456789abcdef"


class Job:
    """A job with records and logs that nothing has run."""

    def __init__(self, folder: Path, *, secrets: tuple[str, ...] = (), name: str = "job") -> None:
        self.root = Root(str(folder))
        self.directory: JobDirectory = self.root.job(name)
        self.directory.create()
        self.masks = masks_of(secrets)
        self.logs = Path(self.directory.at("logs"))

    def attempt(self, number: int, *, first: int | None = None, starts: int | None = None, ended: bool = True) -> None:
        request: Any = {"spec": {}, "by": {}, "masks": self.masks, "requested_at": "2026-01-01T00:00:00.000+00:00"}
        if first is not None:
            request["recovery"] = {"first": first}
        attempt = self.directory.add_attempt(number, request, {})
        assert attempt is not None
        if starts is not None:
            attempt.note_log_starts({"training": starts, "error": 0})
        if ended:
            Path(attempt.at("exit.json")).write_text('{"state": "SUCCEEDED"}')

    def write(self, data: bytes, name: str = "training.log") -> None:
        (self.logs / name).write_bytes(data)

    def read(self, **request: Any) -> dict[str, Any]:
        asked: Any = {"job_id": self.directory.job_id, "attempt": None, "stream": "output", **request}
        return dict(log_window.answer(self.root, asked).value)

    def copy(self, **request: Any) -> dict[str, Any]:
        asked: Any = {"job_id": self.directory.job_id, "attempt": None, "stream": "output", **request}
        return dict(log_copy.answer(self.root, asked).value)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path / "root")


def walked(job: Job, way: str, **request: Any) -> list[dict[str, Any]]:
    """Return all windows of a log, one after the other, from its start or from its end."""
    found = [job.read(way=way, place=None if way == "before" else 0, **request)]
    while found[-1]["end"] > found[-1]["offset"] and not (
        found[-1]["at_end"] if way == "after" else found[-1]["offset"] == found[-1]["start"]
    ):
        place = found[-1]["end" if way == "after" else "offset"]
        found.append(job.read(way=way, place=place, **request))
    return found if way == "after" else found[::-1]


LOGS = {
    "lines": b"".join(b"step %d\n" % step for step in range(300)),
    "no end": b"first\n\nthird\r\nno end",
    "one line": "ø€\U0001f600".encode() * 300,
    "no text": bytes(random.Random(1).randrange(256) for _ in range(2000)),
    "NUL": b"a\0b\n" + b"\0" * 500 + b"\nc\n",
    "empty lines": b"\n" * 700,
    "empty": b"",
}


@pytest.mark.parametrize("name", LOGS)
@pytest.mark.parametrize("way", ["after", "before"])
@pytest.mark.parametrize("sizes", [{"most_bytes": 64}, {"most_bytes": 1 << 18, "most_lines": 7}, {}])
def test_windows_next_to_each_other_are_the_whole_log(job: Job, name: str, way: str, sizes: dict[str, int]) -> None:
    job.attempt(1)
    job.write(LOGS[name])
    found = walked(job, way, **sizes)
    assert [one["offset"] for one in found[1:]] == [one["end"] for one in found[:-1]]
    assert (found[0]["offset"], found[-1]["end"], found[0]["size"]) == (0, len(LOGS[name]), len(LOGS[name]))
    for one in found:
        data = LOGS[name][one["offset"] : one["end"]]
        assert sum(one["bytes"]) == len(data)
        assert len(one["lines"]) <= sizes.get("most_lines", 5000)
        at = 0
        for line, size in zip(one["lines"], one["bytes"], strict=True):
            assert line == data[at : at + size].removesuffix(b"\n").decode("utf-8", "backslashreplace")
            at += size
        assert one["whole_start"] is (one["offset"] == 0 or LOGS[name][one["offset"] - 1] == 10)
        assert one["whole_end"] is (data.endswith(b"\n") or not data)
    if name == "one line":
        # Pieces are cut between characters.
        assert not any("\\x" in line for one in found for line in one["lines"])
    if name == "lines":
        assert all(one["whole_start"] and one["whole_end"] for one in found)


def test_a_window_around_a_place_has_its_line(job: Job) -> None:
    job.attempt(1)
    job.write(LOGS["lines"] + b"x" * 5000 + b"\n" + LOGS["lines"])
    size = len(LOGS["lines"]) * 2 + 5001
    for place in range(0, size, 97):
        for most_lines in (5000, 5):
            found = job.read(way="around", place=place, most_bytes=500, most_lines=most_lines)
            assert found["offset"] <= place < found["end"]
    # Beyond its end, and before its start, as when it was truncated meanwhile.
    assert job.read(way="around", place=1 << 60)["end"] == size
    assert job.read(way="after", place=-5)["offset"] == 0


def test_a_log_of_any_size_is_opened_at_its_end(job: Job) -> None:
    job.attempt(1)
    with open(job.logs / "training.log", "wb") as file:
        file.truncate(50 << 30)
        file.seek(0, os.SEEK_END)
        file.write(b"\nthe end\n")
    found = job.read(way="before")
    assert (found["lines"][-1], found["at_end"], found["size"]) == ("the end", True, (50 << 30) + 9)
    # A line that is longer than any window comes in pieces.
    assert not job.read(way="before", place=40 << 30)["whole_start"]
    assert job.read(place=40 << 30)["end"] == (40 << 30) + (1 << 18)


def test_each_attempt_has_its_part_of_the_log(job: Job) -> None:
    job.attempt(1)
    job.attempt(2, first=1, starts=4)
    job.write(b"one\ntwo\n", "training.attempt-2.log")
    job.attempt(3)  # It was cancelled before it ran.
    job.attempt(4)
    job.attempt(5, first=4, starts=5)
    job.attempt(6, first=4, ended=False)
    job.write(b"four\nfive\n")
    shown = {number: job.read(attempt=number) for number in (None, 1, 2, 3, 4, 5, 6)}
    assert {number: one["lines"] for number, one in shown.items()} == {
        None: ["four", "five"],
        1: ["one"],
        2: ["two"],
        3: [],
        4: ["four"],
        5: ["five"],
        6: [],
    }
    assert [shown[number]["log"] for number in (None, 1, 2, 3, 4, 5, 6)] == [4, 1, 1, 3, 4, 4, 4]
    assert [shown[number]["grows"] for number in (None, 5, 6)] == [True, False, True]
    assert (shown[2]["start"], shown[2]["stop"], shown[2]["size"]) == (4, 8, 8)
    assert job.read(attempt=2, way="before")["lines"] == ["two"]
    assert job.read(attempt=5, way="around", place=0)["offset"] == 5


def test_other_streams_are_shown_as_well(job: Job) -> None:
    job.attempt(1)
    job.write(b"oh\n", "error.log")
    job.write(b"no pip\n", "environment.log")
    assert job.read(stream="errors")["lines"] == ["oh"]
    assert job.read(stream="errors", attempt=1)["lines"] == ["oh"]
    assert job.read(stream="environment")["lines"] == ["no pip"]


def test_what_is_no_log_is_told(job: Job, tmp_path: Path) -> None:
    job.attempt(1, ended=False)
    assert (job.read()["lines"], job.read()["problem"], job.read()["at_end"]) == ([], "", True)
    log = job.logs / "training.log"
    os.mkfifo(log)
    assert f"{log} is a pipe, and not a file" in job.read()["problem"]
    log.unlink()
    log.mkdir()
    assert f"{log} is a folder, and not a file" in job.read()["problem"]
    log.rmdir()
    (tmp_path / "elsewhere").write_bytes(b"kept elsewhere\n")
    log.symlink_to(tmp_path / "elsewhere")
    assert job.read()["lines"] == ["kept elsewhere"]
    before = job.read()["file"]
    log.unlink()
    job.write(b"another\n")
    assert job.read()["file"] != before
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"job_id": "other"}, "it was deleted, or the connection has another root_dir"),
        ({"attempt": 7}, "has no attempt 7"),
        ({"stream": "other"}, "there is no log 'other'"),
    ]
    for change, said in wrong:
        with pytest.raises(Refused, match=said):
            job.read(**change)
    array = Job(tmp_path / "root", name="array")
    with pytest.raises(Refused, match="was not launched"):
        array.read()
    arrays.keep_elements(array.directory, ["array-0"])
    with pytest.raises(Refused, match="each of its elements has a log of its own"):
        array.read()


def test_no_window_has_anything_of_a_secret(tmp_path: Path) -> None:
    job = Job(tmp_path / "root", secrets=(SECRET, "a line\nand another"))
    job.attempt(1)
    lines = [b"token=" + SECRET.encode() + b" ok %d" % step for step in range(40)]
    job.write(b"\n".join([*lines, b"x a line\nand another y", SECRET.encode() * 40, b"end"]))
    for sizes in ({}, {"most_bytes": 50}, {"most_lines": 3}):
        for way in ("after", "before"):
            found = walked(job, way, **sizes)
            assert sum(sum(one["bytes"]) for one in found) == (job.logs / "training.log").stat().st_size
            text = "\n".join(line for one in found for line in one["lines"])
            assert not [start for start in range(len(SECRET) - 3) if SECRET[start : start + 4] in text]
            assert "a line" not in text
            assert "another" not in text
    assert job.read()["lines"][:2] == ["token=*** ok 0", "token=*** ok 1"]
    assert job.read()["lines"][40:] == ["x ***", "*** y", "***", "end"]


@pytest.mark.parametrize(
    ("printed", "shown"),
    [
        (b"loading\nhf_0123", ["loading"]),
        (b"loading\n" + b"y" * 200 + b"hf_0123", ["loading", "y" * 131]),
        (b"\r10%|#  |\r20%|## |", ["\r10%|#  |"]),
        (b"loading\n", ["loading"]),
    ],
)
def test_half_a_secret_at_the_end_of_a_growing_log_waits(tmp_path: Path, printed: bytes, shown: list[str]) -> None:
    job = Job(tmp_path / "root", secrets=(SECRET,))
    job.attempt(1, ended=False)
    job.write(printed)
    assert job.read()["lines"] == shown
    assert job.read()["at_end"]
    data = base64.b64decode(job.copy()["data"])
    assert b"hf_" not in data
    Path(job.directory.attempt(1).at("exit.json")).write_text('{"state": "FAILED"}')
    assert sum(job.read()["bytes"]) == len(printed)


def test_the_bytes_of_a_log_are_those_of_the_file_but_for_its_secrets(tmp_path: Path) -> None:
    job = Job(tmp_path / "root", secrets=(SECRET,))
    job.attempt(1)
    data = b"\xff\0\r\n".join(b"%d %s" % (step, SECRET.encode()) for step in range(99))
    job.write(data)
    for size in (len(SECRET), 30, 1 << 20):
        copied, place, is_whole = b"", 0, False
        while not is_whole:
            found = job.copy(place=place, most_bytes=size)
            copied += base64.b64decode(found["data"])
            assert found["end"] > place
            place, is_whole = found["end"], found["at_end"]
        assert copied == data.replace(SECRET.encode(), b"***")


def test_half_a_secret_waits_in_the_last_lines_of_a_status_as_well(host: Host, eventually: Callable[..., Any]) -> None:
    command = """printf 'loading\\n%s' "${TOKEN%??}"; exec sleep 60"""
    request = host.request(command, env={"TOKEN": SECRET})
    request["masks"] = cast("Masks", masks_of([SECRET]))
    job = host.job(request["job_id"])
    job.create()
    submission.submit(host.root, host.engine, request)
    log = Path(job.at("logs", "training.log"))
    eventually(lambda: log.exists() and log.read_text().endswith(SECRET[:-2]))
    found = status.statuses(host.root, host.engine, [job.job_id], 1000)[0]
    assert (found["state"], found["log_tail"]) == ("RUNNING", "loading\n")
