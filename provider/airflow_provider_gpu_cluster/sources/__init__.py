"""The sources of code, data and models: turns what a user writes into :class:`Source` values."""

from __future__ import annotations

from airflow_provider_gpu_cluster.sources.parse import parse_sources
from airflow_provider_gpu_cluster.sources.source import (
    ClusterSource,
    Entry,
    GitSource,
    Source,
    UploadSource,
)

__all__ = ["ClusterSource", "Entry", "GitSource", "Source", "UploadSource", "parse_sources"]
