"""The handle of a job: what a DAG passes on to find the job again."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass, fields, replace
from datetime import datetime
from typing import Any

from airflow_provider_gpu_cluster.exceptions import InvalidJobError
from airflow_provider_gpu_cluster.gpu_run.protocol import job_ids

MAX_JOB_ID_LENGTH = job_ids.MAX_LENGTH

MAX_ARRAY_SIZE = 1000
_PART = re.compile(r"(?<=-[0-9a-f]{8})\.p\d+$")

# More often than a job goes to another cluster while somebody holds one handle of it.
MOST_HOPS = 20


def checked_job_id(job_id: str) -> str:
    """
    Return a job id that is valid.

    :raises InvalidJobError: it is not.
    """
    fault = job_ids.fault_of(job_id)
    if fault is not None:
        raise InvalidJobError(fault)
    return job_id


def element_id(array_id: str, index: int) -> str:
    """
    Return the job id of an element of an array: the array's id and the element's index.

    If that is too long, the beginning of the array's id is cut, because its end makes it unique.
    """
    tail = f"_{index}"
    return array_id[-(MAX_JOB_ID_LENGTH - len(tail)) :].lstrip("-._") + tail


def part_id(array_id: str, number: int) -> str:
    """
    Return the job id of a part of an array whose elements are on several clusters: that of the first is the array's.

    :param number: of the part, from 0.
    """
    if number == 0:
        return array_id
    tail = f".p{number + 1}"
    return array_id[-(MAX_JOB_ID_LENGTH - len(tail)) :].lstrip("-._") + tail


def is_same_array(job_id: str, other_id: str) -> bool:
    """Return whether two job ids are the same, or those of two parts of one array; see :func:`part_id`."""
    one, other = (_PART.sub("", text) for text in (job_id, other_id))
    is_cut = MAX_JOB_ID_LENGTH in (len(job_id), len(other_id))
    return one == other or (is_cut and (one.endswith(other) or other.endswith(one)))


@dataclass(frozen=True)
class ArrayPart:
    """
    Elements of an array that are on one cluster, as an array of their own.

    :param job_id: of that array.
    :param gpu_cluster_conn_id: the Airflow connection of the cluster.
    :param job_dir: its directory there.
    :param engine: of the cluster.
    :param first: index of its first element in the whole array.
    :param count: number of its elements.
    """

    job_id: str
    gpu_cluster_conn_id: str
    job_dir: str
    engine: str
    first: int
    count: int


@dataclass(frozen=True)
class JobHandle:
    """
    The handle of a job, with which any task can find the job.

    :param job_id: the job's identity, and the name of its directory.
    :param gpu_cluster_conn_id: the Airflow connection of its cluster.
    :param job_dir: its directory on the cluster.
    :param engine: ``host``, ``slurm`` or ``command``.
    :param submitted_at: when it was launched, ISO 8601 in UTC; None while it is only staged.
    :param gpus: how many GPUs it requests, for an array per element; 0 while it is only staged.
    :param array_size: number of elements of an array; None for any other job.
    :param parts: for an array whose elements are on several clusters, what is on each; the first is the one that the
        other fields name. Empty if one cluster has them all.
    """

    job_id: str
    gpu_cluster_conn_id: str
    job_dir: str
    engine: str
    submitted_at: str | None
    gpus: int
    array_size: int | None = None
    parts: tuple[ArrayPart, ...] = ()

    @property
    def conn_ids(self) -> tuple[str, ...]:
        """The connections of the clusters that have it, each once."""
        return tuple(dict.fromkeys(part.gpu_cluster_conn_id for part in self.parts)) or (self.gpu_cluster_conn_id,)

    @property
    def arrays(self) -> tuple[JobHandle, ...]:
        """Each part as an array of its own, on one cluster; a job that has no parts is the only one."""
        return tuple(self._array(part) for part in self.parts) or (self,)

    def elsewhere(self, conn_id: str, *, root_dir: str, engine: str) -> JobHandle:
        """
        Return the handle of the same job on another cluster.

        :param root_dir: where that cluster has the directories of jobs.
        """
        job_dir = f"{root_dir.rstrip('/')}/{self.job_id}"
        return replace(self, gpu_cluster_conn_id=conn_id, job_dir=job_dir, engine=engine)

    def _array(self, part: ArrayPart) -> JobHandle:
        return replace(
            self,
            job_id=part.job_id,
            gpu_cluster_conn_id=part.gpu_cluster_conn_id,
            job_dir=part.job_dir,
            engine=part.engine,
            array_size=part.count,
            parts=(),
        )

    def with_arrays(self, arrays: Sequence[JobHandle]) -> JobHandle:
        """
        Return the handle of an array on several clusters with its parts where they are now.

        :param arrays: each part, as :attr:`arrays` has it.
        """
        parts = [
            replace(
                part,
                gpu_cluster_conn_id=array.gpu_cluster_conn_id,
                job_dir=array.job_dir,
                engine=array.engine,
            )
            for part, array in zip(self.parts, arrays, strict=True)
        ]
        first = parts[0]
        return replace(
            self,
            gpu_cluster_conn_id=first.gpu_cluster_conn_id,
            job_dir=first.job_dir,
            engine=first.engine,
            parts=tuple(parts),
        )

    @property
    def elements(self) -> tuple[JobHandle, ...]:
        """The elements of an array, each a separate job."""
        return tuple(self.element(index) for index in range(self.array_size or 0))

    def element(self, index: int) -> JobHandle:
        """Return an element of an array."""
        for part in self.parts:
            if part.first <= index < part.first + part.count:
                return self._array(part).element(index - part.first)
        job_id = element_id(self.job_id, index)
        job_dir = posixpath.join(posixpath.dirname(self.job_dir), job_id)
        return replace(self, job_id=job_id, job_dir=job_dir, array_size=None)

    def log_location(self, cluster: str) -> str:
        """
        Return where the job's whole output is stored, in readable form.

        :param cluster: name of its cluster, ``user@host:port``.
        """
        return f"{cluster}:{self.job_dir}/logs/training.log"

    def to_json(self) -> dict[str, Any]:
        """Return the handle as the small dict that goes through XCom."""
        value = asdict(self)
        if self.array_size is None:
            del value["array_size"]
        value["parts"] = [asdict(part) for part in self.parts]
        if not self.parts:
            del value["parts"]
        return value

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> JobHandle:
        """
        Read a handle back from XCom.

        :raises ValueError: the value is not a job handle.
        """
        names = [item.name for item in fields(cls) if item.default is MISSING]
        if not isinstance(value, dict):
            problem = f"it is a {type(value).__name__}"
        elif missing := [name for name in names if name not in value]:
            problem = f"it has no {' and no '.join(missing)}"
        else:
            known = {item.name: value[item.name] for item in fields(cls) if item.name in value}
            handle = cls(**{**known, "parts": _parts_of(value.get("parts"))})
            wrong = handle._wrong_fields()
            if not wrong:
                return handle
            problem = ", ".join(
                str(job_ids.fault_of(value[name])) if name == "job_id" else f"its {name} is {_shown(value[name], 60)}"
                for name in wrong
            )
        raise ValueError(
            f"not a job handle: {_shown(value, 200)} ({problem}); pass the output of SubmitGpuJobOperator or "
            f"StageGpuJobOperator, a dict with the keys {', '.join(names)}"
        )

    def _wrong_fields(self) -> list[str]:
        """Return the names of the fields that hold something else than they should."""
        texts = ("job_id", "gpu_cluster_conn_id", "job_dir", "engine")
        wrong = [name for name in texts if not isinstance(getattr(self, name), str)]
        if self.submitted_at is not None and not _is_time(self.submitted_at):
            wrong.append("submitted_at")
        if not _is_count(self.gpus, 0):
            wrong.append("gpus")
        if self.array_size is not None and not _is_count(self.array_size, 1):
            wrong.append("array_size")
        ends = [0, *(part.first + part.count for part in self.parts)]
        if self.parts and ([part.first for part in self.parts] != ends[:-1] or ends[-1] != self.array_size):
            wrong.append("parts")
        return wrong


def _parts_of(value: object) -> tuple[ArrayPart, ...]:
    """Return parts as a handle has them; one that is none makes the handle invalid."""
    parts = value if isinstance(value, (list, tuple)) else ()
    # One that is none begins nowhere, for which the whole handle is refused.
    return tuple(_part_of(part) or ArrayPart("", "", "", "", first=-1, count=0) for part in parts)


def _part_of(value: object) -> ArrayPart | None:
    if not isinstance(value, dict):
        return None
    known: dict[str, Any] = {item.name: value.get(item.name) for item in fields(ArrayPart)}
    texts = [known[name] for name in ("job_id", "gpu_cluster_conn_id", "job_dir", "engine")]
    if not all(isinstance(text, str) for text in texts) or job_ids.fault_of(known["job_id"]) is not None:
        return None
    return ArrayPart(**known) if _is_count(known["first"], 0) and _is_count(known["count"], 1) else None


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < 1 << 31


def _is_time(value: object) -> bool:
    try:
        return isinstance(value, str) and bool(datetime.fromisoformat(value))
    except ValueError:
        return False


def _shown(value: object, most: int) -> str:
    try:
        text = repr(value)
    except RecursionError:
        return f"a deeply nested {type(value).__name__}"
    return text if len(text) <= most else f"{text[:most]}..."
