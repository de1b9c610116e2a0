"""One real Airflow with a sandbox cluster, which all tests in a browser look at."""

from __future__ import annotations

import json
import shutil
import urllib.error
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from airflow_provider_gpu_cluster.sandbox import Sandbox
from tests.servers.airflow import WholeAirflow
from tests.servers.proxy import CutProxy

PATIENCE_S = 600
GPUS = (
    {"percent": 60, "memory_bytes": 20_000_000_000, "total_bytes": 80_000_000_000, "power_w": 300, "celsius": 60},
    {"percent": 2, "memory_bytes": 500_000_000, "total_bytes": 80_000_000_000, "power_w": 80, "celsius": 35},
)
FINAL = ("SUCCEEDED", "FAILED", "CANCELLED", "LOST")


class Site:
    """
    An Airflow and its cluster.

    :param proxy: between the two.
    """

    def __init__(self, airflow: WholeAirflow, sandbox: Sandbox, proxy: CutProxy) -> None:
        self.airflow = airflow
        self.sandbox = sandbox
        self.proxy = proxy
        self.early: dict[str, str] = {}
        """Runs that were started before the tests, by their DAGs."""

    @property
    def url(self) -> str:
        """Address of the Airflow, without a slash at the end."""
        return self.airflow.url

    def start(self, dag_id: str, conf: Mapping[str, Any] | None = None) -> str:
        """Start a run and return its id."""
        run_id = f"run_{uuid.uuid4().hex[:8]}"
        self.airflow.trigger(dag_id, run_id, conf)
        return run_id

    def until(self, what: str, check: Callable[[], Any]) -> Any:
        """Wait until a check gives something true, and return that."""
        with self.airflow.waiting(what, PATIENCE_S) as ticks:
            for _ in ticks:
                if result := check():
                    return result
        raise AssertionError("not reached")

    def ask(self, path: str) -> Any:
        """Return the JSON of an address below ``/gpu-cluster/api``; None while it answers 404."""
        try:
            return json.loads(self.airflow.page(f"/gpu-cluster/api{path}"))
        except urllib.error.HTTPError as error:
            # It holds a socket, which would be found open in whatever test runs then.
            error.close()
            if error.code == 404:
                return None
            raise

    def job(self, dag_id: str, run_id: str, task_id: str, **query: Any) -> Any:
        """Return what is known of a task's job; None before there is one."""
        dag, run, task = (quote(part, safe="") for part in (dag_id, run_id, task_id))
        return self.ask(f"/dags/{dag}/dagRuns/{run}/taskInstances/{task}/job?{urlencode(query)}")

    def until_job(self, dag_id: str, run_id: str, task_id: str, *states: str, **query: Any) -> Any:
        """Wait until a task's job is in one of these states, any final one by default; return what is known of it."""

        def check() -> Any:
            job = self.job(dag_id, run_id, task_id, **query)
            return job if job and job["state"].upper() in (states or FINAL) else None

        return self.until(f"the job of {dag_id}.{task_id} to be {' or '.join(states or FINAL)}", check)

    def until_run(self, dag_id: str, run_id: str, *states: str) -> str:
        """Wait until a run has ended, and return its state."""
        ended = states or ("success", "failed")
        state: str = self.until(
            f"the end of {dag_id}", lambda: (now := self.airflow.state(dag_id, run_id)) in ended and now
        )
        return state

    def clear(self, dag_id: str, run_id: str, task_id: str) -> None:
        """Clear a task, as a user does in the UI."""
        self.airflow.post(
            f"/dags/{dag_id}/clearTaskInstances",
            {"dry_run": False, "dag_run_id": run_id, "task_ids": [task_id], "only_failed": False},
        )


@contextmanager
def running_site(
    folder: Path, dags: Sequence[Path], environ: Mapping[str, str] | None = None, database: Path | None = None
) -> Iterator[Site]:
    """
    Yield a running Airflow and its cluster, and end both.

    :param folder: an empty folder, for its DAGs and log.
    :param dags: folders whose DAGs it has.
    :param database: Airflow's, to begin with a copy of; by default it is made anew.
    """
    together = folder / "dags"
    for one in dags:
        shutil.copytree(one, together, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    with Sandbox(gpus=4, fake_gpus=GPUS) as sandbox, closing(CutProxy((sandbox.host, sandbox.port))) as proxy:
        settings = {
            "AIRFLOW_CONN_GPU_CLUSTER_DEFAULT": json.dumps({**sandbox.connection, "port": proxy.port}),
            "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "3600",
            **(environ or {}),
        }
        with WholeAirflow(together, settings, folder / "airflow.log", database) as airflow:
            yield Site(airflow, sandbox, proxy)
