"""A whole Airflow (scheduler, DAG processor, triggerer, API server) against a cluster behind a real OpenSSH server."""

from __future__ import annotations

import json
import shutil
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.connection.settings import ClusterSettings
from tests.conftest import REPOSITORY
from tests.harness.ledger import TRAINING
from tests.harness.leftovers import kill_everything_under
from tests.servers.airflow import WholeAirflow
from tests.servers.hooks import Hooks
from tests.servers.proxy import CutProxy
from tests.servers.sshd import RealSshd, login
from tests.servers.statsd import StatsdServer

RUN_TIMEOUT_S = 600  # for one thing that is to happen, on a busy machine
METRICS_TOKEN = "a-token-for-prometheus"


EXAMPLES = ("gpu_train_digits.py",)
# Those first that have to begin soon, since they are about the time that something may take.
EARLY = (
    "group_times_out",
    "deferred_time_out",
    "group_of_long_job",
    "retried_by_policy",
    "resubmitted",
    "deferred_sensor",
    "deferred_failure",
    "gpu_train_digits",
)


class Lab:
    """An Airflow and its cluster."""

    def __init__(
        self,
        airflow: WholeAirflow,
        settings: ClusterSettings,
        folder: Path,
        proxy: CutProxy,
        hooks: Hooks,
        statsd: StatsdServer,
    ) -> None:
        self.airflow = airflow
        self.settings = settings
        self.folder = folder
        self.proxy = proxy
        """In front of the cluster, for the connection ``gpu_cluster_far``."""
        self.hooks = hooks
        """Receives what notifiers tell."""
        self.statsd = statsd
        """Receives the metrics of all processes, with their tags as InfluxDB wants them."""
        self.early: dict[str, str] = {}
        """Runs that take long, by their DAGs. They are started first, so that no test needs to wait for them."""

    def start(self, dag_id: str) -> str:
        """Start a run and return its id."""
        run_id = f"test_{uuid.uuid4().hex[:8]}"
        self.airflow.trigger(dag_id, run_id)
        return run_id

    def until(self, what: str, check: Callable[[], Any]) -> Any:
        """Wait until a check gives something true, and return that."""
        with self.airflow.waiting(what, RUN_TIMEOUT_S) as ticks:
            for _ in ticks:
                if result := check():
                    return result
        raise AssertionError("not reached")

    def end(self, dag_id: str, run_id: str) -> str:
        """Wait until a run has ended and return its state."""
        ended = ("success", "failed")
        state: str = self.until(
            f"the end of {dag_id}", lambda: (now := self.airflow.state(dag_id, run_id)) in ended and now
        )
        return state

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value") -> Any:
        """Return what a task has pushed, None while it has not."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries"
        entries = self.airflow.get(path)["xcom_entries"]
        if not any(entry["key"] == key for entry in entries):
            return None
        value = self.airflow.get(f"{path}/{key}?deserialize=true")["value"]
        is_stored_elsewhere = isinstance(value, str) and value.startswith("file://")
        return json.loads(Path(value.removeprefix("file://")).read_text()) if is_stored_elsewhere else value

    def handle(self, dag_id: str, run_id: str, task_id: str = "train") -> Any:
        """Wait for a task's job handle and return it; it comes while the task runs."""
        return self.until(f"the handle of {dag_id}", lambda: self.xcom(dag_id, run_id, task_id))

    def log(self, dag_id: str, run_id: str, task_id: str, attempt: int = 1) -> list[str]:
        """Return the lines of a task's log, as far as a worker has written them."""
        return [record["event"] for record in self._records(dag_id, run_id, task_id, f"attempt={attempt}.log")]

    def triggerer_log(self, dag_id: str, run_id: str, task_id: str, attempt: int = 1) -> list[dict[str, Any]]:
        """Return the records of a task's log, as far as triggerers have written them, one after the other."""
        return self._records(dag_id, run_id, task_id, f"attempt={attempt}.log.trigger.*.log")

    def _records(self, dag_id: str, run_id: str, task_id: str, pattern: str) -> list[dict[str, Any]]:
        folder = self.airflow.logs / f"dag_id={dag_id}/run_id={run_id}/task_id={task_id}"
        files = sorted(folder.glob(pattern), key=lambda file: file.stat().st_mtime)
        lines = [line for file in files for line in file.read_text().splitlines()]
        # The last record of a process that was killed may be cut short.
        return [json.loads(line) for line in lines if line.endswith("}")]

    def output(self, dag_id: str, run_id: str, task_id: str) -> list[str]:
        """Return what triggerers have shown of a job's output."""
        records = self.triggerer_log(dag_id, run_id, task_id)
        return [record["event"] for record in records if record.get("logger") == "gpu_job.output"]

    def until_more_is_shown(self, dag_id: str, run_id: str, task_id: str = "train") -> None:
        """Wait until triggerers have shown fifty more lines of a job's output, and its progress once more."""

        def shown() -> tuple[int, int]:
            events = [record["event"] for record in self.triggerer_log(dag_id, run_id, task_id)]
            progress = sum(event.startswith("GPU job progress: step ") for event in events)
            return len(self.output(dag_id, run_id, task_id)), progress

        lines, progress = shown()
        self.until("output", lambda: (now := shown())[0] > lines + 50 and now[1] > progress)

    def task_state(self, dag_id: str, run_id: str, task_id: str = "train") -> str | None:
        """Return the state of a task."""
        states = {task["task_id"]: task["state"] for task in self.airflow.tasks(dag_id, run_id)}
        state: str | None = states[task_id]
        return state

    def until_deferred(self, dag_id: str, run_id: str, task_id: str = "train") -> None:
        """Wait until a task is deferred."""
        self.until("the deferral", lambda: self.task_state(dag_id, run_id, task_id) == "deferred")

    def mark(self, dag_id: str, run_id: str, state: str, task_id: str = "train") -> None:
        """Mark a task, as a user does in the UI."""
        self.airflow.patch(f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}", {"new_state": state})

    def mark_run(self, dag_id: str, run_id: str, state: str) -> None:
        """Mark a run, as a user does in the UI."""
        self.airflow.patch(f"/dags/{dag_id}/dagRuns/{run_id}", {"state": state})

    def keep_trigger_ids(self) -> None:
        """
        See to it that no later trigger gets the id of one that there is now.

        On SQLite, Airflow 3.3 gives the highest id to the next trigger as soon as it is free, and tells that one's task
        how the trigger before it has ended. Here something that lasts has the highest one.
        """
        run_id = self.start("keeps_trigger_ids")
        self.until_deferred("keeps_trigger_ids", run_id, "keep")

    def clear(self, dag_id: str, run_id: str, task_id: str = "train") -> None:
        """Clear a task, as a user does in the UI."""
        self.airflow.post(
            f"/dags/{dag_id}/clearTaskInstances",
            {"dry_run": False, "dag_run_id": run_id, "task_ids": [task_id], "only_failed": False},
        )

    def counted(self, dag_id: str) -> Counter[str]:
        """Return how often each event of a DAG's jobs was counted, with the reasons of ends."""
        found: Counter[str] = Counter()
        for line in self.statsd.of("gpu_cluster.jobs_", f"dag_id={dag_id},"):
            name, *tags = line.rpartition(":")[0].split(".gpu_cluster.")[1].split(",")
            reason = next((tag.removeprefix("reason=") for tag in tags if tag.startswith("reason=")), "")
            event = f"{name} {reason}".strip()
            found[event] += int(line.rpartition(":")[2].removesuffix("|c"))
        return found

    def runs(self, job_id: str) -> int:
        """Return how often the user's code of a job has run."""
        return sum(line.split()[0] == job_id for line in (self.folder / "runs").read_text().splitlines())


