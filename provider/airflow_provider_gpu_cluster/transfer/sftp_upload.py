"""Sends inputs in spool files by SFTP, if commands cannot receive bytes unchanged; see
:mod:`.gpu_run.staging.spool`."""

from __future__ import annotations

import contextlib
import json
import os
import time
import uuid
from collections import deque
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, cast

import paramiko

from airflow_provider_gpu_cluster.connection.channel import BREAKS
from airflow_provider_gpu_cluster.connection.session import Session
from airflow_provider_gpu_cluster.connection.settings import SFTP
from airflow_provider_gpu_cluster.connection.sftp import PipelinedFile, SftpRefusal
from airflow_provider_gpu_cluster.gpu_run.protocol import lines

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.gpu_run.protocol.inputs import SpoolLine

SPOOL_FILE_BYTES = 8 << 20
# The cluster removes spool files while the next ones are sent; those that it has not taken need space.
_MOST_UNTAKEN = 4
_SIGN_OF_LIFE_S = 5.0
_PAUSE_S = 0.02
# How long the cluster may take to find out why a spool file could not be written.
_LOOK_S = 3.0
_LONGEST_WAIT_S = 3600.0


@contextlib.contextmanager
def pieces_to(session: Session, out: BinaryIO) -> Iterator[BinaryIO]:
    """Yield the stream for the bytes of inputs, for a command whose channel is ``out``."""
    if session.settings.transfer == SFTP:
        folder = session.connection.sftp_path(".cache/incoming")
        with session.connection.sftp() as sftp, SpoolWriter(sftp, folder, out) as spool:
            yield cast(BinaryIO, spool)
    else:
        yield out


class SpoolWriter:
    """
    A writable channel whose bytes go by SFTP. The bytes of one write stay in one spool file.

    :param folder: where the cluster looks for spool files.
    :param out: the channel itself, which gets lines of JSON.
    """

    def __init__(self, sftp: paramiko.SFTPClient, folder: str, out: BinaryIO) -> None:
        self._sftp = sftp
        self._folder = folder
        self._out = out
        self._file: PipelinedFile | None = None
        self._name = ""
        self._series = uuid.uuid4().hex[:24]
        self._number = 0
        self._sent: deque[str] = deque()
        self._told_at = time.monotonic()

    def __enter__(self) -> SpoolWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            return
        # The cluster removes them as well, but may have done so before the last ones arrived.
        channel = self._sftp.get_channel()
        is_alive = channel is not None and not channel.closed and not isinstance(error, TimeoutError)
        for name in (*self._sent, self._name) if is_alive else ():
            with contextlib.suppress(*BREAKS):
                self._sftp.remove(self._path(name))
        if self._file is not None and is_alive:
            with contextlib.suppress(*BREAKS):
                self._file.close()

    def write(self, data: bytes | memoryview) -> int:
        """Send bytes, and begin another spool file when this one is full."""
        try:
            if self._file is None:
                self._begin()
            assert self._file is not None
            self._file.write(data)
            self._tell_of_life()
            if self._file.size >= SPOOL_FILE_BYTES:
                self.flush()
        except SftpRefusal as refusal:
            self._give_up(refusal)
        return len(data)

    def flush(self) -> None:
        """Pass what was written to the cluster."""
        if self._file is None:
            return
        try:
            self._file.finish()
        except SftpRefusal as refusal:
            self._give_up(refusal)
        self._file.close()
        self._file = None
        self._say({"in": self._name})
        self._sent.append(self._name)

    def _begin(self) -> None:
        while len(self._sent) >= _MOST_UNTAKEN:
            self._wait_for(self._sent.popleft())
        self._number += 1
        self._name = f"{self._series}{self._number:08x}.tmp"
        self._file = PipelinedFile(self._sftp, self._path(self._name), "wx")

    def _wait_for(self, name: str, most_s: float = _LONGEST_WAIT_S) -> None:
        """Wait until the cluster has taken a spool file. If it has disconnected, the sign of life fails."""
        until = time.monotonic() + most_s
        with contextlib.suppress(FileNotFoundError):
            while self._sftp.stat(self._path(name)) and time.monotonic() < until:
                self._tell_of_life()
                time.sleep(_PAUSE_S)

    def _give_up(self, refusal: SftpRefusal) -> None:
        """Let the cluster find out the cause, because SFTP reports nearly every error as ``Failure``."""
        self._say({"in": self._name, "fault": str(refusal)})
        # Do not remove the file before the cluster has looked, or the missing space would be free again; but do not
        # wait long, because the cluster may be gone.
        self._wait_for(self._name, _LOOK_S)
        raise lines.BrokenStream(str(refusal)) from refusal

    def _tell_of_life(self) -> None:
        if time.monotonic() - self._told_at > _SIGN_OF_LIFE_S:
            self._say({})

    def _say(self, line: SpoolLine) -> None:
        self._out.write(json.dumps(line).encode("ascii") + b"\n")
        self._told_at = time.monotonic()

    def _path(self, name: str) -> bytes:
        return os.fsencode(f"{self._folder}/{name}")
