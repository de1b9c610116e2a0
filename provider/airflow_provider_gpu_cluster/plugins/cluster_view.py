"""
What a viewer is shown of a cluster: pure functions from what is known to what may be seen.

Who may read the connection sees everything but the names of jobs whose DAGs are not theirs to read. Who may not, and
has DAGs with jobs there, sees where GPUs are free and the own jobs: not who the others are, nor the host, nor why it
does not answer.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field

from airflow_provider_gpu_cluster.connection.words import cleaned
from airflow_provider_gpu_cluster.gpu_run.protocol import overview as words
from airflow_provider_gpu_cluster.plugins.clusters import KnownCluster

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.gpu_run.protocol.overview import (
        EngineView,
        OverviewGpu,
        OverviewJob,
        OverviewNode,
    )
    from airflow_provider_gpu_cluster.gpu_run.protocol.replies import GpuFault

_ANOTHER = "another job"
_MOST_CHARACTERS = 500
# The login behind the name of a job that has a GPU, as in "2 with train-1 (ann)".
_NAMED_USER = re.compile(r" \([^() ]+\)")


class TaskOfJob(BaseModel):
    """The task instance that has launched a job."""

    job_id: str
    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1
    element: int | None = None


class JobOnCluster(BaseModel):
    """A job that has GPUs or waits for some. What may not be seen, or is not known, is null."""

    is_running: bool
    gpus: int
    user: str | None = Field(None, description="who it is for: the user who has triggered the run, or the login there")
    task: TaskOfJob | None = Field(None, description="null for jobs of others, and of DAGs that you may not read")
    scheduler_id: str | None = None
    partition: str | None = None
    gpu_type: str | None = None
    place: int | None = Field(None, description="place in the queue, from 1")
    why: str | None = Field(None, description="why it waits")
    submitted_at: str | None = None
    since: str | None = None
    until: str | None = None
    expected_at: str | None = None


class GpuOnCluster(BaseModel):
    """A GPU or MIG instance."""

    state: str = Field(description="free, leased, other (in use without a lease) or down")
    type: str
    index: int | None = None
    memory_mb: int | None = None
    used_mb: int | None = None
    percent: float | None = Field(None, description="how busy it is")
    job: int | None = Field(None, description="who has it: a place in `jobs`")
    used_by: str | None = None


class NodeOfCluster(BaseModel):
    """A node of a scheduler, or the host itself."""

    name: str | None
    is_up: bool
    state: str | None = None
    reason: str | None = None
    partitions: list[str] = []
    gpus: list[GpuOnCluster]


class Partition(BaseModel):
    """A partition of a scheduler, with its GPUs. A node may be in several."""

    name: str
    is_default: bool = Field(description="whether jobs go there that name none, as the connection says")
    nodes: int
    nodes_up: int
    gpus: int
    free: int


class Hour(BaseModel):
    """An hour of use by jobs of this connection's root."""

    begins_at: str
    gpu_hours: float
    measured_gpu_hours: float
    used_gpu_hours: float


class Disk(BaseModel):
    """The disk of the jobs, in bytes."""

    free: int
    total: int


class Counts(BaseModel):
    """GPUs where the connection's jobs go, and jobs that wait for some."""

    gpus: int = 0
    free: int = 0
    leased: int = 0
    other: int = 0
    down: int = 0
    waiting_jobs: int = 0
    waiting_gpus: int = 0


class ClusterInBrief(BaseModel):
    """What is known of a cluster without a look at it."""

    conn_id: str
    is_up: bool | None = Field(description="whether it answers; null when nobody has looked")
    engine: str | None = None
    counts: Counts | None = None
    as_of: datetime | None = None


class MayOnCluster(BaseModel):
    """What the viewer may do."""

    see_all: bool
    test: bool


class Findings(BaseModel):
    """What the last check has found, which is that of "Test connection"."""

    at: datetime
    error: str | None
    warnings: list[str]


