from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.log import mask_secret
from jsonschema import Draft202012Validator

import airflow_provider_gpu_cluster.messages
from airflow_provider_gpu_cluster.exceptions import (
    GpuClusterAuthenticationError,
    GpuClusterConnectionError,
    InvalidJobError,
    LaunchError,
    NoSpaceError,
)
from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.gpu_run.protocol.masks import masks_of
from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.jobs.status import JobState, JobStatus
from airflow_provider_gpu_cluster.messages import kinds
from airflow_provider_gpu_cluster.messages.builder import (
    About,
    message_of_condition,
    message_of_end,
    message_of_error,
)
from airflow_provider_gpu_cluster.messages.message import JobMessage, JobTask
from tests.conftest import REPOSITORY

SCHEMA = json.loads((Path(airflow_provider_gpu_cluster.messages.__file__).parent / "payload.schema.json").read_text())
JOB_ID = "nightly-train-20261128T010000-1a2b3c4d"
HANDLE = JobHandle(JOB_ID, "gpu_lab", f"/home/ada/ml-jobs/{JOB_ID}", "host", "2026-11-28T01:00:00+00:00", 2)
TASK = JobTask(
    "nightly",
    "scheduled__2026-11-28T01:00:00+00:00",
    "train",
    try_number=1,
    tries=4,
    job_url="https://airflow.example.org/dags/nightly/plugin/gpu-job?a=1&b=2",
    task_url="https://airflow.example.org/dags/nightly",
)
ABOUT = About(handle=HANDLE, conn_id="gpu_lab", task=TASK, cluster="ada@gpu01:22")
ENDED = JobStatus(
    JOB_ID,
    JobState.FAILED,
    reason="user_error",
    kind="missing_module",
    message="a module is not installed: No module named 'torchvision' (train.py:3)",
    remedy="Name it in requirements.",
    exit_code=1,
    attempt=3,
    started_at="2026-11-28T01:00:03+00:00",
    ended_at="2026-11-28T01:03:03+00:00",
    gpus=(0, 1),
    gpu_seconds=360.0,
    host="gpu01",
    peak_memory_bytes=3 << 30,
    memory_limit_bytes=64 << 30,
    usage={
        "gpu_mean_percent": 41.2,
        "gpu_peak_percent": 99.0,
        "gpus": [{"index": 0, "peak_memory_bytes": 79 << 30, "memory_bytes": 80 << 30}, {"index": 1}],
        "cpus_mean": 2.13,
        "cpus": 16,
        "energy_j": 3.6e6,
    },
    seconds={"queued": 1220.0, "staging": 0.2, "running": 180.0, "idle": 90.0},
    progress={"step": 40, "total": 100, "loss": 0.31},
    log_tail="Traceback (most recent call last):\nModuleNotFoundError: No module named 'torchvision'\n",
    attempts=({"attempt": 2, "reason": "preempted", "kind": "preempted", "host": "gpu02"},),
    recovered={"preempted": 1},
)
RUNNING = replace(ENDED, state=JobState.RUNNING, reason=None, kind=None, message="", remedy="", exit_code=None)


def told(message: JobMessage) -> JobMessage:
    """Return a message of which everything was checked that holds for all: its form, and the schema of its payload."""
    assert message.subject
    assert "\n" not in message.subject
    assert len(message.subject) <= 160
    assert len(message.text) < 20_000
    assert len(message.html) < 60_000
    assert len(message.slack) <= 6_000
    assert re.fullmatch(r"[!-~]+", message.event_id)
    for form in (message.subject, message.text, message.html):
        assert "None" not in form
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", form)
    assert all(line.partition(": ")[2] for line in message.text.splitlines() if re.match(r"[A-Z]\S*:  ", line))
    Draft202012Validator(SCHEMA).validate(json.loads(message.json))
    assert message.payload["event"] == message.kind
    assert message.payload["event_id"] == message.event_id
    Document().feed(message.html)
    return message


