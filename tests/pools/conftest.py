"""Clusters of a pool: each has a folder and GPUs of its own, behind one SSH server, which a proxy may cut."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from airflow_provider_gpu_cluster.connection.settings import ClusterSettings
from tests.harness.leftovers import kill_everything_under
from tests.harness.unpacked_program import provide_unpacked


@pytest.fixture
def pool(cluster_settings: ClusterSettings, tmp_path: Path) -> Iterator[list[ClusterSettings]]:
    """Return the settings of two clusters with one GPU each."""
    folder = tmp_path / "other"
    provide_unpacked(folder / "ml-jobs")
    first = replace(cluster_settings, conn_id="gpu01", virtual_gpus=1)
    second = replace(first, conn_id="gpu02", root_dir=str(folder / "ml-jobs"), lease_dir=str(folder / "leases"))
    try:
        yield [first, second]
    finally:
        kill_everything_under(folder)
