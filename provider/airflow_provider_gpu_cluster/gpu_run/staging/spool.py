"""
Read what the worker sends when part of it comes by SFTP, for clusters whose commands cannot receive bytes.

Instead of sending a stream of pieces (see :mod:`.staging.receiving`), the worker writes the same stream to spool files,
one after the other, and names each on the channel when it is complete::

    {"in": "0123456789abcdef0123456789abcdef.tmp"}
    {}                                                 a sign of life
    {"in": "...", "fault": "Failure"}                  what SFTP said when the worker tried to write it

Spool files lie in ``incoming/`` and are removed as soon as they are open; at the end, every file with the same first 24
digits is removed. A spool file begins and ends between lines or amid the bytes of a piece, never within a line. So
bytes go into a content in the same way, whichever way they came.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
from typing import BinaryIO, Callable

from .. import protocol
from ..errors import Refused

_NEXT_FILE = b'{"in": '
_SIGN_OF_LIFE = b"{}\n"
_NAME = re.compile(r"([0-9a-f]{24})[0-9a-f]{8}\.tmp\Z")
_MAX_LINE = 1 << 16
_PROBE = bytes(1 << 20)


class SpooledStream:
    """
    A stream to read from: the channel itself, and from the first spool file on, the contents of spool files.

    :param stream: the channel.
    :param folder: the folder of spool files.
    :param heard: called at each sign of life.
    """

    def __init__(self, stream: BinaryIO, folder: str, heard: Callable[[], object]) -> None:
        self._stream = stream
        self._folder = folder
        self._heard = heard
        self._file: BinaryIO | None = None
        self._series: str | None = None

    def readline(self, limit: int = _MAX_LINE) -> bytes:
        """Return the next line; a part of one at the end."""
        while True:
            line = self._file.readline(limit) if self._file is not None else b""
            if line:
                return line
            line = self._line(limit)
            if not line.startswith(_NEXT_FILE):
                return line
            self._open(line)

    def read(self, size: int) -> bytes:
        """Return so many bytes; fewer at the end."""
        if self._file is None:
            return self._stream.read(size)
        data = self._file.read(size)
        while len(data) < size:
            line = self._line(_MAX_LINE)
            if not line.startswith(_NEXT_FILE):
                break
            self._open(line)
            data += self._file.read(size - len(data))
        return data

    def close(self) -> None:
        """Read no more, and remove the remaining files of the same series."""
        self._leave()
        if self._series is None:
            return
        for name in os.listdir(self._folder):
            match = _NAME.match(name)
            if match is not None and match.group(1) == self._series:
                with contextlib.suppress(OSError):
                    os.unlink(os.path.join(self._folder, name))
        self._series = None

    def _leave(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _line(self, limit: int) -> bytes:
        while (line := self._stream.readline(limit)) == _SIGN_OF_LIFE:
            self._heard()
        return line

    def _open(self, line: bytes) -> None:
        """
        Go on with another spool file.

        :raises Refused: there is no file of that name, or it could not be written.
        """
        self._leave()
        told = json.loads(line) if line.endswith(b"\n") else {"in": None}
        name = told["in"]
        if not isinstance(name, str) or (match := _NAME.match(name)) is None:
            raise Refused(protocol.BAD_REQUEST, f"{name!r} is no name of a spool file")
        self._series = match.group(1)
        path = os.path.join(self._folder, name)
        if "fault" in told:
            self._explain(path, str(told["fault"]))
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise Refused(
                protocol.INTERNAL,
                f"the file that was sent by SFTP is not at {path}: {error.strerror}; perhaps SFTP sees other folders "
                "there than commands do",
            ) from error
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise Refused(protocol.BAD_REQUEST, f"{path} is no spool file")
        self._file = os.fdopen(fd, "rb")
        os.unlink(path)

    def _explain(self, path: str, said: str) -> None:
        """
        Find out why SFTP could not write a spool file.

        :raises OSError: the same failure under its own name, such as a full disk.
        :raises Refused: this process can write it.
        """
        try:
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600), "wb") as file:
                file.write(_PROBE)
        finally:
            with contextlib.suppress(OSError):
                os.unlink(path)
        raise Refused(protocol.INTERNAL, f"{path} could not be written by SFTP, which says: {said}")
