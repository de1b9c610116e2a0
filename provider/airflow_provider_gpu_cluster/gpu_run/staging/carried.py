"""Put what a job brings along from another cluster into its directory."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ..protocol.files import OUTPUTS
from ..store.continuing import carried_note
from ..store.directories import JobDirectory, Root
from . import inputs as staging

if TYPE_CHECKING:
    from ..protocol.carrying import CarriedUpload
    from ..protocol.inputs import ClusterInput


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
