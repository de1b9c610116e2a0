"""A job of a pool whose inputs a task before has staged on one of two real clusters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paramiko
import pytest

from airflow_provider_gpu_cluster.connection.settings import ClusterSettings
from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError
from airflow_provider_gpu_cluster.pools import staged
from airflow_provider_gpu_cluster.pools.staged import Staged
from airflow_provider_gpu_cluster.sources import parse_sources
from tests.harness import jobs
from tests.harness.moving_job import JOB_ID, MovingJob
from tests.servers.proxy import CutProxy

Connect = Callable[..., paramiko.SSHClient]

# Shows which code and data it has.
SHOW = "cat $JOB_DIR/code/train.py $JOB_DIR/data/*; sleep 600"


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """Return a folder with the job's inputs as its author has written them."""
    folder = tmp_path / "written"
    (folder / "code").mkdir(parents=True)
    (folder / "code" / "train.py").write_text("code as staged\n")
    (folder / "digits.csv").write_text("data as staged\n")
    return folder


@pytest.fixture
def job(pool: list[ClusterSettings], ssh_connect: Connect, tmp_path: Path, written: Path) -> Iterator[MovingJob]:
    """Return a job that another task has staged on the first cluster, and whose inputs have changed since."""
    ports: dict[int, int] = {}
    job = MovingJob(
        pool, lambda number: ssh_connect(ports.get(number)), tmp_path / "store.json", ports=ports, command=SHOW
    )
    job.members("gpu01").stage(JOB_ID, sources_in(written), record=jobs.record(task_id="stage"))
    (written / "code" / "train.py").write_text("code as it is now\n")
    job.sources = Staged("gpu01", lambda: sources_in(written))
    try:
        yield job
    finally:
        job.close()


def sources_in(written: Path) -> Any:
    return parse_sources(code="code", data="digits.csv", models=None, base_dir=written)


def shown(job: MovingJob, number: int) -> str:
    log = Path(job.settings[number].root_dir) / JOB_ID / "logs" / "training.log"
    return log.read_text() if log.exists() else ""


def test_it_is_launched_as_it_was_staged_and_moves_with_that(
    job: MovingJob, eventually: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = job.members("gpu01"), job.members("gpu02")
    jobs.submit(first, "sleep 600", job_id="hog", gpus=1, time_limit_s=7200.0)
    # The other one would be ready first.
    assert job.begin() == "gpu01"
    said = capsys.readouterr().out
    assert "gpu01 is chosen: its inputs are staged there" in said
    moved = job.moved()
    assert moved is not None
    assert moved.record.conn_id == "gpu02"
    eventually(lambda: "data as staged" in shown(job, 1))
    assert "code as staged" in shown(job, 1)
    assert [one["job_id"] for one in first.jobs()["jobs"]] == ["hog"]
    assert "2 files (0.0 MB) brought along" in capsys.readouterr().out
    # Its next try goes on there, and later back to where another task has staged it.
    job.key = "try-2"
    assert job.begin() == "gpu02"
    second.cancel([JOB_ID], requested_by="a test", wait_s=20)
    first.cancel(["hog"], requested_by="a test", wait_s=20)
    jobs.submit(second, "sleep 600", job_id="hog", gpus=1, time_limit_s=7200.0)
    job.key = "try-3"
    assert job.begin() == "gpu01"
    eventually(lambda: "data as staged" in shown(job, 0))
    assert first.statuses([JOB_ID])[0].attempt == 2


def test_it_is_staged_again_elsewhere_when_its_cluster_is_lost(
    job: MovingJob, cut_proxy: CutProxy, monkeypatch: pytest.MonkeyPatch, eventually: Callable[..., Any]
) -> None:
    monkeypatch.setattr(staged, "WAIT_S", 0.5)
    monkeypatch.setattr(staged, "RETRY_FOR_S", 0.5)
    job.close()
    job.ports[0] = cut_proxy.port
    cut_proxy.refusing = True
    job.sources, sources = Staged("gpu01"), job.sources
    with pytest.raises(GpuClusterConnectionError, match="Clear the task that has staged them"):
        job.begin()
    job.sources = sources
    assert job.begin() == "gpu02"
    eventually(lambda: "data as staged" in shown(job, 1))
    assert "code as it is now" in shown(job, 1)
    cut_proxy.refusing = False
    # The next try finds it where it is.
    job.key = "try-2"
    assert job.begin() == "gpu02"
    assert not job.members("gpu01").jobs()["jobs"]


def test_its_directory_is_gone(job: MovingJob, eventually: Callable[..., Any]) -> None:
    first = Path(job.settings[0].root_dir) / JOB_ID
    first.rename(first.with_name("lost"))
    assert job.begin() == "gpu02"
    eventually(lambda: "code as it is now" in shown(job, 1))
