"""One process that tells what happens to any number of jobs: the real program, spoken to through pipes."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.gpu_run.jobs.cancel import cancel
from airflow_provider_gpu_cluster.gpu_run.linux import processes
from airflow_provider_gpu_cluster.gpu_run.store import records
from airflow_provider_gpu_cluster.gpu_run.store.directories import Attempt
from airflow_provider_gpu_cluster.gpu_run.watch import watched_job
from airflow_provider_gpu_cluster.gpu_run.watch.watched_job import PIECE_BYTES, WINDOW_BYTES, WatchedJob
from tests.gpu_run.host import Host
from tests.gpu_run.watch.client import Client
from tests.harness.patience import PATIENCE_S

# What a test changes in the process, so as not to wait for what is rare.
WITHOUT_INOTIFY = "inotify.Inotify.follow = lambda *arguments: False"
LOOK_OFTEN = "server.FULL_LOOK_S = watched_job.FULL_LOOK_S = 0.2"


def made_up(host: Host, job_id: str = "made-up", log: bytes = b"") -> Attempt:
    """Make a job that this process claims to supervise, so that a test says what its records and its log are."""
    job = host.job(job_id)
    job.create()
    request: Any = {"requested_at": records.now(), "host": processes.hostname(), "spec": {"gpus": 1}}
    attempt = job.add_attempt(1, request, {})
    assert attempt is not None
    who: Any = dict(processes.identity(), by="supervisor", at=records.now(), gpus=[], token="NO=PROCESS")
    assert attempt.claim(who)
    write(attempt, log)
    return attempt


def write(attempt: Attempt, data: bytes) -> None:
    with open(attempt.job.at("logs", "training.log"), "ab") as file:
        file.write(data)


def finish(attempt: Attempt) -> None:
    attempt.finish(protocol.SUCCEEDED, None, "")


# -- states ----------------------------------------------------------------------------------------------------------


def test_the_whole_life_of_a_job(host: Host, watch: Callable[..., Client]) -> None:
    blocker = host.submit("sleep 1000", gpus=4)
    host.wait(blocker, state="RUNNING")
    job = host.submit("""echo begun; echo '{"step": 1}' >> "$PROGRESS_FILE"; read < "$JOB_DIR/go"; echo done >&2""")
    os.mkfifo(host.job(job).at("go"))
    client = watch()
    client.subscribe(job, reader="task")
    status = client.read()
    assert (status["event"], status["key"], status["status"]["state"]) == ("status", 1, "QUEUED")
    assert client.read() == {"event": "place", "key": 1, "attempt": 1, "offset": 0, "note": None}
    cancel(host.root, host.engine, [blocker], "the test", 0)
    running = client.until("status", state="RUNNING")["status"]
    assert running["attempt"] == 1
    assert client.read_output(6) == b"begun\n"
    while "progress" not in running:
        running = client.until("status")["status"]
    assert running["progress"] == {"step": 1}
    Path(host.job(job).at("go")).write_text("\n")
    ended = client.until("status", state="SUCCEEDED")["status"]
    assert ended == {**host.status(job)}
    assert ended["log_bytes"] == 11
    assert "log_tail" not in ended
    assert client.read_output(5) == b"done\n"


@pytest.mark.parametrize("change", ["", WITHOUT_INOTIFY])
def test_the_end_is_noticed_with_and_without_word_from_the_kernel(
    host: Host, watch: Callable[..., Client], change: str
) -> None:
    job = host.submit("echo bad news; sleep 0.3; exit 3")
    client = watch(change)
    client.subscribe(job)
    ended = client.until("status", state="FAILED")["status"]
    assert (ended["exit_code"], ended["reason"], ended["log_tail"]) == (3, "user_error", "bad news\n")
    assert [event["event"] for event in client.events if event["event"] != "alive"].count("output") == 0


@pytest.mark.parametrize("change", ["", WITHOUT_INOTIFY])
def test_a_cancel_is_noticed(host: Host, watch: Callable[..., Client], change: str) -> None:
    running = host.submit("sleep 1000", gpus=4)
    host.wait(running, state="RUNNING")
    waiting = host.submit("true")
    client = watch(change)
    client.subscribe(running, key=1)
    client.subscribe(waiting, key=2)
    client.until("status", key=2, state="QUEUED")
    cancel(host.root, host.engine, [waiting], "the test", 0)
    message = client.until("status", key=2, state="CANCELLED")["status"]["message"]
    assert message == "cancelled by the test before it started"
    cancel(host.root, host.engine, [running], "the test", 0)
    assert client.until("status", key=1, state="CANCELLED")["status"]["message"] == "cancelled by the test"


def test_what_no_record_shows_is_noticed_as_well(host: Host, watch: Callable[..., Client]) -> None:
    job = host.submit("sleep 1000")
    supervisor = host.wait(job, state="RUNNING")["pid"]
    gone = made_up(host, "gone")
    client = watch(LOOK_OFTEN)
    client.subscribe(job, key=1)
    client.subscribe("gone", key=2)
    client.until("status", key=2, state="RUNNING")
    guard = int(Path(f"/proc/{supervisor}/stat").read_text().rsplit(")", 1)[1].split()[1])
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in (guard, supervisor):
            os.kill(pid, number)
    lost = client.until("status", key=1, state="LOST")["status"]
    assert lost["message"] == f"its supervisor (process {supervisor}) was killed"
    shutil.rmtree(gone.job.path)
    assert "it was deleted" in client.until("status", key=2, state="LOST")["status"]["message"]


def test_the_place_in_line_is_told(host: Host, watch: Callable[..., Client]) -> None:
    running = host.submit("sleep 1000", gpus=4)
    host.wait(running, state="RUNNING")
    first, second = host.submit("true", gpus=4), host.submit("true", gpus=4)
    client = watch(LOOK_OFTEN)
    client.subscribe(second)

    def until_place(place: int) -> None:
        while client.until("status")["status"].get("queue_place") != place:
            assert not client.has_ended

    until_place(2)
    cancel(host.root, host.engine, [first], "the test", 0)
    until_place(1)


def test_a_line_that_nobody_serves_is_served_again_and_no_process_is_left(
    host: Host, watch: Callable[..., Client], eventually: Callable[..., Any]
) -> None:
    running = host.submit("sleep 1000", gpus=4)
    host.wait(running, state="RUNNING")
    waiting = host.submit("true")
    dispatcher = host.dispatcher(waiting)
    client = watch(LOOK_OFTEN)
    client.subscribe(waiting)
    client.until("status", state="QUEUED")
    os.kill(dispatcher, signal.SIGKILL)
    eventually(lambda: host.processes("dispatch") not in ([], [dispatcher]))
    os.kill(host.status(running)["pid"], signal.SIGTERM)
    client.until("status", state="SUCCEEDED")
    # The new dispatcher was a child, and would stay there as a zombie.
    pid = client.process.pid
    eventually(lambda: Path(f"/proc/{pid}/task/{pid}/children").read_text() == "")


def test_a_new_attempt_begins_with_a_new_log(host: Host, watch: Callable[..., Client]) -> None:
    job = host.submit("echo first; exit 1", job_id="again", request_key="1")
    client = watch()
    client.subscribe(job, reader="task")
    client.until("status", state="FAILED")
    assert client.read_output(6) == b"first\n"
    assert client.until("place")["attempt"] == 1
    host.submit("echo second", job_id="again", request_key="2")
    place = client.until("place")
    assert (place["attempt"], place["offset"], place["note"]) == (2, 0, None)
    assert client.read_output(7) == b"second\n"
    at_the_end = {"event": "acked", "key": 1, "attempt": 2, "offset": 7}
    while client.until("acked") != at_the_end:
        pass
    # An acknowledgement of the first attempt that comes late says nothing about the second.
    client.ack(6, attempt=1)
    assert client.until("acked") == at_the_end


def test_a_job_is_watched_from_before_its_first_attempt(host: Host, watch: Callable[..., Client]) -> None:
    host.job("early").create()
    client = watch()
    client.subscribe("early", reader="task")
    assert "not launched" in client.until("status", state="UNKNOWN")["status"]["message"]
    host.submit("echo here", job_id="early")
    client.until("place")
    assert client.read_output(5) == b"here\n"


# -- output ----------------------------------------------------------------------------------------------------------

AWKWARD = {
    "no_text": b"\xff\xfe\x00\xc3(\xed\xa0\x80\xf0\x90" * 10_000,
    "progress_bars": b"\r 10%\r 20%\r\n" * 5_000,
    "no_line_end": b"line\nno end",
    # No piece ends where a character does.
    "characters_cut_in_two": b"x" + "\N{EURO SIGN}".encode() * 50_000,
    "nul": bytes(100_000),
}


@pytest.mark.parametrize("data", AWKWARD.values(), ids=AWKWARD)
def test_output_arrives_byte_for_byte(host: Host, watch: Callable[..., Client], data: bytes) -> None:
    made_up(host, log=data)
    client = watch()
    client.subscribe("made-up", reader="task")
    assert client.read_output(len(data)) == data


def test_only_so_much_is_sent_as_is_acknowledged(host: Host, watch: Callable[..., Client]) -> None:
    data = os.urandom(WINDOW_BYTES + 3 * PIECE_BYTES)
    made_up(host, log=data)
    client = watch()
    client.subscribe("made-up", reader="task")
    assert client.read_output(WINDOW_BYTES, acks=False) == data[:WINDOW_BYTES]
    assert client.settle() == []
    client.ack(1000)
    assert client.until("acked")["offset"] == 1000
    assert client.read_output(1000, acks=False) == data[WINDOW_BYTES : WINDOW_BYTES + 1000]
    # To come back to what was acknowledged opens nothing.
    client.ack(10)
    assert client.settle() == [{"event": "acked", "key": 1, "attempt": 1, "offset": 1000}]
    client.ack(WINDOW_BYTES + 1000)
    assert client.read_output(3 * PIECE_BYTES - 1000) == data[WINDOW_BYTES + 1000 :]


def test_an_acknowledgement_beyond_what_was_sent_leaves_out_what_is_between(
    host: Host, watch: Callable[..., Client]
) -> None:
    data = os.urandom(10 * WINDOW_BYTES)
    made_up(host, log=data)
    client = watch()
    client.subscribe("made-up", reader="task")
    client.read_output(WINDOW_BYTES, acks=False)
    start = len(data) - 5000
    client.ack(start)
    assert client.until("output")["offset"] == start
    assert client.events[-1]["data"].encode("utf-8", "surrogateescape") == data[start:]


def test_place_and_note_are_kept_for_the_next_watch(host: Host, watch: Callable[..., Client]) -> None:
    made_up(host, log=b"0123456789")
    note = {"shown": ["é", 1, None]}
    client = watch()
    client.subscribe("made-up", reader="task")
    client.read_output(10, acks=False)
    client.ack(4, note=note)
    client.until("acked")
    client = watch()
    client.subscribe("made-up", reader="task")
    place = client.until("place")
    assert (place["attempt"], place["offset"], place["note"]) == (1, 4, note)
    assert client.read_output(6, acks=False) == b"456789"
    # Another reader has its own.
    client.subscribe("made-up", key=2, reader="other")
    assert client.until("place", key=2)["offset"] == 0


def test_an_acknowledgement_can_come_with_the_subscription(host: Host, watch: Callable[..., Client]) -> None:
    made_up(host, log=b"0123456789")
    client = watch()
    client.subscribe("made-up", reader="task", ack={"attempt": 1, "offset": 7, "note": "seven"})
    place = client.until("place")
    assert (place["offset"], place["note"]) == (7, "seven")
    assert client.until("acked") == {"event": "acked", "key": 1, "attempt": 1, "offset": 7}
    assert client.read_output(3) == b"789"


def test_the_last_acknowledgements_of_a_client_that_vanishes_count(host: Host, watch: Callable[..., Client]) -> None:
    made_up(host, log=b"0123456789")
    client = watch()
    client.subscribe("made-up", reader="task")
    client.read_output(10, acks=False)
    client.process.send_signal(signal.SIGSTOP)
    for offset in range(1, 9):
        client.ack(offset)
    client.stdin.close()
    client.stdout.close()
    client.process.send_signal(signal.SIGCONT)
    client.process.wait(PATIENCE_S)
    client = watch()
    client.subscribe("made-up", reader="task")
    assert client.until("place")["offset"] == 8


def test_a_flood_delays_nobody(host: Host, watch: Callable[..., Client]) -> None:
    size = 150 * PIECE_BYTES
    made_up(host, "flood", log=bytes(size))
    other = made_up(host, "other")
    client = watch()
    client.subscribe("other", key=2)
    client.subscribe("flood", reader="task")
    client.read_output(20 * PIECE_BYTES)
    finish(other)
    client.read_output(size - 20 * PIECE_BYTES)
    of_other = [event["status"]["state"] for event in client.events if event.get("key") == 2]
    assert of_other == ["RUNNING", "SUCCEEDED"]


def test_a_log_that_the_job_has_cut_is_followed_on_from_where_it_was(host: Host, watch: Callable[..., Client]) -> None:
    attempt = made_up(host, log=b"0123456789")
    client = watch()
    client.subscribe("made-up", reader="task")
    client.read_output(10)
    os.truncate(attempt.job.at("logs", "training.log"), 0)
    write(attempt, b"abc")
    finish(attempt)
    assert client.until("status", state="SUCCEEDED")["status"]["log_bytes"] == 3
    assert [event["event"] for event in client.settle()] == []
    shutil.rmtree(attempt.job.at("logs"))
    client.subscribe("made-up", key=2, reader="task")
    assert client.until("status", key=2)["status"]["log_bytes"] == 0


def test_acknowledging_does_not_bring_back_a_job_that_was_deleted(host: Host, watch: Callable[..., Client]) -> None:
    attempt = made_up(host, log=b"0123456789")
    client = watch()
    client.subscribe("made-up", reader="task")
    client.read_output(10, acks=False)
    shutil.rmtree(attempt.job.path)
    client.ack(10)
    client.settle()
    assert not Path(attempt.job.path).exists()


# -- subscriptions ---------------------------------------------------------------------------------------------------


def test_subscriptions_to_one_job_are_independent(host: Host, watch: Callable[..., Client]) -> None:
    attempt = made_up(host, log=b"0123456789")
    client = watch()
    client.subscribe("made-up", key=1, reader="one")
    client.subscribe("made-up", key=2, reader="two")
    client.subscribe("made-up", key=3)
    assert client.read_output(10, key=1) == b"0123456789"
    client.until("status", key=3, state="RUNNING")
    client.do("unsubscribe", key=1)
    assert client.until("place", key=2)["offset"] == 0
    # A key that is used again is another subscription.
    client.subscribe("made-up", key=2, reader="one")
    assert client.until("place", key=2)["offset"] == 10
    client.settle()
    write(attempt, b"ab")
    finish(attempt)
    before = len(client.events)
    client.until("status", key=2, state="SUCCEEDED")
    client.until("status", key=3, state="SUCCEEDED")
    assert {event.get("key") for event in client.events[before:]} <= {2, 3, None}
    client.subscribe("made-up", key=4, reader="four")
    assert client.read_output(12, key=4) == b"0123456789ab"


def test_a_job_that_cannot_be_watched_leaves_the_others_alone(host: Host, watch: Callable[..., Client]) -> None:
    good = made_up(host, "good", log=b"good\n")
    Path(made_up(host, "cut").at("claim.json")).write_text("{")
    Path(made_up(host, "odd").at("claim.json")).write_text("[1]")
    deep = made_up(host, "deep")
    Path(deep.job.at("logs", "progress.jsonl")).write_text('{"a": 1}\n' + "[" * 4000 + "\n")
    client = watch()
    for key, job_id in enumerate(("../good", "missing", "cut", "odd", "deep")):
        client.subscribe(job_id, key=10 + key, reader="task")
    refused = client.until("refused", key=10)
    assert refused["code"] == protocol.BAD_REQUEST
    assert "'../good' is no job id" in refused["message"]
    assert client.until("status", key=11)["status"]["state"] == "LOST"
    for key in (12, 13):
        status = client.until("status", key=key)["status"]
        assert (status["state"], "its records cannot be read" in status["message"]) == ("UNKNOWN", True)
    assert client.until("status", key=14)["status"]["progress"] == {"a": 1}
    client.subscribe("good", reader="task")
    client.read_output(5)
    finish(good)
    client.until("status", state="SUCCEEDED")
    # For one that was refused, and for one that was never there.
    client.do("unsubscribe", key=10)
    client.ack(1, key=99)
    client.settle()


# The first two tries to subscribe meet a host with too many open files.
MANY_OPEN_FILES = """
from airflow_provider_gpu_cluster.gpu_run.watch import output
real, left = output.Cursor.__init__, [2]
def begin(self, *arguments):
    if left[0]:
        left[0] -= 1
        raise OSError(24, "Too many open files")
    real(self, *arguments)
