"""What would help the next job of a kind, and when there is nothing to say."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_gpu_cluster.gpu_run.protocol import array_status
from airflow_provider_gpu_cluster.jobs.advice import advice_of
from airflow_provider_gpu_cluster.jobs.status import JobState, JobStatus

GIB = 1 << 30
BUSY = {"mean_percent": 80.0, "peak_percent": 100.0, "peak_memory_bytes": 60 * GIB, "memory_bytes": 80 * GIB}
SLOW = {**BUSY, "mean_percent": 4.0}
UNUSED = {"mean_percent": 0.0, "peak_percent": 0.0, "peak_memory_bytes": 0, "memory_bytes": 80 * GIB}
SMALL = {**BUSY, "mean_percent": 40.0, "peak_memory_bytes": GIB}
UNMEASURED = {"peak_memory_bytes": GIB}


def ended(
    *gpus: dict[str, Any],
    state: str = "SUCCEEDED",
    reason: str | None = None,
    peak: int | None = None,
    seconds: dict[str, Any] | None = None,
    asked: dict[str, Any] | None = None,
    **usage: Any,
) -> dict[str, Any]:
    """Return the status of a job that ran for an hour, as the cluster sends it."""
    return {
        "job_id": "j",
        "state": state,
        "reason": reason,
        "peak_memory_bytes": peak,
        "usage": {"source": "nvml", "samples": 120, "cpus": 16, "cpus_mean": 8.0, "gpus": list(gpus), **usage},
        "seconds": {"queued": 1.0, "running": 3600.0, **(seconds or {})},
        "asked": asked or {},
    }


def advice(status: dict[str, Any]) -> list[str]:
    known: Any = status
    return advice_of(JobStatus.from_json(known))


@pytest.mark.parametrize(
    ("status", "sentences"),
    [
        pytest.param(ended(BUSY), [], id="nothing"),
        pytest.param(
            ended(SLOW, cpus_mean=2.04),
            [
                "GPU use was 4 % in the mean; the job waited, most likely for its data: 2 of 16 cores were busy; more "
                "processes that load it may help"
            ],
            id="waits for data",
        ),
        pytest.param(
            ended(SLOW, cpus=4, cpus_mean=3.9),
            [
                "GPU use was 4 % in the mean; the job was short of processors: 3.9 of 4 cores were busy; more cpus "
                "would help"
            ],
            id="short of processors",
        ),
        pytest.param(
            ended(SLOW, cpus_mean=0.02),
            [
                "GPU use was 4 % in the mean; the job waited, most likely for its data: none of 16 cores was busy; "
                "more processes that load it may help"
            ],
            id="slow, and nothing was busy",
        ),
        pytest.param(
            ended(SLOW), ["GPU use was 4 % in the mean, while 8 of 16 cores were busy"], id="neither of the two"
        ),
        pytest.param(ended(BUSY, UNUSED), ["2 GPUs were leased, 1 was used"], id="one unused"),
        pytest.param(ended(*[BUSY] * 3, *[UNUSED] * 5), ["8 GPUs were leased, 3 were used"], id="some unused"),
        pytest.param(
            ended(UNUSED),
            ["its GPU was never used; what needs no GPU need not wait for one, nor keep others waiting"],
            id="never used",
        ),
        pytest.param(
            ended(SMALL),
            ["at most 1 GiB of 80 GiB of GPU memory was in use; a larger batch, or a smaller GPU, may do"],
            id="GPU memory",
        ),
        pytest.param(ended({**SMALL, "mean_percent": 90.0}), [], id="little GPU memory and busy"),
        pytest.param(
            ended(BUSY, peak=int(3.1 * GIB), asked={"memory_bytes": 64 * GIB}),
            ["asked for 64 GiB of host memory, used 3.1 GiB; memory='5G' would do"],
            id="host memory",
        ),
        pytest.param(
            ended(BUSY, peak=62 * GIB, asked={"memory_bytes": 64 * GIB}),
            ["used 62 GiB of its 64 GiB of host memory, which is nearly all; memory='83G' is safer"],
            id="host memory nearly full",
        ),
        pytest.param(
            ended(BUSY, seconds={"running": 2460.0}, asked={"time_limit_s": 86400.0}),
            ["time limit 24 h, ran 41 min; a shorter one may start sooner"],
            id="time limit",
        ),
        pytest.param(
            ended(BUSY, seconds={"running": 7100.0}, asked={"time_limit_s": 7200.0}),
            ["ran 1 h 58 min of a time limit of 2 h; a longer one is safer"],
            id="time limit nearly reached",
        ),
        pytest.param(
            ended(BUSY, seconds={"building": 2400.0, "queued": 2402.0}),
            [
                "its Python environment took 40 min, its code 1 h; an environment is built once for the same "
                "requirements and setup, so keep them the same"
            ],
            id="environment",
        ),
        pytest.param(
            ended(BUSY, seconds={"running": 240.0, "queued": 7200.0}),
            ["waited 2 h to run for 4 min; several such pieces of work in one job wait only once"],
            id="queue",
        ),
        pytest.param(
            ended(BUSY, cpus=32, cpus_mean=1.2, asked={"cpus": 32}),
            ["asked for 32 cores, 1.2 were busy in the mean"],
            id="cores",
        ),
    ],
)
def test_what_helps(status: dict[str, Any], sentences: list[str]) -> None:
    assert advice(status) == sentences


WASTEFUL: dict[str, Any] = {"peak": GIB, "asked": {"memory_bytes": 64 * GIB, "time_limit_s": 86400.0}}


@pytest.mark.parametrize(
    "status",
    [
        pytest.param(ended(SLOW, seconds={"running": 8.0}, **WASTEFUL), id="a few seconds"),
        pytest.param(ended(UNMEASURED), id="no percent"),
        pytest.param(ended(source="", why_not="no driver"), id="no GPU measured"),
        pytest.param(ended(UNUSED, UNMEASURED), id="one of two measured"),
        pytest.param(ended(UNUSED, samples=2), id="two samples"),
        pytest.param(ended(SLOW, state="FAILED", reason="out_of_memory", **WASTEFUL), id="out of memory"),
        pytest.param(ended(SLOW, state="FAILED", reason="idle", **WASTEFUL), id="idle"),
        pytest.param(ended(SLOW, state="CANCELLED", reason="cancelled", **WASTEFUL), id="cancelled"),
        pytest.param({"job_id": "j", "state": "SUCCEEDED"}, id="an older program"),
    ],
)
def test_when_there_is_nothing_to_say(status: dict[str, Any]) -> None:
    assert advice(status) == []


def test_the_most_useful_come_first_and_no_more_than_three() -> None:
    first, second, third = advice(ended(SLOW, UNUSED, cpus_mean=1.0, **WASTEFUL))
    assert (first, second[:11], third[:9]) == ("2 GPUs were leased, 1 was used", "GPU use was", "asked for")


def test_what_ran_into_its_time_limit_is_told_of_its_gpus_alone() -> None:
    (sentence,) = advice(ended(SLOW, state="FAILED", reason="time_limit", cpus_mean=1.0, **WASTEFUL))
    assert sentence.startswith("GPU use was 4 % in the mean; the job waited")


def test_an_array_is_told_once_for_all_its_elements() -> None:
    elements: Any = [
        ended(
            SLOW, UNUSED, cpus_mean=1.0, peak=number * GIB, seconds={"running": 600.0 * number}, asked=WASTEFUL["asked"]
        )
        for number in (1, 2, 3)
    ]
    status = array_status.summary("all", elements)
    assert JobStatus.from_json(status).state is JobState.SUCCEEDED
    assert advice_of(JobStatus.from_json(status)) == [
        "2 GPUs were leased, 1 was used",
        "GPU use was 4 % in the mean; the job waited, most likely for its data: 1 of 16 cores was busy; more processes "
        "that load it may help",
        "asked for 64 GiB of host memory, used 3 GiB; memory='4G' would do",
    ]
    elements[1] = {"job_id": "k", "state": "SUCCEEDED"}
    advice_of(JobStatus.from_json(array_status.summary("all", elements)))
