"""The verb with which a table of all jobs follows a ledger: ends from a place on, and how far jobs are."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.gpu_run.jobs import array_submission, ledger_reading, submission
from airflow_provider_gpu_cluster.gpu_run.ledger.ledger import Ledger
from tests.gpu_run.host import Host

WHO = {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": -1, "owner": "lab", "triggered_by": "ada"}
BEGIN = {"file": "", "offset": 0}


def launch(host: Host, job_id: str, command: str, **more: Any) -> None:
    request: Any = {**host.request(command, job_id=job_id, **more), "inputs": [], "record": WHO}
    submission.submit(host.root, host.engine, request)


def read(host: Host, place: Any = BEGIN, jobs: list[str] | None = None) -> Any:
    call: Any = {"place": place, "jobs": jobs or [], "settings": host.settings, "umask": 0o22}
    return ledger_reading.answer(host.root, call).value


def append(host: Host, month: str, *job_ids: str, kind: str = "end") -> None:
    folder = Path(host.root.own, "ledger")
    folder.mkdir(exist_ok=True)
    with (folder / f"{month}.jsonl").open("a") as file:
        for job_id in job_ids:
            file.write(json.dumps({"kind": kind, "at": f"{month}-01T00:00:00.000+00:00", "job_id": job_id}) + "\n")


def ids(reply: Any) -> list[str]:
    return [line["job_id"] for line in reply["lines"]]


def test_the_end_of_a_real_job_is_read_once(host: Host) -> None:
    launch(host, "one", "echo '{\"loss\": 0.5}' > $OUTPUT_DIR/metrics.json", gpus=1)
    host.wait("one")
    reply = read(host, jobs=["one", "gone"])
    (line,) = reply["lines"]
    assert (line["dag_id"], line["user"], line["state"], line["gpus"]) == ("d", "ada", "SUCCEEDED", 1)
    assert line["submitted_at"] <= line["started_at"] <= line["at"]
    assert "goes_on" not in line
    ended, gone = reply["jobs"]
    assert (ended["state"], ended["attempt"]) == ("SUCCEEDED", 1)
    assert gone == {"job_id": "gone", "state": None}
    again = read(host, reply["place"])
    assert (again["lines"], again["place"], again["is_all"]) == ([], reply["place"], True)


def test_what_waits_and_runs_is_told_from_its_files(host: Host) -> None:
    launch(host, "runs", "sleep 100", gpus=4)
    host.wait("runs", state="RUNNING")
    launch(host, "waits", "true")
    before = {path: path.stat().st_mtime_ns for path in Path(host.root.path).rglob("*") if path.is_file()}
    runs, waits = read(host, jobs=["runs", "waits"])["jobs"]
    assert (runs["state"], waits["state"]) == ("RUNNING", "QUEUED")
    assert runs["started_at"]
    assert runs["host"]
    quiet = {path for path in before if not {"logs", "leases"} & set(path.parts)}
    assert {path: path.stat().st_mtime_ns for path in quiet} == {path: before[path] for path in quiet}


def test_an_array_is_told_as_its_status_tells_it(host: Host) -> None:
    elements = [{"job_id": f"sweep_{n}", "spec": {}, "env": {}, "run_script": f"exit {n}"} for n in range(2)]
    request: Any = {**host.request("true", job_id="sweep"), "inputs": [], "record": WHO, "elements": elements}
    array_submission.submit_array(host.root, host.engine, request)
    for n in range(2):
        host.wait(f"sweep_{n}")
    reply = read(host, jobs=["sweep"])
    assert {(line["array"], line["element"]) for line in reply["lines"]} == {("sweep", 0), ("sweep", 1)}
    (told,) = reply["jobs"]
    assert (told["state"], told["reason"]) == ("FAILED", "user_error")


@pytest.mark.parametrize("spoilt", [b"{", b"[]", b'{"state": 5}', b"\xff" * 100])
def test_a_job_that_spoils_its_records_spoils_nothing_else(host: Host, spoilt: bytes) -> None:
    for job_id in ("bad", "good"):
        launch(host, job_id, "true")
        host.wait(job_id)
    Path(host.attempt("bad").at("exit.json")).write_bytes(spoilt)
    bad, good = read(host, jobs=["bad", "good"])["jobs"]
    assert bad["state"] in ("UNKNOWN", "QUEUED", "RUNNING")
    assert good["state"] == "SUCCEEDED"


def test_reading_goes_on_in_the_next_month(host: Host) -> None:
    append(host, "2026-10", "a", "b")
    reply = read(host)
    append(host, "2026-10", "c")
    append(host, "2026-11", "d")
    append(host, "2026-12", "e", kind="act")
    assert ids(reply) == ["a", "b"]
    later = read(host, reply["place"])
    assert (ids(later), later["place"]["file"], later["is_all"]) == (["c", "d"], "2026-12.jsonl", True)
    append(host, "2026-12", "f")
    assert ids(read(host, later["place"])) == ["f"]


def test_a_file_that_was_removed_or_begun_anew_is_no_end(host: Host) -> None:
    append(host, "2026-10", "a", "b")
    append(host, "2026-11", "c")
    place = read(host)["place"]
    path = Path(host.root.own, "ledger", "2026-11.jsonl")
    path.unlink()
    assert read(host, place)["lines"] == []
    append(host, "2026-11", "d")
    path.write_bytes(path.read_bytes().replace(b"000+00:00", b"0+00:00"))
    assert ids(read(host, place)) == ["d"]
    # A torn or strange line is passed over.
    with path.open("ab") as file:
        file.write(b'{"kind": "end", nonsense\n\xff\xfe\n{"kind": "end", "at": "torn')
    assert read(host, read(host)["place"])["lines"] == []


def test_a_long_ledger_is_read_in_bounded_parts(host: Host) -> None:
    names = [f"job-{n:05}" for n in range(20_000)]
    append(host, "2026-10", *names, kind="act")
    append(host, "2026-10", *names)
    found: list[str] = []
    place, parts, is_all = BEGIN, 0, False
    while not is_all:
        began = time.monotonic()
        reply = read(host, place)
        assert time.monotonic() - began < 5
        assert len(json.dumps(reply["lines"])) < 2 * ledger_reading.MOST_BYTES
        found += ids(reply)
        place, is_all = reply["place"], reply["is_all"]
        parts += 1
    assert found == names
    assert parts > 1


def test_there_may_be_no_ledger_yet(host: Host) -> None:
    reply = read(host)
    assert (reply["lines"], reply["place"], reply["is_all"]) == ([], BEGIN, True)
    assert not os.path.exists(Ledger(host.root.own).folder)
