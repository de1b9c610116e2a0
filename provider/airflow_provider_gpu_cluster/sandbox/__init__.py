"""
Clusters on this machine: SSH servers on loopback with virtual GPUs, for trying things out and for tests.

``python -m airflow_provider_gpu_cluster.sandbox`` starts one; :class:`Sandbox` is the same as a context
manager.
"""

from __future__ import annotations

from airflow_provider_gpu_cluster.sandbox.sandbox import Sandbox

__all__ = ["Sandbox"]
