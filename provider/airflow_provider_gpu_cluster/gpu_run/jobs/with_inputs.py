"""The verbs ``stage`` and ``submit``, which may have to wait for inputs from the worker."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, Callable

from ..reply import Reply
from ..store.directories import Root
from . import submission

if TYPE_CHECKING:
    from ..engines.engine import Engine


def stage(root: Root, engine: Engine, program: str, request: dict[str, Any], stream: BinaryIO) -> Reply:
    """Carry out the verb ``stage``."""
    request = dict(request, program=program)
    return _with_inputs(root, engine, request, stream, partial(submission.stage, root, engine, request))


def submit(root: Root, engine: Engine, program: str, request: dict[str, Any], stream: BinaryIO) -> Reply:
    """Carry out the verb ``submit``, for a job or an array."""
    carry_out = submission.submit
    if request.get("elements"):
        from .array_submission import submit_array

        carry_out = submit_array
    # The same object both times: what the first has noted in it counts for the second.
    request = dict(request, program=program)
    return _with_inputs(root, engine, request, stream, partial(carry_out, root, engine, request))


def _with_inputs(
    root: Root, engine: Engine, request: dict[str, Any], stream: BinaryIO, carry_out: Callable[[], dict[str, Any]]
) -> Reply:
    value = carry_out()
    if not value.get("needs"):
        return Reply(value)

    def go_on() -> dict[str, Any]:
        # Sending may have taken long.
        engine.refresh()
        return carry_out()

    def body(out: BinaryIO) -> None:
        from ..staging.receiving import receive

        inputs = [request["inputs"][number] for number in value["needs"]]
        receive(root.job(request["job_id"]), inputs, stream, out, go_on)

    return Reply({"needs": value["needs"]}, body)
