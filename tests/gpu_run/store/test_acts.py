"""The audit trail: a line for each act, in the job's own record and in the ledger, whatever is wrong with the disk."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.gpu_run.cli import audit as cli_audit
from airflow_provider_gpu_cluster.gpu_run.errors import Refused
from airflow_provider_gpu_cluster.gpu_run.gc.collection import collect_garbage
from airflow_provider_gpu_cluster.gpu_run.jobs import array_submission, submission
from airflow_provider_gpu_cluster.gpu_run.jobs.audit import audit
from airflow_provider_gpu_cluster.gpu_run.jobs.cancel import cancel
from airflow_provider_gpu_cluster.gpu_run.ledger.ledger import Ledger
from airflow_provider_gpu_cluster.gpu_run.linux import processes
from airflow_provider_gpu_cluster.gpu_run.protocol.masks import masks_of
from airflow_provider_gpu_cluster.gpu_run.store import acts, records
from airflow_provider_gpu_cluster.gpu_run.store.acts import note_act
from airflow_provider_gpu_cluster.gpu_run.store.directories import Root
from tests.gpu_run.attempts import first_attempt, preempt
from tests.gpu_run.host import Host
from tests.gpu_run.old import make_job_old
from tests.harness.small_disk import fill, make_read_only, small_disk

ADA = {"dag_id": "etl", "task_id": "train", "run_id": "r1", "try_number": 2, "airflow_host": "worker-1"}


@pytest.fixture
def root(tmp_path: Path) -> Root:
    root = Root(str(tmp_path / "jobs"))
    root.job("job").create()
    return root


def own(root: Root, job: str = "job") -> list[dict[str, Any]]:
    """Return the lines of a job's own record."""
    path = Path(root.job(job).at(".job", "events.jsonl"))
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def in_ledger(root: Root, job: str | None = None) -> list[dict[str, Any]]:
    """Return the ledger's lines of acts."""
    return [line for line in Ledger(root.own).lines(kinds=("act",)) if job in (None, line["job_id"])]


def told(lines: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(line["act"], line["by"], line.get("attempt")) for line in lines]


