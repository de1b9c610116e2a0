"""Jobs that go on by themselves on a host: real processes, ended in real ways."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.gpu_run.jobs import cancel
from tests.gpu_run.host import Host
from tests.harness.patience import PATIENCE_S

DEFAULT = protocol.DEFAULT_RECOVER

# Counts to 3 over its attempts: each adds one line, and ends like this unless it is the third.
STEPS = """\
echo "step of attempt $ATTEMPT after ${RESUMED_FROM:-nothing} with $TOKEN"
echo $ATTEMPT >> "$CHECKPOINT_DIR/steps"
[ "$(wc -l < "$CHECKPOINT_DIR/steps")" -lt 3 ] || exit 0
"""


def claimed(host: Host, job_id: str, number: int) -> int:
    """Return the supervisor of an attempt, once it runs."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        attempts = host.job(job_id).attempts()
        claim = attempts[number - 1].claimed() if len(attempts) >= number else None
        if claim is not None and host.status(job_id)["state"] == protocol.RUNNING:
            return claim["pid"]
        assert time.monotonic() < deadline, host.status(job_id)
        time.sleep(0.02)


def test_a_job_that_has_saved_is_started_again(host: Host) -> None:
    job_id = host.submit(STEPS + "exit 85", env={"TOKEN": "s3cret"}, recover=DEFAULT, checkpoint_exit_code=85)
    found = host.wait(job_id)
    assert (found["state"], found["attempt"], found["recovered"]) == ("SUCCEEDED", 3, {"checkpointed": 2})
    assert [past["reason"] for past in found["attempts"]] == ["checkpointed", "checkpointed"]
    assert [past["exit_code"] for past in found["attempts"]] == [85, 85]
    lines = host.log(job_id).splitlines()
    assert [line for line in lines if line.startswith("step")] == [
        "step of attempt 1 after nothing with s3cret",
        "step of attempt 2 after checkpointed with s3cret",
        "step of attempt 3 after checkpointed with s3cret",
    ]
    assert lines[1].startswith("gpu-run: attempt 1 saved and asked to go on after ")
    assert lines[1].endswith("; attempt 2 goes on from checkpoints/steps")
    # Secrets stay on the disk no longer than the job.
    assert not list(Path(host.job(job_id).path).rglob("env.json"))
    assert [attempt.request()["request_key"] for attempt in host.job(job_id).attempts()] == ["1", "1", "1"]


def test_that_exit_code_is_an_error_where_nothing_follows_it(host: Host) -> None:
    found = host.run("exit 85", checkpoint_exit_code=85, recover={})
    assert (found["state"], found["reason"], found["exit_code"]) == ("FAILED", "user_error", 85)


@pytest.mark.parametrize("victims", ["supervisor", "both"])
def test_a_killed_job_goes_on(host: Host, victims: str) -> None:
    job_id = host.submit("[ $ATTEMPT = 2 ] || sleep 60", recover=DEFAULT)
    supervisor = claimed(host, job_id, 1)
    guard = int(Path(f"/proc/{supervisor}/stat").read_text().rpartition(")")[2].split()[1])
    for pid in (supervisor, guard) if victims == "both" else (supervisor,):
        os.kill(pid, signal.SIGKILL)
    found = host.wait(job_id)
    assert (found["state"], found["attempt"], found["recovered"]) == ("SUCCEEDED", 2, {"lost": 1})
    assert host.attempt(job_id).ended()["resumed_from"] == "lost"  # type: ignore[index]


def test_nobody_needs_to_ask(host: Host) -> None:
    job_id = host.submit(STEPS + "exit 85", recover=DEFAULT, checkpoint_exit_code=85)
    deadline = time.monotonic() + PATIENCE_S
    while not Path(host.job(job_id).at("outputs", "SUCCESS")).exists():
        assert time.monotonic() < deadline
        # No end between attempts looks like that of the job.
        assert not Path(host.job(job_id).at("outputs", "FAILED")).exists()
        time.sleep(0.02)


def test_a_job_waits_between_attempts_and_says_why(host: Host) -> None:
    job_id = host.submit("exit 85", recover=DEFAULT, checkpoint_exit_code=85)
    found: dict[str, Any] = {}
    seen = set()
    while found.get("state") not in protocol.FINAL_STATES:
        found = host.status(job_id)
        seen.add((found["state"], found.get("message", "").partition(" after ")[0]))
        time.sleep(0.01)
    assert (protocol.QUEUED, "attempt 1 saved and asked to go on") in seen
    # It never saves anything.
    assert (found["state"], found["reason"]) == ("FAILED", "checkpointed")
    assert "3 times in a row" in found["message"]
    assert Path(host.job(job_id).at("outputs", "FAILED")).exists()


