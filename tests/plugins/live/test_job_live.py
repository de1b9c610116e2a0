"""Pages of a job that stay open: behind a real sshd, a real uvicorn and Airflow's own login."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_provider_gpu_cluster.cluster import Cluster
from tests.harness import jobs
from tests.harness.api_server import launched
from tests.plugins.live.conftest import Server
from tests.servers.proxy import CutProxy
from tests.watch.test_watcher import steps

pytestmark = pytest.mark.usefixtures("gpu_cluster_conn", "quick")


@pytest.fixture
def job(cluster: Cluster, tmp_path: Path) -> Callable[..., str]:
    """Return the address of a job that goes on by a step for each file ``go-n``."""
    submission = jobs.submit(cluster, steps(tmp_path, 3), job_id="job", gpus=1)
    return launched(submission.handle.to_json())


def test_twenty_pages_of_a_job_are_one_connection_and_one_look(
    server: Server, job: Callable[..., str], proxied: CutProxy, tmp_path: Path
) -> None:
    pages = [server.open(job("/live"), user=f"user-{number}", follow_log=True) for number in range(20)]
    for page in pages:
        page.until_state("RUNNING")
        page.until("log")
    written_at = time.monotonic()
    (tmp_path / "go-1").touch()
    for page in pages:
        page.until_line("line-1")
        page.until("progress", lambda message: message["points"][-1]["values"] == {"step": 1})
    assert time.monotonic() - written_at < 10
    assert proxied.connections == 1