@pytest.mark.parametrize(
    ("caller", "by"),
    [
        ({**ADA, "user": "eve", "triggered_by": "ada", "owner": "team"}, "eve"),
        ({**ADA, "triggered_by": "ada", "owner": "team"}, "ada"),
        ({**ADA, "triggered_by": None, "owner": "team"}, "team"),
        ({"person": "bob"}, "bob"),
        ({"airflow_host": "triggerer-1"}, "Airflow"),
        ({}, processes.user()),
        (None, "gpu-run"),
        # Whatever arrives.
        ({"user": 7, "owner": ["x"], "try_number": "2"}, processes.user()),
    ],
)
def test_who_has_acted(root: Root, caller: Any, by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_CLIENT", "10.1.2.3 51000 22")
    Path(root.job("job").at(".job", "events.jsonl")).touch()
    note_act(root.job("job").path, "collect", caller=caller, attempt=3, details="all")
    (line,) = own(root)
    assert in_ledger(root) == [line]
    assert told([line]) == [("collect", by, 3)]
    assert line["host"] == ((caller or {}).get("airflow_host") or processes.hostname())
    # The program's own processes may have been started by anybody's connection.
    assert line.get("address") == (None if caller is None else "10.1.2.3")
    if caller and "task_id" in caller:
        assert (line["through"], line["try_number"]) == ("Airflow task etl.train, run r1", 2)


def test_what_is_repeated_makes_one_line(root: Root) -> None:
    for key in ("a", "a", "b", "a"):
        note_act(root.job("job").path, "submit", caller=ADA, key=key)
    assert [line["key"] for line in own(root)] == ["a", "b"]
    assert [line["key"] for line in in_ledger(root)] == ["a", "b"]


def test_a_line_is_one_line_without_secrets(root: Root) -> None:
    asked = {"masks": masks_of(["hunter2"]), "by": {"dag_id": "etl", "owner": "team"}}
    said = "x\nfake line\x1b[31m\u202e hunter2 " + "y" * 5000
    note_act(root.job("job").path, "cancel", caller={"user": said}, through=said, key=said, details=said, asked=asked)
    (line,) = own(root)
    assert (line["dag_id"], line["user"]) == ("etl", "team")
    text = json.dumps(line, ensure_ascii=False)
    assert "hunter2" not in text
    assert "***" in line["details"]
    assert text.isprintable()
    assert len(text) < 3000


@pytest.mark.parametrize("spoilt", ["a pipe", "a folder", "garbage", "half a line", "gone", "no ledger"])
def test_what_is_in_its_place_keeps_nobody_from_acting(root: Root, spoilt: str) -> None:
    path = Path(root.job("job").at(".job", "events.jsonl"))
    if spoilt == "a pipe":
        os.mkfifo(path)
    elif spoilt == "a folder":
        path.mkdir()
    elif spoilt == "garbage":
        path.write_bytes(b"\xff\x00[[[[\n7\nnull\n" + b"x" * 100_000 + b"\n")
    elif spoilt == "half a line":
        path.write_text('{"kind": "act", "act": "su')
    elif spoilt == "gone":
        os.rename(root.job("job").at(".job"), root.job("job").at("elsewhere"))
    else:
        Path(root.own).write_text("no folder")
    note_act(root.job("job").path, "stage", caller=ADA, key="k")
    if spoilt != "no ledger":
        assert told(in_ledger(root)) == [("stage", "Airflow", None)]
    if spoilt != "gone":
        note_act(root.job("job").path, "stage", caller=ADA, key="k")
        found = audit(root, "job")
        assert [line["act"] for line in found["acts"]] == ["stage"]
        assert not found["is_from_ledger"]


@pytest.mark.parametrize("is_full", [True, False])
def test_a_disk_without_room_keeps_nobody_from_acting(tmp_path: Path, is_full: bool) -> None:
    with small_disk(tmp_path / "disk", 512) as disk:
        root = Root(str(disk / "jobs"))
        root.job("job").create()
        note_act(root.job("job").path, "submit", caller=ADA)
        if is_full:
            fill(disk)
        else:
            make_read_only(disk)
        for _ in range(30):
            note_act(root.job("job").path, "join", caller=ADA, details="x" * 400)
        # All of them are whole.
        assert {line["act"] for line in own(root)} <= {"submit", "join"}
        if is_full:
            (disk / "filler").unlink()
            note_act(root.job("job").path, "collect", caller=ADA)
            assert own(root)[-1]["act"] == in_ledger(root)[-1]["act"] == "collect"


def test_a_held_lock_keeps_nobody_waiting(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acts, "_LOCK_S", 0.01)
    monkeypatch.setattr(acts, "_LEDGER_LOCK_S", 0.01)
    ledger = Ledger(root.own)
    note_act(root.job("job").path, "stage", caller=ADA)
    with ledger._locked(0):
        note_act(root.job("job").path, "join", caller=ADA)
    assert [line["act"] for line in own(root)] == ["stage", "join"]


def test_the_life_of_a_job(host: Host) -> None:
    ada: Any = {**ADA, "owner": "ada"}
    request = host.request("true", job_id="job", request_key="try-1")
    request["record"] = request["caller"] = ada
    host.job("job").create()
    for _ in range(2):
        submission.submit(host.root, host.engine, request)
    host.wait("job")
    submission.submit(host.root, host.engine, {**request, "request_key": "try-2"})
    cancel(host.root, host.engine, ["job"], "nobody's business", 0, caller=ada)
    life = [("submit", "ada", 1), ("launch", "gpu-run", 1), ("end", "gpu-run", 1), ("join", "ada", 1)]
    assert told(own(host.root)) == life
    assert sorted(told(in_ledger(host.root))) == sorted(life)
    make_job_old(host, "job", 1e6)
    collect_garbage(host.root, host.settings, host.program, 1e5, caller={"person": "bob"})
    assert not host.job("job").exists()
    (*_, gone) = in_ledger(host.root)
    assert (gone["act"], gone["by"], gone["dag_id"]) == ("gc", "bob", "etl")


def test_one_cancel_is_one_line_and_another_ones_is_another(host: Host) -> None:
    job = host.submit("sleep 60")
    for _ in range(2):
        cancel(host.root, host.engine, [job], "a task", 0, caller={"owner": "ada"})
    host.wait(job)
    cancel(host.root, host.engine, [job], "a task", 0, caller={"owner": "ada"})
    cancel(host.root, host.engine, [job], "Airflow, as a user ended its task", 0, caller={"user": "eve"})
    found = [line for line in own(host.root, job) if line["act"] == "cancel"]
    assert [(line["by"], line["through"]) for line in found] == [
        ("ada", "a task"),
        ("eve", "Airflow, as a user ended its task"),
    ]


def test_an_attempt_that_follows_by_itself(host: Host) -> None:
    attempt = first_attempt(host, "job")
    preempt(attempt)
    host.status("job")
    recover = next(line for line in in_ledger(host.root) if line["act"] == "recover")
    assert (recover["by"], recover["attempt"]) == ("gpu-run", 2)
    assert "preempted" in recover["details"]


def test_an_array_and_its_elements(host: Host) -> None:
    request: Any = host.request("true", job_id="array")
    request["elements"] = [
        {"job_id": f"array_{index}", "spec": {}, "env": {}, "run_script": "#!/bin/sh\n"} for index in range(3)
    ]
    host.job("array").create()
    for _ in range(2):
        array_submission.submit_array(host.root, host.engine, request)
    (line,) = own(host.root, "array")
    assert (line["act"], line["details"]) == ("submit", "3 of 3 elements launched")
    for index in range(3):
        host.wait(f"array_{index}")
        assert [line["act"] for line in own(host.root, f"array_{index}")] == ["submit", "launch", "end"]


def test_a_job_that_was_removed_is_told_from_the_ledger(root: Root, capsys: pytest.CaptureFixture[str]) -> None:
    note_act(root.job("job").path, "submit", caller={**ADA, "owner": "ada"}, attempt=1)
    note_act(root.job("other").path, "submit", caller=ADA, details='"job_id": "job"')
    os.rename(root.job("job").path, root.job("job").path + "-gone")
    note_act(root.job("job").path, "gc", through="the connection's retention", asked={"by": ADA})
    found = audit(root, "job")
    assert [line["act"] for line in found["acts"]] == ["submit", "gc"]
    assert found["is_from_ledger"]
    assert cli_audit.run("job", root=root) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].split() == ["TIME", "(UTC)", "ACT", "ATTEMPT", "WHO", "FROM", "DETAILS"]
    assert "ada (Airflow task etl.train, run r1, try 2)" in out[1]
    assert "worker-1" in out[1]
    assert cli_audit.run("job", "--json", root=root) == 0
    assert [json.loads(line)["act"] for line in capsys.readouterr().out.splitlines()] == ["submit", "gc"]
    with pytest.raises(Refused, match="no job never"):
        audit(root, "never")


