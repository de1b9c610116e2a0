"""The first request of a triggerer to Airflow's API, made before anything depends on it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

from airflow_provider_gpu_cluster.tasks.states import state_of

_LIMIT_S = 120.0

_first: asyncio.Task[None] | None = None
_is_answered = False


def make_first_request(ti: Any) -> None:
    """
    Ask Airflow's API for a task's state in the background, unless this process has done so.

    A triggerer builds the API in its own process when it is first asked: two seconds of processor time, and many
    seconds on a busy machine. A trigger that is told to end has 30 s for everything, so this must not be among it.
    """
    global _first
    if not _is_answered and (_first is None or _first.done()):
        _first = asyncio.ensure_future(_ask(ti))


async def _ask(ti: Any) -> None:
    global _is_answered
    # Whatever is wrong with it, the next trigger tries again, and the requests that matter tell their own errors.
    with contextlib.suppress(Exception):
        await asyncio.wait_for(asyncio.to_thread(state_of, ti, RuntimeTaskInstance.get_task_states), _LIMIT_S)
        _is_answered = True