class Document(HTMLParser):
    """An HTML document that loads nothing, runs nothing, and closes what it opens."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "img", "link", "iframe", "form", "object")
        assert all(not name.startswith("on") and name not in ("src", "srcset") for name, _ in attrs)
        if tag != "meta":
            self.opened.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.opened.pop() == tag


def test_the_message_about_a_failure_says_all_that_is_known() -> None:
    message = told(message_of_end(ENDED, replace(ABOUT, metrics={"loss": 0.3, "val": {"accuracy": 0.981}})))
    assert message.subject == "Failed: nightly.train on gpu_lab (missing module)"
    assert message.event_id == f"{JOB_ID}/3/failed"
    assert message.text == (
        "The GPU job of task train in DAG nightly has failed on gpu_lab after 3 min.\n\n"
        "A module is not installed: No module named 'torchvision' (train.py:3).\n\n"
        "What to do: Name it in requirements.\n\n"
        "Task:        train\n"
        "DAG:         nightly\n"
        "Run:         scheduled__2026-11-28T01:00:00+00:00\n"
        "Try:         1 of 4\n"
        f"Job:         {JOB_ID}\n"
        "Cluster:     gpu_lab (ada@gpu01:22)\n"
        "Host:        gpu01\n"
        "Attempt:     3\n"
        "Recoveries:  1 (1 preempted)\n"
        "GPUs:        2 (indexes 0, 1)\n"
        "Ran for:     3 min\n"
        "Before that: 20 min 20 s in the queue\n"
        "GPU-hours:   0.10\n"
        "GPU use:     41 % in the mean, 99 % at most, idle for 1 min 30 s\n"
        "GPU memory:  79.0 GiB at most of 80.0 GiB on one GPU\n"
        "Energy:      1.00 kWh\n"
        "Processors:  2.1 of 16 busy in the mean\n"
        "Host memory: 3.00 GiB at most of 64.00 GiB\n"
        "Progress:    step 40 of 100 (40%), loss 0.31\n"
        "Exit code:   1\n"
        f"Directory:   /home/ada/ml-jobs/{JOB_ID}\n\n"
        "Metrics:\n  loss:         0.3\n  val.accuracy: 0.981\n\n"
        "Earlier attempts:\n  2: preempted on gpu02\n\n"
        "Its last lines:\n"
        "  Traceback (most recent call last):\n"
        "  ModuleNotFoundError: No module named 'torchvision'\n\n"
        "GPU job: https://airflow.example.org/dags/nightly/plugin/gpu-job?a=1&b=2\n"
        "Task in Airflow: https://airflow.example.org/dags/nightly\n"
    )
    assert 'href="https://airflow.example.org/dags/nightly/plugin/gpu-job?a=1&amp;b=2"' in message.html
    assert message.short == (
        "Failed: nightly.train on gpu_lab (missing module)\n"
        "The GPU job of task train in DAG nightly has failed on gpu_lab after 3 min.\n\n"
        "A module is not installed: No module named 'torchvision' (train.py:3).\n\n"
        "What to do: Name it in requirements.\n\n"
        "GPUs: 2 (indexes 0, 1)\nGPU-hours: 0.10\nGPU use: 41 % in the mean, 99 % at most, idle for 1 min 30 s\n"
        "Progress: step 40 of 100 (40%), loss 0.31\nExit code: 1\n\n"
        "Its last lines:\n  Traceback (most recent call last):\n"
        "  ModuleNotFoundError: No module named 'torchvision'\n\n"
        "GPU job: https://airflow.example.org/dags/nightly/plugin/gpu-job?a=1&b=2\n"
        "Task in Airflow: https://airflow.example.org/dags/nightly"
    )
    assert message.payload["gpu_hours"] == 0.1
    assert message.payload["verdict"] == {"reason": "user_error", "kind": "missing_module"}
    assert message.payload["metrics"] == {"loss": 0.3, "val.accuracy": 0.981}
    assert message.payload["links"]["job"] == TASK.job_url


@pytest.mark.parametrize(
    ("reason", "kind", "title"),
    [
        ("user_error", "failed", "Failed"),
        ("time_limit", "timed_out", "Timed out"),
        ("idle", "idle", "Stopped as idle"),
        ("out_of_memory", "resources_exhausted", "Out of memory"),
        ("gpu_out_of_memory", "resources_exhausted", "Out of GPU memory"),
        ("disk_full", "resources_exhausted", "Disk full"),
        ("node_failure", "system_error", "Node failed"),
        ("preempted", "system_error", "Preempted"),
        ("launch_failed", "system_error", "Could not start"),
        ("orphaned", "system_error", "Ended as an orphan"),
        ("hang", "failed", "Hung"),
        ("checkpointed", "failed", "Started again too often"),
        ("a_reason_of_a_later_version", "failed", "Failed"),
        (None, "failed", "Failed"),
    ],
)
def test_each_reason_has_its_kind_and_its_words(reason: str | None, kind: str, title: str) -> None:
    message = told(message_of_end(replace(ENDED, reason=reason, kind=reason), ABOUT))
    assert (message.kind, message.payload["title"]) == (kind, title)


def test_every_reason_has_words_of_its_own() -> None:
    titles = {kinds.opening_of_reason(reason).title for reason in protocol.REASONS}
    assert len(titles) == len(protocol.REASONS)


@pytest.mark.parametrize(
    ("state", "kind", "subject"),
    [
        (JobState.SUCCEEDED, "completed", "Completed: nightly.train on gpu_lab after 3 min"),
        (JobState.CANCELLED, "cancelled", "Cancelled: nightly.train on gpu_lab"),
        (JobState.LOST, "system_error", "Lost: nightly.train on gpu_lab"),
    ],
)
def test_each_final_state_has_its_kind(state: JobState, kind: str, subject: str) -> None:
    message = told(message_of_end(replace(ENDED, state=state, reason=None, kind=None), ABOUT))
    assert (message.kind, message.event, message.subject) == (kind, kind, subject)


@pytest.mark.parametrize(
    ("condition", "status", "facts", "subject", "headline"),
    [
        (
            "queued_for",
            JobStatus(JOB_ID, JobState.QUEUED, attempt=1, message="it waits for 2 GPUs", queue_place=3),
            {"limit_s": 1800, "for_s": 1834.2},
            "Still waiting: nightly.train on gpu_lab, for 31 min",
            "The GPU job of task train in DAG nightly on gpu_lab has been waiting for 31 min. "
            "It has place 3 in the queue.",
        ),
        (
            "no_progress_for",
            RUNNING,
            {"limit_s": 1200, "for_s": 1201},
            "No progress: nightly.train on gpu_lab, for 20 min",
            "The GPU job of task train in DAG nightly on gpu_lab runs, and has made no progress for 20 min.",
        ),
        (
            "time_limit_in",
            RUNNING,
            {"left_s": 61.0},
            "Time limit near: nightly.train on gpu_lab, in 1 min 1 s",
            "The GPU job of task train in DAG nightly on gpu_lab will reach its time limit in 1 min 1 s, "
            "and will be stopped then.",
        ),
        (
            "recovered",
            RUNNING,
            {},
            "Went on: nightly.train on gpu_lab (attempt 3; preempted)",
            "The GPU job of task train in DAG nightly on gpu_lab was preempted, and goes on by itself as attempt 3.",
        ),
        (
            "idle",
            replace(
                RUNNING,
                idle={
                    "level": "half",
                    "since": "2026-11-28T01:00:03+00:00",
                    "idle_s": 900.0,
                    "percent": 1.7,
                    "min_percent": 5.0,
                    "window_s": 1800.0,
                    "on_idle": "cancel",
                },
            ),
            {},
            "Idle: nightly.train on gpu_lab, for 15 min",
            "The GPU job of task train in DAG nightly on gpu_lab has left its GPUs idle for 15 min. "
            "It used 2 % of them in the mean; below 5 % is idle. "
            "If it goes on like this, it will be stopped after 30 min.",
        ),
        (
            "idle",
            replace(ENDED, reason="idle", kind="idle", message="its GPUs were idle"),
            {"for_s": 0.0},
            "Idle: nightly.train on gpu_lab",
            "The GPU job of task train in DAG nightly on gpu_lab has left its GPUs idle, and was stopped for that.",
        ),
        (
            "idle",
            RUNNING,
            {"for_s": 900.0},
            "Idle: nightly.train on gpu_lab, for 15 min",
            "The GPU job of task train in DAG nightly on gpu_lab has left its GPUs idle for 15 min.",
        ),
    ],
)
def test_a_job_that_waits_or_runs_is_told_about(
    condition: str, status: JobStatus, facts: dict[str, float], subject: str, headline: str
) -> None:
    message = told(message_of_condition(condition, status, ABOUT, facts=facts))
    assert (message.kind, message.subject, message.payload["headline"]) == (condition, subject, headline)
    assert message.event_id == f"{JOB_ID}/{status.attempt}/{condition}"


def test_a_warning_of_an_idle_job_and_its_end_are_two_events() -> None:
    warning = message_of_condition("idle", RUNNING, ABOUT, facts={})
    end = message_of_end(replace(ENDED, reason="idle", kind="idle"), ABOUT)
    assert warning.kind == end.kind == "idle"
    assert warning.event_id != end.event_id


@pytest.mark.parametrize(
    ("error", "kind", "title"),
    [
        (GpuClusterConnectionError("gpu01: no answer"), "system_error", "Cluster out of reach"),
        (GpuClusterAuthenticationError("gpu01 refuses the key"), "system_error", "Login refused"),
        (LaunchError("no such partition"), "system_error", "Could not start"),
        (NoSpaceError("the disk is full"), "resources_exhausted", "Disk full"),
        (InvalidJobError("gpus=-1"), "failed", "Failed"),
        (RuntimeError("boom"), "failed", "Failed"),
        (None, "failed", "Failed"),
    ],
)
def test_a_task_that_fails_before_its_job_ends_is_told_about(
    error: BaseException | None, kind: str, title: str
) -> None:
    message = told(message_of_error(error, None, About(task=TASK)))
    assert (message.kind, message.payload["title"]) == (kind, title)
    assert message.event_id == f"nightly/scheduled__2026-11-28T01%3A00%3A00%2B00%3A00/train/-1/1/{kind}"
    assert error is None or str(error)[1:] in message.text


def test_it_is_said_whether_the_job_still_runs_and_whether_airflow_tries_again() -> None:
    about = replace(ABOUT, task=replace(TASK, will_retry=True))
    message = told(message_of_error(RuntimeError("boom"), RUNNING, about))
    assert message.payload["headline"] == (
        "Task train in DAG nightly has failed. Its job is running on gpu_lab. Airflow will try it again."
    )
    assert message.subject.endswith(", will be tried again")
    unknown = told(message_of_error(None, replace(RUNNING, state=JobState.UNKNOWN), ABOUT))
    assert unknown.payload["headline"].endswith("The state of its job on gpu_lab could not be determined.")


def test_the_message_about_an_array_counts_its_elements_and_is_an_event_of_the_task() -> None:
    elements = ((JobState.SUCCEEDED, None), (JobState.FAILED, "user_error"), (JobState.FAILED, "time_limit"))
    status = JobStatus(JOB_ID, JobState.FAILED, reason="user_error", elements=elements)
    message = told(message_of_end(status, ABOUT))
    assert "Elements:  3: 1 succeeded, 2 failed" in message.text
    assert message.event_id.startswith("nightly/scheduled__")


def test_little_is_known_and_nothing_is_made_up() -> None:
    message = told(message_of_end(JobStatus("j", JobState.SUCCEEDED), About()))
    assert message.text == "GPU job j has completed.\n\nJob: j\n"
    assert set(message.payload) == {"schema", "event_id", "event", "title", "subject", "headline", "job"}


def test_secrets_are_hidden_in_all_forms() -> None:
    mask_secret("airflow-knows-this")
    said = "airflow-knows-this given-to-the-job"
    status = replace(
        ENDED,
        masks=masks_of(["given-to-the-job"]),
        message=said,
        remedy=said,
        log_tail=f"{said}\n",
        progress={"note": said},
        attempts=({"attempt": 1, "reason": "user_error", "message": said},),
    )
    about = replace(ABOUT, metrics={"note": said, "deep": {"note": said}}, note=said)
    for message in (
        told(message_of_end(status, about, error=RuntimeError(said))),
        told(message_of_error(RuntimeError(said), replace(status, state=JobState.RUNNING), about)),
        told(message_of_condition("recovered", status, about, facts={})),
    ):
        for form in (message.subject, message.text, message.html, message.json, message.slack, message.short):
            assert "airflow-knows-this" not in form
            assert "given-to-the-job" not in form
        assert "***" in message.text


def test_the_example_in_the_documentation_fits_the_schema() -> None:
    (example,) = re.findall("```json\n(.*?)```", (REPOSITORY / "docs/notifications.md").read_text(), re.DOTALL)
    Draft202012Validator(SCHEMA).validate(json.loads(example))


_TRICKS = (
    "<script>alert(1)</script> \x1b[31mred\x1b[0m \u202egnp.exe\u2066 \x00 {{ 7 * 7 }} & \ud800 @everyone <!channel>"
)


def test_whatever_a_job_prints_and_is_called_a_message_is_harmless_and_short() -> None:
    status = replace(
        ENDED,
        message=_TRICKS * 1000,
        remedy=_TRICKS,
        kind=_TRICKS,
        host=_TRICKS,
        log_tail="x" * 3_000_000 + f"\n{_TRICKS}\rlast state\n" + _TRICKS + "y" * 200_000,
        progress={"step": math.nan, _TRICKS: math.inf, "big": 10**400, "n": [1]},
        usage={"gpu_mean_percent": math.nan, "gpus": "none", "cpus_mean": math.inf},  # type: ignore[typeddict-item]
        seconds={"queued": math.nan},
        gpu_seconds=math.nan,
        started_at="yesterday",
        attempts=tuple({"attempt": n, "reason": _TRICKS, "started_at": "?"} for n in range(200)),
        recovered={_TRICKS: 3},
    )
    task = replace(TASK, dag_id=_TRICKS, task_id="t" * 3000, run_id=_TRICKS)
    metrics: dict[str, Any] = {_TRICKS * 100: math.nan, "a": {"b": {"c": {"d": 1}}}, "x": 10**400}
    metrics |= {f"m{n}": -math.inf for n in range(5000)}
    message = told(message_of_end(status, replace(ABOUT, task=task, metrics=metrics)))
    assert "<script" not in message.html
    assert "{{ 7 * 7 }}" in message.html
    assert "@everyone" not in message.short
    assert "<!channel>" not in message.slack
    assert len(message.json) < 100_000
    assert "190 attempts before these" in message.text
    assert "NaN" not in message.text.partition("Metrics:")[0]


def test_a_secret_that_is_cut_in_two_does_not_show_its_second_half() -> None:
    secret = "s" * 100 + "e" * 100
    output = "a" * 1000 + secret + "b" * ((1 << 16) - 100)
    message = message_of_end(replace(ENDED, masks=masks_of([secret]), log_tail=output), ABOUT)
    assert "e" * 50 not in message.json
