"""Each end of an attempt is one line of the ledger: whoever ends it, and whatever has kept the line out at first."""

from __future__ import annotations

import fcntl
import json
import math
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.gpu_run.gc.collection import collect_garbage
from airflow_provider_gpu_cluster.gpu_run.jobs.array_submission import submit_array
from airflow_provider_gpu_cluster.gpu_run.jobs.cancel import cancel
from airflow_provider_gpu_cluster.gpu_run.jobs.totals import answer as totals
from airflow_provider_gpu_cluster.gpu_run.jobs.usage import usage
from airflow_provider_gpu_cluster.gpu_run.ledger.end_line import end_line
from airflow_provider_gpu_cluster.gpu_run.ledger.ledger import Ledger
from airflow_provider_gpu_cluster.gpu_run.ledger.metrics import final_metrics
from airflow_provider_gpu_cluster.gpu_run.store.booking import Transfer
from airflow_provider_gpu_cluster.gpu_run.store.unfinished import note_unfinished, unfinished_note
from tests.gpu_run.attempts import first_attempt, preempt
from tests.gpu_run.host import Host
from tests.gpu_run.old import DAY, make_job_old

Eventually = Callable[..., Any]


def ends(host: Host) -> list[dict[str, Any]]:
    return list(Ledger(host.root.own).lines(kinds=["end"]))


def end_of(host: Host, job_id: str, attempt: int = 1) -> dict[str, Any]:
    (line,) = [line for line in ends(host) if (line["job_id"], line["attempt"]) == (job_id, attempt)]
    return line


def ended(host: Host, job_id: str) -> None:
    """Make a job that was preempted, and whose supervisor is gone."""
    attempt = first_attempt(host, job_id, recover={})
    preempt(attempt)
    claim = Path(attempt.at("claim.json"))
    claim.write_text(json.dumps({**json.loads(claim.read_text()), "start": 1}))


def forget(host: Host, job_id: str) -> None:
    """Make it look as if an older version of the program had ended a job: nothing is in the ledger."""
    shutil.rmtree(Ledger(host.root.own).folder)
    for attempt in host.job(job_id).attempts():
        Path(attempt.at("booked.json")).unlink()


