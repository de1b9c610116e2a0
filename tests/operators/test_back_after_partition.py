"""A cluster comes back after a partition, whatever its job has done meanwhile: a task gets the outputs of one run."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import paramiko
import pytest

from airflow_provider_gpu_cluster.exceptions import GpuJobError
from airflow_provider_gpu_cluster.operators.gpu_job import CollectGpuJobOperator, SubmitGpuJobOperator
from airflow_provider_gpu_cluster.pools import keeping
from airflow_provider_gpu_cluster.watch import watch
from tests.harness.deferral import TaskLogs
from tests.harness.patience import PATIENCE_S
from tests.harness.pool_site import PoolSite, pool_site
from tests.harness.task_context import StateStore, TaskInstance, execute, task_context
from tests.servers.sshd import RealSshd

pytestmark = pytest.mark.long

FAILOVER_S, ORPHAN_S = 12.0, 8.0


@pytest.fixture
def site(
    tmp_path: Path, sshd: RealSshd, ssh_connect: Callable[..., paramiko.SSHClient], monkeypatch: pytest.MonkeyPatch
) -> Iterator[PoolSite]:
    """Return three clusters, and let everything that takes minutes take seconds."""
    monkeypatch.setattr(watch, "RETRY_FOR_S", 0.0)
    monkeypatch.setattr(keeping, "TELL_EVERY_S", 0.3)
    monkeypatch.setattr(keeping, "PLACE_EVERY_S", 0.5)
    names = ("gpu01", "gpu02", "gpu03")
    with pool_site(tmp_path / "pool", sshd, ssh_connect, monkeypatch, names=names) as site:
        yield site


class Task:
    """A task that waits for its job in another thread; the job ends on each cluster when the test says so."""

    def __init__(self, site: PoolSite, folder: Path, logs: TaskLogs) -> None:
        self.site = site
        self.folder = folder
        self.logs = logs
        self.store = StateStore()
        self.ti = TaskInstance("train", max_tries=1)
        self.first: dict[str, Any] = {}
        self.command = (
            f'echo "$JOB_ID $JOB_DIR" >> {site.runs}; cat "$CHECKPOINT_DIR"/* || true; '
            f'for name in gpu01 gpu02 gpu03; do case "$JOB_DIR" in */$name/*) here=$name;; esac; done; '
            f'echo "$here" > "$CHECKPOINT_DIR/1.pt"; echo "$here" > "$OUTPUT_DIR/$here"; '
            f"while [ ! -e {folder}/end-$here ]; do sleep 0.1; done; exit $(cat {folder}/end-$here)"
        )

    def start(self, order: list[str], *, try_number: int = 1) -> None:
        """Start a try."""
        self.ti.try_number = try_number
        operator = SubmitGpuJobOperator(
            task_id="train",
            gpu_cluster_conn_id=order,
            policy="in_order",
            command=self.command,
            wait_for_completion=True,
            failover_after=FAILOVER_S,
            orphan_timeout=ORPHAN_S,
            poll_interval=0.2,
            grace=0.5,
        )
        self.end: Future[Any] = Future()

        def run() -> None:
            try:
                self.end.set_result(execute(operator, task_context(self.ti, store=self.store)))
            except BaseException as error:
                self.end.set_exception(error)

        threading.Thread(target=run, daemon=True).start()

    def ends_on(self, name: str, exit_code: int) -> None:
        """Let the job end on a cluster."""
        (self.folder / f"end-{name}").write_text(str(exit_code))

    def told(self, name: str) -> dict[str, Any]:
        """Return what a cluster was told of the job."""
        notes = list((self.site.root(name) / ".gpu-run" / "placements").glob("*.json"))
        return dict(json.loads(notes[0].read_text())) if notes else {}

    def collected(self, handle: dict[str, Any]) -> list[str]:
        """Return of which clusters a task gets the outputs that has a handle."""
        folder = self.folder / f"home-{len(list(self.folder.glob('home-*')))}"
        collect = CollectGpuJobOperator(task_id="collect", job=handle, destination=str(folder))
        execute(collect, task_context(TaskInstance("collect")))
        return sorted(path.name for path in folder.rglob("gpu0*"))


@pytest.fixture
def task(site: PoolSite, tmp_path: Path, logs: TaskLogs) -> Task:
    return Task(site, tmp_path, logs)


def _until_there(site: PoolSite, name: str, eventually: Callable[..., Any], *, exit_code: int | None) -> None:
    if exit_code is not None:
        eventually(lambda: [one.end.get("exit_code") for one in site.attempts if one.conn_id == name] == [exit_code])


@pytest.mark.parametrize("did", ["waited", "ran", "succeeded", "failed"])
def test_it_is_back_after_the_failover(task: Task, site: PoolSite, eventually: Callable[..., Any], did: str) -> None:
    if did == "waited":
        site.block("gpu01")
    task.start(["gpu01", "gpu02"])
    eventually(lambda: site.alive == ["gpu01"] and "return_value" in task.ti.xcoms)
    if did != "waited":
        eventually(lambda: site.began() == ["gpu01"])
    first = dict(task.ti.xcoms["return_value"])
    site.cut("gpu01")
    if did in ("succeeded", "failed"):
        exit_code = 0 if did == "succeeded" else 3
        task.ends_on("gpu01", exit_code)
        _until_there(site, "gpu01", eventually, exit_code=exit_code)
    eventually(lambda: "gpu02" in site.began())
    site.mend("gpu01")
    eventually(lambda: task.told("gpu01").get("kind") == "end")
    if did == "waited":
        site.free("gpu01")
    task.ends_on("gpu02", 0)
    result = task.end.result(PATIENCE_S)
    assert result["gpu_cluster_conn_id"] == "gpu02"
    # Whoever has the handle of before gets the same.
    assert task.collected(result) == task.collected(first) == ["gpu02"]
    assert site.began() == ([] if did == "waited" else ["gpu01"]) + ["gpu02"]
    ended = {one.conn_id: one.end["state"] for one in site.attempts}
    states = {"waited": "CANCELLED", "ran": "CANCELLED", "succeeded": "SUCCEEDED", "failed": "FAILED"}
    assert ended == {"gpu01": states[did], "gpu02": "SUCCEEDED"}


@pytest.mark.parametrize("did", ["succeeded", "failed"])
def test_it_is_back_before_the_failover(task: Task, site: PoolSite, eventually: Callable[..., Any], did: str) -> None:
    task.start(["gpu01", "gpu02"])
    eventually(lambda: site.began() == ["gpu01"] and "return_value" in task.ti.xcoms)
    site.cut("gpu01")
    exit_code = 0 if did == "succeeded" else 3
    task.ends_on("gpu01", exit_code)
    _until_there(site, "gpu01", eventually, exit_code=exit_code)
    site.mend("gpu01")
    if did == "succeeded":
        assert task.collected(task.end.result(PATIENCE_S)) == ["gpu01"]
    else:
        with pytest.raises(GpuJobError):
            task.end.result(PATIENCE_S)
    assert site.began() == ["gpu01"]


@pytest.mark.parametrize("did", ["ran", "succeeded"])
def test_the_next_try_goes_on_from_the_last_run_or_takes_what_has_succeeded(
    task: Task, site: PoolSite, eventually: Callable[..., Any], did: str
) -> None:
    task.start(["gpu01", "gpu02", "gpu03"])
    eventually(lambda: site.began() == ["gpu01"])
    site.cut("gpu01")
    if did == "succeeded":
        task.ends_on("gpu01", 0)
    eventually(lambda: "gpu02" in site.began())
    site.mend("gpu01")
    eventually(lambda: task.told("gpu01").get("kind") == "end")
    task.ends_on("gpu02", 3)
    with pytest.raises(GpuJobError):
        task.end.result(PATIENCE_S)
    task.start(["gpu03", "gpu02", "gpu01"], try_number=2)
    if did == "succeeded":
        result = task.end.result(PATIENCE_S)
        assert result["gpu_cluster_conn_id"] == "gpu01"
        assert task.collected(result) == ["gpu01"]
        assert site.began() == ["gpu01", "gpu02"]
        return
    eventually(lambda: site.began() == ["gpu01", "gpu02", "gpu03"])
    task.ends_on("gpu03", 0)
    result = task.end.result(PATIENCE_S)
    # What gpu02 has saved was brought along, and nothing of the run before it.
    assert task.collected(result) == ["gpu02", "gpu03"]
    log = site.root("gpu03") / result["job_id"] / "logs" / "training.log"
    assert "gpu02" in log.read_text()
