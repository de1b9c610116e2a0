"""Writes batches of small files in several threads, while the next ones arrive."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType

from airflow_provider_gpu_cluster.sinks import Sink

# Files per thread: most of them are in one folder, and the kernel creates only one file at a time in a folder.
_FILES_AT_ONCE = 64
# Number of such groups that may wait to be written, 2 MB each at most.
_WAITING = 8


@dataclass(frozen=True)
class SmallFile:
    """
    A file that has arrived.

    :param sha256: its expected checksum.
    """

    path: str
    content: memoryview
    mode: int
    sha256: str


# The files that were written, and the error that stopped the next one.
_Written = tuple[list[SmallFile], BaseException | None]


class SmallFiles:
    """
    Checks and writes small files as long as the context lasts; at its end, all given files are written.

    :param published: called for each written file, in the thread that gives files.
    :param damaged: returns the error for a file with a wrong checksum.
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
        Write files, in any order.

        :raises CollectError: one that was given is damaged, or could not be written.
        """
        for start in range(0, len(files), _FILES_AT_ONCE):
            self._waiting.append(self._begin(files[start : start + _FILES_AT_ONCE]))
        self._take_note(_WAITING)

    def _begin(self, files: Sequence[SmallFile]) -> Future[_Written]:
        if self._sink.concurrent_puts > 1:
            return self._pool.submit(self._write, files)
        # No other thread may use the sink while this one notes what was published.
        written: Future[_Written] = Future()
        written.set_result(self._write(files))
        return written

    def _take_note(self, left: int, *, raises: bool = True) -> None:
        """Note what was written, and wait until no more than so many groups are left."""
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
