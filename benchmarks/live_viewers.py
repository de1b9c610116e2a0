"""So many open pages of a job, for :mod:`.bench_live`: they note how old each line of the log is when it comes."""

from __future__ import annotations

import asyncio
import json
import sys
import time

from websockets.asyncio.client import connect

delays: list[float] = []


async def _look(address: str, token: str, is_open: asyncio.Event) -> None:
    async with connect(address, additional_headers={"Authorization": f"Bearer {token}"}, max_size=None) as socket:
        await socket.send(json.dumps({"follow_log": True}))
        async for text in socket:
            message = json.loads(text)
            if message["type"] == "log":
                is_open.set()
                now = time.time()
                delays.extend(now - float(line[3:]) for line in message["lines"] if line.startswith("at-"))


async def _main(address: str, count: int) -> None:
    token = sys.stdin.readline().strip()
    opened = [asyncio.Event() for _ in range(count)]
    pages = [asyncio.create_task(_look(address, token, is_open)) for is_open in opened]
    for is_open in opened:
        await is_open.wait()
    print("open", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    for page in pages:
        page.cancel()
    await asyncio.gather(*pages, return_exceptions=True)
    print(json.dumps(delays))


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], int(sys.argv[2])))
