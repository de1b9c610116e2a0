"""Where the outputs of a job were collected to, as the collecting tasks of the same run have left it in Airflow."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.sdk.bases.xcom import BaseXCom
from airflow.utils.session import create_session
from sqlalchemy import select

from airflow_provider_gpu_cluster.plugins.api.address import JobAddress
from airflow_provider_gpu_cluster.tasks.job_notes import read_note

_OPERATOR = "CollectGpuJobOperator"
_MOST = 20
_SAME_TASK = ("dag_id", "run_id", "task_id", "map_index")


@dataclass(frozen=True)
class Collection:
    """
    One task's collection of a job's outputs.

    :param checksums: size and SHA-256 of the collected files, by path.
    """

    task_id: str
    map_index: int
    destination: str
    at: datetime
    checksums: dict[str, tuple[int, str]]

    def of_element(self, index: int) -> Collection:
        """Return what it has of one element of an array."""
        prefix = f"{index}/"
        own = {path[len(prefix) :]: found for path, found in self.checksums.items() if path.startswith(prefix)}
        return replace(self, destination=f"{self.destination.rstrip('/')}/{index}", checksums=own)


def collections_of(address: JobAddress, job_id: str) -> list[Collection]:
    """
    Return the collections of a job, the latest first. Blocks on Airflow's database.

    :param job_id: of the job, or of the array.
    """
    place = {"dag_id": address.dag_id, "run_id": address.run_id}
    same_task = [getattr(TaskInstance, name) == getattr(XComModel, name) for name in _SAME_TASK]
    query = (
        select(XComModel.task_id, XComModel.map_index, XComModel.timestamp, XComModel.value)
        .filter_by(**place, key=BaseXCom.XCOM_RETURN_KEY)
        .join(TaskInstance, same_task[0] & same_task[1] & same_task[2] & same_task[3])
        .where(TaskInstance.operator == _OPERATOR)
        .order_by(XComModel.timestamp.desc())
        .limit(_MOST)
    )
    with create_session() as session:
        rows = session.execute(query).all()
    found = []
    for task_id, map_index, at, value in rows:
        result = read_note(value)
        if isinstance(result, dict) and result.get("job_id") == job_id and isinstance(result.get("destination"), str):
            found.append(Collection(task_id, map_index, result["destination"], at, _checksums(result.get("files"))))
    return found


def _checksums(files: Any) -> dict[str, tuple[int, str]]:
    checksums: dict[str, tuple[int, str]] = {}
    for file in files if isinstance(files, list) else ():
        if isinstance(file, dict) and isinstance(file.get("path"), str) and isinstance(file.get("sha256"), str):
            checksums[file["path"]] = (file.get("size", -1), file["sha256"])
    return checksums
