"""The verb ``fill``: receive pieces of contents that the process on another channel has asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

from ..cache.contents import Contents, checked_key
from ..cache.incoming import Incoming
from ..cache.packs import PackWriter
from ..protocol import lines
from ..reply import Reply
from ..store.directories import Root
from .pieces import Pieces, WorkerGone, stop_listening

if TYPE_CHECKING:
    from ..protocol.replies import FillReply


def answer(root: Root, stream: BinaryIO) -> Reply:
    """Carry out the verb ``fill``; reply when all pieces have arrived."""
    return Reply({}, lambda out: lines.write_line(out, fill(root, stream)))


def fill(root: Root, stream: BinaryIO) -> FillReply:
    """
    Write pieces of contents at their places.

    :return: how many bytes arrived.
    """
    contents = Contents(root)
    pack = PackWriter(contents.packs)
    pieces = Pieces(stream, contents.incoming)
    count = 0
    incoming: Incoming | None = None
    try:
        for header in pieces.headers():
            key = checked_key(header["key"])
            count += header["n"]
            if header.get("whole"):
                sha256, data = pieces.whole(header["n"])
                # The process that asked for it finds that it did not arrive.
                if sha256 == header.get("sha256", key):
                    pack.add(key, sha256, data)
                continue
            if incoming is None or incoming.key != key:
                if incoming is not None:
                    incoming.release()
                incoming = Incoming(contents, key, 0)
            pieces.take(header, incoming)
    except (WorkerGone, lines.BrokenStream):
        pass
    finally:
        stop_listening()
        pieces.close()
        pack.close()
        if incoming is not None:
            incoming.release()
    return {"bytes": count}
