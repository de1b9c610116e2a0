"""A WebSocket of a page: what its viewer is to be told goes out, and what the page asks for comes in."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
from starlette.websockets import WebSocket, WebSocketDisconnect

from airflow_provider_gpu_cluster.plugins.live.limits import MOST_MESSAGE_CHARACTERS, Rate
from airflow_provider_gpu_cluster.plugins.live.viewer import OpenPage

# A page that takes nothing for so long is dropped.
SEND_S = 30.0
# Close codes of RFC 6455.
_OVER = 1000
_AGAINST_RULES = 1008


class _BrokenRule(Exception):
    """The page sends what it must not."""


async def serve(
    socket: WebSocket, viewer: OpenPage, run: Coroutine[Any, Any, None], asked: Callable[[dict[str, Any]], None]
) -> None:
    """
    Serve an accepted socket until its page or its viewer ends.

    :param run: finds what the viewer is to be told, until that ends.
    :param asked: called with each message of the page; may raise ValueError.
    """
    parts = [asyncio.create_task(run), asyncio.create_task(_send(socket, viewer))]
    receiving = asyncio.create_task(_receive(socket, asked))
    done: set[asyncio.Task[None]] = set()
    try:
        # The last words are sent before the end.
        done, _ = await asyncio.wait([parts[1], receiving], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for part in (*parts, receiving):
            part.cancel()
        await asyncio.gather(*parts, receiving, return_exceptions=True)
    broken = next((part.exception() for part in done if isinstance(part.exception(), _BrokenRule)), None)
    with contextlib.suppress(RuntimeError, WebSocketDisconnect):
        await socket.close(_AGAINST_RULES if broken else _OVER, str(broken or ""))


async def _send(socket: WebSocket, viewer: OpenPage) -> None:
    while texts := await viewer.next():
        for text in texts:
            # asyncio.wait_for of Python 3.11 forgets that it was cancelled if what it waits for ends just then.
            with anyio.fail_after(SEND_S):
                await socket.send_text(text)


async def _receive(socket: WebSocket, asked: Callable[[dict[str, Any]], None]) -> None:
    rate = Rate()
    while True:
        text = await socket.receive_text()
        if len(text) > MOST_MESSAGE_CHARACTERS or rate.is_exceeded():
            raise _BrokenRule("too much is sent")
        try:
            message = json.loads(text)
            if not isinstance(message, dict):
                raise ValueError("a message is an object")
            asked(message)
        except (ValueError, RecursionError):
            raise _BrokenRule("a message is not understood") from None