def test_more_memory_is_given(host: Host) -> None:
    hungry = "python3 -c 'import time; x = bytearray(150 << 20); x[::4096] = b\"x\" * len(x[::4096]); time.sleep(2)'"
    found = host.run(hungry, memory_bytes=100 << 20, recover={"out_of_memory": [2, 2.0]})
    assert (found["state"], found["recovered"]) == ("SUCCEEDED", {"out_of_memory": 1})
    assert host.attempt(found["job_id"]).request()["spec"]["memory_bytes"] == 200 << 20


def test_a_job_that_waits_to_go_on_can_be_cancelled(host: Host) -> None:
    job_id = host.submit("exit 85", recover=DEFAULT, checkpoint_exit_code=85)
    deadline = time.monotonic() + PATIENCE_S
    while len(host.job(job_id).attempts()) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    # The third attempt waits for two seconds.
    found = cancel.cancel(host.root, host.engine, [job_id], "somebody", 0.0)[0]
    assert (found["state"], found["attempt"]) == (protocol.CANCELLED, 3)
    assert host.wait(job_id)["recovered"] == {"checkpointed": 2}


def test_a_job_that_is_cancelled_as_it_ends_does_not_go_on(host: Host) -> None:
    job_id = host.submit("sleep 60", recover=DEFAULT)
    claimed(host, job_id, 1)
    attempt = host.attempt(job_id)
    os.kill(int(attempt.claimed()["pid"]), signal.SIGSTOP)  # type: ignore[index]
    cancel._note(attempt, {"by": "somebody", "at": "now"})
    os.kill(int(attempt.claimed()["pid"]), signal.SIGKILL)  # type: ignore[index]
    found = host.wait(job_id)
    assert (found["state"], found["attempt"]) == (protocol.CANCELLED, 1)


def test_another_try_joins_the_job_between_its_attempts_and_begins_anew_after_them(host: Host) -> None:
    job_id = host.submit("exit 85", recover={"checkpointed": 1}, checkpoint_exit_code=85)
    deadline = time.monotonic() + PATIENCE_S
    while len(host.job(job_id).attempts()) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    host.submit("exit 85", job_id=job_id, request_key="2", recover={"checkpointed": 1}, checkpoint_exit_code=85)
    assert len(host.job(job_id).attempts()) == 2
    assert host.wait(job_id)["attempt"] == 2
    host.submit("exit 85", job_id=job_id, request_key="2", recover={"checkpointed": 1}, checkpoint_exit_code=85)
    found = host.wait(job_id)
    assert (found["attempt"], found["recovered"]) == (4, {"checkpointed": 1})
    # The logs of the try before were put aside.
    assert "attempt 3 saved" in host.log(job_id)
    assert "attempt 1 saved" not in host.log(job_id)


@pytest.mark.parametrize("budget", ["often", [], [None], {"a": 1}, -1.5])
def test_a_spoilt_budget_keeps_no_end_from_being_recorded(host: Host, budget: Any) -> None:
    spoil = f"""python3 - <<'END'
import json
path = "../.job/attempts/1/request.json"
record = json.load(open(path))
record["spec"]["recover"] = {{"user_error": {budget!r}}}
json.dump(record, open(path, "w"))
END
exit 3"""
    found = host.run(spoil, recover=DEFAULT)
    assert (found["state"], found["reason"], found["attempt"]) == ("FAILED", "user_error", 1)


@pytest.mark.parametrize("following", ["1", "{}", '{"recovery": {}}', '{"recovery": {"first": "x", "why": 1}}'])
def test_an_end_that_a_job_forges_is_followed_by_nothing_senseless(host: Host, following: str) -> None:
    record = f'{{"state": "FAILED", "reason": "user_error", "message": "forged", "next": {following}}}'
    job_id = host.submit(f"echo '{record}' > ../.job/attempts/1/exit.json; sleep 1000", recover=DEFAULT)
    deadline = time.monotonic() + PATIENCE_S
    while host.status(job_id)["state"] != "FAILED":
        assert time.monotonic() < deadline, host.status(job_id)
        time.sleep(0.02)
    assert len(host.job(job_id).attempts()) == 1
