"""Which job a request is about, when XComs do not say it any more."""

from __future__ import annotations

import json
import uuid
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from airflow.models.dagrun import DagRun
from airflow.models.task_state_store import TaskStateStoreModel
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from airflow.utils.types import DagRunType
from fastapi import HTTPException
from sqlalchemy import delete, insert, select, update

from airflow_provider_gpu_cluster.job_table.db_manager import GpuClusterDBManager
from airflow_provider_gpu_cluster.job_table.facts import JobFacts, TaskKey
from airflow_provider_gpu_cluster.job_table.recording import write
from airflow_provider_gpu_cluster.job_table.task_jobs import jobs_of_task
from airflow_provider_gpu_cluster.plugins.api.address import JobAddress, job_of
from airflow_provider_gpu_cluster.pools.placement_record import PlacementRecord
from airflow_provider_gpu_cluster.pools.stores import PLACEMENT_KEY
from airflow_provider_gpu_cluster.tasks.job_notes import jobs_in
from tests.harness.airflow_database import make_database

NOON = datetime(2026, 11, 28, 12, tzinfo=timezone.utc)


@pytest.fixture(scope="module", autouse=True)
def database() -> None:
    make_database()


def task(job_id: str | None = None, *, state: str | None = "success", **more: Any) -> JobAddress:
    """Put a task instance into Airflow, with a job in its XComs; return its address."""
    address = JobAddress("mine", str(uuid.uuid4()), "train")
    with create_session() as session:
        run = DagRun(dag_id="mine", run_id=address.run_id, run_type=DagRunType.MANUAL)
        session.add(run)
        session.flush()
        values = {"id": uuid.uuid4(), "pool": "default_pool", "custom_operator_name": "", "state": state}
        session.execute(insert(TaskInstance).values(**address.where, **values, start_date=NOON - timedelta(minutes=5)))
        if job_id is not None:
            handle = {"job_id": job_id, "gpu_cluster_conn_id": "lab", "job_dir": "/x", "engine": "host", "gpus": 1}
            value = json.dumps({**handle, "submitted_at": NOON.isoformat(), **more})
            session.add(XComModel(dag_run_id=run.id, key="return_value", value=value, **address.where))
    return address


def row(address: JobAddress, job_id: str, *, at: datetime = NOON, **known: Any) -> None:
    known = {"engine": "slurm", "job_dir": f"/jobs/{job_id}", "gpus": 2, **known}
    write([JobFacts("lab", job_id, TaskKey(**address.where), True, at, known)])


def refusal(address: JobAddress) -> str:
    with pytest.raises(HTTPException) as raised:
        job_of(address)
    assert raised.value.status_code == 404
    return str(raised.value.detail)


def job_id(name: str) -> str:
    return f"{name}-{uuid.uuid4().hex[:8]}"


def test_an_earlier_job_of_the_same_task_is_found_by_its_id() -> None:
    earlier, latest = job_id("earlier"), job_id("latest")
    address = task(latest)
    row(address, earlier, at=NOON - timedelta(days=1))
    row(address, latest)
    assert job_of(address).job_id == latest
    assert job_of(replace(address, job_id=latest)).engine == "host"
    handle = job_of(replace(address, job_id=earlier))
    assert (handle.job_id, handle.job_dir, handle.engine, handle.gpus) == (earlier, f"/jobs/{earlier}", "slurm", 2)
    with create_session() as session:
        rows = jobs_of_task(session, TaskKey(**address.where))
    assert rows is not None
    assert [found["job_id"] for found in rows] == [latest, earlier]


