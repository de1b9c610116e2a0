"""The verbs ``carry-out`` and ``carry-in``, which bring a job to another cluster; see :mod:`.protocol.carrying`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, BinaryIO, cast

from .. import protocol
from ..errors import Refused
from ..outputs import sending
from ..outputs.carried import CarriedFiles
from ..protocol import lines
from ..protocol.acts import CARRY
from ..reply import Reply
from ..staging import carried
from ..store.acts import note_act
from ..store.asked import note_asked
from ..store.booking import OUT, Transfer
from ..store.continuing import continuation_of, from_cluster, note_carried
from ..store.directories import Root
from ..store.staging_time import staging_noted
from .status import status_of
from .submission import handle_of, keep_identity, latest_attempt
from .with_inputs import with_inputs

if TYPE_CHECKING:
    from ..engines.engine import Engine
    from ..protocol.carrying import CarryInCall, CarryOutCall, Continuation
    from ..protocol.inputs import Input
    from ..protocol.replies import StageReply
    from ..store.directories import JobDirectory


def answer_out(root: Root, request: CarryOutCall, stream: BinaryIO) -> Reply:
    """
    Carry out the verb ``carry-out``.

    :raises Refused: there is no such job, or an attempt waits or runs, whose files may change.
    """
    job = root.job(request["job_id"])
    files = CarriedFiles(root, job.job_id)
    note_asked(job.path)
    only_counts = request.get("without_checksums", False)
    attempts = job.attempts()
    if attempts and attempts[-1].ended() is None and not only_counts:
        raise Refused(
            protocol.JOB_CONFLICT,
            f"attempt {attempts[-1].number} of {job.job_id} has not ended, so its files stay here",
        )

    def body(out: BinaryIO) -> None:
        if request.get("list", False):
            value = files.listed(request.get("with_inputs", False), without_checksums=only_counts, out=out)
            if not only_counts:
                value["continuation"] = continuation_of(job)
                _note(job, request, "its files are read for {}".format(request.get("to", "another cluster")))
            lines.write_line(out, value)
            out.flush()
        asker = attempts[-1].request_or_none() if attempts else None
        sending.answer(files, stream, out, Transfer(job.path, asker.get("by") if asker else None, OUT))

    return Reply({}, body)


def answer_in(root: Root, engine: Engine, program: str, request: CarryInCall, stream: BinaryIO) -> Reply:
    """Carry out the verb ``carry-in``."""
    job = root.job(request["job_id"])
    inputs = cast("list[Input]", request["inputs"])
    return with_inputs(job, request["record"], engine, inputs, stream, partial(_carry_in, root, engine, request))


def _carry_in(root: Root, engine: Engine, request: CarryInCall) -> StageReply:
    job = root.job(request["job_id"])
    job.create()
    keep_identity(job, request["record"], is_staged=request.get("is_staged", False))
    handle = handle_of(job, engine, None, 0)
    latest = latest_attempt(job)
    if latest is not None and status_of(latest, engine)["state"] not in protocol.FINAL_STATES:
        # Another request has launched it here, with what was brought along before that.
        return {"needs": [], "handle": handle}
    with staging_noted(job.path):
        needs = carried.bring_in(root, job, request["inputs"], request.get("linked", []))
    if needs:
        return {"needs": needs}
    with job.lock():
        origin = request.get("origin", "")
        continuation: Continuation = request.get("continuation") or {"attempt": 1}
        note_carried(job, origin=origin, continuation=from_cluster(continuation, origin))
    _note(job, request, "brought along from {}".format(request.get("origin", "another cluster")))
    return {"needs": [], "handle": handle}


def _note(job: JobDirectory, request: CarryInCall | CarryOutCall, details: str) -> None:
    note_act(job.path, CARRY, caller=request.get("caller", {}), key=request.get("id", ""), details=details)
