"""The outputs of an array: those of each element, in a folder named after its index."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ..protocol.files import CHANGED
from ..store.directories import Root
from .folder import OutputsFolder, Unsendable

if TYPE_CHECKING:
    from ..protocol.outputs import OutputEntry


class ArrayOutputs:
    """
    The outputs of an array, with the methods of :class:`.OutputsFolder`.

    An element without a directory, which was removed or never launched, has no outputs.
    """

    def __init__(self, root: Root, elements: list[str]) -> None:
        self._folders: dict[str, OutputsFolder] = {}
        for index, job_id in enumerate(elements):
            if root.job(job_id).exists():
                self._folders[str(index)] = OutputsFolder(root, job_id)

    def entries(self) -> list[OutputEntry]:
        """List everything except folders; see :meth:`.OutputsFolder.entries`."""
        return [
            {**entry, "path": f"{index}/{entry['path']}"}
            for index, folder in self._folders.items()
            for entry in folder.entries()
        ]

    def open(self, name: str) -> tuple[int, os.stat_result]:
        """Open a file that was listed before; see :meth:`.OutputsFolder.open`."""
        index, _, path = name.partition("/")
        if index not in self._folders:
            raise Unsendable(CHANGED)
        return self._folders[index].open(path)
