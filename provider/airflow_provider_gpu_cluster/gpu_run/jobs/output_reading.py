"""The verbs ``read-output`` and ``send-output``: an output in parts, as bytes or as text, or whole."""

from __future__ import annotations

import base64
import codecs
import hashlib
import os
from typing import TYPE_CHECKING, BinaryIO

from ..outputs import sending
from ..outputs.folder import stamp_of
from ..protocol.lines import write_line
from ..protocol.looks import CHEAP_CHECKSUM_BYTES, SLICE_BYTES
from ..protocol.masks import hidden, longest
from ..reply import Reply
from ..store.records import time_of
from .hiding import masks_of
from .located_output import LocatedOutput, locate

if TYPE_CHECKING:
    from ..protocol.looks import ReadOutputReply, ReadOutputRequest, SendOutputReply, SendOutputRequest
    from ..store.directories import Root

_HEAD_BYTES = 64
_PIECE = 1 << 20
# A character has four bytes at most, also in UTF-16.
_CHARACTER_BYTES = 4
_ENCODINGS = ((codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))


def answer_read(root: Root, request: ReadOutputRequest) -> Reply:
    """Carry out the verb ``read-output``."""
    return Reply(read_output(root, request))


def read_output(root: Root, request: ReadOutputRequest) -> ReadOutputReply:
    """
    Return a part of an output.

    :raises Refused: it is no file that can be read, or another one than before.
    """
    output = locate(root, request["job_id"], request["path"])
    with output.opened() as (fd, found):
        if request.get("stamp", stamp_of(found)) != stamp_of(found):
            raise output.refused("has changed while it was read; read it again")
        offset = min(max(0, request.get("offset", 0)), found.st_size)
        size = min(max(0, request.get("size", SLICE_BYTES)), SLICE_BYTES)
        facts = _described(found)
        reply: ReadOutputReply = {
            "size": facts["size"],
            "modified_at": facts["modified_at"],
            "stamp": facts["stamp"],
            "offset": offset,
        }
        if request.get("as_text", False):
            _add_text(reply, output, fd, size)
        elif size:
            reply["data"] = base64.b64encode(_read(output, fd, size, offset)).decode()
        if request.get("checksum", False) and found.st_size <= CHEAP_CHECKSUM_BYTES:
            reply["sha256"] = _checksum(output, fd)
        if stamp_of(os.fstat(fd)) != reply["stamp"] and request.get("checksum", False):
            raise output.refused("is being written; read it again")
    return reply


def answer_send(root: Root, request: SendOutputRequest) -> Reply:
    """
    Carry out the verb ``send-output``.

    :raises Refused: it is no file that can be read.
    """
    output = locate(root, request["job_id"], request["path"])
    with output.opened() as (_, found):
        described = _described(found)

    def body(out: BinaryIO) -> None:
        if request.get("only_checksum", False):
            write_line(out, {"sha256": sending.checksums_of(output.folder, [output.path], out)[0]})
        else:
            sending.send_outputs(output.folder, [[output.path, 0, described["stamp"]]], out)

    return Reply(described, body)


def _described(found: os.stat_result) -> SendOutputReply:
    return {"size": found.st_size, "modified_at": time_of(found.st_mtime), "stamp": stamp_of(found)}


def _add_text(reply: ReadOutputReply, output: LocatedOutput, fd: int, size: int) -> None:
    """Add a part of a text without secrets, or the first bytes of what is none."""
    offset = reply["offset"]
    start = _read(output, fd, _HEAD_BYTES, 0)
    encoding = next((name for mark, name in _ENCODINGS if start.startswith(mark)), "utf-8")
    masks = masks_of(output.job)
    margin = _CHARACTER_BYTES * (longest(masks) + 1)
    begin = max(0, offset - margin) // 2 * 2
    data = _read(output, fd, offset - begin + size + margin, begin)
    end = min(offset - begin + size, len(data))
    if encoding == "utf-8" and b"\0" in data[offset - begin : end]:
        reply["head"] = base64.b64encode(start).decode()
        return
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    until = decoder.decode(data[:end])
    if end < len(data):
        # The next part begins with the character that this one would cut.
        end -= len(decoder.getstate()[0])
    text = data.decode(encoding, "replace")
    shown = hidden(text, masks, len(data[: offset - begin].decode(encoding, "replace")))
    if end < len(data):
        # What follows is left out, and a secret that goes on there is shown there.
        shown = shown[: len(shown) - len(hidden(text, masks, len(until)))]
    reply["text"] = shown if offset else shown.lstrip("\ufeff")
    reply["end"] = begin + end


def _checksum(output: LocatedOutput, fd: int) -> str:
    digest = hashlib.sha256()
    at = 0
    while piece := _read(output, fd, _PIECE, at):
        digest.update(piece)
        at += len(piece)
    return digest.hexdigest()


def _read(output: LocatedOutput, fd: int, size: int, at: int) -> bytes:
    try:
        return os.pread(fd, size, at)
    except OSError as error:
        raise output.refused(f"could not be read: {error.strerror or error}") from error
