"""
A job's output in the log of a task whose trigger runs in Airflow's triggerer.

What triggers log goes through one socket to the triggerer's main process, which reads a small piece of it in each round
of its loop, between rounds with the database. So three things have to be seen to:

- When the socket is full, who logs waits, and with it the event loop with all its triggers. So only little is logged
  ahead of what has been read.
- When a trigger has ended, the main process closes its log, whether everything is read or not. So who has logged waits
  until that has been read.
- When the triggerer is killed, what was logged and not read is lost. So only what was read may be acknowledged.

What has been read is known by asking the main process something: it takes one request in a round, too.
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

# What Airflow 3.3 reads of the log in one round, and about what a line needs besides its text.
READ_BYTES = 4096
LINE_BYTES = 200
# What may be logged ahead by all triggers together; the socket takes several times as much.
AHEAD_BYTES = 16384


class OutputLog:
    """
    Logs lines of output for the trigger that makes it.

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
        """Log one line. Only in a batch."""
        self._context.run(self._logger.info, text)
        self._bytes += len(json.dumps(text)) + LINE_BYTES

    @contextlib.asynccontextmanager
    async def batch(self) -> AsyncIterator[None]:
        """Wait until little is ahead, log without waiting for anything else, and wait until that has been read."""
        flow = _flows.setdefault(asyncio.get_running_loop(), _Flow())
        await flow.until_room()
        self._bytes = 0
        yield
        await flow.until_read(self._bytes)


class _Flow:
    """How much all triggers of an event loop have logged, and how much of that has been read."""

    def __init__(self) -> None:
        self._logged = 0
        self._read = 0
        self._line = asyncio.Lock()
        self._progress = asyncio.Event()
        self._asking: asyncio.Task[None] | None = None

    async def until_room(self) -> None:
        """Wait until little is ahead: first come, first served, and each sees what the one before has logged."""
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
            # It may have answered before it read, in its last round; what came before that is sure.
            self._read = before
            self._progress.set()
            self._progress = asyncio.Event()


# One for all triggers of an event loop.
_flows: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Flow] = weakref.WeakKeyDictionary()


def _keep_only_the_trigger() -> None:
    """
    Leave out what Airflow adds to each line to say where it comes from, but for the trigger.

    The file it goes into says as much, and more lines pass in a second without it.
    """
    trigger_id = structlog.contextvars.get_contextvars().get("trigger_id")
    if trigger_id is not None:
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(trigger_id=trigger_id)


async def _ask_main_process() -> None:
    # Of all that can be asked this needs no database; no secret is empty, so nothing comes of it. Outside of a
    # triggerer nobody is asked.
    await amask_secret("")
