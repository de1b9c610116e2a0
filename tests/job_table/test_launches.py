"""The XComs of launches, read from Airflow's tables in each database."""

from __future__ import annotations

import json
import uuid
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import sqlalchemy
from airflow.models.base import metadata as airflow_tables
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.utils import db
from airflow.utils.state import DagRunState
from airflow.utils.types import DagRunType
from sqlalchemy import insert
from sqlalchemy.orm import Session

from airflow_provider_gpu_cluster.job_table.launches import RunsSeen, all_launches, launches_by_runs, new_launches

pytestmark = pytest.mark.long
NOW = datetime.now(timezone.utc)
HANDLE = {"job_id": "mine-1", "gpu_cluster_conn_id": "lab", "job_dir": "/x", "engine": "host", "gpus": 1}
NOTE = {**HANDLE, "submitted_at": NOW.isoformat(), "user": "ada \N{GRINNING FACE}", "state": "QUEUED", "attempt": 1}


def test_notes_are_found_however_they_are_stored(airflow_database: sqlalchemy.Engine) -> None:
    db.import_all_models()  # type: ignore[attr-defined, no-untyped-call]
    airflow_tables.create_all(airflow_database)
    try:
        with Session(airflow_database) as session:
            run = DagRun(dag_id="mine", run_id="r", run_type=DagRunType.MANUAL, state=DagRunState.RUNNING)
            session.add(run)
            session.flush()
            # As a worker's note, as plain JSON, and what is none.
            for n, value in enumerate(
                (json.dumps({**NOTE, "job_id": "mine-0"}), {**NOTE, "job_id": "mine-1"}, [], "{")
            ):
                task: Any = {"dag_id": "mine", "run_id": "r", "task_id": f"t{n}", "map_index": -1}
                more = {"id": uuid.uuid4(), "pool": "default_pool", "custom_operator_name": ""}
                session.execute(insert(TaskInstance).values({**task, **more}))
                session.add(XComModel(dag_run_id=run.id, key="gpu_job_launch", value=value, **task))
            session.commit()
            since = NOW - timedelta(minutes=1)
            for facts in (
                new_launches(session, RunsSeen(), since),
                all_launches(session, since),
                [one for _, some in launches_by_runs() for one in some],
            ):
                assert {one.job_id for one in facts} == {"mine-0", "mine-1"}
                assert {one.known["user_name"] for one in facts} == {"ada \N{GRINNING FACE}"}
            assert new_launches(session, RunsSeen(), since + timedelta(hours=1)) == []
    finally:
        airflow_tables.drop_all(airflow_database)
