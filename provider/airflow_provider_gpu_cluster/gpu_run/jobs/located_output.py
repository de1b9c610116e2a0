"""Finds one output of a job or an array, by the path under which it was listed."""

from __future__ import annotations

import contextlib
import os
from typing import Iterator, NamedTuple

from .. import protocol
from ..errors import Refused
from ..outputs.folder import OutputsFolder, Unsendable
from ..protocol.files import CHANGED
from ..store.arrays import elements_of
from ..store.directories import JobDirectory, Root


class LocatedOutput(NamedTuple):
    """
    An output.

    :param path: below the outputs of its own job.
    :param shown_path: for messages.
    """

    job: JobDirectory
    folder: OutputsFolder
    path: str
    shown_path: str

    @contextlib.contextmanager
    def opened(self) -> Iterator[tuple[int, os.stat_result]]:
        """
        Yield its descriptor and status.

        :raises Refused: it is no file that can be read.
        """
        try:
            fd, found = self.folder.open(self.path)
        except (Unsendable, ValueError, OSError) as error:
            if not isinstance(error, Unsendable) or str(error) == CHANGED:
                raise self.refused("is no file among its outputs, or has gone") from error
            raise self.refused(str(error)) from error
        try:
            yield fd, found
        finally:
            os.close(fd)

    def refused(self, why: str) -> Refused:
        """Return the error for an output that cannot be read."""
        return Refused(protocol.UNSAFE_OUTPUT, f"the output {self.shown_path!r} of {self.job.job_id} {why}")


def locate(root: Root, job_id: str, path: str) -> LocatedOutput:
    """
    Return the output of that path.

    :raises Refused: there is no such job.
    """
    job = root.job(job_id)
    elements = [] if job.attempts() else elements_of(job)
    own = path
    if elements:
        index, _, own = path.partition("/")
        if not index.isdecimal() or int(index) >= len(elements):
            raise Refused(
                protocol.UNSAFE_OUTPUT, f"the path of an output of array {job_id} begins with the index of an element"
            )
        job = root.job(elements[int(index)])
    return LocatedOutput(job, OutputsFolder(root, job.job_id), own, path)
