"""The description of a job: what it runs, of which code, how its attempts have ended; never a secret."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.gpu_run.errors import Refused
from airflow_provider_gpu_cluster.gpu_run.jobs import array_submission, submission
from airflow_provider_gpu_cluster.gpu_run.jobs.describe import describe
from airflow_provider_gpu_cluster.gpu_run.protocol.masks import masks_of
from tests.gpu_run.host import Host

SECRET = "hunter2-and-more"


def launch(host: Host, job_id: str, command: str, **more: Any) -> None:
    request: Any = {**host.request(command, job_id=job_id), "inputs": [], "record": {"dag_id": "d"}, **more}
    submission.submit(host.root, host.engine, request)


def test_what_a_job_runs_is_told_without_its_secrets(host: Host) -> None:
    env = {"KEY": SECRET, "SEED": "7"}
    metrics = f'{{"loss": 0.5, "key": "{SECRET}"}}'
    command = f"echo {SECRET}; echo '{metrics}' >$OUTPUT_DIR/metrics.json; exit 3"
    launch(host, "one", command, env=env, masks=masks_of([SECRET]))
    host.wait("one")
    asked = Path(host.job("one").at(".job", "asked")).stat().st_mtime_ns
    found = describe(host.root, host.engine, "one")
    assert SECRET not in json.dumps(found)
    assert "echo ***" in found["script"]
    assert found["env_names"] == ["KEY", "SEED"]
    assert found["spec"]["gpus"] == 1
    assert "masks" not in found["status"]
    assert found["status"]["state"] == "FAILED"
    (attempt,) = found["attempts"]
    assert (attempt["attempt"], attempt["state"], attempt["exit_code"]) == (1, "FAILED", 3)
    assert [act["act"] for act in found["acts"]] == ["submit", "launch", "end"]
    assert found["problem"] == ""
    assert found["metrics"] == {"loss": 0.5, "key": "***"}
    # To describe is not to ask.
    assert Path(host.job("one").at(".job", "asked")).stat().st_mtime_ns == asked


def test_code_is_told_by_commit_and_checksum(host: Host) -> None:
    launch(host, "one", "sleep 100")
    host.wait("one", state="RUNNING")
    job = host.job("one")
    record = json.loads(Path(job.spec).read_text())
    upload, git = ["upload", "abc", None, None, None, None], ["git", None, "https://x/y", "main", None, None]
    record["inputs"] = {
        "code": {"identity": git, "written": "git+https://x/y@main", "commit": "c0ffee", "at": "2026-01-01"},
        "data/x": {"identity": upload, "written": "x", "files": 2, "bytes": 30, "checksums": ".job/checksums/1.json"},
    }
    Path(job.spec).write_text(json.dumps(record))
    found = describe(host.root, host.engine, "one")
    assert found["code"] == [
        {"place": "code", "source": "git+https://x/y@main", "commit": "c0ffee"},
        {"place": "data/x", "source": "x", "checksum": "abc", "files": 2, "bytes": 30},
    ]
    assert found["attempts"][0]["state"] == "RUNNING"
    assert found["attempts"][0]["started_at"]


def test_an_array_is_described_by_its_first_element(host: Host) -> None:
    one = {"spec": {"script_args": ["--fast"]}, "env": {"A": "1"}, "run_script": "#!/bin/bash\nsleep 100\n"}
    elements = [{**one, "job_id": f"a_{index}"} for index in range(2)]
    request: Any = {**host.request("", job_id="a"), "inputs": [], "elements": elements, "record": {}}
    array_submission.submit_array(host.root, host.engine, request)
    found = describe(host.root, host.engine, "a")
    assert len(found["status"]["elements"]) == 2
    assert found["script"] == "#!/bin/bash\nsleep 100\n"
    assert found["spec"]["script_args"] == ["--fast"]


@pytest.mark.parametrize("record", ["spec.json", "attempts/1/exit.json", "attempts/1/request.json", "run.sh"])
def test_whatever_a_job_makes_of_its_records_the_rest_is_told(host: Host, record: str) -> None:
    launch(host, "one", "true")
    host.wait("one")
    path = Path(host.job("one").at("run.sh" if record == "run.sh" else os.path.join(".job", record)))
    for written in ("{", '["x"]', '{"spec": 7, "inputs": [1], "environment_names": 3, "masks": 1}', None):
        path.unlink(missing_ok=True)
        if written is None:
            os.mkfifo(path)
        else:
            path.write_text(written)
        found = describe(host.root, host.engine, "one")
        assert json.dumps(found)
        assert [act["act"] for act in found["acts"]][:3] == ["submit", "launch", "end"]


def test_a_job_that_is_gone_is_told_by_the_ledger_and_no_id_leads_elsewhere(host: Host) -> None:
    found = describe(host.root, host.engine, "never")
    assert (found["status"]["state"], found["acts"], found["script"]) == (protocol.LOST, [], "")
    with pytest.raises(Refused):
        describe(host.root, host.engine, "../x")
