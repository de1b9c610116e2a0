"""Jobs that the hook of a pool launches, on real clusters."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_gpu_cluster.exceptions import NoClusterFitsError, PlacementUnknownError
from airflow_provider_gpu_cluster.hooks import pool_launch
from airflow_provider_gpu_cluster.hooks.gpu_cluster import GpuClusterHook
from tests.harness.ports import free_port


def test_a_job_goes_where_it_fits_and_is_found_there_again(lab: list[str]) -> None:
    with GpuClusterHook("lab") as hook:
        large = hook.submit(job_id="large", command="true", gpus=4)
        assert large["gpu_cluster_conn_id"] == "gpu01"
        small = hook.submit(job_id="small", command="sleep 30", gpus=2)
        assert small["gpu_cluster_conn_id"] == "gpu02"
        assert hook.submit(job_id="small", command="sleep 30", gpus=2) == small
        with pytest.raises(NoClusterFitsError, match=r"gpu01: .*\n  gpu02: "):
            hook.submit(job_id="giant", command="true", gpus=5)
        assert [attempt["act"] for attempt in hook.audit(small)].count("submit") == 1
        hook.cancel(small)


def test_a_job_is_not_launched_while_it_may_be_on_a_cluster_that_is_away(
    lab: list[str], gpu_cluster_conn: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_launch, "RETRY_FOR_S", 0.0)
    away = {**gpu_cluster_conn, "port": free_port()}
    monkeypatch.setenv("AIRFLOW_CONN_GPU01", json.dumps(away))
    with GpuClusterHook("lab") as hook, pytest.raises(PlacementUnknownError, match=r"remembered nowhere.*gpu01"):
        hook.submit(job_id="job", command="true")
