"""Looks at clusters: one serves many scrapes, and none delays another."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError, GpuClusterSetupError
from airflow_provider_gpu_cluster.plugins import cluster_looks as module
from airflow_provider_gpu_cluster.plugins.cluster_line import ClusterLine
from airflow_provider_gpu_cluster.plugins.cluster_looks import ClusterLook, ClusterLooks
from tests.harness.patience import PATIENCE_S
from tests.servers.proxy import CutProxy


class Line(ClusterLine):
    """Stands for the line to a cluster: what it answers, and how often it was asked."""

    def __init__(self, conn_id: str) -> None:
        super().__init__(conn_id)
        self.asked = 0
        self.closed = threading.Event()
        self.answer: Callable[[], Any] = lambda: {"calls": []}

    def totals(self) -> Any:
        self.asked += 1
        return self.answer()

    def close(self) -> None:
        self.closed.set()


class Lines(dict[str, Line]):
    def __missing__(self, conn_id: str) -> Line:
        self[conn_id] = Line(conn_id)
        return self[conn_id]


@pytest.fixture
def lines() -> Lines:
    return Lines()


def scrape(looks: ClusterLooks, *conn_ids: str, times: int = 1) -> list[ClusterLook]:
    async def all_at_once() -> list[list[ClusterLook]]:
        return await asyncio.gather(*(looks.looks(conn_ids) for _ in range(times)))

    return asyncio.run(all_at_once())[-1]


def out_of_reach() -> Any:
    raise GpuClusterConnectionError("lab does not answer")


def test_one_look_serves_all_scrapes_during_it_and_for_a_while_after_it(lines: Lines) -> None:
    looks = ClusterLooks(lines.__getitem__, keep_s=60)

    def slow() -> Any:
        time.sleep(0.1)
        return {"calls": []}

    lines["a"].answer = slow
    for _ in range(2):
        (look,) = scrape(looks, "a", times=20)
        assert look.is_up
    assert lines["a"].asked == 1

    looks = ClusterLooks(lines.__getitem__, keep_s=0)
    scrape(looks, "b")
    scrape(looks, "b")
    assert lines["b"].asked == 2


def test_clusters_are_looked_at_side_by_side(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(20, timeout=PATIENCE_S)
    monkeypatch.setattr(module, "_FIRST_WAIT_S", PATIENCE_S)
    names = [str(number) for number in range(20)]
    for name in names:
        lines[name].answer = lambda: (together.wait(), {"calls": []})[1]
    assert all(look.is_up for look in scrape(ClusterLooks(lines.__getitem__), *names))


def test_a_cluster_out_of_reach_says_so_and_tells_nothing_old(lines: Lines, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    looks = ClusterLooks(lines.__getitem__, keep_s=0)
    lines["never"].answer = out_of_reach
    a, never = scrape(looks, "a", "never")
    assert (a.is_up, a.answer) == (True, {"calls": []})
    assert (never.is_up, never.answer, never.age_s) == (False, None, None)
    lines["a"].answer = out_of_reach
    for _ in range(3):
        a, _ = scrape(looks, "a", "never")
        until_over(looks, "a", "never")
        assert a.answer is None
    assert not a.is_up
    assert a.age_s is not None
    # It is said once, and not at every scrape.
    assert caplog.text.count("of connection a does not answer: lab does not answer") == 1
    lines["a"].answer = dict
    # A scrape does not wait for a cluster that was out of reach; the next one knows.
    scrape(looks, "a")
    until_over(looks, "a")
    assert scrape(looks, "a")[0].is_up
    assert caplog.text.count("of connection a answers") == 1


def until_over(looks: ClusterLooks, *conn_ids: str) -> None:
    for conn_id in conn_ids:
        call = looks._clusters[conn_id].call
        assert call
        call.result(PATIENCE_S)


def test_a_silent_cluster_delays_one_scrape_by_a_moment_and_further_ones_not_at_all(
    lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LEAST_WAIT_S", 0.1)
    gate = threading.Event()

    def silent() -> Any:
        gate.wait(PATIENCE_S)
        return {"calls": []}

    looks = ClusterLooks(lines.__getitem__, keep_s=0)
    scrape(looks, "a", "b")
    lines["a"].answer = silent
    try:
        took = []
        for _ in range(3):
            began = time.monotonic()
            a, b = scrape(looks, "a", "b")
            took.append(time.monotonic() - began)
            # Whether it is out of reach nobody knows yet.
            assert (a.is_up, a.answer, b.answer) == (True, None, {"calls": []})
        assert took[0] >= 0.1
        assert max(took) < PATIENCE_S / 2
        assert lines["a"].asked == 2
    finally:
        gate.set()
    until_over(looks, "a")
    looks._keep_s = 60
    assert scrape(looks, "a")[0].answer == {"calls": []}


def test_a_slow_cluster_is_waited_for_longer(lines: Lines) -> None:
    known = [ClusterLook("a", is_up=True, took_s=took_s) for took_s in (0.1, 2.0, 30.0)]
    assert [module._Cluster(lines["a"], look).patience_s for look in known] == [2, 6, 8]


def test_connections_are_closed_when_nobody_scrapes_any_more_or_the_connection_is_gone(lines: Lines) -> None:
    looks = ClusterLooks(lines.__getitem__, idle_s=0.05)

    async def until_idle() -> None:
        await looks.looks(["a"])
        assert not lines["a"].closed.is_set()
        await asyncio.to_thread(lines["a"].closed.wait, PATIENCE_S)

    asyncio.run(until_idle())
    assert lines["a"].closed.is_set()
    scrape(looks, "b")
    scrape(looks, "c")
    assert lines["b"].closed.wait(PATIENCE_S)
    assert list(looks._clusters) == ["c"]
    looks.close()
    assert lines["c"].closed.wait(PATIENCE_S)


def test_a_real_cluster_keeps_its_connection_until_that_breaks_is_changed_or_is_refused(
    gpu_cluster_conn: dict[str, Any], cut_proxy: CutProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect_to(**change: Any) -> None:
        connection = {**gpu_cluster_conn, "host": cut_proxy.host, "port": cut_proxy.port, **change}
        monkeypatch.setenv("AIRFLOW_CONN_LAB", json.dumps(connection))

    connect_to()
    line = ClusterLine("lab")
    for _ in range(3):
        told = line.totals()
        assert told["capacity"]["free_gpus"] == 4
    assert cut_proxy.connections == 1
    cut_proxy.cut_now()
    assert line.totals()["ledger"]["is_complete"]
    assert cut_proxy.connections == 2
    connect_to(description="changed")
    line.totals()
    assert cut_proxy.connections == 3
    line.close()
    line.totals()
    assert cut_proxy.connections == 4
    line.close()
    looks = ClusterLooks(keep_s=0)
    assert scrape(looks, "lab")[0].is_up
    cut_proxy.refusing = True
    cut_proxy.cut_now()
    (look,) = scrape(looks, "lab")
    assert (look.is_up, look.answer) == (False, None)
    looks.close()
    connect_to(conn_type="postgres")
    with pytest.raises(GpuClusterSetupError, match="is of type postgres"):
        line.totals()
