from __future__ import annotations

from typing import Any

import pytest
from airflow.sdk.observability.stats import Stats

from airflow_provider_gpu_cluster.gpu_run.protocol.replies import Capacity
from airflow_provider_gpu_cluster.hooks.capacity_gauges import send_gauges
from airflow_provider_gpu_cluster.hooks.gpu_cluster import GpuClusterHook


@pytest.fixture
def gauges(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    sent: dict[str, Any] = {}
    monkeypatch.setattr(Stats, "gauge", lambda name, value, *, tags: sent.update({name: (value, tags)}))
    return sent


@pytest.mark.usefixtures("gpu_cluster_conn")
def test_who_looks_at_the_capacity_sends_it_to_the_metrics(gauges: dict[str, Any]) -> None:
    with GpuClusterHook() as hook:
        assert hook.capacity()["free_gpus"] == 4
    tags = {"conn_id": "gpu_cluster_default"}
    assert gauges == {
        "gpu_cluster.gpus": (4, tags),
        "gpu_cluster.free_gpus": (4, tags),
        "gpu_cluster.broken_gpus": (0, tags),
        "gpu_cluster.waiting_jobs": (0, tags),
    }


def test_broken_gpus_are_counted(gauges: dict[str, Any]) -> None:
    fault: Any = {"gpu": "00000000:41:00.0", "why": "GPU is lost"}
    capacity: Capacity = {"gpus": [], "free_gpus": 0, "waiting_jobs": 2, "waiting_gpus": 2, "broken_gpus": [fault]}
    send_gauges(capacity, "host")
    assert gauges["gpu_cluster.broken_gpus"] == (1, {"conn_id": "host"})


def test_gpus_that_only_a_launcher_knows_are_no_zeros(gauges: dict[str, Any]) -> None:
    capacity: Capacity = {"gpus": [], "free_gpus": None, "waiting_jobs": 0, "waiting_gpus": 0, "launcher": "bsub"}
    send_gauges(capacity, "site")
    assert gauges == {}
