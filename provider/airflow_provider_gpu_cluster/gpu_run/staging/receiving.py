"""
Receive inputs from the worker: it says what they consist of, learns which contents are missing, and sends those.

The verbs ``stage`` and ``submit`` reply with ``needs``, the numbers of the inputs that are not here. The worker answers
with a line of JSON, ``{"rows": [...]}``, that holds the rows of each of them (see :mod:`.staging.placing`). Then lines
of JSON go both ways. The cluster sends::

    {"want": [[key, [[start, end], ...]], ...]}      any number of them; then
    {"send": 1234}                                   how many bytes that is together
    {"done": {...}}                                  all inputs are in place, and this is the verb's result
    {"error": {"code": ..., "message": ...}}         or it failed

and the worker answers ``send`` with pieces of contents and an end::

    {"key": key, "at": 0, "n": 4096}                 followed by 4096 bytes
    {"key": key, "at": 4096, "n": 1024, "zeros": true}     followed by nothing: so many bytes are zero
    {"end": true}

A small content comes in one piece, which says ``"whole": true``. If a content is known only by a tag, nobody knows its
SHA-256 yet; its pieces carry their own SHA-256 as ``sha256``. Empty lines are signs of life. Through the verb ``fill``
the worker sends pieces over further channels at the same time.

Where the channel cannot carry bytes, pieces come in files: see :mod:`.staging.spool`.

Every byte of a large content that has arrived counts, whatever happens next: see :mod:`.cache.incoming`. Only one
process at a time asks for a content, and for the contents of one input. Other processes wait for it, and take over if
it dies.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import resource
import select
import threading
from typing import TYPE_CHECKING, BinaryIO, Callable, Iterator

from .. import protocol
from ..cache.contents import Contents, digest_of
from ..cache.incoming import Busy, Damaged, Incoming
from ..cache.packs import PackWriter
from ..cache.ranges import Range, total
from ..errors import Refused
from ..linux import copying
from ..linux.disk_space import check_room
from ..linux.locks import lock
from ..protocol import lines
from ..store.booking import IN, Transfer
from ..store.directories import JobDirectory, Root
from ..store.writing import fault_of, writing
from . import placing
from .inputs import bring
from .pieces import Pieces, WorkerGone, listen, stop_listening

if TYPE_CHECKING:
    from ..protocol.inputs import DescribedUpload, PieceHeader, Row, UploadInput, UploadNews, Want
    from ..protocol.replies import StageReply, SubmitReply
    from ..protocol.requests import Asker

_BEAT_S = 5.0
_PAUSE_S = 0.1
_WANTS_IN_LINE = 200
_MOST_ROW_BYTES = 1 << 30
# A damaged disk or a worker's broken memory can cost new tries; this limits them.
_MOST_ROUNDS = 5


def receive(
    job: JobDirectory,
    by: Asker,
    inputs: list[UploadInput],
    stream: BinaryIO,
    out: BinaryIO,
    go_on: Callable[[], StageReply | SubmitReply],
) -> None:
    """
    Have inputs sent, then continue with the verb that needs them.

    :param by: who asks for the job.
    :param inputs: those that are not here.
    :param go_on: returns the result of the verb, once the inputs are here.
    """
    worker = _Worker(stream, out)
    transfer = Transfer(job.path, by, IN)
    try:
        rows = worker.rows()
        if len(rows) != len(inputs):
            raise Refused(protocol.BAD_REQUEST, f"{len(rows)} inputs were described, and {len(inputs)} are needed")
        wanted: list[DescribedUpload] = [{**one, "rows": its_rows} for one, its_rows in zip(inputs, rows)]
        try:
            with writing(job.path):
                _Receiving(job, wanted, worker, transfer).run()
        finally:
            transfer.book()
        worker.say({"done": go_on()})
    except (WorkerGone, lines.BrokenStream):
        pass
    except lines.GarbledStream as garbled:
        worker.say({"error": {"code": protocol.CHECKSUM_MISMATCH, "message": f"{garbled}; nothing of it was kept"}})
    except Exception as error:
        worker.say({"error": fault_of(error, "gpu-run", job.path)})
    finally:
        worker.end()


class _Receiving:
    def __init__(self, job: JobDirectory, inputs: list[DescribedUpload], worker: _Worker, transfer: Transfer) -> None:
        self._job = job
        self._transfer = transfer
        self._inputs = inputs
        self._worker = worker
        self._contents = Contents(Root(os.path.dirname(job.path)))
        self._sizes: dict[str, int] = {}
        self._paths: dict[str, str] = {}
        self._here: set[str] = set()
        self._pack = PackWriter(self._contents.packs)
        self._pieces = Pieces(worker.stream, self._contents.incoming)

    def run(self) -> None:
        if not self._job.exists():
            message = f"the directory {self._job.path} was removed while inputs were sent; try again"
            raise Refused(protocol.NOT_STAGED, message)
        for wanted in self._inputs:
            self._check(wanted)
        self._contents.create()
        _raise_limit_of_open_files()
        with self._turn():
            self._check_room()
            for _ in range(_MOST_ROUNDS):
                self._get_contents()
                if self._place():
                    return
        raise Refused(
            protocol.CHECKSUM_MISMATCH,
            f"contents under {self._contents.folder} are damaged as soon as they are written; look at the disk",
        )

    def _check(self, wanted: DescribedUpload) -> None:
        rows = wanted["rows"]
        placing.check(rows, wanted["written"])
        if not wanted["digest"].startswith("etag:") and digest_of(rows) != wanted["digest"]:
            raise Refused(protocol.BAD_REQUEST, "{}: the rows are not those of its digest".format(wanted["written"]))
        for path, kind, _, content, *size in rows:
            if kind == "file" and size[0]:
                self._sizes[content] = size[0]
                self._paths[content] = path

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """Wait until no other process brings in the same inputs; by then most or all of them are here."""
        names = sorted({hashlib.sha256(wanted["digest"].encode()).hexdigest() for wanted in self._inputs})
        with contextlib.ExitStack() as locks:
            for name in names:
                path = os.path.join(self._contents.incoming, f"input-{name}.lock")
                while (fd := lock(path)) is None:
                    self._worker.pause()
                locks.callback(_unlock, fd, path)
            yield

    def _check_room(self) -> None:
        lacking = {key: size for key, size in self._sizes.items() if self._contents.find(key, size) is None}
        large = (Incoming(self._contents, key, size) for key, size in lacking.items() if size > protocol.WHOLE_BYTES)
        for_contents = sum(lacking.values()) - sum(incoming.arrived() for incoming in large)
        are_clones = copying.shares_blocks(self._contents.incoming)
        for_job = placing.size_of(self._inputs, are_clones=are_clones)
        what = ", ".join(wanted["written"] for wanted in self._inputs)
        check_room(self._contents.incoming, for_contents + for_job, what)

    # -- contents

    def _get_contents(self) -> None:
        """Have the worker send the missing contents, or wait until other processes have received them."""
        lacking = {key: size for key, size in self._sizes.items() if self._contents.find(key, size) is None}
        rounds_without_news = 0
        while lacking:
            owned: dict[str, Incoming] = {}
            try:
                wants = self._wants(lacking, owned)
                if wants:
                    arrived = self._ask(wants, owned)
                    rounds_without_news = 0 if arrived else rounds_without_news + 1
                    if rounds_without_news >= _MOST_ROUNDS:
                        raise Refused(
                            protocol.CHECKSUM_MISMATCH, "the requested contents do not arrive as they were sent"
                        )
                else:
                    self._worker.pause()
                self._publish(owned)
            finally:
                for incoming in owned.values():
                    incoming.leave()
            lacking = {key: size for key, size in lacking.items() if self._contents.find(key, size) is None}

    def _wants(self, lacking: dict[str, int], owned: dict[str, Incoming]) -> list[Want]:
        """Return what to ask for now: no content that another process is receiving, and no more than can be open."""
        wants: list[Want] = []
        for key, size in lacking.items():
            if size <= protocol.WHOLE_BYTES:
                wants.append([key, [[0, size]]])
                continue
            if len(owned) >= _most_open():
                break
            incoming = Incoming(self._contents, key, size)
            if not incoming.take():
                continue
            if self._contents.find(key, size) is not None:
                incoming.discard()
                continue
            incoming.begin()
            owned[key] = incoming
            wants.append([key, incoming.missing()])
        return wants

    def _ask(self, wants: list[Want], owned: dict[str, Incoming]) -> bool:
        """Have contents sent, and return whether any bytes arrived."""
        for start in range(0, len(wants), _WANTS_IN_LINE):
            self._worker.say({"want": wants[start : start + _WANTS_IN_LINE]})
        self._worker.say({"send": sum(total(ranges) for _, ranges in wants)})
        try:
            return self._take(owned) or any(not incoming.missing() for incoming in owned.values())
        finally:
            # Everything that has arrived counts, however this ends, and over whichever channel it came.
            self._pack.close()
            self._pieces.close()
            self._contents.packs.forget()
            with contextlib.suppress(OSError):
                self._transfer.add(sum(self._arrived(key, ranges, owned) for key, ranges in wants))

    def _arrived(self, key: str, ranges: list[Range], owned: dict[str, Incoming]) -> int:
        """Return how many of the bytes that were asked for are here, over whichever channel they came."""
        if key in owned:
            return total(ranges) - total(owned[key].missing())
        return total(ranges) if self._contents.find(key, self._sizes[key]) is not None else 0

    def _take(self, owned: dict[str, Incoming]) -> bool:
        """Read pieces to the end, and return whether any of them can be kept."""
        arrived = False
        current: Incoming | None = None
        for header in self._pieces.headers():
            key = header["key"]
            incoming = owned.get(key)
            if current is not None and current is not incoming:
                current.rest()
            current = incoming
            if incoming is not None:
                arrived = self._pieces.take(header, incoming) or arrived
            elif self._sizes.get(key) == header["n"] <= protocol.WHOLE_BYTES:
                self._take_whole(header)
                arrived = True
            else:
                raise Refused(protocol.BAD_REQUEST, f"{header} was not asked for")
        return arrived

    def _take_whole(self, header: PieceHeader) -> None:
        key = header["key"]
        sha256, data = self._pieces.whole(header["n"])
        if sha256 != header.get("sha256", key):
            raise self._changed(key)
        self._pack.add(key, sha256, data)

    def _publish(self, owned: dict[str, Incoming]) -> None:
        for key, incoming in owned.items():
            if incoming.missing():
                continue
            try:
                self._here.add(incoming.publish())
            except Damaged:
                raise self._changed(key) from None
            except Busy:
                raise Refused(
                    protocol.INTERNAL, f"another process goes on writing {self._paths[key]!r} to {incoming.path}"
                ) from None

    def _changed(self, key: str) -> Refused:
        return Refused(
            protocol.CHECKSUM_MISMATCH,
            f"{self._paths[key]!r} is not what its checksum says: it changed after the checksum was computed and "
            "before it was sent; nothing of it was kept, try again",
        )

    # -- the job

    def _place(self) -> bool:
        """Give the job its inputs; return False when a content is gone, or was found damaged."""
        for wanted in self._inputs:
            self._contents.keep_manifest(wanted["digest"], wanted["rows"])
            if not bring(self._job, self._contents, wanted, wanted["rows"], self._here):
                return False
        return True


class _Worker:
    """The other end of the channel."""

    def __init__(self, stream: BinaryIO, out: BinaryIO) -> None:
        self.stream = stream
        self._out = out
        self._lock = threading.Lock()
        self._ended = threading.Event()
        out.flush()
        threading.Thread(target=self._beat, daemon=True).start()

    def rows(self) -> list[list[Row]]:
        """
        Return the rows of the inputs, which come first.

        :raises WorkerGone: the worker has hung up.
        """
        listen()
        line = self.stream.readline(_MOST_ROW_BYTES)
        stop_listening()
        if not line.endswith(b"\n"):
            raise WorkerGone
        rows: list[list[Row]] = json.loads(line)["rows"]
        return rows

    def say(self, message: UploadNews) -> None:
        """Send a line; it is lost if nobody reads any more."""
        self._write(json.dumps(message).encode("ascii") + b"\n")

    def _write(self, data: bytes) -> None:
        with self._lock, contextlib.suppress(OSError):
            self._out.write(data)
            self._out.flush()

    def _beat(self) -> None:
        while not self._ended.wait(_BEAT_S):
            self._write(b"\n")

    def pause(self) -> None:
        """
        Wait for a moment while the worker has nothing to say.

        :raises WorkerGone: the worker has hung up.
        """
        readable, _, _ = select.select([self.stream], [], [], _PAUSE_S)
        if readable:
            raise WorkerGone

    def end(self) -> None:
        """Send nothing more."""
        self._ended.set()
        stop_listening()


def _unlock(fd: int, path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    os.close(fd)


def _raise_limit_of_open_files() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _most_open() -> int:
    """Return for how many contents this process may hold locks at once."""
    return min(10000, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)
