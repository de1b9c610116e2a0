"""What becomes of a cluster's answer, whatever it says, and of none."""

from __future__ import annotations

import math
from typing import Any

import pytest
from airflow.sdk.log import mask_secret

from airflow_provider_gpu_cluster.connection.wire_types import WrongType, checked
from airflow_provider_gpu_cluster.exceptions import (
    GpuClusterConnectionError,
    GpuClusterError,
    GpuClusterSetupError,
    InvalidJobError,
)
from airflow_provider_gpu_cluster.gpu_run.protocol.appraisal import Appraisal
from airflow_provider_gpu_cluster.pools.choice import choose, whole_wait_s
from airflow_provider_gpu_cluster.pools.offer import Member, Offer, gpus_of, offer_of, offer_without_answer
from airflow_provider_gpu_cluster.pools.table import table_of

MEMBER = Member("gpu01", 1.0, 1.5)


def offer(**appraisal: Any) -> Offer:
    return offer_of(MEMBER, checked(appraisal, Appraisal), needs_gpus=2, clock_ahead_s=0.25)


def test_an_answer_becomes_an_offer() -> None:
    assert offer(
        fits=True,
        free_gpus=3,
        gpus=4,
        starts_in_s=60,
        start_known_by="queue",
        waiting=2,
        missing_bytes=3_000_000,
        bytes_per_s=1e6,
        is_environment_built=True,
        placed={"kind": "fence"},
        remark="the queue is long",
    ) == Offer(
        MEMBER,
        True,
        free_gpus=3,
        gpus=4,
        needs_gpus=2,
        starts_in_s=60.0,
        start_known_by="queue",
        waiting=2,
        missing_bytes=3_000_000,
        send_s=3.0,
        is_environment_built=True,
        price_per_gpu_hour=1.5,
        remark="the queue is long",
        placed={"kind": "fence"},
        clock_ahead_s=0.25,
    )


@pytest.mark.parametrize(
    "appraisal",
    [
        {},
        {"free_gpus": -1, "gpus": -4, "waiting": -1, "starts_in_s": -60, "missing_bytes": -5, "bytes_per_s": -1},
        {"starts_in_s": 1e300, "missing_bytes": (1 << 63) - 1, "bytes_per_s": 1e-300, "gpus": 1 << 62},
        {"likely_in_s": 1e300, "waiting": 1 << 40},
        {"likely_in_s": -1, "free_gpus": 1},
        {"starts_in_s": 1e9, "missing_bytes": 1, "bytes_per_s": 0.0},
        {"starts_in_s": "soon", "free_gpus": 1.5, "missing_bytes": None, "placed": "here", "remark": 7},
        {"starts_in_s": True, "is_environment_built": "no", "start_known_by": 5},
        {"remark": "\x1b[2J\r\n" * 1000, "why_not": "\x00" * 10_000},
    ],
)
def test_values_that_cannot_be_right_count_as_not_told(appraisal: dict[str, Any]) -> None:
    one = offer(fits=True, **appraisal)
    assert 0 <= whole_wait_s(one) < math.inf
    assert all(number is None or number >= 0 for number in (one.free_gpus, one.gpus, one.waiting, one.starts_in_s))
    for shown in (table_of(choose([one, one])), table_of(choose([one, offer(**{"fits": False, **appraisal})]))):
        assert max(map(len, shown.splitlines())) < 320
        assert all(line.isprintable() for line in shown.split("\n"))


@pytest.mark.parametrize("appraisal", [{}, {"fits": None}, {"fits": "yes"}, [], "no"])
def test_an_answer_that_does_not_say_whether_the_job_fits_is_none(appraisal: Any) -> None:
    with pytest.raises(WrongType):
        checked(appraisal, Appraisal)


def test_a_refusal_tells_why() -> None:
    assert offer(fits=False, why_not="it has 1 GPU").why_not == "it has 1 GPU"
    assert offer(fits=False).why_not == "it does not say why"
    assert offer(fits=False, why_not="its disk is full", is_passing=True).is_passing
    assert not offer(fits=True, is_passing=True).is_passing


def of_code(error: GpuClusterError, code: str) -> GpuClusterError:
    error.code = code
    return error


@pytest.mark.parametrize(
    ("error", "answered", "why_not"),
    [
        (
            GpuClusterConnectionError("cluster me@gpu01:22 (connection gpu01): no answer within 10 s"),
            False,
            "no answer within 10 s",
        ),
        (GpuClusterSetupError("there is no python3 on the cluster"), False, "there is no python3 on the cluster"),
        (InvalidJobError("cpus is -1"), True, "cpus is -1"),
        (
            of_code(InvalidJobError("cluster x: 'appraise' cannot be called over gpu-run watch"), "bad_request"),
            False,
            "its program does not know how to appraise a job: it is of an earlier version of this provider",
        ),
        (
            GpuClusterSetupError("x: gpu-run appraise ended with exit code 2 and no reply; it said: usage: gpu-run"),
            False,
            "its program does not know how to appraise a job: it is of an earlier version of this provider",
        ),
        (GpuClusterError("a\nb\tc\x1b[31m"), False, "a b c?[31m"),
        (GpuClusterError(""), False, "gpu cluster error"),
        pytest.param(GpuClusterError("x" * 1000), False, "x" * 300 + "… (700 more characters)", id="long"),
    ],
)
def test_no_answer_is_a_row_that_says_why(error: GpuClusterError, answered: bool, why_not: str) -> None:
    one = offer_without_answer(MEMBER, error, needs_gpus=2)
    assert (one.fits, one.answered, one.why_not, one.price_per_gpu_hour) == (False, answered, why_not, 1.5)


def test_secrets_are_hidden() -> None:
    mask_secret("hunter2-hunter2")
    error = GpuClusterError("the password hunter2-hunter2 was refused")
    assert "hunter2" not in offer_without_answer(MEMBER, error, needs_gpus=1).why_not
    assert "hunter2" not in offer(fits=False, why_not="token hunter2-hunter2").why_not


def test_gpus_are_those_of_all_nodes() -> None:
    assert gpus_of({"job_id": "j", "spec": {"gpus": 4, "nodes": 2}, "inputs": []}) == 8
    assert gpus_of({"job_id": "j", "spec": {"gpus": 4}, "inputs": None}) == 4
