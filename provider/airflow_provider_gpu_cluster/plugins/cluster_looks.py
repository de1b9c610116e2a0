"""Looks at clusters for the metrics: one look serves any number of scrapes, and one connection any number of looks."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from airflow_provider_gpu_cluster.connection.words import words_of
from airflow_provider_gpu_cluster.plugins.cluster_line import ClusterLine

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.gpu_run.protocol.totals import LedgerTotals, TotalsReply

log = logging.getLogger(__name__)

THREADS = 64


@dataclass(frozen=True)
class Look:
    """
    What is known of a cluster.

    :param is_up: whether the cluster has answered the last look.
    :param now: its last answer; None while there was none.
    :param ledger: the sums of its ledger, as far as it has ever told all of them.
    :param answered_at: time of its last answer, by the monotonic clock.
    :param took_s: how long the last look took, whether it was answered or not, in seconds.
    """

    conn_id: str
    is_up: bool = False
    now: TotalsReply | None = None
    ledger: LedgerTotals | None = None
    answered_at: float | None = None
    took_s: float | None = None

    @property
    def age_s(self) -> float | None:
        """How old the last answer is, in seconds."""
        return None if self.answered_at is None else time.monotonic() - self.answered_at


@dataclass
class _Cluster:
    line: ClusterLine
    known: Look
    call: Future[None] | None = None
    called_at: float = 0.0


class ClusterLooks:
    """
    Looks at clusters, side by side.

    :param open_line: makes the line to a cluster, which is opened when it is first used.
    :param keep_s: for how long a look serves further scrapes, in seconds.
    :param wait_s: how long a scrape waits for looks under way, in seconds; later ones are in the next scrape. It does
        not wait at all for a cluster that has not answered the last look.
    :param idle_s: how long after the last scrape the connections are closed, in seconds.
    """

    def __init__(
        self,
        open_line: Callable[[str], ClusterLine] = ClusterLine,
        *,
        keep_s: float = 15.0,
        wait_s: float = 2.0,
        idle_s: float = 300.0,
    ) -> None:
        self._open_line = open_line
        self._keep_s = keep_s
        self._wait_s = wait_s
        self._idle_s = idle_s
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="gpu-cluster-metrics")
        self._clusters: dict[str, _Cluster] = {}
        self._idle: asyncio.TimerHandle | None = None

    async def looks(self, conn_ids: Iterable[str]) -> list[Look]:
        """Return what is known of these clusters, after looking at those that were not looked at just now."""
        conn_ids = list(conn_ids)
        self._close_when_idle()
        with self._lock:
            for conn_id in self._clusters.keys() - conn_ids:
                self._forget(conn_id)
            clusters = [self._looked_at(conn_id) for conn_id in conn_ids]
        calls = [asyncio.wrap_future(one.call) for one in clusters if one.call and _is_worth_waiting(one)]
        if calls:
            await asyncio.wait(calls, timeout=self._wait_s)
        return [one.known for one in clusters]

    def close(self) -> None:
        """Close all connections; the next scrape opens new ones."""
        with self._lock:
            for conn_id in list(self._clusters):
                self._forget(conn_id)

    def _close_when_idle(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        self._idle = asyncio.get_running_loop().call_later(self._idle_s, self._close_lines)

    def _close_lines(self) -> None:
        with self._lock:
            for one in self._clusters.values():
                self._pool.submit(one.line.close)

    def _looked_at(self, conn_id: str) -> _Cluster:
        """Return a cluster at which somebody looks, or has just looked."""
        one = self._clusters.get(conn_id)
        if one is None:
            one = self._clusters[conn_id] = _Cluster(self._open_line(conn_id), Look(conn_id))
        if one.call is None or (one.call.done() and one.called_at + self._keep_s <= time.monotonic()):
            one.called_at = time.monotonic()
            one.call = self._pool.submit(self._look, one)
        return one

    def _forget(self, conn_id: str) -> None:
        # A look may be under way, for which this must not wait.
        self._pool.submit(self._clusters.pop(conn_id).line.close)

    def _look(self, one: _Cluster) -> None:
        before = one.known
        began = time.monotonic()
        try:
            now = one.line.totals()
        except Exception as error:
            if before.is_up or before.took_s is None:
                log.warning("metrics: cluster of connection %s does not answer: %s", before.conn_id, words_of(error))
            one.known = replace(before, is_up=False, took_s=time.monotonic() - began)
            return
        if not before.is_up and before.took_s is not None:
            log.info("metrics: cluster of connection %s answers", before.conn_id)
        ledger = now.get("ledger")
        one.known = Look(
            before.conn_id,
            is_up=True,
            now=now,
            # Sums that are not complete yet would let the counters of a monitoring system go backwards.
            ledger=ledger if ledger and ledger["is_complete"] else before.ledger,
            answered_at=time.monotonic(),
            took_s=time.monotonic() - began,
        )


def _is_worth_waiting(one: _Cluster) -> bool:
    return one.known.is_up or one.known.took_s is None
