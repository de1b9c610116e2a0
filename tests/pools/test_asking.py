"""All clusters of a pool are asked what they offer: real ones, and one that answers what no cluster would."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import paramiko
import pytest

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.connection.reply import reply_of
from airflow_provider_gpu_cluster.connection.settings import ClusterSettings
from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError, InvalidJobError
from airflow_provider_gpu_cluster.gpu_run.protocol.appraisal import JobToAppraise
from airflow_provider_gpu_cluster.jobs.spec import JobSpec
from airflow_provider_gpu_cluster.pools.asking import offers_of
from airflow_provider_gpu_cluster.pools.choice import choose
from airflow_provider_gpu_cluster.pools.members import Members
from airflow_provider_gpu_cluster.pools.offer import Member
from airflow_provider_gpu_cluster.pools.pool import Pool
from airflow_provider_gpu_cluster.pools.table import table_of
from tests.harness.jobs import submit
from tests.harness.unpacked_program import provide_unpacked


def job(job_id: str = "j", **spec: Any) -> JobToAppraise:
    return {"job_id": job_id, "spec": JobSpec(**{"command": "true", "gpus": 1, **spec}).to_json(), "inputs": []}


def test_all_are_asked_over_connections_that_serve_the_launch_too(
    cluster_settings: ClusterSettings,
    ssh_connect: Callable[..., paramiko.SSHClient],
    cluster_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    logins = []

    def make(conn_id: str) -> Cluster:
        folder = cluster_folder / conn_id
        provide_unpacked(folder / "ml-jobs")
        settings = replace(
            cluster_settings,
            conn_id=conn_id,
            root_dir=str(folder / "ml-jobs"),
            lease_dir=str(folder / "leases"),
            virtual_gpus=1 if conn_id == "small" else 4,
        )

        def connect() -> paramiko.SSHClient:
            logins.append(conn_id)
            if conn_id == "gone":
                raise GpuClusterConnectionError("nothing listens there") from ConnectionRefusedError()
            return ssh_connect()

        return Cluster(settings, connect)

    members = Members(make)
    pool = Pool((Member("gone", 1.0, 0.5), Member("busy", 1.0, 2.0), Member("small"), Member("free")))
    submit(members("busy"), "sleep 600", job_id="other", gpus=4, time_limit_s=600.0)
    (two, eight) = offers_of(pool, [job(gpus=2), job(gpus=8)], open_member=members, wait_s=20)
    gone, busy, small, free = two
    assert (gone.answered, gone.why_not, gone.price_per_gpu_hour) == (False, "nothing listens there", 0.5)
    assert (busy.fits, busy.free_gpus, busy.gpus, busy.price_per_gpu_hour) == (True, 0, 4, 2.0)
    assert busy.starts_in_s is not None
    assert 0 < busy.starts_in_s < 700
    assert (small.fits, small.answered) == (False, True)
    assert (free.fits, free.free_gpus, free.starts_in_s, free.missing_bytes) == (True, 4, 0.0, 0)
    assert abs(free.clock_ahead_s) < 20
    assert free.clock_ahead_s <= 0
    choice = choose(two)
    assert choice.offer is free
    assert "free is chosen" in table_of(choice)
    # Of the larger one, no cluster that answers is capable; but one has not answered.
    with pytest.raises(GpuClusterConnectionError, match="gone: nothing listens there"):
        choose(eight)
    submit(members("free"), "true", job_id="mine")
    # A refused connection is not tried again, and nobody has logged in twice.
    assert sorted(logins) == ["busy", "free", "gone", "small"]
    members.close()


class Answering:
    """A cluster that answers what it is told to: a fake, as no real one is hostile."""

    is_interrupted = False

    def __init__(self, conn_id: str, answer: Any) -> None:
        self.settings = ClusterSettings(conn_id=conn_id, name="me@fake")
        self._answer = answer
        self.asked = 0

    def retrying_for(self, seconds: float) -> Answering:
        return self

    def appraise(self, jobs: Any) -> Any:
        self.asked += 1
        answer = self._answer.pop(0) if isinstance(self._answer, list) else self._answer
        if isinstance(answer, Exception):
            raise answer
        return reply_of(answer, "appraise", self.settings.where)

    def interrupt(self) -> None: ...

    def close(self) -> None: ...


GOOD: dict[str, Any] = {"jobs": [{"fits": True, "starts_in_s": 0}], "now": 1.0}
TURNED_AWAY = GpuClusterConnectionError("the server closed the connection")


@pytest.mark.parametrize(
    ("answer", "fits", "why_not", "asked"),
    [
        (GOOD, True, "", 1),
        ({"jobs": [], "now": 1.0}, False, "it was asked about 1 jobs, and told of 0", 1),
        ({"jobs": [GOOD["jobs"][0]] * 2, "now": 1.0}, False, "told of 2", 1),
        ({"jobs": [{}], "now": 1.0}, False, "fits is missing", 1),
        ({"jobs": [{"fits": 1}], "now": 1.0}, False, "is not true or false", 1),
        ({"jobs": "all", "now": 1.0}, False, "is not a list", 1),
        ({"jobs": [{"fits": True}], "now": "noon"}, False, "is not a number", 1),
        ({"jobs": [{"fits": True}], "now": float("nan")}, False, "is not a number", 1),
        ({}, False, "is missing", 1),
        ([TURNED_AWAY, GOOD], True, "", 2),
        ([TURNED_AWAY, TURNED_AWAY], False, "the server closed the connection", 2),
        (InvalidJobError("cpus is -1"), False, "cpus is -1", 1),
        (ValueError("a fault of this program"), False, "ValueError: a fault of this program", 1),
    ],
)
def test_whatever_a_cluster_answers_becomes_its_row(answer: Any, fits: bool, why_not: str, asked: int) -> None:
    members: dict[str, Any] = {"a": Answering("a", answer), "b": Answering("b", GOOD)}
    pool = Pool((Member("a"), Member("b")))
    ((offer, good),) = offers_of(pool, [job()], open_member=Members(members.__getitem__), wait_s=60)
    assert (offer.conn_id, offer.fits, members["a"].asked) == ("a", fits, asked)
    assert why_not in offer.why_not
    assert good.fits


def test_the_clock_of_a_cluster_is_known_well_enough_to_tell_it_a_moment_that_is_not_later() -> None:
    began = time.time()

    class Ahead(Answering):
        def appraise(self, jobs: Any) -> Any:
            return {"jobs": [{"fits": True}], "now": time.time() + 600}

    members: Any = Members(lambda conn_id: Ahead(conn_id, None))
    ((offer,),) = offers_of(Pool((Member("a"),)), [job()], open_member=members, wait_s=60)
    assert 600 - (time.time() - began) <= offer.clock_ahead_s <= 600
