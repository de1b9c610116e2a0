"""Clusters are asked at the same time, and one that is silent keeps nobody waiting for long."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import paramiko
import pytest
from airflow.sdk.exceptions import AirflowNotFoundException

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.connection.settings import ClusterSettings
from airflow_provider_gpu_cluster.exceptions import (
    GpuClusterConnectionError,
    GpuClusterError,
    GpuClusterSetupError,
)
from airflow_provider_gpu_cluster.pools import side_by_side as module
from airflow_provider_gpu_cluster.pools.members import Members
from airflow_provider_gpu_cluster.pools.side_by_side import side_by_side
from tests.harness.patience import PATIENCE_S


class Client:
    """Something to ask in the place of a cluster: a fake, as no cluster hangs or fails on demand."""

    def __init__(self, answer: Any = None) -> None:
        self.answer = answer
        self.go_on = threading.Event()
        self.go_on.set()
        self.is_closed = threading.Event()

    def ask(self) -> Any:
        assert self.go_on.wait(PATIENCE_S)
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer

    def interrupt(self) -> None:
        self.answer = GpuClusterConnectionError("the call was interrupted")
        self.go_on.set()

    def close(self) -> None:
        self.is_closed.set()


def hanging() -> Client:
    client = Client()
    client.go_on.clear()
    return client


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Return a port where something listens, and never says anything."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_silent_cluster_costs_little_and_the_others_stay_connected(
    cluster_settings: ClusterSettings, ssh_connect: Callable[..., paramiko.SSHClient], silent_port: int
) -> None:
    ports = {"good": None, "silent": silent_port}

    def make(conn_id: str) -> Cluster:
        return Cluster(replace(cluster_settings, conn_id=conn_id), lambda: ssh_connect(ports[conn_id]))

    members = Members(make)
    silent = members("silent")
    outcomes = side_by_side(
        ["silent", "good"], Cluster.capacity, members=members, wait_s=0.3, is_enough=lambda outcomes: "good" in outcomes
    )
    good = outcomes["good"]
    assert not isinstance(good, GpuClusterError)
    assert len(good["gpus"]) == 4
    assert isinstance(outcomes["silent"], GpuClusterConnectionError)
    assert "has not answered within" in str(outcomes["silent"])
    # The login serves what comes next, and nobody uses what another thread still waits for.
    assert members("good").is_connected()
    assert members("silent") is not silent
    assert all(thread.daemon for thread in threading.enumerate() if thread.name == "asks silent")
    members.close()
    assert not members("good").is_connected()


def test_one_that_was_left_is_broken_off_and_closed() -> None:
    clients = {"a": Client("yes"), "b": hanging()}
    members = Members(clients.__getitem__)
    outcomes = side_by_side(["a", "b"], Client.ask, members=members, wait_s=0.05)
    assert outcomes["a"] == "yes"
    assert clients["b"].is_closed.wait(PATIENCE_S)
    assert not clients["a"].is_closed.is_set()


def test_while_what_came_is_not_enough_the_slow_ones_get_more_time() -> None:
    clients = {"a": Client("no"), "b": hanging()}
    threading.Timer(0.2, clients["b"].go_on.set).start()
    clients["b"].answer = "yes"
    outcomes = side_by_side(
        ["a", "b"],
        Client.ask,
        members=Members(clients.__getitem__),
        wait_s=0.01,
        is_enough=lambda outcomes: "yes" in outcomes.values(),
    )
    assert outcomes == {"a": "no", "b": "yes"}


def test_where_others_are_slow_too_one_gets_twice_as_long_as_they() -> None:
    clients = {"slow": hanging(), "slower": hanging(), "silent": hanging()}
    threading.Timer(0.3, clients["slow"].go_on.set).start()
    threading.Timer(0.4, clients["slower"].go_on.set).start()
    outcomes = side_by_side(
        [*clients],
        Client.ask,
        members=Members(clients.__getitem__),
        wait_s=0.01,
        is_enough=lambda outcomes: bool(outcomes),
    )
    assert (outcomes["slow"], outcomes["slower"]) == (None, None)
    assert isinstance(outcomes["silent"], GpuClusterConnectionError)


def test_if_nothing_that_is_enough_comes_it_ends_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.1)
    members = Members(lambda conn_id: hanging())
    outcomes = side_by_side(["a"], Client.ask, members=members, wait_s=0.01, is_enough=lambda outcomes: False)
    assert isinstance(outcomes["a"], GpuClusterConnectionError)


def test_what_asking_raises_becomes_an_error_of_that_cluster() -> None:
    refused = GpuClusterSetupError("no python3")
    errors = {"a": refused, "b": AirflowNotFoundException("no such connection"), "c": ZeroDivisionError("division")}
    outcomes = side_by_side(
        [*errors, "d"], Client.ask, members=Members(lambda name: Client(errors.get(name, 1))), wait_s=PATIENCE_S
    )
    assert outcomes["a"] is refused
    assert isinstance(outcomes["b"], GpuClusterSetupError)
    assert "no such connection" in str(outcomes["b"])
    assert "ZeroDivisionError: division" in str(outcomes["c"])
    assert outcomes["d"] == 1


def test_a_cluster_that_cannot_be_made_is_one_that_does_not_answer() -> None:
    def make(conn_id: str) -> Client:
        raise AirflowNotFoundException(f"the connection {conn_id} is not defined")

    outcomes = side_by_side(["a"], Client.ask, members=Members(make), wait_s=PATIENCE_S)
    assert "the connection a is not defined" in str(outcomes["a"])


def test_who_is_interrupted_while_it_waits_leaves_all_that_have_not_answered() -> None:
    client = hanging()

    def interrupted(outcomes: object) -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        side_by_side(["a"], Client.ask, members=Members(lambda name: client), wait_s=1, is_enough=interrupted)
    assert client.is_closed.wait(PATIENCE_S)


def test_many_are_asked_at_the_same_time() -> None:
    together = threading.Barrier(20, timeout=PATIENCE_S)
    began = time.monotonic()
    outcomes = side_by_side(
        [str(number) for number in range(20)],
        lambda client: together.wait(),
        members=Members(lambda name: Client()),
        wait_s=PATIENCE_S,
    )
    assert sorted(outcomes.values(), key=str) == sorted(range(20), key=str)
    assert time.monotonic() - began < PATIENCE_S
