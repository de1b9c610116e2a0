"""The verb ``send``: the outputs of a job or an array, as far as the reader asks for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

from ..errors import Refused
from ..protocol.acts import COLLECT
from ..reply import Reply
from ..store.acts import note_act
from ..store.asked import note_asked
from ..store.booking import OUT, Transfer
from ..store.directories import Attempt, JobDirectory, Root
from . import sending
from .folder import Outputs, OutputsFolder, mark_end

if TYPE_CHECKING:
    from ..protocol.outputs import Writer
    from ..protocol.replies import SendReply
    from ..protocol.requests import Asker, SendCall


def answer(root: Root, request: SendCall, stream: BinaryIO) -> Reply:
    """Carry out the verb ``send``."""
    job = root.job(request["job_id"])
    folder: Outputs = OutputsFolder(root, job.job_id)
    elements: list[str] = []
    if not job.attempts():
        from ..store.arrays import elements_of
        from .array import ArrayOutputs

        elements = elements_of(job)
        folder = ArrayOutputs(root, elements) if elements else folder
    jobs = [root.job(element) for element in elements] or [job]
    for one in jobs:
        mark_end(one)
    value: SendReply = {}
    if request["list"]:
        value = {"entries": folder.entries(), "is_array": bool(elements), "writer": _writer(jobs)}
    for one in [job, *map(root.job, elements)]:
        note_asked(one.path)
    if request["list"]:
        attempts = job.attempts()
        note_act(
            job.path,
            COLLECT,
            caller=request.get("caller", {}),
            attempt=attempts[-1].number if attempts else None,
            key=request.get("id", ""),
        )

    def body(out: BinaryIO) -> None:
        # The reader asks for more after the reply, or sooner.
        transfer = None if request.get("is_beside") else Transfer(job.path, _asker(jobs), OUT)
        sending.answer(folder, stream, out, transfer)

    return Reply(value, body)


def _asker(jobs: list[JobDirectory]) -> Asker | None:
    """Return who has asked for a job, or for the elements of an array; None if that cannot be found out."""
    attempts: list[Attempt] = next(filter(None, (job.attempts() for job in jobs)), [])
    request = attempts[-1].request_or_none() if attempts else None
    return None if request is None else request.get("by")


def _writer(jobs: list[JobDirectory]) -> Writer:
    """Return whose outputs those of a job, or of the elements of an array, are; nothing if that cannot be found out."""
    attempts: list[Attempt] = next(filter(None, (job.attempts() for job in jobs)), [])
    if not attempts:
        return {}
    try:
        request = attempts[-1].request()
        asker = request["by"]
        if "run_id" not in asker:
            return {}
        return {
            "dag_id": asker["dag_id"],
            "run_id": asker["run_id"],
            "task_id": asker["task_id"],
            "map_index": asker.get("map_index"),
            "generation": request["generation"],
        }
    except (OSError, ValueError, KeyError, TypeError, Refused):  # jobs can write to their records
        return {}
