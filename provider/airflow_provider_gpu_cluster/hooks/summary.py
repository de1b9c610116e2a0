"""The message of "Test connection" for a cluster that works."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from airflow_provider_gpu_cluster.connection.settings import ClusterSettings

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.gpu_run.protocol.replies import Capacity, Check


def summary_of(settings: ClusterSettings, found: Check, *, warnings: Iterable[str] = ()) -> str:
    """
    Summarize the cluster's self-check in a few sentences.

    :param found: the reply of :meth:`~airflow_provider_gpu_cluster.cluster.Cluster.check`.
    :param warnings: what was found wrong on the Airflow side.
    """
    python, disk = found["python"], found["disk"]
    sentences = [
        f"Connected to {settings.name} (host {found['host']}) as {found['user']}.",
        f"Engine {found['engine']}: {_gpus(found['capacity'])}.",
        f"Python {python['version']} ({python['executable']}).",
        f"{disk['free'] / 1e9:.1f} GB free in {found['root_dir']}, where jobs get their directories.",
        *(f"Warning: {warning}." for warning in (*found["warnings"], *warnings)),
    ]
    return " ".join(sentences)


def _gpus(capacity: Capacity) -> str:
    if "launcher" in capacity:
        return f"jobs go to {capacity['launcher']}, which alone knows the GPUs"
    gpus = capacity["gpus"]
    free = Counter(gpu["type"] for gpu in gpus if gpu["free"])
    kinds = [f"{free[kind]} of {count} {kind} free" for kind, count in Counter(gpu["type"] for gpu in gpus).items()]
    waiting = capacity["waiting_jobs"]
    if waiting:
        kinds.append(f"{waiting} job{'' if waiting == 1 else 's'} waiting")
    return ", ".join(kinds) or "no GPUs"
