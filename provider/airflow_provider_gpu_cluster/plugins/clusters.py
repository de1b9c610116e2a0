"""
What is known of each cluster that somebody looks at: one look serves all viewers of this process.

A look that takes long, or meets no cluster, delays nobody who knows an older answer: that one is shown with its age.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, TypeGuard

from airflow_provider_gpu_cluster.connection.words import words_of
from airflow_provider_gpu_cluster.plugins.cluster_access import cluster_of
from airflow_provider_gpu_cluster.plugins.live.asking import ask
from airflow_provider_gpu_cluster.plugins.shown import shown

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.gpu_run.protocol.overview import Overview
    from airflow_provider_gpu_cluster.gpu_run.protocol.replies import Check

log = logging.getLogger(__name__)

KEEP_S = 12.0
"""For how long an answer serves further viewers, in seconds."""
CHECK_S = 6 * 3600.0
"""How often a cluster is checked by itself as "Test connection" does it, while somebody looks, in seconds."""
HOURS = 24
_ASK_S = 20.0
# How long a viewer waits for a look: at a cluster that nobody has looked at yet, and at one that has answered before.
_FIRST_WAIT_S = 8.0
_WAIT_S = 3.0


@dataclass
class KnownCluster:
    """
    What is known of a cluster.

    :param overview: its last answer, however old; None if it has never given one.
    :param as_of: when that was.
    :param error: why it does not answer now; empty if it does.
    :param down_since: since when it does not.
    :param check: what its last check has found.
    :param check_error: why that has failed; empty if it has not.
    """

    overview: Overview | None = None
    as_of: datetime | None = None
    error: str = ""
    down_since: datetime | None = None
    check: Check | None = None
    checked_at: datetime | None = None
    check_error: str = ""

    @property
    def is_up(self) -> bool | None:
        """Whether it answers; None if nobody knows yet."""
        return False if self.error else None if self.overview is None else True


class _Watched:
    def __init__(self) -> None:
        self.known = KnownCluster()
        self.look: asyncio.Task[None] | None = None
        self.check: asyncio.Task[None] | None = None
        self.looked_at = self.checked_at = float("-inf")


class Clusters:
    """
    The clusters that somebody looks at; used in the event loop of the API server.

    :param ask: asks a cluster a verb, by its connection.
    :param check: checks a cluster, by its connection; it blocks.
    """

    def __init__(self, ask: Callable[..., Awaitable[Any]] = ask, check: Callable[[str], Check] | None = None) -> None:
        self._ask = ask
        self._check = check or _check
        self._clusters: dict[str, _Watched] = {}

    def known(self, conn_id: str) -> KnownCluster:
        """Return what is known of a cluster already."""
        cluster = self._clusters.get(conn_id)
        return KnownCluster() if cluster is None else cluster.known

    async def look(self, conn_id: str) -> KnownCluster:
        """Return what is known of a cluster, after a look at it if the last one is some time ago."""
        cluster = self._clusters.setdefault(conn_id, _Watched())
        if not _is_under_way(cluster.look) and cluster.looked_at + KEEP_S <= time.monotonic():
            cluster.look = asyncio.create_task(self._look(conn_id, cluster))
        if _is_under_way(cluster.look):
            # One that was out of reach tells the next viewer whether it still is.
            patience_s = _FIRST_WAIT_S if cluster.known.is_up is None else _WAIT_S if cluster.known.is_up else 0.0
            await asyncio.wait([cluster.look], timeout=patience_s)
        return cluster.known

    async def check_now(self, conn_id: str) -> KnownCluster:
        """Check a cluster as "Test connection" does it, and return what is known then."""
        cluster = self._clusters.setdefault(conn_id, _Watched())
        await asyncio.shield(self._checking(conn_id, cluster))
        cluster.looked_at = float("-inf")
        return await self.look(conn_id)

    def _checking(self, conn_id: str, cluster: _Watched) -> asyncio.Task[None]:
        if not _is_under_way(cluster.check):
            cluster.check = asyncio.create_task(self._find_faults(conn_id, cluster))
        return cluster.check

    async def _look(self, conn_id: str, cluster: _Watched) -> None:
        known = cluster.known
        try:
            answer = await self._ask(conn_id, "overview", {"hours": HOURS}, wait_s=_ASK_S)
            known.overview = await asyncio.to_thread(shown, answer)
            known.as_of, known.error, known.down_since = _now(), "", None
        except Exception as error:
            if not known.error:
                known.down_since = known.as_of or _now()
                log.warning("clusters: cluster of connection %s does not answer: %s", conn_id, words_of(error))
            known.error = shown(words_of(error))
        finally:
            cluster.looked_at = time.monotonic()
        if known.is_up and cluster.checked_at + CHECK_S <= time.monotonic():
            self._checking(conn_id, cluster)

    async def _find_faults(self, conn_id: str, cluster: _Watched) -> None:
        known = cluster.known
        try:
            known.check = shown(await asyncio.to_thread(self._check, conn_id))
            known.check_error = ""
        except Exception as error:
            known.check_error = shown(words_of(error))
        finally:
            known.checked_at, cluster.checked_at = _now(), time.monotonic()


def _is_under_way(task: asyncio.Task[None] | None) -> TypeGuard[asyncio.Task[None]]:
    # A task of a loop that has ended is never over.
    return task is not None and not task.done() and task.get_loop() is asyncio.get_running_loop()


def _check(conn_id: str) -> Check:
    with cluster_of(conn_id) as cluster:
        return cluster.check()


def _now() -> datetime:
    return datetime.now(timezone.utc)
