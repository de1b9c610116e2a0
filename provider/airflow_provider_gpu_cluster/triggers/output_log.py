"""
A job's output in the log of a task whose trigger runs in Airflow's triggerer.

What triggers log goes through one socket to the triggerer's main process, which reads a small piece of it in each round
of its loop, between rounds with the database. So three things have to be seen to:

- When the socket is full, who logs waits, and with it the event loop with all its triggers. So output takes turns, and
  a turn is short.
- When a trigger has ended, the main process closes its log, whether everything is read or not. So a turn ends when
  what it logged has been read.
- When the triggerer is killed, what was logged and not read is lost. So only what was read may be acknowledged.

That it was read is known by asking the main process something: it takes one request in a round, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import json
import weakref
from collections.abc import AsyncIterator

import structlog
from airflow.sdk.log import amask_secret

LOGGER = "gpu_job.output"

# What Airflow 3.3 reads of the log in one round, and about what a line needs besides its text.
_READ_BYTES = 4096
_LINE_BYTES = 200

# One turn at a time for all triggers of an event loop.
_turns: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = weakref.WeakKeyDictionary()


class OutputLog:
    """
    Logs lines of output for the trigger that makes it.

    ::

        async with output.turn():
            output.line("epoch 1")  # a few dozen of them
        # here they have been read
    """

    def __init__(self) -> None:
        self._logger = structlog.get_logger(LOGGER)
        self._context = contextvars.copy_context()
        self._context.run(_keep_only_the_trigger)
        self._unread_bytes = 0

    def line(self, text: str) -> None:
        """Log one line. Only during a turn."""
        self._context.run(self._logger.info, text)
        self._unread_bytes += len(json.dumps(text)) + _LINE_BYTES

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for the others' turns, log, and wait until that has been read."""
        async with _turns.setdefault(asyncio.get_running_loop(), asyncio.Lock()):
            yield
            rounds = -(-self._unread_bytes // _READ_BYTES)
            self._unread_bytes = 0
            for _ in range(rounds):
                await _ask_main_process()


def _keep_only_the_trigger() -> None:
    """
    Leave out what Airflow adds to each line to say where it comes from, but for the trigger.

    The file it goes into says as much, and without it three times as many lines pass in a second.
    """
    trigger_id = structlog.contextvars.get_contextvars().get("trigger_id")
    if trigger_id is not None:
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(trigger_id=trigger_id)


async def _ask_main_process() -> None:
    # Of all that can be asked this needs no database; no secret is empty, so nothing comes of it. Outside of a
    # triggerer nobody is asked.
    await amask_secret("")
