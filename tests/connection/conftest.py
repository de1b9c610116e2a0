"""Clusters that have nothing yet: how the program gets there is what these tests are about."""

from __future__ import annotations

import shutil

import pytest

from airflow_provider_gpu_cluster.connection.settings import ClusterSettings


@pytest.fixture
def cluster_settings(cluster_settings: ClusterSettings) -> ClusterSettings:
    """Return the settings of a cluster whose root does not exist."""
    shutil.rmtree(cluster_settings.root_dir)
    return cluster_settings
