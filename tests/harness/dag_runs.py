"""Running a DAG file in this process, with Airflow's own ``dag.test()`` and a database of its own."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from tests.harness.airflow_database import make_database


def run_dag(folder: Path, source: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """
    Write a DAG file into a folder and run its DAG once.

    :return: the DAG run, as the database has it in the end.
    """
    from airflow.dag_processing.dagbag import BundleDagBag

    make_database(folder)
    (folder / "dag_file.py").write_text(source)
    bundle = {
        "name": folder.parent.name,
        "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
        "kwargs": {"path": str(folder)},
    }
    monkeypatch.setenv("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST", json.dumps([bundle]))
    with warnings.catch_warnings():
        # What Airflow's own dependencies warn each other of is not ours to mend.
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", module="airflow_provider_gpu_cluster")
        bag = BundleDagBag(dag_folder=folder, bundle_path=folder, bundle_name=bundle["name"])
        assert not bag.import_errors
        (dag,) = bag.dags.values()
        return dag.test()


def states(run: Any) -> dict[str, str]:
    """Return the state of every task instance of a run, by task id and map index."""
    return {
        ti.task_id if ti.map_index < 0 else f"{ti.task_id}[{ti.map_index}]": str(ti.state)
        for ti in run.get_task_instances()
    }


def xcom(run: Any, task_id: str, key: str = "return_value", map_index: int = -1) -> Any:
    """Return what a task has left in XCom."""
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        value = session.scalar(
            select(XComModel.value).where(
                XComModel.dag_id == run.dag_id,
                XComModel.run_id == run.run_id,
                XComModel.task_id == task_id,
                XComModel.map_index == map_index,
                XComModel.key == key,
            )
        )
    return value
