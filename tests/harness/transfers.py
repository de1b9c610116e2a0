"""The transfers that a cluster's ledger has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from airflow_provider_gpu_cluster.gpu_run.ledger.ledger import Ledger
from airflow_provider_gpu_cluster.gpu_run.store.directories import Root


def transfers(root_dir: str, direction: str) -> list[dict[str, Any]]:
    """
    Return the lines of the transfers in one direction, oldest first.

    :param direction: ``in`` or ``out``.
    """
    lines = Ledger(Root(root_dir).own).lines(kinds=["transfer"])
    return [line for line in lines if line["direction"] == direction]


def size_of(folder: Path) -> int:
    """Return the size of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
