"""The verb ``send``: the outputs of a job or an array, as far as the reader asks for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

from ..reply import Reply
from ..store.directories import Root
from . import sending
from .folder import Outputs, OutputsFolder

if TYPE_CHECKING:
    from ..protocol.replies import SendReply
    from ..protocol.requests import SendRequest


def answer(root: Root, request: SendRequest, stream: BinaryIO) -> Reply:
    """Carry out the verb ``send``."""
    job = root.job(request["job_id"])
    folder: Outputs = OutputsFolder(root, job.job_id)
    elements: list[str] = []
    if not job.attempts():
        from ..store.arrays import elements_of
        from .array import ArrayOutputs

        elements = elements_of(job)
        folder = ArrayOutputs(root, elements) if elements else folder
    value: SendReply = {"entries": folder.entries(), "is_array": bool(elements)} if request["list"] else {}
    # The reader asks for more after the reply, or sooner.
    return Reply(value, lambda out: sending.answer(folder, stream, out))