@contextmanager
def locked(host: Host) -> Iterator[None]:
    """Hold the lock of the ledger."""
    folder = Path(Ledger(host.root.own).folder)
    folder.mkdir(exist_ok=True)
    with open(folder / "lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def guard_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_every_way_to_end_is_one_line(host: Host, eventually: Eventually) -> None:
    numbers = json.dumps({"accuracy": 0.75, "epochs": 3, "name": "x", "best": {"loss": 1}})
    good = host.submit(f"echo '{numbers}' > $OUTPUT_DIR/metrics.json", gpus=2, code={"a": ""})
    again = host.submit("test $ATTEMPT = 2 || exit 85", checkpoint_exit_code=85, recover={"checkpointed": 2})
    gone = host.submit("rm -rf $JOB_DIR; cd /; sleep 0.1")
    for job_id in (good, again, gone):
        host.wait(job_id)
    killed, both, removed, stopped = (host.submit("sleep 1000", job_id=name) for name in ("killed", "both", "rm", "st"))
    pids = {job_id: host.wait(job_id, state="RUNNING")["pid"] for job_id in (killed, both, removed, stopped)}
    waits = host.submit("true", gpus=4, job_id="waits")
    cancel(host.root, host.engine, [waits], "ann", 20)
    os.kill(pids[killed], signal.SIGKILL)
    for pid in (guard_of(pids[both]), pids[both]):
        os.kill(pid, signal.SIGSTOP)
    for pid in (guard_of(pids[both]), pids[both]):
        os.kill(pid, signal.SIGKILL)
    shutil.rmtree(host.job(removed).path)
    os.kill(pids[removed], signal.SIGTERM)
    cancel(host.root, host.engine, [stopped], "ann", 20)
    for job_id in (killed, both):
        host.wait(job_id)
    request: Any = host.request("exit $ARRAY_INDEX", job_id="array")
    request["elements"] = [
        {"job_id": f"array_{n}", "spec": {}, "env": {}, "run_script": f"#!/bin/sh\nexit {n}\n"} for n in range(2)
    ]
    host.job("array").create()
    submit_array(host.root, host.engine, request)
    host.wait("array_0", "array_1")
    eventually(lambda: len(ends(host)) == 11)
    # Looking again changes nothing.
    host.status(good)
    usage(host.root, None, None, "user")
    found = {(line["job_id"], line["attempt"]): (line["state"], line["reason"]) for line in ends(host)}
    assert len(found) == len(ends(host)) == 11
    assert found == {
        (good, 1): ("SUCCEEDED", None),
        (again, 1): ("FAILED", "checkpointed"),
        (again, 2): ("SUCCEEDED", None),
        (gone, 1): ("FAILED", "user_error"),
        (killed, 1): ("LOST", "lost"),
        (both, 1): ("LOST", "lost"),
        (waits, 1): ("CANCELLED", "cancelled"),
        (removed, 1): ("LOST", "lost"),
        (stopped, 1): ("CANCELLED", "cancelled"),
        ("array_0", 1): ("SUCCEEDED", None),
        ("array_1", 1): ("FAILED", "user_error"),
    }
    for line in ends(host):
        assert (line["dag_id"], line["engine"]) == ("dag", "host")
        if line["job_id"] == waits:
            assert (line["gpus"], line["leased_s"], line["gpu_seconds"]) == (0, 0, 0)
        else:
            assert line["gpu_seconds"] == pytest.approx(line["gpus"] * line["leased_s"], abs=0.01)
            assert line["gpu_seconds"] > 0
            assert line["gpu_keys"]
    line = end_of(host, good)
    assert line["metrics"] == {"accuracy": 0.75, "epochs": 3}
    assert line["gpu_type"] == "virtual"
    first = end_of(host, again)
    assert end_of(host, again, 2)["follows_at"] == first["at"]
    assert end_of(host, again, 2)["follows_reason"] == "checkpointed"
    # As the leases have it, which say since when; the ends are those of the locks.
    lease = json.loads(Path(host.lease_dir, "gpu-" + end_of(host, both)["gpu_keys"][0]).read_text())
    if lease["job_id"] == both:
        line = end_of(host, both)
        since = datetime.fromisoformat(line["at"]).timestamp() - line["leased_s"]
        assert since == pytest.approx(lease["since"], abs=1)


def test_a_lock_that_is_held_delays_no_end_and_the_line_follows(host: Host, eventually: Eventually) -> None:
    with locked(host):
        job_id = host.submit("true")
        # Whoever looks does not wait.
        assert host.wait(job_id)["state"] == "SUCCEEDED"
        assert host.run("true", gpus=4)["state"] == "SUCCEEDED"
        assert ends(host) == []
    # Its guard has waited for longer than its GPUs.
    eventually(lambda: len(ends(host)) == 2)


@pytest.mark.parametrize("looks", ["status", "usage", "submit", "gc", "totals"])
def test_what_an_older_program_has_ended_is_settled_by_whoever_looks_and_once(host: Host, looks: str) -> None:
    ended(host, "j")
    forget(host, "j")
    for _ in range(2):
        if looks == "status":
            host.status("j")
        elif looks == "usage":
            usage(host.root, None, None, "user")
        elif looks == "totals":
            note_unfinished(host.job("j").path, 1, unfinished_note(host.attempt("j").request()))
            totals(host.root, host.engine, host.program)
        elif looks == "submit":
            host.submit("true", job_id="j", request_key="2")
            host.wait("j")
        else:
            collect_garbage(host.root, host.settings, host.program, 14 * DAY)
        assert end_of(host, "j")["reason"] == "preempted"


def test_gc_settles_a_job_before_it_removes_it(host: Host) -> None:
    ended(host, "j")
    forget(host, "j")
    make_job_old(host, "j")
    Path(host.job("j").at("outputs", "model")).write_bytes(b"x" * 100000)
    with locked(host):
        report = collect_garbage(host.root, host.settings, host.program, 14 * DAY)
        assert (report["jobs"], report["failures"]) == ([], 1)
        assert "its end is not in the ledger yet" in report["failed"][0]["why"]
        # Its files are gone, and with them what may be missing to write the line.
        assert os.listdir(host.job("j").path) == [".job"]
        assert report["bytes_freed"] >= 100000
    report = collect_garbage(host.root, host.settings, host.program, 14 * DAY)
    assert (report["jobs"], report["failures"]) == (["j"], 0)
    assert not os.path.exists(host.job("j").path)
    assert end_of(host, "j")["reason"] == "preempted"
    # Nor does it ever remove the ledger.
    collect_garbage(host.root, host.settings, host.program, 0.001)
    assert len(ends(host)) == 1


def test_the_bytes_of_an_end_are_those_since_the_end_before_it(host: Host) -> None:
    attempt = first_attempt(host, "j")
    for direction, count in (("in", 100), ("in", 20), ("out", 3), ("out", 0)):
        transfer = Transfer(attempt.job.path, {"dag_id": "d", "owner": "ann"}, direction)
        transfer.add(count)
        transfer.book()
    preempt(attempt)
    host.status("j")
    following = host.attempt("j")
    following.finish("FAILED", "user_error", "")
    counted = [(line["received_bytes"], line["sent_bytes"]) for line in ends(host)]
    assert counted == [(120, 3), (0, 0)]
    lines = list(Ledger(host.root.own).lines(kinds=["transfer"]))
    assert [(line["direction"], line["bytes"]) for line in lines] == [("in", 100), ("in", 20), ("out", 3)]
    assert {(line["user"], line["dag_id"], line["job_id"]) for line in lines} == {("ann", "d", "j")}


def test_what_was_measured_is_in_the_line(host: Host) -> None:
    attempt = first_attempt(host, "j", recover={})
    held: Any = {"leased_at": "2026-11-28T10:00:00.000+00:00", "released_at": "2026-11-28T10:01:00.000+00:00"}
    used: Any = {"gpu_seconds_used": 30.0, "gpu_seconds_idle": 500.0, "energy_j": 1e4}
    held["submitted_at"] = "2026-11-28T09:59:53.000+00:00"
    attempt.finish("SUCCEEDED", None, "", gpus=[0, 1], usage=used, **held)
    line = end_of(host, "j")
    # No GPU is idle for longer than it was leased.
    assert (line["gpu_seconds"], line["used_gpu_seconds"], line["idle_gpu_seconds"]) == (120, 30, 120)
    assert (line["energy_j"], line["queued_s"], line["at"]) == (1e4, 7, held["released_at"])
    parts = {"queued": 1, "staging": 2.5, "building": 3, "running": 4, "other": 5}
    record: Any = {"job_id": "j", "attempt": 1, "seconds": parts}
    found: Any = end_line(record, {}, {}, {}, metrics={}, moved={})
    assert {name: found[name] for name in found if name.endswith("_s")} == {
        "leased_s": 0,
        **{f"{name}_s": parts[name] for name in parts if name != "other"},
    }


HOSTILE: list[Any] = [None, [], {}, "x" * 10**6, -1, 10**400, math.nan, math.inf, True, "0001-01-01T00:00:00+23:00"]


@pytest.mark.parametrize("value", HOSTILE, ids=[str(index) for index in range(len(HOSTILE))])
def test_whatever_a_job_has_written_into_its_records_the_line_is_a_line(value: Any, tmp_path: Path) -> None:
    names = ("reason", "kind", "host", "gpus", "gpu_keys", "leased_at", "released_at", "ended_at", "submitted_at")
    usages = ("gpu_seconds_used", "gpu_seconds_idle", "energy_j")
    record: Any = {"job_id": "j", "attempt": 1, "state": value, **dict.fromkeys(names, value)}
    for usage_of, seconds in ((value, value), (dict.fromkeys(usages, value), {"queued": value})):
        line = end_line(
            {**record, "usage": usage_of, "seconds": seconds},
            {"by": value, "settings": value},
            {"gpus": value, "leased_at": value},
            {"ended_at": value},
            metrics={},
            moved={},
        )
        ledger = Ledger(str(tmp_path))
        assert ledger.append(line)
    assert len(Path(ledger.folder, ledger.months()[0]).read_bytes()) < 20000
    for kept in ledger.lines():
        numbers = [number for name, number in kept.items() if name.endswith(("_s", "seconds", "_j"))]
        assert all(0 <= number < 1e15 for number in numbers)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ('{"a": 1, "b": 2.5, "c": true, "d": "4", "e": null, "f": [1]}', {"a": 1, "b": 2.5}),
        ('{"a": NaN, "b": Infinity, "c": 1' + "0" * 400 + "}", {}),
        ('{"' + "x" * 1000 + '": 1, "b": 2}', {"b": 2}),
        (json.dumps({str(number): number for number in range(1000)}), {str(number): number for number in range(50)}),
        ("[" * 100000, {}),
        ("[1]", {}),
        ("{", {}),
        ('{"a": 1}' + " " * (1 << 20), {}),
        (None, {}),
    ],
    ids=["numbers", "infinite", "long name", "many", "deep", "list", "torn", "large", "missing"],
)
def test_final_numbers(tmp_path: Path, content: str | None, found: dict[str, float]) -> None:
    path, claim, record = tmp_path / "metrics.json", tmp_path / "claim", tmp_path / "exit"
    claim.touch()
    if content is not None:
        path.write_text(content)
    record.touch()
    assert final_metrics(str(path), since=str(claim), until=str(record)) == found


def test_numbers_of_an_earlier_or_later_attempt_are_not_this_ones(tmp_path: Path) -> None:
    path, claim, record = tmp_path / "metrics.json", tmp_path / "claim", tmp_path / "exit"
    for file in (path, claim, record):
        file.write_text('{"a": 1}')
    now = time.time()
    for begins, ends_at, is_own in ((now - 10, now + 10, True), (now + 1, now + 10, False), (now - 10, now - 1, False)):
        os.utime(claim, (begins, begins))
        os.utime(record, (ends_at, ends_at))
        assert bool(final_metrics(str(path), since=str(claim), until=str(record))) is is_own


def test_a_pipe_in_the_place_of_the_numbers_keeps_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "metrics.json")
    assert final_metrics(str(tmp_path / "metrics.json"), since="/", until="/nowhere") == {}
