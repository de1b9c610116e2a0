"""What the log says of an outage."""

from __future__ import annotations

import logging

import pytest

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.connection.settings import ClusterSettings
from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError


def test_calls_that_fail_in_the_same_way_say_so_once(
    cluster_settings: ClusterSettings, caplog: pytest.LogCaptureFixture
) -> None:
    def refused() -> object:
        raise GpuClusterConnectionError("nothing accepts connections")

    cluster = Cluster(cluster_settings, refused, retry_for_s=0.05)  # type: ignore[arg-type]
    with caplog.at_level(logging.INFO, logger="airflow_provider_gpu_cluster.connection.session"):
        for _ in range(3):
            with pytest.raises(GpuClusterConnectionError):
                cluster.capacity()
    assert len([record for record in caplog.records if "trying again" in record.message]) == 1
