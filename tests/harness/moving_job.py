"""A job of a pool of real clusters that waits on the first, and what moves it; for tests, and for a process to kill."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import structlog

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.connection.retry import RETRY_FOR_S
from airflow_provider_gpu_cluster.connection.settings import ClusterSettings
from airflow_provider_gpu_cluster.exceptions import PlacementUnknownError
from airflow_provider_gpu_cluster.jobs.script import render_run_script
from airflow_provider_gpu_cluster.jobs.spec import JobSpec
from airflow_provider_gpu_cluster.jobs.submission import LaunchArguments
from airflow_provider_gpu_cluster.pools.launching import moves_of, placing_of
from airflow_provider_gpu_cluster.pools.members import Members
from airflow_provider_gpu_cluster.pools.moving import MovedJob
from airflow_provider_gpu_cluster.pools.offer import Member
from airflow_provider_gpu_cluster.pools.placement_record import PlacementRecord
from airflow_provider_gpu_cluster.pools.placing import Placing
from airflow_provider_gpu_cluster.pools.pool import IN_ORDER, SOONEST, Policy, Pool
from airflow_provider_gpu_cluster.pools.staged import Staged
from airflow_provider_gpu_cluster.pools.stores import PLACEMENT_KEY, KeyedStore
from airflow_provider_gpu_cluster.sources import Source
from tests.harness.jobs import record

JOB_ID = "job"
_writing = threading.Lock()
# Host, port, host key and the client's key of the SSH server of all clusters.
Server = tuple[str, int, str, str]


@dataclass
class MovingJob:
    """
    One try of a task that has a job in a pool.

    :param settings: of the clusters.
    :param connect: opens a connection to one of them, by its number.
    :param store: a file in which the task remembers where its job is.
    :param ports: where to connect to a cluster, by its number, if it is not at its server.
    :param retry_for_s: how long to keep trying to reach a cluster, in seconds.
    :param policy_order: the order of the clusters in the pool; by default that of their settings.
    :param failover_after_s: see :class:`.JobToPlace`.
    :param sources: the inputs, or where they are staged.
    :param before_step: is called before each word to a cluster, and each time something is remembered.
    """

    settings: list[ClusterSettings]
    connect: Callable[[int], Any]
    store: Path
    key: str = "try-1"
    before_step: Callable[[], None] = lambda: None
    ports: dict[int, int] = field(default_factory=dict)
    command: str = "sleep 600"
    spec: dict[str, Any] = field(default_factory=dict)
    retry_for_s: float = RETRY_FOR_S
    policy_order: tuple[int, ...] = ()
    failover_after_s: float | None = None
    sources: Sequence[Source] | Staged = ()

    def __post_init__(self) -> None:
        places = {one.conn_id: number for number, one in enumerate(self.settings)}
        self.members: Members[Cluster] = Members(
            lambda conn_id: _Stepping(self.settings[places[conn_id]], partial(self.connect, places[conn_id]), self)
        )

    @property
    def pool(self) -> Pool:
        order = self.policy_order or range(len(self.settings))
        return Pool(tuple(Member(self.settings[number].conn_id) for number in order))

    def _arguments(self) -> LaunchArguments:
        spec = JobSpec(**{"command": self.command, "gpus": 1, "grace_s": 1.0, "recover": {}, **self.spec})
        return {
            "spec": spec,
            "env": {},
            "run_script": render_run_script(spec),
            "request_key": self.key,
            "generation": "0",
            "record": record(),
        }

    def placing(self, policy: Policy = SOONEST) -> Placing[Cluster]:
        return placing_of(
            replace(self.pool, policy=policy),
            self.members,
            job_id=JOB_ID,
            sources=self.sources,
            arguments=self._arguments(),
            store=KeyedStore(self._get, self._put, is_first=self.key == "try-1"),
            log=structlog.get_logger(),
            failover_after_s=self.failover_after_s,
        )

    def begin(self, policy: Policy = SOONEST) -> str:
        return self.placing(policy).begin()[0].handle.gpu_cluster_conn_id

    def begin_on_first(self) -> str:
        return self.begin(IN_ORDER)

    def moved(self) -> MovedJob | None:
        """Look a second time, and move it if it is time."""
        stored = PlacementRecord.from_json(self._get(PLACEMENT_KEY))
        assert stored.conn_id is not None
        (status,) = self.members(stored.conn_id).statuses([JOB_ID])
        moves = moves_of(
            self.pool,
            self.members,
            job_id=JOB_ID,
            sources=self.sources,
            arguments=self._arguments(),
            placing=self.placing,
            move_gain_s=600.0,
            log=structlog.get_logger(),
            is_second_look=True,
        )
        return moves.look(stored, status)

    def _get(self, key: str) -> Any:
        return json.loads(self.store.read_text()).get(key) if self.store.exists() else None

    def _put(self, key: str, value: Any) -> None:
        self.before_step()
        with _writing:
            known = json.loads(self.store.read_text()) if self.store.exists() else {}
            draft = self.store.with_suffix(".draft")
            draft.write_text(json.dumps({**known, key: value}))
            draft.rename(self.store)

    def close(self) -> None:
        self.members.close()


class _Stepping(Cluster):
    """A cluster before each word to which something can happen."""

    def __init__(self, settings: ClusterSettings, connect: Callable[[], Any], job: MovingJob) -> None:
        super().__init__(settings, connect, retry_for_s=job.retry_for_s)
        self.job = job

    def place(self, *arguments: Any, **named: Any) -> Any:
        self.job.before_step()
        return super().place(*arguments, **named)

    def submit(self, *arguments: Any, **named: Any) -> Any:
        self.job.before_step()
        return super().submit(*arguments, **named)

    def carry_to(self, *arguments: Any, **named: Any) -> Any:
        self.job.before_step()
        return super().carry_to(*arguments, **named)


def kill_at(number: int) -> Callable[[], None]:
    """Return what kills this process when it is called for the n-th time."""
    left = [number]

    def step() -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    return step


def move_and_die(settings: list[ClusterSettings], server: Server, store: Path, command: str, step: int) -> None:
    """Move the job in a process of its own, which is killed at a step."""
    with _in_this_process(settings, server, store, step) as job:
        job.command, job.spec = command, {"recover": {"preempted": 2}}
        job.moved()


def begin_and_die(settings: list[ClusterSettings], server: Server, store: Path, step: int) -> None:
    """Launch the job on the first cluster in a process of its own, which is killed at a step."""
    with _in_this_process(settings, server, store, step) as job:
        job.begin_on_first()


def begin_at(moment: float, settings: list[ClusterSettings], server: Server, store: Path, key: str) -> None:
    """Launch the job in a process of its own, at a moment at which others do the same."""
    with _in_this_process(settings, server, store, 0) as job:
        job.key = key
        for one in settings:
            job.members(one.conn_id).open()
        time.sleep(max(0.0, moment - time.time()))
        # On a busy machine it may hear too little of the clusters to be sure.
        with contextlib.suppress(PlacementUnknownError):
            job.begin_on_first()


@contextlib.contextmanager
def _in_this_process(settings: list[ClusterSettings], server: Server, store: Path, step: int) -> Iterator[MovingJob]:
    from tests.conftest import connections_to

    host, port, host_key, client_key = server
    sshd: Any = SimpleNamespace(host=host, port=port, host_key=host_key, client_key=client_key)
    with connections_to(sshd) as connect:
        yield MovingJob(settings, lambda number: connect(), store, before_step=kill_at(step))
