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
    from airflow_provider_gpu_cluster.gpu_run.protocol.totals import TotalsReply

log = logging.getLogger(__name__)

THREADS = 64
# How long a scrape waits for an answer: this many times as long as the last one took, within these bounds, in seconds.
_TIMES_AS_LONG = 3.0
_LEAST_WAIT_S = 2.0
_MOST_WAIT_S = 8.0
_FIRST_WAIT_S = 5.0


@dataclass(frozen=True)
class ClusterLook:
    """
    What is known of a cluster.

    :param is_up: whether the cluster answered the last look that is over.
    :param answer: its answer, unless that is out of date. Another process of the API server may have told a newer one
        meanwhile, and counters must not go backwards.
    :param answered_at: time of its last answer, by the monotonic clock.
    :param took_s: how long the last look took, whether it was answered or not, in seconds.
    """

    conn_id: str
    is_up: bool = False
    answer: TotalsReply | None = None
    answered_at: float | None = None
    took_s: float | None = None

    @property
    def age_s(self) -> float | None:
        """How long ago its last answer came, in seconds."""
        return None if self.answered_at is None else time.monotonic() - self.answered_at


class _Cluster:
    def __init__(self, line: ClusterLine, known: ClusterLook) -> None:
        self.line = line
        self.known = known
        self.call: Future[None] | None = None
        self.over_at = 0.0
        self.is_late = False
        """Whether a scrape has waited for this call in vain."""

    @property
    def patience_s(self) -> float:
        if self.is_late:
            return 0.0
        if self.known.took_s is None:
            return _FIRST_WAIT_S
        # One that was out of reach tells the next scrape whether it still is.
        return min(max(_LEAST_WAIT_S, _TIMES_AS_LONG * self.known.took_s), _MOST_WAIT_S) if self.known.is_up else 0.0


class ClusterLooks:
    """
    Looks at clusters, side by side.

    :param open_line: makes the line to a cluster, which is opened when it is first used.
    :param keep_s: for how long an answer serves further scrapes, in seconds.
    :param idle_s: how long after the last scrape the connections are closed, in seconds.
    """

    def __init__(
        self, open_line: Callable[[str], ClusterLine] = ClusterLine, *, keep_s: float = 15.0, idle_s: float = 300.0
    ) -> None:
        self._open_line = open_line
        self._keep_s = keep_s
        self._idle_s = idle_s
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="gpu-cluster-metrics")
        self._clusters: dict[str, _Cluster] = {}
        self._idle: asyncio.TimerHandle | None = None

    async def looks(self, conn_ids: Iterable[str]) -> list[ClusterLook]:
        """Return what is known of these clusters, after looking at those that were not looked at just now."""
        conn_ids = list(conn_ids)
        self._close_when_idle()
        with self._lock:
            for conn_id in self._clusters.keys() - conn_ids:
                # A look may be under way, for which this must not wait.
                self._pool.submit(self._clusters.pop(conn_id).line.close)
            clusters = [self._looked_at(conn_id) for conn_id in conn_ids]
        return await asyncio.gather(*map(self._known, clusters))

    def close(self) -> None:
        """Close all connections; the next scrape opens new ones."""
        with self._lock:
            for one in self._clusters.values():
                self._pool.submit(one.line.close)

    def _close_when_idle(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        self._idle = asyncio.get_running_loop().call_later(self._idle_s, self.close)

    def _looked_at(self, conn_id: str) -> _Cluster:
        """Return a cluster at which somebody looks, or has just looked."""
        one = self._clusters.get(conn_id)
        if one is None:
            one = self._clusters[conn_id] = _Cluster(self._open_line(conn_id), ClusterLook(conn_id))
        if one.call is None or (one.call.done() and one.over_at + self._keep_s <= time.monotonic()):
            one.is_late = False
            one.call = self._pool.submit(self._look, one)
        return one

    async def _known(self, one: _Cluster) -> ClusterLook:
        call = one.call
        assert call is not None
        if not call.done():
            await asyncio.wait([asyncio.wrap_future(call)], timeout=one.patience_s)
        if call.done():
            return one.known
        one.is_late = True
        return replace(one.known, answer=None)

    def _look(self, one: _Cluster) -> None:
        before = one.known
        began = time.monotonic()
        try:
            answer = one.line.totals()
            now = time.monotonic()
            one.known = ClusterLook(before.conn_id, is_up=True, answer=answer, answered_at=now, took_s=now - began)
        except Exception as error:
            one.known = replace(before, is_up=False, answer=None, took_s=time.monotonic() - began)
            if before.is_up or before.took_s is None:
                log.warning("metrics: cluster of connection %s does not answer: %s", before.conn_id, words_of(error))
        else:
            if not before.is_up and before.took_s is not None:
                log.info("metrics: cluster of connection %s answers", before.conn_id)
        finally:
            one.over_at = time.monotonic()
