"""Looking on at a job: its status, and the newest of what it prints and reports, without anything being written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.gpu_run.linux import processes
from airflow_provider_gpu_cluster.gpu_run.protocol.masks import masks_of
from airflow_provider_gpu_cluster.gpu_run.store import records
from airflow_provider_gpu_cluster.gpu_run.store.directories import Attempt
from airflow_provider_gpu_cluster.gpu_run.watch import followed_job
from airflow_provider_gpu_cluster.gpu_run.watch.followed_job import FollowedJob
from airflow_provider_gpu_cluster.gpu_run.watch.log_tail import MOST_WAITING_BYTES, PIECE_BYTES
from airflow_provider_gpu_cluster.gpu_run.watch.points_tail import MOST_NAMES, MOST_POINTS, PointsTail
from tests.gpu_run.host import Host
from tests.gpu_run.watch.client import Client

SECRET = "s3cret-of-the-job"
ALL: dict[str, Any] = {"log": None, "progress": None, "usage": None}


def made_up(host: Host, job_id: str = "job") -> Attempt:
    """Make a job with a secret that this process claims to supervise."""
    job = host.job(job_id)
    job.create()
    request: Any = {
        "requested_at": records.now(),
        "host": processes.hostname(),
        "spec": {"gpus": 1},
        "masks": masks_of([SECRET]),
    }
    attempt = job.add_attempt(1, request, {})
    assert attempt is not None
    who: Any = dict(processes.identity(), by="supervisor", at=records.now(), gpus=[], token="NO=PROCESS")
    assert attempt.claim(who)
    return attempt


def write(attempt: Attempt, name: str, data: bytes | str) -> None:
    with open(attempt.job.at("logs", name), "ab") as file:
        file.write(data if isinstance(data, bytes) else data.encode())


def look_on(host: Host, request: Any) -> list[dict[str, Any]]:
    reply: Any = followed_job.answer(host.root, host.engine, request).value
    jobs: list[dict[str, Any]] = reply["jobs"]
    return jobs


def shown(event: dict[str, Any]) -> list[str]:
    lines: list[str] = event["news"]["lines"]
    return lines


def test_all_that_is_new_is_told_soon_and_nothing_is_written(host: Host, watch: Callable[..., Client]) -> None:
    attempt = made_up(host)
    write(attempt, "training.log", "old\n")
    write(attempt, "progress.jsonl", '{"step": 1}\n')
    before = {path: path.stat().st_mtime_ns for path in Path(attempt.job.path).rglob("*")}
    client = watch()
    client.do("follow", key=1, job_id="job", tails=ALL)
    status = client.until("status")
    assert status["status"]["state"] == "RUNNING"
    assert "counted" not in status
    first = client.until("printed")["news"]
    assert (first["lines"], first["end"], first["skipped"]) == ([], 4, 0)
    places = {tail: client.until("points")["news"]["place"]["offset"] for tail in ("progress", "usage")}
    assert places == {"progress": 12, "usage": 0}
    assert {path: path.stat().st_mtime_ns for path in Path(attempt.job.path).rglob("*")} == before
    # A secret in two pieces, of which the first is there for a while.
    write(attempt, "training.log", f"new {SECRET[:5]}")
    client.settle()
    write(attempt, "training.log", f"{SECRET[5:]} end\n")
    printed = client.until("printed")
    while not shown(printed)[-1].endswith("end"):
        printed = client.until("printed")
    told = "".join(line for event in client.events if event["event"] == "printed" for line in shown(event))
    assert told == "new *** end"
    write(attempt, "progress.jsonl", f'{{"step": 2, "token": "{SECRET}", "loss": NaN}}\n{{"half')
    write(attempt, "usage.jsonl", '{"t": 1.5, "gpus": []}\n')
    by_tail = {event["tail"]: event["news"]["points"] for event in (client.until("points"), client.until("points"))}
    (progress,), (usage,) = by_tail["progress"], by_tail["usage"]
    assert (progress["at"], progress["attempt"]) == (12, 1)
    assert progress["values"] == {"step": 2, "token": "***", "loss": "NaN"}
    assert usage == {"t": 1.5, "gpus": [], "attempt": 1}
    own = Path(attempt.job.at(".job"))
    assert {path for path in before if own in path.parents} == set(own.rglob("*"))
    assert (own / "asked").stat().st_mtime_ns == before[own / "asked"]
    attempt.finish(protocol.SUCCEEDED, None, "")
    client.until("status", state="SUCCEEDED")


def test_who_comes_back_goes_on_where_he_was_and_files_are_told_only_while_they_are_wanted(
    host: Host, watch: Callable[..., Client]
) -> None:
    attempt = made_up(host)
    write(attempt, "training.log", "one\n")
    client = watch()
    client.do("follow", key=1, job_id="job", tails={"log": None})
    first = client.until("printed")["news"]
    place = {"file": first["file"], "offset": first["end"]}
    client.do("follow", key=1, job_id="job", tails={})
    client.settle()
    write(attempt, "training.log", "two\n")
    client.do("follow", key=2, job_id="job", tails={"log": place})
    assert shown(client.until("printed", key=2)) == ["two"]
    client.do("unsubscribe", key=2)
    assert [event for event in client.settle() if event["event"] == "printed"] == []


def test_of_more_than_anybody_can_read_the_newest_is_told(host: Host, watch: Callable[..., Client]) -> None:
    attempt = made_up(host)
    client = watch()
    client.do("follow", key=1, job_id="job", tails={"log": None})
    client.until("printed")
    line = "x" * 99 + "\n"
    write(attempt, "training.log", line * 50_000 + "last\n")
    news: dict[str, Any] = {"lines": [""]}
    told = 0
    while news["lines"][-1:] != ["last"]:
        news = client.until("printed")["news"]
        assert news["end"] - news["offset"] <= PIECE_BYTES
        told += news["end"] - news["offset"]
    assert told + news["skipped"] == len(line) * 50_000 + 5
    assert told <= MOST_WAITING_BYTES


@pytest.mark.parametrize(
    ("data", "values", "skipped"),
    [
        ('{"a": 1}\n{"b": Infinity}\n', [{"a": 1}, {"b": "Infinity"}], 0),
        ('no json\n[1]\n"text"\n\n{"a": 1}\n', [{"a": 1}], 4),
        ("[" * 1000 + "\n" + '{"a": ' * 1000 + "\n" + '{"a": ' + "9" * 5000 + '}\n{"a": 1}\n', [{"a": 1}], 3),
        ('{"a": "' + "x" * 100_000 + '"}\n{"a": 1}\n', [{"a": 1}], 1),
        ('{"a": "' + "x" * 100_000, [], 1),
        ('{"a": 1}', None, 0),
        (b'{"\xff": "\xff"}\n{"a": "\\ud800"}\n{"b": 2}\n', [{"a": "\ud800"}, {"b": 2}], 1),
        ("".join(f'{{"a": {number}}}\n' for number in range(300)), [{"a": number} for number in range(100, 300)], 100),
    ],
    ids=["numbers", "others", "deep", "long", "long and open", "half", "bytes", "many"],
)
def test_whatever_a_job_reports_what_can_be_shown_is(
    host: Host, data: Any, values: list[Any] | None, skipped: int
) -> None:
    attempt = made_up(host)
    tail = PointsTail(attempt.job, "progress", None)
    first = tail.news(1)
    assert first is not None
    assert first["points"] == []
    write(attempt, "progress.jsonl", data)
    assert tail.has_grown()
    news = tail.news(1)
    if values is None:
        assert news is None
        return
    assert news is not None
    assert ([point["values"] for point in news["points"]], news["skipped"]) == (values, skipped)
    assert len(news["points"]) <= MOST_POINTS
    json.dumps(news, allow_nan=False)
    write(attempt, "progress.jsonl", '"}\n{"next": 1}\n')
    after = tail.news(1)
    assert after is not None
    assert after["points"][-1]["values"] == {"next": 1}


def test_many_names_and_much_at_once_are_cut(host: Host) -> None:
    attempt = made_up(host)
    tail = PointsTail(attempt.job, "progress", {"file": "", "offset": 0})
    write(attempt, "progress.jsonl", (json.dumps({f"m{number}": number for number in range(3000)}) + "\n") * 100)
    news = tail.news(1)
    assert news is not None
    assert {len(point["values"]) for point in news["points"]} == {MOST_NAMES}
    assert len(news["points"]) < 100
    assert news["skipped"]


def test_another_file_in_its_place_is_read_from_its_start(host: Host) -> None:
    attempt = made_up(host)
    path = Path(attempt.job.at("logs", "progress.jsonl"))
    write(attempt, path.name, '{"a": 1}\n' * 10)
    tail = PointsTail(attempt.job, "progress", None)
    tail.news(1)
    path.rename(path.with_name("progress.attempt-1.jsonl"))
    write(attempt, path.name, '{"b": 1}\n')
    news = tail.news(2)
    assert news is not None
    assert [point["values"] for point in news["points"]] == [{"b": 1}]


def test_a_job_that_has_spoilt_its_records_shows_nothing(host: Host) -> None:
    attempt = made_up(host)
    job = FollowedJob(1, host.root, "job", dict.fromkeys(ALL))
    job.next_piece()
    write(attempt, "training.log", f"{SECRET}\n")
    Path(attempt.at("request.json")).write_text("{}[")
    job.glance_at_tails()
    assert job.has_output
    assert job.next_piece() == []


def test_looking_once_says_the_same(host: Host) -> None:
    attempt = made_up(host)
    asked = Path(attempt.job.at(".job", "asked"))
    asked.unlink()
    request: Any = {"jobs": [{"job_id": "job", "tails": ALL}, {"job_id": "gone", "tails": {}}]}
    one, gone = look_on(host, request)
    assert (one["status"]["state"], gone["status"]["state"]) == ("RUNNING", "LOST")
    write(attempt, "training.log", f"a {SECRET}\n")
    write(attempt, "progress.jsonl", '{"a": 1}\n')
    tails = {"log": {"file": one["log"]["file"], "offset": one["log"]["end"]}, "progress": one["progress"]["place"]}
    request = {"jobs": [{"job_id": "job", "tails": tails}]}
    (again,) = look_on(host, request)
    assert again["log"]["lines"] == ["a ***"]
    assert again["progress"]["points"][0]["values"] == {"a": 1}
    assert not asked.exists()
