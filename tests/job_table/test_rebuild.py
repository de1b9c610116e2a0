"""A real Airflow's table, filled from a real cluster, lost, and built again by the command."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from airflow.cli import cli_parser
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState
from airflow.utils.types import DagRunType
from sqlalchemy import delete, insert

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.job_table import queries
from airflow_provider_gpu_cluster.job_table.db_manager import GpuClusterDBManager
from airflow_provider_gpu_cluster.job_table.filling import Filling, request_to, write_answer
from airflow_provider_gpu_cluster.job_table.queries import Selection
from airflow_provider_gpu_cluster.job_table.tables import attempts, jobs, sources
from tests.harness.airflow_database import make_database
from tests.harness.jobs import submit, wait

# Only what is watched tells its last progress and its message.
WHO: Any = {"dag_id": "mine", "run_id": "r", "task_id": "train", "map_index": -1, "owner": "lab", "triggered_by": "ada"}


@pytest.fixture
def empty() -> None:
    make_database()
    with create_session() as session:
        for table in (attempts, jobs, sources):
            session.execute(delete(table))
        for model in (XComModel, TaskInstance, DagRun):
            session.execute(delete(model))


def run(*words: str) -> None:
    args = cli_parser.get_parser().parse_args(["gpu-cluster", "rebuild-jobs", *words])
    args.func(args)


def rows() -> list[dict[str, Any]]:
    with create_session() as session:
        found = queries.page_of(session, Selection({"mine"}), "job_id", 100, 0)
    return [{name: value for name, value in row.items() if name != "id"} for row in found]


def notes(*handles: dict[str, Any]) -> None:
    with create_session() as session:
        run = DagRun(dag_id="mine", run_id="r", run_type=DagRunType.MANUAL, state=DagRunState.RUNNING)
        session.add(run)
        session.flush()
        for n, handle in enumerate(handles):
            task: Any = {"dag_id": "mine", "run_id": "r", "task_id": handle["task_id"], "map_index": -1}
            more = {"id": uuid.uuid4(), "pool": "default_pool", "custom_operator_name": ""}
            session.execute(insert(TaskInstance).values({**task, **more}))
            session.flush()
            note = {
                **handle["handle"],
                "user": "ada",
                "owner": "lab",
                "state": "QUEUED",
                "attempt": 1,
                "request": {"n": n},
            }
            session.add(XComModel(dag_run_id=run.id, key="gpu_job_launch", value=json.dumps(note), **task))


def test_what_is_rebuilt_is_what_there_was(
    empty: None, cluster: Cluster, gpu_cluster_conn: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    handles = []
    for n, command in enumerate(("true", "exit 3", "sleep 1000", "echo '{\"acc\": 0.5}' > $OUTPUT_DIR/metrics.json")):
        job_id, task_id = f"mine-train-{n}", f"train_{n}"
        who: Any = {**WHO, "task_id": task_id}
        submission = submit(cluster, command, job_id=job_id, gpus=1, who=who)
        handles.append({"task_id": task_id, "handle": submission.handle.to_json()})
        if n != 2:
            wait(cluster, job_id)
    notes(*handles)
    reader = Filling("here")
    assert reader.is_mine()
    reader.read_airflow()
    (to_ask,) = reader.clusters()[1]
    write_answer(to_ask.conn_id, cluster.session.call("read-ledger", request_to(to_ask)))
    before = rows()
    assert [row["state"] for row in before] == ["SUCCEEDED", "FAILED", "RUNNING", "SUCCEEDED"]
    assert before[3]["metrics"] == {"acc": 0.5}
    assert all(row["gpu_seconds"] > 0 for row in before if row["state"] != "RUNNING")
    # Again, over what is there.
    run()
    assert rows() == before
    with create_session() as session:
        manager = GpuClusterDBManager(session)
        manager.downgrade("base")
    with pytest.raises(SystemExit, match="airflow db migrate"):
        run()
    manager.upgradedb()
    run("--conn-id", "gpu_cluster_default")
    assert rows() == before
    assert "4 jobs in what launches have left" in capsys.readouterr().out
    # Without the XComs, the ledger knows those that have ended.
    with create_session() as session:
        session.execute(delete(XComModel))
        session.execute(delete(jobs))
    run()
    ended = [{**row, "submitted_at": 0} for row in before if row["state"] != "RUNNING"]
    assert [{**row, "submitted_at": 0} for row in rows()] == ended


def test_a_cluster_out_of_reach_is_told_and_others_are_read(
    empty: None,
    cluster: Cluster,
    gpu_cluster_conn: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    away = {**gpu_cluster_conn, "port": 1, "extra": {**gpu_cluster_conn["extra"], "conn_timeout": 1}}
    monkeypatch.setenv("AIRFLOW_CONN_AWAY", json.dumps(away))
    monkeypatch.setattr("airflow_provider_gpu_cluster.cli.rebuild_jobs.RETRY_FOR_S", 0)
    with pytest.raises(SystemExit, match="not read: away"):
        run("--conn-id", "away", "--conn-id", "gpu_cluster_default")
    told = capsys.readouterr().out
    assert "gpu_cluster_default: 0 ends" in told
    assert "away: " in told
