"""The list of the jobs that wait or run: whose they are, and what is not among them."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from airflow_provider_gpu_cluster.gpu_run.jobs import array_submission, listing, submission
from tests.gpu_run.host import Host

WHO = {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": -1, "try_number": 1}


def launch(host: Host, job_id: str, command: str = "sleep 100", *, who: Any = None, **more: Any) -> None:
    request: Any = {**host.request(command, job_id=job_id, **more), "inputs": [], "record": who or WHO}
    submission.submit(host.root, host.engine, request)


def listed(host: Host, most: int = 100) -> tuple[dict[str, Any], int]:
    reply = listing.list_jobs(host.root, host.engine, host.program, host.settings, most)
    return {job["job_id"]: job for job in reply["jobs"]}, reply["left_out"]


def test_what_waits_and_runs_is_listed_and_whose_it_is(host: Host) -> None:
    launch(host, "runs", gpus=4)
    host.wait("runs", state="RUNNING")
    launch(host, "waits", who={"person": "ada", "folder": "/home/ada"})
    mark = Path(host.job("runs").at(".job", "asked"))
    os.utime(mark, (time.time() - 500,) * 2)
    jobs, left_out = listed(host)
    assert left_out == 0
    assert {job_id: job["state"] for job_id, job in jobs.items()} == {"runs": "RUNNING", "waits": "QUEUED"}
    assert (jobs["runs"]["by"], jobs["runs"]["gpus"], jobs["runs"]["attempt"]) == (WHO, 4, 1)
    assert jobs["waits"]["by"] == {"person": "ada", "folder": "/home/ada"}
    assert jobs["runs"]["started_at"] > jobs["runs"]["submitted_at"]
    assert 490 < jobs["runs"]["unasked_s"] < 600
    # To list is not to ask.
    assert time.time() - mark.stat().st_mtime > 400
    assert [len(listed(host, most=1)[0]), listed(host, most=1)[1]] == [1, 1]


def test_what_has_ended_was_only_staged_or_is_spoilt_is_not(host: Host) -> None:
    launch(host, "ended", "true")
    host.wait("ended")
    host.job("staged").create()
    for name in ("spoilt", "strange"):
        launch(host, name)
    Path(host.attempt("spoilt").at("request.json")).write_text("{")
    record = Path(host.attempt("strange").at("request.json"))
    record.write_text(json.dumps({**json.loads(record.read_text()), "by": {"dag_id": 7, "run_id": ["x"]}}))
    jobs, _ = listed(host)
    assert list(jobs) == ["strange"]
    assert jobs["strange"]["by"] == {}


def test_a_job_that_its_task_has_replaced_since_says_by_which(host: Host) -> None:
    def request(job_id: str, generation: str, who: Any = WHO) -> Any:
        asked = host.request("sleep 100", job_id=job_id)
        return {**asked, "inputs": [], "generation": generation, "record": who}

    for asked in (
        request("d-t-20260101T000000-0000000a", "0"),
        request("d-t-20260101T000000-0000000b", "2"),
        request("d-t-20260101T000000-0000000c", "10"),
        # Another map index of the same task.
        request("d-t-20260101T000000-0000000d", "11", {**WHO, "map_index": 1}),
    ):
        submission.submit(host.root, host.engine, asked)
    jobs, _ = listed(host)
    newest = "d-t-20260101T000000-0000000c"
    assert [job.get("newer") for job in jobs.values()] == [newest, newest, None, None]


def test_elements_name_their_array(host: Host) -> None:
    one = {"spec": {}, "env": {}, "run_script": "#!/bin/bash\nsleep 100\n"}
    elements = [{**one, "job_id": f"a_{index}"} for index in range(2)]
    request: Any = {**host.request("", job_id="a"), "inputs": [], "elements": elements, "record": WHO}
    array_submission.submit_array(host.root, host.engine, request)
    jobs, _ = listed(host)
    assert {job_id: job["array"] for job_id, job in jobs.items()} == {"a_0": "a", "a_1": "a"}