class ClusterDetail(ClusterInBrief):
    """A cluster as it is now, or as it was when it last answered."""

    error: str | None = Field(None, description="why it does not answer")
    down_since: datetime | None = None
    fault: str | None = Field(None, description="why its GPUs are not known, though it answers")
    host: str | None = None
    root_dir: str | None = None
    launcher: str | None = None
    nodes: list[NodeOfCluster] = []
    left_out: int = Field(0, description="GPUs that are in no node of the list, as there are too many")
    partitions: list[Partition] = []
    jobs: list[JobOnCluster] = []
    hours: list[Hour] = []
    disk: Disk | None = None
    programs: dict[str, str] = {}
    problems: list[str] = Field([], description="GPUs that do not work, and other remarks")
    findings: Findings | None = None
    may: MayOnCluster


@dataclass(frozen=True)
class Viewer:
    """
    What a viewer may see of a cluster.

    :param dags: the DAGs that they may read.
    :param sees_all: whether they may read its connection.
    :param may_test: whether they may edit it.
    """

    dags: Collection[str]
    sees_all: bool
    may_test: bool = False


def brief(conn_id: str, known: KnownCluster) -> ClusterInBrief:
    """Return what is known of a cluster in a few words."""
    overview = known.overview
    return ClusterInBrief(
        conn_id=conn_id,
        is_up=known.is_up,
        engine=None if overview is None else overview["engine"],
        counts=None if overview is None or "view" not in overview else _counts(overview["view"]),
        as_of=known.as_of,
    )


def cluster_view(conn_id: str, known: KnownCluster, viewer: Viewer) -> ClusterDetail:
    """Return what a viewer is shown of a cluster."""
    detail = ClusterDetail(
        **brief(conn_id, known).model_dump(),
        may=MayOnCluster(see_all=viewer.sees_all, test=viewer.may_test),
        down_since=known.down_since,
        error=_told(known.error, viewer, "It does not answer.") or None,
    )
    overview = known.overview
    if overview is None:
        return detail
    detail.hours = [Hour(**hour) for hour in overview["hours"]]
    detail.fault = _told(overview.get("fault", ""), viewer, "Its GPUs are not known now.") or None
    if viewer.sees_all:
        detail.host = overview["host"]
        detail.disk = Disk(**overview["disk"]) if "disk" in overview else None
        detail.programs = _programs(known)
        detail.root_dir = known.check["root_dir"] if known.check else None
        detail.findings = _findings(known)
    view = overview.get("view")
    if view is not None:
        detail.nodes = [_node(node, viewer) for node in view["nodes"]]
        detail.left_out = view.get("left_out", 0)
        detail.partitions = _partitions(view)
        detail.jobs = list(_jobs(view["jobs"], viewer))
        detail.launcher = view.get("launcher")
        detail.problems = _problems(view) if viewer.sees_all else []
    return detail


def _told(text: str, viewer: Viewer, instead: str) -> str:
    return text and (cleaned(text) if viewer.sees_all else instead)


def _programs(known: KnownCluster) -> dict[str, str]:
    assert known.overview is not None
    found = {"Python": known.overview["python"], "NVIDIA driver": known.overview.get("driver")}
    if known.check is not None:
        found["git"] = known.check["git"] or "none"
        found["uv"] = known.check["uv"] or "none"
    return {name: cleaned(version, _MOST_CHARACTERS) for name, version in found.items() if version}


def _findings(known: KnownCluster) -> Findings | None:
    if known.checked_at is None:
        return None
    warnings = known.check["warnings"] if known.check else []
    return Findings(
        at=known.checked_at,
        error=cleaned(known.check_error) or None,
        # What is told about GPUs is of now elsewhere on the page.
        warnings=[cleaned(warning) for warning in warnings if not warning.startswith("GPU ")],
    )


def _problems(view: EngineView) -> list[str]:
    of_broken = "GPU {gpu} does not work: {why}"
    broken = [of_broken.format(gpu=gpu["gpu"] or "of unknown address", why=gpu["why"]) for gpu in _broken(view)]
    return [cleaned(text) for text in [*broken, *view.get("remarks", [])]]


def _broken(view: EngineView) -> list[GpuFault]:
    return view.get("broken_gpus", [])


def _is_counted(node: OverviewNode, view: EngineView) -> bool:
    """Return whether jobs of the connection go to that node; a connection may name several partitions."""
    named = view.get("partition")
    return not named or not set(named.split(",")).isdisjoint(node.get("partitions", ()))


