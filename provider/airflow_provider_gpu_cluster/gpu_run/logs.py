"""The job's output for a reader that comes again and again: each gets every byte once, and its place is kept here."""

from __future__ import annotations

import hashlib
import os
from typing import Any, BinaryIO

from . import protocol, records
from .engines.host import HostEngine
from .status import job_status
from .store import JobDirectory, Root


def open_log(root: Root, engine: HostEngine, request: dict[str, Any]) -> tuple[dict[str, Any], BinaryIO | None]:
    """
    Return how a job stands, and its output from where this reader was.

    The reader's place moves when it acknowledges what it has shown, not when something is sent: a reply that is lost
    is sent again. The state is read before the output, so an output that ends with a final state is complete.

    :param request: ``job_id``; ``reader``, a name; ``ack``, a place or None; ``max_bytes``; ``tail_bytes``.
    :return: the reply, whose ``length`` says how many bytes of the open file follow.
    """
    job = root.job(request["job_id"])
    status = job_status(root, engine, request["job_id"], request.get("tail_bytes", 0))
    reply: dict[str, Any] = {"status": status, "attempt": 0, "offset": 0, "log_bytes": 0, "length": 0}
    attempt = status.get("attempt")
    if not attempt or not job.attempts():
        return reply, None
    place = _place(job, request["reader"], request.get("ack"), attempt)
    reply.update(attempt=place["attempt"], offset=place["offset"])
    if status["state"] == protocol.QUEUED:
        return reply, None
    path = job.at("logs", "training.log")
    if not os.path.exists(path):
        return reply, None
    log = open(path, "rb")  # noqa: SIM115 -- the caller sends it and closes it
    if job.attempts()[-1].number != attempt:
        # The next one has begun since the look at the state, and the log may be its.
        log.close()
        return reply, None
    size = log.seek(0, os.SEEK_END)
    log.seek(reply["offset"])
    reply.update(log_bytes=size, length=max(0, min(size - reply["offset"], request["max_bytes"])))
    return reply, log


def _place(job: JobDirectory, reader: str, ack: dict[str, int] | None, attempt: int) -> dict[str, int]:
    """Return where a reader is, after it has acknowledged ``ack``; a new attempt begins with a new log."""
    folder = job.at(".job", "cursors")
    path = os.path.join(folder, hashlib.sha256(reader.encode()).hexdigest()[:16] + ".json")
    kept = records.read_json(path)
    place: dict[str, int] = kept["place"] if kept else {"attempt": attempt, "offset": 0}
    if ack is not None and (ack["attempt"], ack["offset"]) > (place["attempt"], place["offset"]):
        place = {"attempt": ack["attempt"], "offset": ack["offset"]}
        os.makedirs(folder, exist_ok=True)
        records.write_json(path, {"reader": reader, "place": place})
    if place["attempt"] != attempt:
        place = {"attempt": attempt, "offset": 0}
    return place