def test_a_record_that_the_job_has_deleted_is_told_from_the_ledger(root: Root) -> None:
    job = root.job("job")
    note_act(job.path, "submit", caller=ADA, attempt=1)
    os.unlink(job.at(".job", "events.jsonl"))
    # Not begun again by what happens by itself, as the job may be deleting its directory.
    note_act(job.path, "launch", attempt=1)
    assert not os.path.exists(job.at(".job", "events.jsonl"))
    note_act(job.path, "cancel", caller=ADA, attempt=1)
    assert [line["act"] for line in own(root)] == ["cancel"]
    assert [line["act"] for line in audit(root, "job")["acts"]] == ["submit", "launch", "cancel"]


def test_what_a_job_has_written_there_is_not_believed_to_be_text(root: Root) -> None:
    line = {"kind": "act", "at": records.now(), "job_id": "job", "act": "submit", "by": ["\x1b"], "attempt": "1"}
    path = Path(root.job("job").at(".job", "events.jsonl"))
    path.write_text("".join(json.dumps(one) + "\n" for one in (line, {**line, "by": "a\x1b[2J"}, {**line, "act": 7})))
    acts = audit(root, "job")["acts"]
    assert [one.get("by") for one in acts] == [None, "a [2J"]
    assert "attempt" not in acts[0]
