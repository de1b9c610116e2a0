"""The error of a job that ended badly says everything once."""

from __future__ import annotations

import pytest

from airflow_provider_gpu_cluster.jobs.status import JobState, JobStatus

PIP = "Collecting nothing-like-this\nERROR: No matching distribution found for nothing-like-this"


@pytest.mark.parametrize("tail", [f"Looking in indexes\n{PIP}\n", f"{PIP}\n", PIP.splitlines()[-1] + "\n"])
def test_lines_of_an_installer_are_told_once(tail: str) -> None:
    message = f"installing the requirements with pip failed:\n{PIP}"
    status = JobStatus("job", JobState.FAILED, reason="launch_failed", message=message, log_tail=tail)
    said = str(status.error("lab"))
    assert said.count("ERROR: No matching distribution") == 1
    assert "installing the requirements with pip failed" in said


def test_other_last_lines_follow_the_message() -> None:
    status = JobStatus("job", JobState.FAILED, reason="user_error", message="it ended with exit code 1", log_tail="x\n")
    assert str(status.error("lab")).endswith("it ended with exit code 1\nIts last lines were:\nx\n")
