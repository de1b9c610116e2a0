"""So many open pages of jobs, for :mod:`.bench_live`: they note how old each line of the log is when it comes."""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Sequence

from websockets.asyncio.client import connect

delays: list[float] = []


async def _look(address: str, token: str, is_open: asyncio.Event) -> None:
    headers = {"Authorization": f"Bearer {token}"}
    # A busy machine opens so many slowly.
    async with connect(address, additional_headers=headers, max_size=None, open_timeout=None) as socket:
        await socket.send(json.dumps({"follow_log": True}))
        async for text in socket:
            message = json.loads(text)
            if message["type"] == "job":
                is_open.set()
            elif message["type"] == "log":
                now = time.time()
                delays.extend(now - float(line[3:]) for line in message["lines"] if line.startswith("at-"))


async def _main(count: int, addresses: Sequence[str]) -> None:
    token = sys.stdin.readline().strip()
    opened = [asyncio.Event() for _ in range(count)]
    pages = [
        asyncio.create_task(_look(address, token, is_open))
        for is_open, address in zip(opened, itertools.cycle(addresses), strict=False)
    ]
    for is_open in opened:
        await is_open.wait()
    print("open", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    for page in pages:
        page.cancel()
    await asyncio.gather(*pages, return_exceptions=True)
    print(json.dumps(delays))


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]), sys.argv[2:]))
