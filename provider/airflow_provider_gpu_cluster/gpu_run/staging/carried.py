"""Put what a job brings along from another cluster into its directory."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from ..protocol.files import OUTPUTS
from ..store.continuing import carried_note, note_carried
from ..store.directories import JobDirectory, Root
from ..store.settling import settle
from ..store.writing import remove_tree, writing
from . import inputs as staging

if TYPE_CHECKING:
    from ..protocol.carrying import CarriedUpload
    from ..protocol.inputs import ClusterInput, UploadInput


def bring_in(root: Root, job: JobDirectory, carried: list[CarriedUpload], linked: list[ClusterInput]) -> list[int]:
    """
    Put in place what is here already.

    :return: the numbers of what the worker has to send.
    :raises Refused: something that the job has only links to is not on this cluster, or there is no room.
    """
    staging.link_all(job, linked)
    return [
        number
        for number, wanted in enumerate(carried)
        if not _in_place(job, wanted) and not staging.bring_known(root, job, wanted)
    ]


def _in_place(job: JobDirectory, wanted: CarriedUpload) -> bool:
    if wanted["kind"] != OUTPUTS:
        return staging.in_place(job, wanted)
    note = carried_note(job)
    return note is not None and note.get("outputs") == wanted["digest"] and os.path.isdir(job.at(OUTPUTS))


def put_outputs(job: JobDirectory, wanted: UploadInput, ready: str) -> None:
    """
    Give a folder the place of the job's outputs. What an attempt has left there before is kept with that attempt.

    If another request has launched the job meanwhile, its outputs stay.
    """
    settle(job)
    with job.lock(), writing(job.path):
        attempts = job.attempts()
        if attempts and attempts[-1].ended() is None:
            return
        there = job.at(OUTPUTS)
        if attempts and os.path.lexists(there) and not os.path.lexists(attempts[-1].at(OUTPUTS)):
            os.rename(there, attempts[-1].at(OUTPUTS))
        elif os.path.lexists(there):
            # No attempt has written there since it was brought along.
            with contextlib.suppress(FileNotFoundError):
                remove_tree(there)
        os.rename(ready, there)
        note_carried(job, outputs=wanted["digest"])