def _counts(view: EngineView) -> Counts:
    states = [gpu["state"] for node in view["nodes"] if _is_counted(node, view) for gpu in node["gpus"]]
    return Counts(
        gpus=len(states),
        **{state: states.count(state) for state in (words.FREE, words.LEASED, words.OTHER, words.DOWN)},
        waiting_jobs=view["waiting_jobs"],
        waiting_gpus=view["waiting_gpus"],
    )


def _partitions(view: EngineView) -> list[Partition]:
    named = (view.get("partition") or "").split(",")
    found: dict[str, Partition] = {}
    for node in view["nodes"]:
        for name in node.get("partitions", ()):
            one = found.setdefault(
                name, Partition(name=name, is_default=name in named, nodes=0, nodes_up=0, gpus=0, free=0)
            )
            one.nodes += 1
            one.nodes_up += node["is_up"]
            one.gpus += len(node["gpus"])
            one.free += sum(gpu["state"] == words.FREE for gpu in node["gpus"])
    return list(found.values())


def _node(node: OverviewNode, viewer: Viewer) -> NodeOfCluster:
    gpus = [_gpu(gpu, viewer) for gpu in node["gpus"]]
    if not viewer.sees_all:
        return NodeOfCluster(name=None, is_up=node["is_up"], partitions=node.get("partitions", []), gpus=gpus)
    return NodeOfCluster(
        name=cleaned(node["name"], _MOST_CHARACTERS),
        is_up=node["is_up"],
        state=node.get("state"),
        reason=cleaned(node["reason"], _MOST_CHARACTERS) if "reason" in node else None,
        partitions=node.get("partitions", []),
        gpus=gpus,
    )


def _gpu(gpu: OverviewGpu, viewer: Viewer) -> GpuOnCluster:
    told: dict[str, Any] = dict(gpu)
    if "used_by" in told:
        told["used_by"] = _told(told["used_by"], viewer, "something else")
    return GpuOnCluster.model_construct(**told)


def _jobs(jobs: Iterable[OverviewJob], viewer: Viewer) -> Iterable[JobOnCluster]:
    jobs = list(jobs)
    hidden = {job["job_id"] for job in jobs if "job_id" in job and _task(job, viewer) is None}
    for job in jobs:
        task = _task(job, viewer)
        is_shown = viewer.sees_all or task is not None
        why = cleaned(job["why"]) if "why" in job and is_shown else None
        told: dict[str, Any] = {name: job.get(name) for name in _OF_ALL}
        yield JobOnCluster(
            is_running=job["is_running"],
            gpus=job["gpus"],
            user=_user(job) if is_shown else None,
            task=task,
            scheduler_id=job.get("scheduler_id") if is_shown else None,
            why=None if why is None else _without(why, hidden, viewer)[:_MOST_CHARACTERS],
            **told,
        )


_OF_ALL = ("partition", "gpu_type", "place", "submitted_at", "since", "until", "expected_at")


def _task(job: OverviewJob, viewer: Viewer) -> TaskOfJob | None:
    """Return the task instance of a job, if the viewer may read its DAG."""
    by = job.get("by") or {}
    if by.get("dag_id") not in viewer.dags or not {"run_id", "task_id"} <= by.keys():
        return None
    map_index = by.get("map_index")
    return TaskOfJob(
        job_id=job["job_id"],
        dag_id=by["dag_id"],
        run_id=by["run_id"],
        task_id=by["task_id"],
        map_index=-1 if map_index is None else map_index,
        element=job.get("element"),
    )


def _user(job: OverviewJob) -> str:
    by = job.get("by") or {}
    who = by.get("triggered_by") or by.get("owner") or by.get("person") or job["user"]
    return cleaned(who, _MOST_CHARACTERS)


def _without(why: str, hidden: Collection[str], viewer: Viewer) -> str:
    """Return why a job waits without the names of jobs that are not the viewer's to know."""
    # The longest first, as the name of one may be the beginning of another's.
    for job_id in sorted(hidden, key=len, reverse=True):
        if job_id in why:
            why = why.replace(job_id, _ANOTHER)
    return why if viewer.sees_all else _NAMED_USER.sub("", why)
