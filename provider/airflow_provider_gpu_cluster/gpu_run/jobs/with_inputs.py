"""The verbs ``stage`` and ``submit``, which may have to wait for inputs from the worker."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, BinaryIO, Callable, cast

from ..protocol.submit_request import to_be_carried_out
from ..reply import Reply
from ..store.directories import JobDirectory, Root
from ..store.staging_time import note_staging
from . import submission

if TYPE_CHECKING:
    from ..engines.engine import Engine
    from ..protocol.inputs import Input, UploadInput
    from ..protocol.replies import StageReply, SubmitReply
    from ..protocol.requests import Asker, StageCall, SubmitCall


def stage(root: Root, engine: Engine, program: str, request: StageCall, stream: BinaryIO) -> Reply:
    """Carry out the verb ``stage``."""
    carry_out = partial(submission.stage, root, engine, request)
    return with_inputs(root.job(request["job_id"]), request["record"], engine, request["inputs"], stream, carry_out)


def submit(root: Root, engine: Engine, program: str, request: SubmitCall, stream: BinaryIO) -> Reply:
    """Carry out the verb ``submit``, for a job or an array."""
    carry_out = submission.submit
    if request.get("elements"):
        from .array_submission import submit_array

        carry_out = submit_array
    # Both runs get the same object: what the first one notes in it counts for the second.
    asked = to_be_carried_out(request, settings=request["settings"], umask=request["umask"], program=program)
    job = root.job(request["job_id"])
    carry_out = partial(carry_out, root, engine, asked)
    return with_inputs(job, request["record"], engine, request["inputs"] or [], stream, carry_out)


def with_inputs(
    job: JobDirectory,
    by: Asker,
    engine: Engine,
    inputs: list[Input],
    stream: BinaryIO,
    carry_out: Callable[[], StageReply | SubmitReply],
) -> Reply:
    """
    Carry out what may need inputs first.

    :param by: who asks for the job.
    :param carry_out: does it, or returns in ``needs`` what has to be sent before it is called again.
    """
    value = carry_out()
    needs = value.get("needs")
    if not needs:
        return Reply(value)
    # The worker sends no other kind of input.
    needed = [cast("UploadInput", inputs[number]) for number in needs]

    began = time.monotonic()

    def go_on() -> StageReply | SubmitReply:
        note_staging(job.path, time.monotonic() - began)
        # Sending may have taken a long time.
        engine.refresh()
        return carry_out()

    def body(out: BinaryIO) -> None:
        from ..staging.receiving import receive

        receive(job, by, needed, stream, out, go_on)

    return Reply({"needs": needs}, body)
