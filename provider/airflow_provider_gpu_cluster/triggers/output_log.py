"""
A job's output in the log of a task whose trigger runs in Airflow's triggerer.

Triggers log through one socket to the triggerer's main process. In each round of its loop, the main process reads a
small piece from the socket, between queries of the database. This has three consequences:

- When the socket is full, logging blocks, and with it the event loop and all of its triggers. Therefore only little is
  logged ahead of what the main process has read.
- When a trigger has ended, the main process closes its log, even if it has not read everything. Therefore a trigger
  waits until everything that it has logged was read.
- When the triggerer is killed, everything that was logged but not read is lost. Therefore only what was read may be
  acknowledged.

To find out what was read, we send the main process a request: it answers one request per round, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import json
import weakref
from collections.abc import AsyncIterator, Callable

import structlog
from airflow.sdk.log import amask_secret

LOGGER = "gpu_job.output"

# How much of the log Airflow 3.3 reads in one round, and roughly what a line needs besides its text.
READ_BYTES = 4096
LINE_BYTES = 200
# How much all triggers together may log ahead; the socket holds several times as much.
AHEAD_BYTES = 16384


class OutputLog:
    """
    Logs lines of output for the trigger that creates it.

    ::

        async with output.batch():
            output.line("epoch 1")  # a few dozen of them
        # here they have been read
    """

    def __init__(self) -> None:
        self._logger = structlog.get_logger(LOGGER)
        self._context = contextvars.copy_context()
        self._context.run(_keep_only_the_trigger)
        self._bytes = 0

    def line(self, text: str) -> None:
        """Log one line. Call this only inside a batch."""
        self._context.run(self._logger.info, text)
        self._bytes += len(json.dumps(text)) + LINE_BYTES

    @contextlib.asynccontextmanager
    async def batch(self) -> AsyncIterator[None]:
        """Wait until little is unread, let the caller log, and wait until that was read."""
        flow = _flows.setdefault(asyncio.get_running_loop(), _Flow())
        await flow.until_room()
        self._bytes = 0
        yield
        await flow.until_read(self._bytes)


class _Flow:
    """How much all triggers of an event loop have logged, and how much of that was read."""

    def __init__(self) -> None:
        self._logged = 0
        self._read = 0
        self._line = asyncio.Lock()
        self._progress = asyncio.Event()
        self._asking: asyncio.Task[None] | None = None

    async def until_room(self) -> None:
        """Wait until little is unread: first come, first served, so that each caller sees what the last one logged."""
        async with self._line:
            await self._until(lambda: self._logged - self._read <= AHEAD_BYTES)

    async def until_read(self, nbytes: int) -> None:
        """Wait until that many bytes, logged just now, have been read."""
        self._logged += nbytes
        mark = self._logged if nbytes else 0
        await self._until(lambda: self._read >= mark)

    async def _until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            if self._asking is None or self._asking.done():
                self._asking = asyncio.create_task(self._ask())
            await self._progress.wait()

    async def _ask(self) -> None:
        """Ask the main process until it has read everything."""
        in_socket = self._read
        while self._read < self._logged:
            in_socket, before = min(in_socket + READ_BYTES, self._logged), in_socket
            await _ask_main_process()
            # It may have answered before it read in that round; only what came before that round is certain.
            self._read = before
            self._progress.set()
            self._progress = asyncio.Event()


# One for all triggers of an event loop.
_flows: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Flow] = weakref.WeakKeyDictionary()


def _keep_only_the_trigger() -> None:
    """
    Leave out the context that Airflow adds to each line, except for the trigger.

    The name of the log file says the same, and shorter lines let more of them pass per second.
    """
    trigger_id = structlog.contextvars.get_contextvars().get("trigger_id")
    if trigger_id is not None:
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(trigger_id=trigger_id)


async def _ask_main_process() -> None:
    # Of all requests, this one needs no database, and masking an empty secret has no effect. Outside of a triggerer
    # no request is sent.
    await amask_secret("")
