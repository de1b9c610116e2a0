"""A Slurm cluster driven without SSH: the program's own functions, in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from airflow_provider_gpu_cluster.gpu_run.engines.slurm.engine import SlurmEngine
from airflow_provider_gpu_cluster.gpu_run.protocol.status import Standing
from airflow_provider_gpu_cluster.gpu_run.store.directories import Attempt
from tests.gpu_run.engines.slurm.conftest import INTERVAL_S
from tests.gpu_run.host import Host


class SlurmRoot(Host):
    """
    One root of one user on a Slurm cluster; SLURM_CONF must lead there.

    :param folder: holds the root.
    """

    def __init__(self, folder: Path, **settings: Any) -> None:
        super().__init__(folder, engine="slurm", slurm_interval_s=INTERVAL_S, **settings)
        self._engine = SlurmEngine(self.root, self.settings, self.program, 20.0)

    @property
    def engine(self) -> SlurmEngine:  # type: ignore[override]
        # As a watch does before every look.
        self._engine.refresh()
        return self._engine

    def attempts(self, count: int, command: str, **spec: Any) -> list[Attempt]:
        """Make attempts of new jobs that run shell text, without launching them."""
        launched: list[Attempt] = []
        engine = self._engine
        launch, engine.launch = engine.launch, launched.extend  # type: ignore[method-assign, assignment]
        standing, engine.standing = engine.standing, lambda *_: Standing(state="QUEUED")  # type: ignore[method-assign]
        try:
            for _ in range(count):
                self.submit(command, **spec)
        finally:
            engine.launch, engine.standing = launch, standing  # type: ignore[method-assign]
        return launched
