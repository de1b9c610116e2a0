"""What a launch leaves in Airflow for its row."""

from __future__ import annotations

import json
from dataclasses import replace

from airflow.sdk.log import mask_secret

from airflow_provider_gpu_cluster.gpu_run.protocol.masks import masks_of
from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.jobs.spec import make_spec
from airflow_provider_gpu_cluster.jobs.status import JobState, JobStatus
from airflow_provider_gpu_cluster.jobs.submission import Submission
from airflow_provider_gpu_cluster.pools.parts import as_one, handle_of
from airflow_provider_gpu_cluster.tasks.launch_notes import launch_note

HANDLE = JobHandle("mine-train-1", "lab", "/jobs/1", "host", "2026-11-28T12:00:00+00:00", 2)
SUBMISSION = Submission(HANDLE, JobStatus(HANDLE.job_id, JobState.QUEUED, attempt=1), created=True)


def test_a_note_says_who_and_what() -> None:
    spec = make_spec(entry_script="train.py", script_args=["--lr", "0.1"], gpus=2, memory="4G").to_json()
    note = launch_note(SUBMISSION, spec=spec, record={"owner": "lab", "triggered_by": "ada"}, masks=None)
    assert note == {
        **HANDLE.to_json(),
        "user": "ada",
        "owner": "lab",
        "state": "QUEUED",
        "attempt": 1,
        "request": {
            "entry_script": "train.py",
            "script_args": ["--lr", "0.1"],
            "gpus": 2,
            "nodes": 1,
            "memory_bytes": 4 << 30,
            "priority": "normal",
        },
    }


def test_a_note_is_small_and_has_no_secrets() -> None:
    mask_secret("of-a-connection")
    arguments = ["--token", "of-the-job", "of-a-connection", *(["x" * 2000] * 500)]
    spec = make_spec(entry_script="train.py", script_args=arguments).to_json()
    note = json.dumps(launch_note(SUBMISSION, spec=spec, record={}, masks=masks_of(["of-the-job"])))
    assert len(note) < 10_000
    assert "of-the-job" not in note
    assert "of-a-connection" not in note


def test_a_note_says_how_each_part_of_an_array_stands() -> None:
    waits = Submission(replace(HANDLE, array_size=1), status(JobState.QUEUED, 2), created=True)
    elsewhere = replace(HANDLE, job_id="mine-train-1.p2", gpu_cluster_conn_id="other", array_size=1)
    parts = [waits, Submission(elsewhere, status(JobState.RUNNING, 1), created=False)]
    whole = as_one(handle_of([part.handle for part in parts]), parts)
    note = launch_note(whole, spec=make_spec(command="true").to_json(), record={}, masks=None)
    assert (note["state"], note["attempt"]) == ("RUNNING", 2)
    assert [(part["state"], part["attempt"]) for part in note["parts"]] == [("QUEUED", 2), ("RUNNING", 1)]
    assert JobHandle.from_json(note) == whole.handle


def status(state: JobState, attempt: int) -> JobStatus:
    return JobStatus(HANDLE.job_id, state, attempt=attempt, elements=((state, None),))