def _other_examples(folder: str, names: list[str]) -> list[str]:
    """Return what these tests do not run; each DAG that there is costs a process that reads it."""
    others = {name for name in names if name.endswith(".py")} - set(EXAMPLES) if folder.endswith("/dags") else set()
    return ["__pycache__", *others]


@pytest.fixture(scope="session")
def lab(sshd: RealSshd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("whole-airflow")
    dags = folder / "dags"
    shutil.copytree(REPOSITORY / "dags", dags, ignore=_other_examples)
    for file in (REPOSITORY / "tests/whole_airflow/dags").glob("*.py"):
        shutil.copy(file, dags)
    (folder / "runs").touch()
    settings = ClusterSettings(
        conn_id="gpu_cluster_default",
        name=f"{login()}@{sshd.host}:{sshd.port}",
        root_dir=str(folder / "ml-jobs"),
        lease_dir=str(folder / "leases"),
        virtual_gpus=64,
    )
    proxy = CutProxy((sshd.host, sshd.port))
    hooks = Hooks()
    statsd = StatsdServer()
    connection = {
        "conn_type": "gpu_cluster",
        "host": sshd.host,
        "port": sshd.port,
        "login": login(),
        "extra": {
            "private_key": sshd.client_key,
            "host_key": sshd.host_key,
            "root_dir": settings.root_dir,
            "lease_dir": settings.lease_dir,
            "virtual_gpus": settings.virtual_gpus,
        },
    }
    environ = {
        "AIRFLOW_CONN_GPU_CLUSTER_DEFAULT": json.dumps(connection),
        "AIRFLOW_CONN_GPU_CLUSTER_FAR": json.dumps({**connection, "host": proxy.host, "port": proxy.port}),
        "MODELS_DIR": str(folder / "models"),
        "TEST_HOOKS": hooks.origin,
        "TEST_RUNS": str(folder / "runs"),
        "TEST_TRAINING": str(TRAINING),
        "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
        "AIRFLOW__GPU_CLUSTER__METRICS_TOKEN": METRICS_TOKEN,
        "AIRFLOW__METRICS__STATSD_ON": "True",
        "AIRFLOW__METRICS__STATSD_HOST": "127.0.0.1",
        "AIRFLOW__METRICS__STATSD_PORT": str(statsd.port),
        "AIRFLOW__METRICS__STATSD_INFLUXDB_ENABLED": "True",
        # Every value of XComs is stored outside the database.
        "AIRFLOW__CORE__XCOM_BACKEND": "airflow.providers.common.io.xcom.backend.XComObjectStorageBackend",
        "AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_PATH": f"file://{folder}/xcoms",
        "AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_THRESHOLD": "0",
        # Nobody changes the DAGs; by default each file is read again every half minute.
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "3600",
        # How soon a killed worker is noticed, by heartbeats, which a busy machine delays; five minutes by default.
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "45",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "3",
        # How soon a killed triggerer is noticed; half a minute by default.
        "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
        "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "10",
        "AIRFLOW__SCHEDULER__TRIGGER_TIMEOUT_CHECK_INTERVAL": "3",
    }
    try:
        with statsd, WholeAirflow(dags, environ, folder / "airflow.log") as airflow:
            lab = Lab(airflow, settings, folder, proxy, hooks, statsd)
            lab.early = {dag_id: lab.start(dag_id) for dag_id in EARLY}
            yield lab
    finally:
        proxy.close()
        hooks.close()
        kill_everything_under(folder)


@pytest.fixture
def lab_cluster(lab: Lab, ssh_connect: Any) -> Iterator[Cluster]:
    with Cluster(lab.settings, ssh_connect) as cluster:
        yield cluster