output.Cursor.__init__ = begin
"""


def test_a_fault_that_passes_ends_no_subscription(host: Host, watch: Callable[..., Client]) -> None:
    attempt = made_up(host, "made-up", log=b"one\n")
    client = watch(MANY_OPEN_FILES)
    client.subscribe("made-up", reader="task")
    assert client.read_output(4) == b"one\n"
    finish(attempt)
    client.until("status", state="SUCCEEDED")
    assert not [event for event in client.events if event["event"] == "refused"]


# -- what is told how often ------------------------------------------------------------------------------------------


def test_changes_of_little_weight_are_told_now_and_then(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    status: dict[str, Any] = {}
    monkeypatch.setattr(watched_job, "status_or_unknown", lambda *arguments, **more: dict(status))
    job = WatchedJob(1, host.root, "job", None)

    def told(now: float, **changes: Any) -> bool:
        status.update(changes)
        return [event["event"] for event in job.look(host.engine, now)] == ["status"]

    assert told(0, state="QUEUED", attempt=1, message="it was just put into the queue")
    assert told(1, message="it needs 1 GPU", queue_place=9)
    assert not told(2, queue_place=8)
    assert not told(10, queue_place=7)
    assert told(11)
    assert not told(21)
    assert told(22, state="RUNNING", message=None, queue_place=None)
    assert told(22.5, progress={"loss": float("nan")})
    assert not told(30, progress={"loss": float("nan")}, log_bytes=5)
    assert told(31, progress={"loss": 2})
    assert not told(32, progress={"loss": 1})
    assert told(33)
    assert told(33.1, state="SUCCEEDED", progress={"loss": 0})


# -- its own end -----------------------------------------------------------------------------------------------------


def test_it_ends_when_its_input_does(host: Host, watch: Callable[..., Client]) -> None:
    client = watch()
    client.subscribe(made_up(host).job.job_id)
    client.until("status")
    client.stdin.close()
    assert client.process.wait(PATIENCE_S) == 0
    assert client.stdout.read() == b""


def test_it_ends_when_nobody_reads_what_it_says(host: Host, watch: Callable[..., Client]) -> None:
    client = watch()
    client.subscribe(made_up(host).job.job_id)
    client.until("status")
    client.stdout.close()
    assert client.process.wait(PATIENCE_S) == 0


def test_it_gives_signs_of_life_and_ends_without_any_of_its_client(watch: Callable[..., Client]) -> None:
    client = watch("server.ALIVE_S, server.SILENCE_S = 0.05, 1")
    began = time.monotonic()
    while time.monotonic() < began + 1.5:
        client.do("alive")
        assert client.read() == {"event": "alive"}
    assert client.process.wait(PATIENCE_S) == 0


def test_it_ends_by_itself_also_when_its_client_reads_nothing(host: Host, watch: Callable[..., Client]) -> None:
    for number in range(5):
        made_up(host, f"job-{number}", log=bytes(WINDOW_BYTES))
    client = watch("server.SILENCE_S = 1")
    for number in range(5):
        client.subscribe(f"job-{number}", key=number, reader="task")
    assert client.process.wait(PATIENCE_S) == 0


@pytest.mark.parametrize(
    "line",
    [
        b"no json\n",
        b"[]\n",
        b'{"do": "dance"}\n',
        b'{"do": "subscribe", "key": "1", "job_id": "x", "reader": null, "ack": null}\n',
        b'{"do": "subscribe", "key": 1, "job_id": "x", "reader": "r", "ack": {"attempt": 1}}\n',
        b'{"do": "ack", "key": 1, "attempt": 1, "offset": "0"}\n',
    ],
)
def test_a_client_that_cannot_be_understood_is_told_so(watch: Callable[..., Client], line: bytes) -> None:
    client = watch()
    client.stdin.write(line)
    client.stdin.flush()
    code, said = client.end()
    assert code == 1
    assert said.startswith("gpu-run watch cannot understand its client: ")


# -- what people are to be told --------------------------------------------------------------------------------------


def test_a_client_is_given_what_it_has_to_tell_once_and_says_that_it_has_told(
    host: Host, watch: Callable[..., Client]
) -> None:
    attempt = made_up(host, log=b"a line\n")
    os.utime(attempt.job.at("logs", "training.log"), (0, time.time() - 100))
    attempt.note_log_starts({"training": 0, "error": 0})
    os.utime(attempt.at("log_starts.json"), (0, time.time() - 100))
    os.rename(attempt.at("claim.json"), attempt.at("kept"))
    claim = records.read_json(attempt.at("kept"))
    records.write_json(attempt.at("claim.json"), {**claim, "at": "2026-01-01T00:00:00+00:00"})
    client = watch(LOOK_OFTEN)
    for key in (1, 2):
        client.do(
            "subscribe",
            key=key,
            job_id="made-up",
            reader=None,
            ack=None,
            notify={"no_progress_for": 101.5, "time_limit_in": 5},
        )
    running = client.until("status", state="RUNNING")
    assert "due" not in running["status"]
    assert [one["event"] for one in running["counted"]] == ["started"]
    while "due" not in (event := client.read()).get("status", {}):
        pass
    (notice,) = event["status"]["due"]
    assert (notice["event"], notice["attempt"], notice["tries"]) == ("no_progress_for", 1, 1)
    client.do("told", key=9, job_id="made-up", attempt=1, event="no_progress_for")
    client.until("noted", key=9)
    client.do("told", key=10, job_id="made-up", attempt=1, event="no_such_event")
    assert client.until("refused", key=10)["code"] == protocol.BAD_REQUEST
    assert records.read_json(attempt.at("told/no_progress_for.json"))["state"] == "sent"
    assert sum("due" in event.get("status", {}) for event in client.events) == 1