def test_a_job_is_found_on_a_cluster_where_it_was_before() -> None:
    moved, other = job_id("moved"), job_id("other")
    address = task(moved)
    known = {"engine": "slurm", "job_dir": "/old", "gpus": 2}
    write([JobFacts("gpu01", moved, TaskKey(**address.where), True, NOON - timedelta(hours=1), known)])
    assert job_of(replace(address, conn_id="lab")) == job_of(address)
    for asked in (replace(address, conn_id="gpu01"), replace(address, conn_id="gpu01", job_id=moved)):
        handle = job_of(asked)
        assert (handle.job_id, handle.gpu_cluster_conn_id, handle.job_dir) == (moved, "gpu01", "/old")
    assert "was never on the cluster of gpu02" in refusal(replace(address, conn_id="gpu02"))
    # What its task remembers is known at once, and without the table.
    for of, finds in ((other, False), (moved, True)):
        record = PlacementRecord(of, 2, "try", "lab", ("lab", "gpu02"))
        with create_session() as session:
            run = session.scalar(select(DagRun.id).filter_by(run_id=address.run_id))
            session.execute(delete(TaskStateStoreModel).filter_by(run_id=address.run_id))
            values = {"dag_run_id": run, "key": PLACEMENT_KEY, "value": json.dumps(record.to_json())}
            session.add(TaskStateStoreModel(**values, **address.where))
        if finds:
            handle = job_of(replace(address, conn_id="gpu02"))
            assert (handle.job_id, handle.gpu_cluster_conn_id) == (moved, "gpu02")
        else:
            assert refusal(replace(address, conn_id="gpu02"))
        assert "cluster of database" in refusal(replace(address, conn_id="database"))


def test_each_part_of_an_array_on_several_clusters_has_a_page() -> None:
    parts = [
        {"job_id": "a", "gpu_cluster_conn_id": "lab", "job_dir": "/x/a", "engine": "host", "first": 0, "count": 3},
        {"job_id": "a.p2", "gpu_cluster_conn_id": "slurm", "job_dir": "/y", "engine": "slurm", "first": 3, "count": 2},
    ]
    address = task("a", array_size=5, parts=parts)
    for asked, conn_id, size in ((address, "lab", 3), (replace(address, job_id="a.p2"), "slurm", 2)):
        found = job_of(asked)
        assert (found.gpu_cluster_conn_id, found.array_size, len(found.parts)) == (conn_id, size, 2)
    for asked in (replace(address, element=4), replace(address, job_id="a.p2", element=1)):
        element = job_of(asked)
        assert (element.gpu_cluster_conn_id, element.job_dir, element.parts) == ("slurm", "/a.p2_1", ())
    assert "no element 2" in refusal(replace(address, job_id="a.p2", element=2))
    assert "no job b" in refusal(replace(address, job_id="b"))
    assert jobs_in(parts[1] | {"parts": parts}) == [("slurm", "a.p2"), ("lab", "a")]


def test_a_job_of_another_task_is_not_found_by_its_id() -> None:
    address, other = task(job_id("mine")), task(job_id("other"))
    for different in (other, replace(address, map_index=3), replace(address, dag_id="secret")):
        theirs = job_id("theirs")
        row(different, theirs)
        assert theirs in refusal(replace(address, job_id=theirs))
    assert "no job ../../x" in refusal(replace(address, job_id="../../x"))


def test_the_table_knows_a_job_whose_xcoms_or_task_are_gone() -> None:
    address, known = task(), job_id("known")
    row(address, known, element_count=3)
    assert job_of(address).job_id == known
    assert job_of(replace(address, element=2)).job_id == f"{known}_2"
    assert "no element 3" in refusal(replace(address, element=3))
    with create_session() as session:
        session.execute(delete(TaskInstance).where(TaskInstance.run_id == address.run_id))
        session.execute(delete(DagRun).where(DagRun.run_id == address.run_id))
    assert job_of(address).job_id == known


@pytest.mark.parametrize("state", [None, "running", "failed"])
def test_a_task_that_was_cleared_does_not_show_its_earlier_job_as_its_own(state: str | None) -> None:
    address, earlier = task(state=state), job_id("earlier")
    row(address, earlier, at=NOON - timedelta(hours=1))
    assert refusal(address)
    assert job_of(replace(address, job_id=earlier)).job_id == earlier
    with create_session() as session:
        session.execute(update(TaskInstance).where(TaskInstance.run_id == address.run_id).values(start_date=None))
    assert refusal(address)


def test_without_the_table_all_is_as_it_was_before() -> None:
    latest = job_id("latest")
    address, without = task(latest), task()
    with create_session() as session:
        manager = GpuClusterDBManager(session)
        manager.downgrade("base")
    try:
        assert job_of(address).job_id == latest
        assert "launched no job" in refusal(without)
        assert "launched no job" in refusal(replace(address, job_id="earlier"))
        with create_session() as session:
            assert jobs_of_task(session, TaskKey(**address.where)) is None
    finally:
        manager.upgradedb()
