"""Verbs that a client calls over its ``watch``."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.gpu_run.command_line import VERBS
from airflow_provider_gpu_cluster.gpu_run.watch.calls import AT_ONCE
from tests.gpu_run.host import Host
from tests.gpu_run.jobs.test_launch_processes import copies
from tests.gpu_run.watch.client import Client

# What a test has a verb answer.
CHANGE = """
import os, time
from airflow_provider_gpu_cluster.gpu_run.engines import capacity
def answer(engine):
    from airflow_provider_gpu_cluster.gpu_run.reply import Reply
    {answer}
capacity.answer = answer
"""
KILLED = CHANGE.format(answer="os.kill(os.getpid(), 9)")
LONG = CHANGE.format(answer="return Reply({'text': 'x' * 3_000_000})")
TOO_LONG = CHANGE.format(answer="return Reply({'text': 'x' * 9_000_000})")
BROKEN = CHANGE.format(answer="raise RuntimeError('unlucky')")
LATE = (
    "from airflow_provider_gpu_cluster.gpu_run.watch import calls\ncalls.Calls.__init__.__kwdefaults__['limit_s'] = 0.1"
)


def waiting_for(gate: Path) -> str:
    """Return a change that keeps calls waiting until something is at that path."""
    return CHANGE.format(answer=f"while not os.path.exists({str(gate)!r}): time.sleep(0.01)\n    return Reply({{}})")


def call(client: Client, key: int = 1, verb: str = "capacity") -> None:
    client.do("call", key=key, verb=verb, request={})


def test_what_may_be_called_is_told_by_the_protocol() -> None:
    for name in protocol.READS:
        assert name in protocol.VERBS
        # There is no stream, and who calls often must not start the collection of garbage.
        assert not {"stream", "verbs"} & set(VERBS[name].needs)
        assert not VERBS[name].clears


def test_a_call_is_answered_like_the_verb_and_as_often_as_it_is_made(host: Host, watch: Callable[..., Client]) -> None:
    job = host.submit("sleep 60", gpus=1)
    host.wait(job, state="RUNNING")
    client = watch()
    for key in (1, 2):
        call(client, key)
        reply = client.until("answered", key=key)["reply"]
        assert reply["free_gpus"] == 3
    client.do("call", key=3, verb="audit", request={"job_id": job})
    assert client.until("answered", key=3)["reply"]["acts"][0]["act"] == "submit"


def test_what_is_not_only_read_is_refused(host: Host, watch: Callable[..., Client]) -> None:
    client = watch()
    for key, verb in enumerate(["submit", "cancel", "status", "gc", "watch", "dispatch", "../x", "nonsense"]):
        call(client, key, verb)
        refusal = client.until("refused", key=key)
        assert refusal["code"] == protocol.BAD_REQUEST
        assert verb in refusal["message"]


def test_nobody_counts_as_asking_for_a_job_that_is_looked_at(host: Host, watch: Callable[..., Client]) -> None:
    job = host.submit("sleep 60")
    asked = host.job(job).at(".job", "asked")
    Path(asked).unlink(missing_ok=True)
    client = watch()
    for key, verb in enumerate(protocol.READS):
        one = {"job_id": job, "tails": {}, "spec": {"gpus": 1}, "inputs": []}
        request = {"job_id": job, "job_ids": [job], "most": 10, "jobs": [one]}
        client.do("call", key=key, verb=verb, request=request)
        while not {"answered", "refused"} & {event["event"] for event in client.events if event.get("key") == key}:
            client.read()
    key = protocol.READS.index("appraise")
    (reply,) = [event["reply"] for event in client.events if event.get("key") == key and "reply" in event]
    (appraisal,) = reply["jobs"]
    assert (appraisal["gpus"], appraisal["placed"]["status"]["job_id"]) == (4, job)
    assert not os.path.exists(asked)


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        (KILLED, protocol.PASSING_FAULT, "killed"),
        (TOO_LONG, protocol.PASSING_FAULT, "too long"),
        (BROKEN, protocol.INTERNAL, "unlucky"),
        (f"{CHANGE.format(answer='time.sleep(60)')}\n{LATE}", protocol.PASSING_FAULT, "0.1 s"),
    ],
    ids=["killed", "too long", "broken", "late"],
)
def test_a_call_that_fails_says_why_and_keeps_nobody_from_theirs(
    watch: Callable[..., Client], eventually: Callable[..., Any], change: str, code: str, said: str
) -> None:
    client = watch(f"server.ALIVE_S = 0.2\n{change}")
    call(client)
    refusal = client.until("refused")
    assert refusal["code"] == code
    assert said in refusal["message"]
    eventually(lambda: not copies(client))
    call(client, 2, "totals")
    client.until("answered", key=2)


def test_long_answers_arrive_whole_and_one_after_the_other(watch: Callable[..., Client]) -> None:
    client = watch(LONG)
    for key in range(3 * AT_ONCE):
        call(client, key)
    for key in range(3 * AT_ONCE):
        assert len(client.until("answered", key=key)["reply"]["text"]) == 3_000_000


def test_news_do_not_wait_for_a_call_and_many_calls_take_turns(
    host: Host, watch: Callable[..., Client], tmp_path: Path
) -> None:
    client = watch(waiting_for(tmp_path / "gate"))
    for key in range(3 * AT_ONCE):
        call(client, key)
    client.subscribe(host.submit("true"), key=100)
    assert client.until("status", key=100, state="SUCCEEDED")
    assert len(copies(client)) == AT_ONCE
    assert not [event for event in client.events if event["event"] == "answered"]
    (tmp_path / "gate").touch()
    for key in range(3 * AT_ONCE):
        assert client.until("answered", key=key)["reply"] == {}
