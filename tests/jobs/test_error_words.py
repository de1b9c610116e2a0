"""The error of a job that ended badly says everything once."""

from __future__ import annotations

import pytest

from airflow_provider_gpu_cluster.exceptions import GpuJobFailed
from airflow_provider_gpu_cluster.jobs.status import JobState, JobStatus

PIP = "Collecting nothing-like-this\nERROR: No matching distribution found for nothing-like-this"


@pytest.mark.parametrize("tail", [f"Looking in indexes\n{PIP}\n", f"{PIP}\n", PIP.splitlines()[-1] + "\n"])
def test_lines_of_an_installer_are_told_once(tail: str) -> None:
    message = f"installing the requirements with pip failed:\n{PIP}"
    status = JobStatus("job", JobState.FAILED, reason="launch_failed", message=message, log_tail=tail)
    said = str(status.error("lab"))
    assert said.count("ERROR: No matching distribution") == 1
    assert "installing the requirements with pip failed" in said


def test_all_that_is_known_is_in_a_few_lines() -> None:
    status = JobStatus.from_json(
        {
            "job_id": "train-1",
            "state": "FAILED",
            "reason": "user_error",
            "kind": "missing_module",
            "message": "a module of its is missing: ModuleNotFoundError: No module named 'x' (train.py:1)",
            "remedy": "Add the package to requirements=.",
            "exit_code": 1,
            "attempt": 2,
            "host": "node7",
            "gpus": [0, 3],
            "started_at": "2026-11-28T10:00:00+00:00",
            "ended_at": "2026-11-28T10:01:20+00:00",
            "peak_memory_bytes": 3 << 29,
            "memory_limit_bytes": 4 << 30,
            "log_tail": "ModuleNotFoundError: No module named 'x'\n",
        }
    )
    error = status.error("lab")
    assert str(error).splitlines() == [
        "job train-1 on lab FAILED (user_error, missing_module): a module of its is missing: ModuleNotFoundError: "
        "No module named 'x' (train.py:1)",
        "What to do: Add the package to requirements=.",
        "Where: node7, GPUs 0, 3, attempt 2, after 1 min 20 s, exit code 1",
        "Host memory: 1.50 GiB at most of 4.00 GiB",
        "Its last lines were:",
        "ModuleNotFoundError: No module named 'x'",
    ]
    assert (type(error), error.reason, error.kind) == (GpuJobFailed, "user_error", "missing_module")


def test_other_last_lines_follow_the_message() -> None:
    status = JobStatus("job", JobState.FAILED, reason="user_error", message="it ended with exit code 1", log_tail="x\n")
    assert str(status.error("lab")).endswith("it ended with exit code 1\nIts last lines were:\nx\n")
