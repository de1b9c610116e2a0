"""Small files that came together, written by several threads while the next ones come."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType

from airflow_provider_gpu_cluster.sinks import Sink

# Files that one thread takes at a time: most of these are in one folder, and a folder takes one file at a time.
_FILES_AT_ONCE = 64
# So many times that may wait to be written, 2 MB each at most.
_WAITING = 8


@dataclass(frozen=True)
class SmallFile:
    """
    A file that has come.

    :param sha256: what its checksum is to be.
    """

    path: str
    content: memoryview
    mode: int
    sha256: str


# What was written, and what kept the next one from it.
_Written = tuple[list[SmallFile], BaseException | None]


class SmallFiles:
    """
    Checks and writes small files for as long as the context lasts; at its end, all that was given is written.

    :param published: called in the thread that gives files, for each that was written.
    :param damaged: returns what to raise for one whose checksum is another.
    """

    def __init__(self, sink: Sink, published: Callable[[SmallFile], None], damaged: Callable[[str], Exception]) -> None:
        self._sink = sink
        self._published = published
        self._damaged = damaged
        self._pool = ThreadPoolExecutor(sink.concurrent_puts)
        self._waiting: deque[Future[_Written]] = deque()

    def __enter__(self) -> SmallFiles:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._pool:
            self._take_note(0, raises=error is None)

    def give(self, files: Sequence[SmallFile]) -> None:
        """
        Have files written, in no order.

        :raises CollectError: one that was given is damaged, or could not be written.
        """
        for start in range(0, len(files), _FILES_AT_ONCE):
            self._waiting.append(self._begin(files[start : start + _FILES_AT_ONCE]))
        self._take_note(_WAITING)

    def _begin(self, files: Sequence[SmallFile]) -> Future[_Written]:
        if self._sink.concurrent_puts > 1:
            return self._pool.submit(self._write, files)
        # It is not to be used by another thread while this one notes what was published.
        written: Future[_Written] = Future()
        written.set_result(self._write(files))
        return written

    def _take_note(self, left: int, *, raises: bool = True) -> None:
        """Take note of what was written, and wait for the rest until no more than so many wait."""
        failure: BaseException | None = None
        while self._waiting and (len(self._waiting) > left or self._waiting[0].done()):
            written, error = self._waiting.popleft().result()
            for file in written:
                self._published(file)
            failure = failure or error
        if failure is not None and raises:
            raise failure

    def _write(self, files: Sequence[SmallFile]) -> _Written:
        """Write files up to the first that cannot be written, and say why."""
        written: list[SmallFile] = []
        try:
            for file in files:
                if hashlib.sha256(file.content).hexdigest() != file.sha256:
                    raise self._damaged(file.path)
                self._sink.put(file.path, file.content, file.mode)
                written.append(file)
        except BaseException as error:
            return written, error
        return written, None
