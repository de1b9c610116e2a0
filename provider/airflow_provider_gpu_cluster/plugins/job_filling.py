"""
Keeps the table of all jobs filled, in the background of the API server.

Of several API servers and processes, one does it. Clusters are asked every quarter of a minute while somebody looks at
the list and some of their jobs go on, and else seldom.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from airflow_provider_gpu_cluster.connection.words import words_of

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.job_table.filling import ClusterToAsk, Filling

# Airflow loads plugins in all of its processes. What is imported late here, only the API server pays for.

log = logging.getLogger(__name__)

EVERY_S = 10.0
VIEWED_EVERY_S = 15.0
SELDOM_S = 600.0
# After a start, until the API server has answered whoever has waited for that.
FIRST_AFTER_S = 3.0
_MOST_PARTS = 50
_READ_LEDGER = "read-ledger"


class JobFilling:
    """
    The background task of one process.

    :param every_s: how often to look for new jobs, in seconds.
    :param viewed_every_s: how often to ask a cluster at most while somebody looks at the list, in seconds.
    :param seldom_s: how often to ask it otherwise, in seconds.
    """

    def __init__(
        self, *, every_s: float = EVERY_S, viewed_every_s: float = VIEWED_EVERY_S, seldom_s: float = SELDOM_S
    ) -> None:
        self._every_s = every_s
        self._viewed_every_s = viewed_every_s
        self._seldom_s = seldom_s
        # Not the threads of requests, nor those of calls to clusters.
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="gpu-job-filling")
        self._asked: dict[str, float] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._failed: dict[str, int] = {}
        self._problem: str | None = None

    async def run(self, first_after_s: float = FIRST_AFTER_S) -> None:
        """Fill the table until this is cancelled."""
        reader = f"{socket.gethostname()[:50]}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        await asyncio.sleep(first_after_s)
        filling = await self._in_thread(_filling, reader)
        try:
            while True:
                try:
                    await self.turn(filling)
                    self._problem = None
                except Exception as error:
                    self._tell_problem(words_of(error))
                await asyncio.sleep(self._every_s)
        finally:
            for task in self._asking.values():
                task.cancel()
            self._pool.submit(_give_up, filling)
            self._pool.shutdown(wait=False)

    async def turn(self, filling: Filling) -> None:
        """Look for new jobs once, and ask the clusters of which it is time; what they answer comes later."""
        if not await self._in_thread(filling.is_mine):
            return
        await self._in_thread(filling.read_airflow)
        await self._in_thread(filling.forget_old)
        is_viewed, clusters = await self._in_thread(filling.clusters)
        for cluster in clusters:
            if cluster.conn_id not in self._asking and self._is_due(cluster.conn_id, is_viewed=is_viewed):
                task = asyncio.create_task(self._ask(cluster))
                self._asking[cluster.conn_id] = task

    async def asked(self) -> None:
        """Wait for the answers of the clusters that are being asked."""
        await asyncio.gather(*self._asking.values())

    def _is_due(self, conn_id: str, *, is_viewed: bool) -> bool:
        pause_s = self._viewed_every_s if is_viewed else self._seldom_s
        # One that is out of reach is asked less and less often.
        pause_s = min(pause_s * 2 ** self._failed.get(conn_id, 0), max(self._seldom_s, pause_s))
        return conn_id not in self._asked or self._asked[conn_id] + pause_s <= time.monotonic()

    async def _ask(self, cluster: ClusterToAsk) -> None:
        from airflow_provider_gpu_cluster.job_table.filling import request_to, write_answer
        from airflow_provider_gpu_cluster.plugins.live.asking import ask

        conn_id = cluster.conn_id
        try:
            for _ in range(_MOST_PARTS):
                request: Any = await self._in_thread(request_to, cluster)
                answer = await ask(conn_id, _READ_LEDGER, request)
                await self._in_thread(write_answer, conn_id, answer)
                if answer["is_all"]:
                    break
            self._failed.pop(conn_id, None)
        except Exception as error:
            if conn_id not in self._failed:
                log.warning(
                    "the ends of jobs on the cluster of connection %s cannot be read: %s", conn_id, words_of(error)
                )
            self._failed[conn_id] = min(self._failed.get(conn_id, 0) + 1, 10)
        finally:
            self._asked[conn_id] = time.monotonic()
            self._asking.pop(conn_id, None)

    async def _in_thread(self, function: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)

    def _tell_problem(self, problem: str) -> None:
        # It may last for hours.
        if problem != self._problem:
            log.warning("the table of all GPU jobs cannot be filled now: %s", problem)
        self._problem = problem


def _filling(reader: str) -> Filling:
    from airflow_provider_gpu_cluster.job_table.filling import Filling

    return Filling(reader)


def _give_up(filling: Filling) -> None:
    try:
        filling.give_up()
    except Exception as error:
        log.debug("another process fills the table of all GPU jobs in a minute: %s", words_of(error))


class FilledTable:
    """
    ASGI middleware of Airflow's API server, which starts the background task with the server and ends it with it.

    (Airflow passes the start of the server on to FastAPI applications alone, and ours is none before its first
    request.)

    :param app: what answers the requests.
    """

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on; fill the table for as long as the server runs."""
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return
        task = asyncio.create_task(JobFilling().run())
        try:
            await self._app(scope, receive, send)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
