"""The verb ``read-series``: what a job has reported and used, whatever it has written."""

from __future__ import annotations

import itertools
import json
import math
import os
import random
import time
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.gpu_run.errors import Refused
from airflow_provider_gpu_cluster.gpu_run.protocol import masks
from airflow_provider_gpu_cluster.gpu_run.protocol.series import MOST_NAMES, MOST_POINTS
from airflow_provider_gpu_cluster.gpu_run.series import numbers, reading, slices
from airflow_provider_gpu_cluster.gpu_run.store.directories import Root

HOSTILE = "<script>alert(1)</script>\u202e\u0000\ud800"


class Job:
    """The directory of a job that nothing has run in."""

    def __init__(self, folder: Path) -> None:
        self.root = Root(str(folder))
        self.path = folder / "job"
        (self.path / "logs").mkdir(parents=True)
        self.attempt(1)

    def attempt(
        self, number: int, *, first: int = 1, progress: int | None = None, secrets: tuple[str, ...] = ()
    ) -> None:
        request: dict[str, Any] = {"masks": masks.masks_of(secrets)} if secrets else {}
        if first != number:
            request["recovery"] = {"first": first}
        starts = {"training": 0, "error": 0} | ({} if progress is None else {"progress": progress})
        self.record(number, "request", request)
        self.record(number, "log_starts", starts)

    def record(self, number: int, name: str, value: dict[str, Any]) -> None:
        path = self.path / ".job" / "attempts" / str(number) / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value))

    def write(self, *lines: Any, name: str = "progress") -> int:
        """Append lines, JSON or as they are, and return the size of the file."""
        path = self.path / "logs" / f"{name}.jsonl"
        with path.open("ab") as file:
            for line in lines:
                file.write((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n")
        return path.stat().st_size

    def read(self, what: str = "progress", **request: Any) -> dict[str, Any]:
        asked: Any = {"job_id": "job", "what": what, **request}
        reply: Any = reading.answer(self.root, asked).value
        # It arrives as JSON that browsers can read, and is small.
        text = json.dumps(reply, allow_nan=False)
        assert len(text) < 1 << 20
        text.encode("utf-8")
        return dict(reply)

    def curve(self, name: str, **request: Any) -> dict[str, Any]:
        (curve,) = self.read(names=[name], **request)["curves"]
        return dict(curve)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path)


def names(reply: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {name["name"]: name for name in reply["names"]}


def test_every_number_of_a_line_is_a_curve_over_its_step(job: Job) -> None:
    for step in range(3):
        job.write(
            {"step": step, "total": 3, "train": {"loss": 1 / (step + 1), "lr": [0.1, 0.2]}, "note": "x", "ok": True}
        )
    reply = job.read()
    assert list(names(reply)) == ["step", "total", "train/loss", "train/lr/0", "train/lr/1"]
    assert reply["x"] == "step"
    assert [curve["name"] for curve in reply["curves"]] == ["train/loss", "train/lr/0", "train/lr/1"]
    assert reply["curves"][0]["x"] == [0, 1, 2]
    assert reply["curves"][0]["y"] == [1, 0.5, 0.3333333]
    assert (reply["lines"], reply["bad_lines"], reply["slices"]) == (3, 0, 1)
    assert names(reply)["step"] == {"name": "step", "count": 3, "least": 0, "most": 2, "last": 2, "is_rising": True}
    assert not names(reply)["total"]["is_rising"]


def test_another_number_that_rises_can_be_what_curves_are_drawn_over(job: Job) -> None:
    job.write({"images": 10, "loss": 3}, {"images": 20, "loss": 2}, {"images": 30, "loss": 4})
    assert job.read()["x"] == "images"
    job.write({"images": 40, "step": 7, "loss": 1})
    assert job.read()["x"] == "step"
    assert job.curve("loss", x="images")["x"] == [10, 20, 30, 40]
    # Where a line does not say it, it is not guessed.
    assert job.curve("loss")["x"] == [None, None, None, 7]


def test_what_is_no_number_is_a_gap_and_garbage_is_counted(job: Job) -> None:
    job.write(
        b'{"step": 1, "loss": NaN}', b'{"step": 2, "loss": -Infinity}', b'{"step": 3, "loss": 1' + b"0" * 350 + b"}"
    )
    job.write({"step": 4, "loss": 0.5}, b"no JSON", b"[1]", b"\xff\xfe", b"[" * 50_000, b"1" * 5000, b"")
    reply = job.read()
    assert reply["curves"][0]["y"] == [None, None, None, 0.5]
    assert reply["bad_lines"] == 6
    assert names(reply)["loss"]["last"] == 0.5
    job.write(b'{"step": 5, "loss": NaN}', b'{"torn')
    reply = job.read()
    assert names(reply)["loss"]["last"] == "NaN"
    assert (names(reply)["loss"]["least"], names(reply)["loss"]["most"]) == (0.5, 0.5)


def test_points_are_few_and_keep_every_extreme(job: Job) -> None:
    values = [math.sin(step / 50) for step in range(20_000)]
    values[7_777], values[12_345] = 99, -99
    job.write(*({"step": step, "loss": value} for step, value in enumerate(values)))
    curve = job.curve("loss")
    assert len(curve["y"]) <= MOST_POINTS
    assert curve["at"] == sorted(set(curve["at"]))
    shown = dict(zip(curve["x"], curve["y"], strict=True))
    assert (shown[7_777], shown[12_345]) == (99, -99)
    assert (curve["x"][0], curve["x"][-1]) == (0, 19_999)


def test_lines_out_of_order_stay_as_they_were_written(job: Job) -> None:
    job.write(*({"step": step, "loss": step} for step in (1, 3, 2, 4)))
    reply = job.read()
    assert reply["curves"][0]["x"] == [1, 3, 2, 4]
    assert reply["x"] == "step"
    assert not names(reply)["step"]["is_rising"]


def test_an_attempt_after_a_recovery_is_a_section_of_its_own(job: Job) -> None:
    first = job.write({"step": 1, "loss": 3}, {"step": 2, "loss": 2})
    job.record(1, "exit", {"state": "FAILED", "reason": "preempted", "started_at": "a", "ended_at": "b"})
    job.attempt(2, first=1, progress=first)
    job.record(2, "claim", {"at": "c"})
    job.write({"step": 1, "loss": 2.5})
    reply = job.read()
    assert [(one["attempt"], one["at"], one["started_at"], one["reason"]) for one in reply["sections"]] == [
        (1, 0, "a", "preempted"),
        (2, first, "c", None),
    ]
    assert names(reply)["step"]["is_rising"]


def test_what_earlier_tries_have_reported_comes_before(job: Job) -> None:
    before = job.write({"step": 1, "loss": 3}, name="progress.attempt-1")
    job.attempt(2, first=2)
    job.write({"step": 1, "loss": 2})
    reply = job.read()
    assert reply["curves"][0]["y"] == [3, 2]
    assert [one["at"] for one in reply["sections"]] == [0, before]
    assert reply["live_from"] == before


def test_a_line_says_when_it_was_written(job: Job) -> None:
    job.write({"time": 1.7e9, "a": 1}, {"timestamp": 1.7e12, "a": 2}, {"time": "2026-01-01T00:00:00Z", "a": 3})
    reply = job.read(names=["a"])
    assert reply["curves"][0]["t"] == [1.7e9, 1.7e9, 1767225600]
    assert reply["times"] == "lines"
    # Seconds since its start, a date to come, and a time of nobody knows which zone say nothing of the kind.
    job.write({"time": 12.5, "a": 1}, {"time": 9e10, "a": 1}, {"time": "2026-01-01T00:00:00", "a": 1})
    assert job.curve("a")["t"][3:] == [None, None, None]


def test_otherwise_the_samples_of_its_use_tell(job: Job) -> None:
    sizes = [job.write({"step": step, "loss": 1}) for step in range(4)]
    samples = [(1000.0, 0), (1010.0, 0), (1012.0, sizes[1]), (1020.0, sizes[2])]
    job.write(*({"t": t, "s": 2, "progress_bytes": size} for t, size in samples), name="usage")
    os.utime(job.path / "logs" / "progress.jsonl", (1026, 1026))
    reply = job.read(names=["loss"])
    assert reply["curves"][0]["t"] == [1011, 1012, 1020, 1026]
    assert (reply["times"], reply["within_s"]) == ("samples", 8)
    job.path.joinpath("logs", "usage.jsonl").unlink()
    reply = job.read(names=["loss"])
    assert reply["curves"][0]["t"] == [None] * 4
    assert (reply["times"], reply["within_s"]) == ("none", None)


def test_ten_thousand_names(job: Job) -> None:
    for step in range(3):
        job.write({"step": step} | {f"m{number}": number for number in range(10_000)})
    job.write({"step": 3, "newest": 1})
    reply = job.read()
    assert list(names(reply))[:3] == ["step", "newest", "m0"]
    assert len(reply["names"]) == MOST_NAMES
    assert reply["more_names"] == 10_000 - (MOST_NAMES - 2)
    # Any of them can be asked for.
    assert job.curve("m9999")["y"] == [9999] * 3


def test_names_are_made_harmless(job: Job) -> None:
    job.write({"step": 1, HOSTILE: 1, "x" * 5000: 2, "y" * 200: 3})
    reply = job.read()
    told = list(names(reply))
    assert told[1] == "<script>alert(1)</script>   "
    assert all(len(name) <= 100 and name.isprintable() for name in told)
    assert reply["more_names"] == 1


def test_secrets_are_in_no_name_and_no_number(job: Job) -> None:
    job.attempt(1, secrets=("hunter2", "314159265"))
    job.write({"step": 1, "key-hunter2": 1, "pin": 314159265}, {"step": 2, "pin": 7})
    reply = job.read()
    assert "hunter2" not in json.dumps(reply)
    assert "key-***" in names(reply)
    assert job.curve("pin")["y"] == [7]
    assert "314159265" not in json.dumps(job.read())


@pytest.mark.parametrize("long", [5, 200_000])
def test_a_history_of_any_size_is_read_in_slices(job: Job, monkeypatch: pytest.MonkeyPatch, long: int) -> None:
    """The same as of a file of gigabytes, in small: each slice shows a part of everything, together they show all."""
    monkeypatch.setattr(slices, "SLICE_BYTES", 8192)
    monkeypatch.setattr(slices, "PIECE_BYTES", 256)
    monkeypatch.setattr(slices, "MOST_LINE_BYTES", 100_000)
    for step in range(2000):
        job.write({"step": step, "loss": step})
    job.write({"step": 2000, "loss": 2000, "text": "x" * long})
    size = job.write({"step": 2001, "loss": 2001})
    first = job.read()
    assert first["slices"] == math.ceil(size / 8192)
    assert first["until"] == size
    seen = first["curves"][0]["x"]
    assert 50 < len(seen) < 1000
    assert seen[-1] == 2001
    if long == 5:
        assert max(b - a for a, b in itertools.pairwise(seen)) < 100
    job.write({"step": 2002, "loss": 2002})
    found: dict[int, float] = {}
    bad = 0
    for number in range(first["slices"]):
        part = job.read(slice=number, until=size)
        found |= dict(zip(part["curves"][0]["at"], part["curves"][0]["x"], strict=True)) if part["curves"] else {}
        bad += part["bad_lines"]
    expected = [step for step in range(2002) if step != 2000 or long == 5]
    assert sorted(found.values()) == expected
    assert bad == (long != 5)


@pytest.mark.long
def test_a_gigabyte_is_read_in_bounded_steps(job: Job) -> None:
    path = job.path / "logs" / "progress.jsonl"
    block = b"".join(json.dumps({"step": step, "loss": random.random()}).encode() + b"\n" for step in range(20_000))
    with path.open("wb") as file:
        while file.tell() < 1 << 30:
            file.write(block)
    began = time.process_time()
    reply = job.read()
    assert time.process_time() - began < 3
    assert reply["slices"] == math.ceil(path.stat().st_size / slices.SLICE_BYTES)
    assert len(reply["curves"][0]["y"]) > 500


def test_use_of_each_gpu_and_of_the_host(job: Job) -> None:
    gpus = [
        {"index": 3, "percent": 50.5, "memory_bytes": 7},
        {"index": 0, "host": "node2", "percent": 0, "power_w": 90},
    ]
    job.write({"t": 1000.5, "s": 2, "gpus": gpus, "memory_bytes": 12, "cpus": 1.5}, b"torn", name="usage")
    job.write({"t": 1002.5, "s": 2, "memory_bytes": 13, "cpus": 0.5, "node": "node1"}, {"t": "x"}, name="usage")
    reply = job.read("usage")
    curves = {curve["name"]: curve for curve in reply["curves"]}
    assert set(curves) == {
        "gpu/3/percent",
        "gpu/3/memory_bytes",
        "gpu/node2:0/percent",
        "host/memory_bytes",
        "host/cpus",
        "host/node1/memory_bytes",
        "host/node1/cpus",
    }
    assert curves["gpu/3/percent"]["y"] == [50.5]
    assert curves["gpu/3/percent"]["t"] == [1000.5]
    assert curves["host/node1/cpus"]["y"] == [0.5]
    assert "gpu/node2:0/power_w" in names(reply)
    assert reply["bad_lines"] == 2
    assert job.read("usage", names=["gpu/node2:0/power_w"])["curves"][0]["y"] == [90]


def test_the_use_of_many_gpus_fits_into_a_reply(job: Job) -> None:
    gpus = [{"index": index, "percent": 33.3, "memory_bytes": 61203283968} for index in range(64)]
    line = json.dumps({"t": 1795863881.699, "s": 2.0, "gpus": gpus, "memory_bytes": 12, "cpus": 1.5}).encode()
    job.write(*([line] * 1000), name="usage")
    reply = job.read("usage")
    assert len(reply["curves"]) == 130
    assert reply["left_out_bytes"] == max(0, 1000 * (len(line) + 1) - (1 << 22))


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize(("spoil", "words"), [(make_pipe, "is a pipe, and not a file"), (Path.mkdir, "is a folder")])
def test_what_is_no_file_is_said(job: Job, spoil: Any, words: str) -> None:
    for what in ("progress", "usage"):
        spoil(job.path / "logs" / f"{what}.jsonl")
        reply = job.read(what)
        assert words in reply["problem"]
        assert reply["curves"] == []


def test_a_job_that_has_reported_nothing(job: Job) -> None:
    for what in ("progress", "usage"):
        reply = job.read(what)
        assert (reply["names"], reply["curves"], reply["until"], reply["problem"]) == ([], [], 0, "")
    assert job.curve("loss")["y"] == []


def test_what_cannot_be_read_is_refused(job: Job) -> None:
    with pytest.raises(Refused) as refused:
        reading.answer(job.root, {"job_id": "gone", "what": "progress"})
    assert refused.value.code == protocol.NO_SUCH_JOB
    with pytest.raises(Refused, match="no series of 'x'"):
        job.read("x")
    (job.path / ".job" / "attempts" / "1" / "request.json").unlink()
    with pytest.raises(Refused, match="records of job job were deleted"):
        job.read()


CASES = json.loads((Path(__file__).parents[2] / "ui" / "flat_numbers.json").read_text())


@pytest.mark.parametrize("case", CASES["progress"])
def test_the_history_has_the_same_numbers_as_a_live_line(case: dict[str, Any]) -> None:
    found = [[numbers.shown_name(name), number] for name, number in numbers.numbers_in(case["line"])]
    if "numbers" in case:
        assert found == case["numbers"]
    else:
        assert len(found) == case["count"]


@pytest.mark.parametrize("case", CASES["usage"])
def test_and_the_same_use(job: Job, case: dict[str, Any]) -> None:
    job.write(case["line"], name="usage")
    found = job.read("usage", names=[name for name, _ in case["numbers"]])["curves"]
    assert [[curve["name"], curve["y"][0]] for curve in found] == case["numbers"]
