"""The verb ``list-outputs``: a page of the outputs of a job or an array, for somebody who looks at them."""

from __future__ import annotations

import hashlib
import itertools
import os
import time
from typing import TYPE_CHECKING, Iterator, NamedTuple

from ..errors import Refused
from ..outputs.folder import OutputsFolder, Unsendable, describe
from ..outputs.walk import Walked, walk
from ..protocol.looks import PAGE_ENTRIES
from ..protocol.masks import hidden
from ..reply import Reply
from ..store.arrays import elements_of
from ..store.records import time_of
from .hiding import masks_of

if TYPE_CHECKING:
    from ..protocol.looks import ListOutputsReply, ListOutputsRequest, ShownOutput
    from ..protocol.masks import Masks
    from ..store.directories import JobDirectory, Root

# How long a page may take, and the counting of what follows the first one.
_PAGE_S = 0.3
_COUNT_S = 0.5
# Paths can have 4,096 bytes.
_MOST_CHARACTERS = 1 << 18
_CHEAP_BYTES = 1 << 18
_CHEAP_BYTES_OF_PAGE = 1 << 23


def answer(root: Root, request: ListOutputsRequest) -> Reply:
    """Carry out the verb ``list-outputs``."""
    return Reply(list_outputs(root, request))


def list_outputs(root: Root, request: ListOutputsRequest) -> ListOutputsReply:
    """
    Return a page of outputs.

    :raises Refused: there is no such job.
    """
    job = root.job(request["job_id"])
    elements = [] if job.attempts() else elements_of(job)
    after = request.get("after", "")
    limit = min(max(1, request.get("limit", PAGE_ENTRIES)), PAGE_ENTRIES)
    places = _of_array(root, elements, after) if elements else _of_job(root, job, "", after)
    page = _Page(limit, request.get("contains", "").casefold())
    until = time.monotonic() + _PAGE_S
    last: str | None = None
    for place in places:
        page.add(place)
        if place.found.path and (page.is_full or time.monotonic() > until):
            last = place.shown_path
            if hidden(last, place.masks) == last:
                break
    following = next(places, None)
    reply: ListOutputsReply = {
        "outputs": page.outputs,
        "next": None if following is None else last,
        "is_array": bool(elements),
    }
    if not after:
        is_whole = following is None or page.count(itertools.chain([following], places))
        reply["totals"] = {"files": page.files, "bytes": page.bytes, "is_whole": is_whole}
    return reply


class _Listed(NamedTuple):
    """
    Something among the outputs.

    :param prefix: what precedes its path; empty, or the element's index and a slash.
    :param masks: of the secrets of its job.
    """

    folder: OutputsFolder
    found: Walked
    prefix: str
    masks: Masks | None

    @property
    def shown_path(self) -> str:
        return self.prefix + self.found.path


def _of_job(root: Root, job: JobDirectory, prefix: str, after: str) -> Iterator[_Listed]:
    folder = OutputsFolder(root, job.job_id)
    try:
        masks = masks_of(job)
    except (Refused, OSError):
        if not prefix:
            raise
        # The others are listed all the same.
        yield _Listed(folder, Walked("", "unknown"), prefix, None)
        return
    for found in walk(folder.path, after):
        yield _Listed(folder, found, prefix, masks)


def _of_array(root: Root, elements: list[str], after: str) -> Iterator[_Listed]:
    first, _, rest = after.partition("/")
    begin = int(first) if first.isdecimal() else 0
    for index, job_id in enumerate(elements):
        job = root.job(job_id)
        if index >= begin and job.exists():
            yield from _of_job(root, job, f"{index}/", rest if index == begin else "")


class _Page:
    """
    The outputs that fit into a reply, and how much there is.

    :param limit: the greatest number of outputs.
    :param contains: a text that their paths have, in lower case.
    """

    def __init__(self, limit: int, contains: str) -> None:
        self.outputs: list[ShownOutput] = []
        self.files = 0
        self.bytes = 0
        self._limit = limit
        self._contains = contains
        self._characters = 0
        self._hashed = 0

    @property
    def is_full(self) -> bool:
        """Whether nothing more fits."""
        return len(self.outputs) >= self._limit or self._characters >= _MOST_CHARACTERS

    def add(self, place: _Listed) -> None:
        """Add an output, if it is asked for; a folder is none."""
        if self._is_wanted(place):
            output = self._described(place)
            self._characters += len(output["path"]) + len(output.get("target", ""))
            self.outputs.append(output)

    def count(self, places: Iterator[_Listed]) -> bool:
        """Count what follows, without a description; return whether that was all."""
        until = time.monotonic() + _COUNT_S
        for place in places:
            if self._is_wanted(place) and place.found.kind == "entry":
                self._note(describe(place.folder.path, place.found.path)[1])
            if time.monotonic() > until:
                return False
        return True

    def _is_wanted(self, place: _Listed) -> bool:
        return place.found.kind != "folder" and (not self._contains or self._contains in place.shown_path.casefold())

    def _note(self, found: os.stat_result | None) -> None:
        if found is not None:
            self.files += 1
            self.bytes += found.st_size

    def _described(self, place: _Listed) -> ShownOutput:
        path = place.shown_path
        if place.found.kind != "entry":
            return {"path": hidden(path, place.masks), "kind": place.found.kind, "size": 0}
        entry, found = describe(place.folder.path, place.found.path)
        self._note(found)
        shown: ShownOutput = {"path": hidden(path, place.masks), "kind": entry["kind"], "size": entry["size"]}
        if shown["path"] != path:
            return {**shown, "kind": "secret"}
        if "target" in entry:
            shown["target"] = hidden(entry["target"], place.masks)
        if found is not None:
            shown["modified_at"] = time_of(found.st_mtime)
            if found.st_size <= _CHEAP_BYTES and self._hashed + found.st_size <= _CHEAP_BYTES_OF_PAGE:
                self._hashed += found.st_size
                self._add_checksum(shown, place)
        return shown

    @staticmethod
    def _add_checksum(shown: ShownOutput, place: _Listed) -> None:
        try:
            fd, found = place.folder.open(place.found.path)
        except (Unsendable, OSError, ValueError):
            return
        with os.fdopen(fd, "rb") as file:
            content = file.read(_CHEAP_BYTES + 1)
        if len(content) == shown["size"] == found.st_size:
            shown["sha256"] = hashlib.sha256(content).hexdigest()
