"""Whatever a job puts in the place of its files and records: no verb waits for it, and no other job is affected."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.gpu_run.gc.collection import collect_garbage
from airflow_provider_gpu_cluster.gpu_run.jobs.cancel import cancel
from airflow_provider_gpu_cluster.gpu_run.jobs.status import statuses
from airflow_provider_gpu_cluster.gpu_run.store import records
from airflow_provider_gpu_cluster.gpu_run.store.claims import claim_by
from airflow_provider_gpu_cluster.gpu_run.watch.output import open_log
from airflow_provider_gpu_cluster.jobs.status import JobStatus
from tests.gpu_run.host import Host, is_alive
from tests.gpu_run.linux.test_regular_files import put
from tests.gpu_run.watch.client import Client

RECORDS = ("request.json", "claim.json", "cancel.json", "exit.json", "stopped.json", "events.jsonl")
FILES = (
    "logs/training.log",
    "logs/error.log",
    "logs/progress.jsonl",
    "logs",
    "outputs",
    ".job/lock",
    ".job/owner.json",
    ".job/inputs.json",
    ".job/cancel.json",
    ".job/array.json",
    ".job/cursors",
    *(f".job/attempts/1/{name}" for name in RECORDS),
)
DEEP = "[" * 100_000
GARBAGE = {
    "not JSON": b"{half",
    "not text": b"\xff\xfe\x00",
    "a list": b"[1, 2]",
    "deep": DEEP.encode(),
    "no bytes": b"",
    "zeros": bytes(1000),
    "a huge number": b'{"state": ' + b"9" * 5000 + b"}",
    "strange values": json.dumps(
        {name: [None] for name in ("state", "pid", "start", "boot", "by", "at", "gpus")}
    ).encode(),
}


class Made:
    """A job that has ended, made without a process; its files are to be spoilt."""

    def __init__(self, host: Host) -> None:
        self.job = host.job("spoilt")
        self.job.create()
        request: Any = {
            **host.request("true"),
            "requested_at": records.now(),
            "submitted": 1.0,
            "host": "elsewhere",
            "environment": None,
        }
        attempt = self.job.add_attempt(1, request, {"SECRET": "x"})
        assert attempt is not None
        self.attempt = attempt
        # A process that is gone: it began when no process did.
        self.attempt.claim({**claim_by("supervisor"), "start": 1, "gpus": [], "token": "GPU_RUN_ATTEMPT=x"})
        self.attempt.finish(protocol.FAILED, protocol.USER_ERROR, "it failed")

    def spoil(self, name: str, kind: str) -> None:
        path = Path(self.job.at(name))
        if path.is_dir():
            path.rename(path.with_name("was"))
        elif path.exists():
            path.unlink()
        put(kind, path)


def ask_everything(host: Host, job_id: str) -> list[dict[str, Any]]:
    """Ask every verb about a job and about one that is not there, and return the statuses."""
    engine = host.engine
    found = statuses(host.root, engine, [job_id, "not-there"], 100)
    assert [one["job_id"] for one in found] == [job_id, "not-there"]
    assert found[1]["state"] == protocol.LOST
    told = [dict(found[0])]
    asked: Any = {"job_id": job_id, "reader": "r", "max_bytes": 100, "ack": {"attempt": 1, "offset": 0}}
    reply, log = open_log(host.root, engine, asked)
    told.append(dict(reply["status"]))
    if log is not None:
        log.close()
    told.append(dict(cancel(host.root, engine, [job_id], "me", 0)[0]))
    collect_garbage(host.root, host.settings, host.program, 1e9)
    for one in told:
        # The other side takes all of it.
        JobStatus.from_json(json.loads(json.dumps(one)))
    return told


@pytest.mark.parametrize("name", FILES)
def test_no_verb_waits_for_a_pipe(host: Host, name: str) -> None:
    made = Made(host)
    made.spoil(name, "pipe")
    signal.alarm(20)
    try:
        told = ask_everything(host, made.job.job_id)
    finally:
        signal.alarm(0)
    assert {one["state"] for one in told} <= {protocol.FAILED, protocol.UNKNOWN, protocol.LOST}


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("name", RECORDS[:4])
def test_no_garbage_in_a_record_stops_a_verb(host: Host, name: str, garbage: str) -> None:
    made = Made(host)
    Path(made.attempt.at(name)).write_bytes(GARBAGE[garbage])
    for one in ask_everything(host, made.job.job_id):
        assert one["state"] in (protocol.FAILED, protocol.UNKNOWN)
        assert one.get("message")


@pytest.mark.parametrize(
    ("name", "kind", "note"),
    [
        ("progress.jsonl", "pipe", "no progress is shown: {path} is a pipe, and not a file"),
        ("progress.jsonl", "link", "no progress is shown: {path} is a device, and not a file"),
        ("training.log", "pipe", "no output is shown: {path} is a pipe, and not a file"),
    ],
)
def test_the_status_says_what_is_not_shown(host: Host, name: str, kind: str, note: str) -> None:
    made = Made(host)
    made.spoil(f"logs/{name}", kind)
    found = statuses(host.root, host.engine, [made.job.job_id], 0)[0]
    assert (found["state"], found["log_bytes"]) == (protocol.FAILED, 0)
    assert found["notes"] == [note.format(path=made.job.at("logs", name))]


@pytest.mark.parametrize(
    ("text", "progress"),
    [
        (b'{"step": 1}\n' + b"x" * 5000, None),
        (b"x" * 5000 + b'\n{"step": 1}\n[2]\n"3"\n{"step": 4}', {"step": 1}),
        (b'{"step": 1}\n' + b'{"a":' * 500 + b"1" + b"}" * 500 + b"\n", {"step": 1}),
        (b'{"loss": NaN, "many": 1e999, "text": "\\ud800"}\n', {"loss": float("nan")}),
        (b'{"step": 1}\n\xff\xfe\n', {"step": 1}),
    ],
    ids=["a long line", "a line without end", "deep", "strange values", "not text"],
)
def test_progress_is_the_last_line_that_makes_sense(host: Host, text: bytes, progress: dict[str, Any] | None) -> None:
    made = Made(host)
    Path(made.job.at("logs", "progress.jsonl")).write_bytes(text)
    found = ask_everything(host, made.job.job_id)[0].get("progress")
    assert repr(found and {name: found[name] for name in progress or {}}) == repr(progress)


def test_an_end_that_the_job_has_made_impossible_to_record_is_recorded(host: Host) -> None:
    """What a job can do to its own files, all at once, while it runs and its supervisor writes."""
    ended = host.run(
        """
        cd "$JOB_DIR"
        rm -f "$PROGRESS_FILE" logs/*.log .job/attempts/1/events.jsonl
        mkfifo "$PROGRESS_FILE" logs/training.log logs/error.log .job/attempts/1/exit.json .job/attempts/1/events.jsonl
        echo said >&2; exit 3
        """
    )
    assert (ended["state"], ended["exit_code"]) == (protocol.FAILED, 3)


@pytest.mark.parametrize("kind", ["pipe", "folder", "link", "dangling"])
def test_the_end_of_a_killed_supervisor_is_recorded_in_place_of_what_is_no_record(
    host: Host, kind: str, eventually: Callable[..., Any]
) -> None:
    job_id = host.submit("sleep 1000")
    running = host.wait(job_id, state=protocol.RUNNING)
    put(kind, Path(host.attempt(job_id).at("exit.json")))
    assert "the record of its end is missing until it ends" in host.status(job_id)["notes"][0]
    guards = host.processes("supervise")
    os.kill(running["pid"], signal.SIGKILL)
    ended = host.wait(job_id)
    assert ended["state"] == protocol.LOST
    eventually(lambda: not any(map(is_alive, guards)))


def test_pipes_of_one_job_keep_no_news_of_another_from_a_watch(host: Host, watch: Callable[..., Client]) -> None:
    pipes = 'rm -f "$PROGRESS_FILE" "$LOG_DIR"/*.log; mkfifo "$PROGRESS_FILE" "$LOG_DIR"/{training,error}.log'
    spoilt = host.submit(f"{pipes}; echo ready > code/ready; sleep 1000".replace("code/", ""))
    other = host.submit("until read x < ../gate; do sleep 0.05; done 2> /dev/null; echo hello")
    while not Path(host.job(spoilt).at("code", "ready")).exists():
        time.sleep(0.05)
    client = watch()
    client.subscribe(spoilt, key=1, reader="r")
    client.subscribe(other, key=2, reader="r")
    notes = client.until("status", key=1, state=protocol.RUNNING)["status"]["notes"]
    assert [note.partition(": ")[0] for note in notes] == ["no output is shown", "no progress is shown"]
    Path(host.job(other).at("gate")).write_text("open\n")
    assert client.read_output(6, key=2) == b"hello\n"
    client.until("status", key=2, state=protocol.SUCCEEDED)
    cancel(host.root, host.engine, [spoilt], "ann", 0)
    client.until("status", key=1, state=protocol.CANCELLED)


def test_a_running_job_whose_claim_is_spoilt_can_be_cancelled_and_keeps_nobody_waiting(
    host: Host, watch: Callable[..., Client]
) -> None:
    spoilt, other = host.submit("sleep 1000"), host.submit("sleep 1000")
    host.wait(spoilt, other, state=protocol.RUNNING)
    claim = Path(host.attempt(spoilt).at("claim.json"))
    claim.rename(claim.with_name("was.json"))
    os.mkfifo(claim)
    client = watch()
    client.subscribe(spoilt, key=1)
    client.subscribe(other, key=2)
    status = client.until("status", key=1, state=protocol.UNKNOWN)["status"]
    assert status["message"] == f"its records cannot be read: {claim} is a pipe, and not a file"
    client.until("status", key=2, state=protocol.RUNNING)
    cancel(host.root, host.engine, [spoilt, other], "ann", 0)
    assert client.until("status", key=2, state=protocol.CANCELLED)
    # Its supervisor finds the request by itself.
    while (ended := host.status(spoilt))["state"] == protocol.UNKNOWN:
        time.sleep(0.05)
    assert (ended["state"], ended["message"]) == (protocol.CANCELLED, "cancelled by ann")


def test_the_next_attempt_finds_folders_and_logs_whatever_the_one_before_has_left(host: Host) -> None:
    job_id = host.submit('cd "$JOB_DIR"; mv logs was; mkfifo logs; rm -r outputs; ln -s nowhere outputs; exit 1')
    host.wait(job_id)
    host.submit("echo again", job_id=job_id, request_key="2")
    assert host.wait(job_id)["state"] == protocol.SUCCEEDED
    assert host.log(job_id) == "again\n"
    host.submit('rm -f "$OUTPUT_DIR"/*; mkdir "$OUTPUT_DIR"/FAILED; exit 1', job_id="marks")
    host.wait("marks")
    host.submit("true", job_id="marks", request_key="2")
    assert host.wait("marks")["state"] == protocol.SUCCEEDED
    assert Path(host.job("marks").at("outputs", "SUCCESS")).is_file()
