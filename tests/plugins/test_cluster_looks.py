"""Looks at clusters: one serves many scrapes, and none delays another."""

from __future__ import annotations

import asyncio
import functools
import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError, GpuClusterSetupError
from airflow_provider_gpu_cluster.plugins.cluster_line import ClusterLine
from airflow_provider_gpu_cluster.plugins.cluster_looks import ClusterLooks, Look
from tests.harness.patience import PATIENCE_S
from tests.servers.proxy import CutProxy


def ledger(jobs: int, *, is_complete: bool = True) -> Any:
    return {"is_complete": is_complete, "pairs": [{"ends": [{"reason": "success", "count": jobs}]}]}


class Line(ClusterLine):
    """Stands for the line to a cluster: what it answers, and how often it was asked."""

    def __init__(self, conn_id: str) -> None:
        super().__init__(conn_id)
        self.asked = 0
        self.closed = threading.Event()
        self.answer: Callable[[], Any] = lambda: {"calls": [], "ledger": ledger(1)}

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


def scrape(looks: ClusterLooks, *conn_ids: str, times: int = 1) -> list[Look]:
    async def all_at_once() -> list[list[Look]]:
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


def test_clusters_are_looked_at_side_by_side(lines: Lines) -> None:
    together = threading.Barrier(20, timeout=PATIENCE_S)
    names = [str(number) for number in range(20)]
    for name in names:
        lines[name].answer = lambda: (together.wait(), {"calls": []})[1]
    assert all(look.is_up for look in scrape(ClusterLooks(lines.__getitem__, wait_s=PATIENCE_S), *names))


def test_a_cluster_out_of_reach_is_told_with_what_is_known_of_it(
    lines: Lines, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    looks = ClusterLooks(lines.__getitem__, keep_s=0)
    lines["never"].answer = out_of_reach
    scrape(looks, "a", "never")
    lines["a"].answer = out_of_reach
    for _ in range(2):
        asyncio.run(looks.looks(["a", "never"]))
    a, never = settled(looks, lines, "a", "never")
    assert (a.is_up, a.ledger, a.age_s is not None) == (False, ledger(1), True)
    assert (never.is_up, never.ledger, never.age_s) == (False, None, None)
    # It is said once, and not at every scrape.
    assert caplog.text.count("of connection a does not answer: lab does not answer") == 1
    lines["a"].answer = lambda: {"calls": [], "ledger": ledger(2)}
    assert settled(looks, lines, "a")[0].ledger == ledger(2)
    assert caplog.text.count("of connection a answers") == 1


def settled(looks: ClusterLooks, lines: Lines, *conn_ids: str) -> list[Look]:
    """Scrape until each cluster was looked at once more; a scrape does not wait for one that was out of reach."""
    scrape(looks, *conn_ids)
    for conn_id in conn_ids:
        call = looks._clusters[conn_id].call
        assert call
        call.result(PATIENCE_S)
    looks._keep_s = 60
    try:
        return scrape(looks, *conn_ids)
    finally:
        looks._keep_s = 0


def test_a_silent_cluster_delays_one_scrape_by_a_moment_and_further_ones_not_at_all(lines: Lines) -> None:
    gate = threading.Event()
    looks = ClusterLooks(lines.__getitem__, keep_s=0, wait_s=0.05)
    lines["a"].answer = lambda: (gate.wait(PATIENCE_S), out_of_reach())
    try:
        for _ in range(3):
            began = time.monotonic()
            silent, good = scrape(looks, "a", "b")
            assert time.monotonic() - began < PATIENCE_S / 2
            assert not silent.is_up
        assert lines["a"].asked == 1
        assert good.is_up
    finally:
        gate.set()
    settled(looks, lines, "a")
    looks._wait_s = PATIENCE_S
    gate.clear()
    try:
        began = time.monotonic()
        scrape(looks, "a")
        assert time.monotonic() - began < PATIENCE_S / 2
    finally:
        gate.set()


def test_sums_that_are_not_complete_yet_take_nothing_back(lines: Lines) -> None:
    looks = ClusterLooks(lines.__getitem__, keep_s=0)
    lines["a"].answer = lambda: {"calls": [], "ledger": ledger(1, is_complete=False)}
    assert scrape(looks, "a")[0].ledger is None
    lines["a"].answer = lambda: {"calls": [], "ledger": ledger(7)}
    assert scrape(looks, "a")[0].ledger == ledger(7)
    answers: list[Any] = [{"calls": [], "ledger": ledger(1, is_complete=False)}, {"calls": []}]
    for answer in answers:
        lines["a"].answer = functools.partial(dict, answer)
        assert scrape(looks, "a")[0].ledger == ledger(7)


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


def test_a_real_cluster_keeps_its_connection_until_it_breaks_or_is_changed(
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
    connect_to(conn_type="postgres")
    with pytest.raises(GpuClusterSetupError, match="is of type postgres"):
        line.totals()
