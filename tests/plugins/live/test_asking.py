"""What pages ask clusters, all over one connection."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_gpu_cluster.exceptions import (
    GpuClusterConnectionError,
    GpuClusterError,
    GpuClusterSetupError,
)
from airflow_provider_gpu_cluster.plugins.live import asking, clusters
from airflow_provider_gpu_cluster.plugins.live.asking import ask
from tests.harness.patience import PATIENCE_S
from tests.plugins.live.conftest import Change
from tests.servers.proxy import CutProxy


async def capacity(**how: Any) -> int:
    """Return how many GPUs the cluster has."""
    return len((await ask("gpu_cluster_default", "capacity", {}, **how))["gpus"])


def test_all_who_ask_share_a_connection(proxied: CutProxy) -> None:
    async def all_ask() -> list[int]:
        return await asyncio.gather(*(capacity(wait_s=PATIENCE_S) for _ in range(20)))

    assert asyncio.run(all_ask()) == [4] * 20
    assert asyncio.run(all_ask()) == [4] * 20
    assert proxied.connections == 1


def test_what_is_not_for_pages_is_refused(gpu_cluster_conn: dict[str, Any]) -> None:
    with pytest.raises(GpuClusterError, match="'cancel' cannot be called"):
        asyncio.run(ask("gpu_cluster_default", "cancel", {"job_ids": []}, wait_s=PATIENCE_S))


def test_a_connection_that_is_none_to_a_cluster_is_not_opened(change: Change) -> None:
    change(conn_type="postgres")
    with pytest.raises(GpuClusterSetupError, match="is of type postgres"):
        asyncio.run(capacity(wait_s=PATIENCE_S))


def test_a_cluster_out_of_reach_makes_nobody_wait_twice(
    proxied: CutProxy, monkeypatch: pytest.MonkeyPatch, eventually: Callable[..., Any]
) -> None:
    proxied.refusing = True
    with pytest.raises(GpuClusterConnectionError):
        asyncio.run(capacity(wait_s=PATIENCE_S))
    tried = proxied.connections
    began = time.monotonic()
    for _ in range(10):
        with pytest.raises(GpuClusterConnectionError):
            asyncio.run(capacity(wait_s=PATIENCE_S))
    assert time.monotonic() - began < asking.KEEP_OUTAGE_S
    assert proxied.connections == tried
    proxied.refusing = False
    monkeypatch.setattr(asking, "KEEP_OUTAGE_S", 0.0)

    def answers() -> bool:
        try:
            return asyncio.run(capacity(wait_s=PATIENCE_S)) == 4
        except GpuClusterConnectionError:
            return False

    eventually(answers)


def test_a_cluster_that_is_silent_makes_nobody_wait_for_long(
    proxied: CutProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert asyncio.run(capacity(wait_s=PATIENCE_S)) == 4
    proxied.freeze_now()
    with pytest.raises(GpuClusterConnectionError, match=r"not answered within 0\.2 s"):
        asyncio.run(capacity(wait_s=0.2))
    proxied.cut_now()
    assert asyncio.run(capacity(wait_s=PATIENCE_S)) == 4


def test_a_changed_connection_is_noticed(
    proxied: CutProxy, change: Change, gpu_cluster_conn: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert asyncio.run(capacity(wait_s=PATIENCE_S)) == 4
    extra = gpu_cluster_conn["extra"]
    change(port=proxied.port, extra={**extra, "virtual_gpus": 2, "lease_dir": extra["lease_dir"] + "-2"})
    assert asyncio.run(capacity(wait_s=PATIENCE_S)) == 4
    monkeypatch.setattr(clusters, "CHECK_S", 0.0)
    assert asyncio.run(capacity(wait_s=PATIENCE_S)) == 2
    assert proxied.connections == 2
