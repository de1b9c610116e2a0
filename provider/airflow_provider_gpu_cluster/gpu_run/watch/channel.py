"""Exchange lines of JSON with a client that may be slow, silent, or gone."""

from __future__ import annotations

import json
import os
import select
from typing import TYPE_CHECKING, Any, Iterable

if TYPE_CHECKING:
    from ..protocol.events import Event

_PIECE = 1 << 16
_LONGEST_LINE = 1 << 20
_BROKEN = select.POLLERR | select.POLLHUP | select.POLLNVAL


class ClientGone(Exception):
    """The client has closed its end."""


class BrokenClient(Exception):
    """The client violates the protocol."""


class Channel:
    """
    Commands in, events out. Nothing here waits for the client, except :meth:`wait`.

    :param source: open file to read commands from.
    :param out: open file to write events to.
    """

    def __init__(self, source: int, out: int) -> None:
        self._source = source
        self._out = out
        for fd in (source, out):
            os.set_blocking(fd, False)
        self._unread = b""
        self._unsent = bytearray()
        self._is_heard = True

    @property
    def backlog(self) -> int:
        """How many bytes the client has not read yet."""
        return len(self._unsent)

    def wait(self, timeout_s: float, also: Iterable[int]) -> None:
        """
        Wait until there is something to read, or room for what could not be written yet.

        :param also: other open files that may become readable.
        :raises ClientGone: nobody reads the events any more, and no commands are left.
        """
        poll = select.poll()
        poll.register(self._source, select.POLLIN)
        poll.register(self._out, select.POLLOUT if self._unsent else 0)
        for fd in also:
            poll.register(fd, select.POLLIN)
        ready = dict(poll.poll(max(0.0, timeout_s) * 1000 if self._is_heard else 0))
        self._is_heard = self._is_heard and not ready.get(self._out, 0) & _BROKEN
        # Commands that the client sent before it went count: what it acknowledges has been shown.
        if not self._is_heard and self._source not in ready:
            raise ClientGone
        self._flush()

    def commands(self) -> list[dict[str, Any]]:
        """
        Return the commands that have arrived.

        :raises ClientGone: there will be no more.
        :raises BrokenClient: a line is not JSON, or is too long.
        """
        try:
            data = os.read(self._source, _PIECE)
        except BlockingIOError:
            return []
        except OSError as error:
            raise ClientGone from error
        if not data:
            raise ClientGone
        *lines, self._unread = (self._unread + data).split(b"\n")
        if len(self._unread) > _LONGEST_LINE:
            raise BrokenClient(f"a command longer than {_LONGEST_LINE} bytes")
        return [_parse(line) for line in lines]

    def send(self, event: Event) -> None:
        """Send an event, or keep it until there is room."""
        if self._is_heard:
            self._unsent += json.dumps(event).encode("ascii") + b"\n"
            self._flush()

    def _flush(self) -> None:
        try:
            while self._unsent:
                del self._unsent[: os.write(self._out, self._unsent)]
        except BlockingIOError:
            pass
        except OSError:
            # The next call of wait reports it.
            self._is_heard = False
            self._unsent.clear()


def _parse(line: bytes) -> dict[str, Any]:
    try:
        command = json.loads(line)
    except ValueError:
        command = None
    if not isinstance(command, dict):
        raise BrokenClient(f"no JSON object: {line[:200]!r}")
    return command
