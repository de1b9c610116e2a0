"""Operators for GPU jobs: stage, submit, collect, cancel."""

from __future__ import annotations

from airflow_provider_gpu_cluster.operators.cancel import CancelGpuJobOperator
from airflow_provider_gpu_cluster.operators.collect import CollectGpuJobOperator
from airflow_provider_gpu_cluster.operators.stage import StageGpuJobOperator
from airflow_provider_gpu_cluster.operators.submit import SubmitGpuJobOperator

__all__ = ["CancelGpuJobOperator", "CollectGpuJobOperator", "StageGpuJobOperator", "SubmitGpuJobOperator"]
