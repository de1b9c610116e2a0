"""A log is searched slice by slice, in both directions, and a search finds nothing of a secret."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.gpu_run.errors import Refused
from airflow_provider_gpu_cluster.gpu_run.jobs import log_search
from tests.gpu_run.jobs.test_log_window import SECRET, Job


@pytest.fixture
def job(tmp_path: Path) -> Job:
    job = Job(tmp_path / "root")
    job.attempt(1)
    return job


def search(job: Job, text: str, **request: Any) -> list[dict[str, Any]]:
    """Return what the whole search finds."""
    asked: Any = {"job_id": "job", "attempt": None, "stream": "output", "text": text, **request}
    hits: list[dict[str, Any]] = []
    for _ in range(2000):
        found: Any = log_search.answer(job.root, asked).value
        hits += found["hits"]
        if found["next"] is None:
            return hits
        assert found["next"] != asked.get("place")
        asked["place"] = found["next"]
    raise AssertionError("the search never ends")


LINES = [f"step {step}: loss {950 - step}, Åse\N{COMBINING RING ABOVE} \U0001f600" for step in range(60)]
LOG = "\n".join([*LINES, "no end: step"]).encode()


@pytest.mark.parametrize(
    ("text", "request_"),
    [
        ("step 1", {}),
        ("STEP 1", {"ignore_case": True}),
        ("åse", {"ignore_case": True}),
        ("Åse", {}),
        ("loss 9", {}),
        ("end: step", {}),
        (r"^step \d*7:", {"is_regex": True}),
        (r"STEP \d*7:.*å", {"is_regex": True, "ignore_case": True}),
        (r"\d$|\U0001f600$", {"is_regex": True}),
        (r"x*", {"is_regex": True}),
        ("(.*", {}),
    ],
)
@pytest.mark.parametrize("piece_bytes", [1 << 20, 700])
@pytest.mark.parametrize("most", [2, 1000])
def test_each_line_is_found_once_in_both_directions(
    job: Job, text: str, request_: dict[str, Any], piece_bytes: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_search, "_PIECE_BYTES", piece_bytes)
    job.write(LOG)
    flags = re.IGNORECASE if request_.get("ignore_case") else 0
    pattern = re.compile(text if request_.get("is_regex") else re.escape(text), flags)
    expected, place = [], 0
    for line in LOG.decode().split("\n"):
        match = pattern.search(line)
        if match:
            expected.append((place, place + len(line[: match.start()].encode())))
        place += len(line.encode()) + 1
    found = search(job, text, most=most, **request_)
    assert [(hit["line"], hit["offset"]) for hit in found] == expected
    assert all(pattern.search(hit["text"]) for hit in found)
    back = search(job, text, most=most, way="before", **request_)
    assert back == found[::-1]
    if len(found) > 2:
        assert search(job, text, place=found[1]["line"], most=most, **request_) == found[1:]
        assert search(job, text, place=found[1]["line"], way="before", most=most, **request_) == found[:1]


def test_a_line_longer_than_any_piece_is_searched_in_pieces(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_search, "_PIECE_BYTES", 10000)
    needle = "the needle"
    data = bytearray(b"x" * 100_000)
    places = [9_995, 31_000, 70_000]
    for place in places:
        data[place : place + len(needle)] = needle.encode()
    job.write(bytes(data) + b"\n" + b"short the needle\n")
    for way in ("after", "before"):
        found = search(job, needle, way=way)
        assert {hit["offset"] for hit in found} == {*places, 100_007}
        assert all(len(hit["text"]) <= 240 for hit in found)


def test_a_search_goes_through_a_lot_of_log_in_slices(job: Job) -> None:
    with open(job.logs / "training.log", "wb") as file:
        file.truncate(1 << 28)
        file.seek(1 << 28)
        file.write(b"\nnow it is here\n")
    began = time.monotonic()
    assert [hit["line"] for hit in search(job, "is here")] == [(1 << 28) + 1]
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("text", [SECRET, SECRET[:6], SECRET[-4:], "token=hf", "f_01"])
def test_nothing_of_a_secret_is_found(tmp_path: Path, text: str) -> None:
    job = Job(tmp_path / "root", secrets=(SECRET,))
    job.attempt(1)
    job.write(b"first\n" + b"token=%b.\nanother line\n" % SECRET.encode() * 3 + b"last\n")
    for way in ("after", "before"):
        assert search(job, text, way=way) == search(job, text.upper(), way=way, ignore_case=True) == []
    for pattern in (re.escape(text), f"(?={re.escape(text)})", r"token=[h*]\w+", r"(?<=hf_0).", rf"token=(?!{text})\w"):
        assert search(job, pattern, is_regex=True) == []
    # Whatever the secret is, what is shown is found.
    line = len(f"token={SECRET}.\nanother line\n")
    for pattern in (r"token=\*\*\*\.", r"token=(?!hf_0)", "^token"):
        found = search(job, pattern, is_regex=True)
        assert [hit["line"] for hit in found] == [6 + line * number for number in range(3)]
        assert {hit["text"] for hit in found} == {"token=***."}
    assert len(search(job, "token=")) == 3
    assert [hit["text"] for hit in search(job, "another")] == ["another line"] * 3


@pytest.mark.parametrize(("text", "said"), [("(", "no regular expression"), ("", "characters"), ("x" * 1001, "chara")])
def test_what_cannot_be_searched_for_is_refused(job: Job, text: str, said: str) -> None:
    job.write(LOG)
    with pytest.raises(Refused, match=said):
        search(job, text, is_regex=True)


def test_an_expression_that_takes_too_long_is_given_up(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_search, "_PIECE_S", 0.1)
    job.write(b"a" * 40 + b"b\n")
    began = time.monotonic()
    with pytest.raises(Refused, match="takes too long"):
        search(job, "(a+)+$", is_regex=True)
    assert time.monotonic() - began < 5


def test_there_may_be_no_log(job: Job) -> None:
    assert search(job, "x") == search(job, "x", way="before") == []
