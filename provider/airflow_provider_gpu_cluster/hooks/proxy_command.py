"""A command that connects to a host, in the place of a socket."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import tempfile
from collections.abc import Sequence

_SAID_BYTES = 2000
_END_WITHIN_S = 5


class ProxyProcess:
    """
    A running ProxyCommand. Its input and output are a socket, so that its end is seen at once.

    :param command: the words of the command.
    :raises OSError: it cannot be started.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self.command = " ".join(command)
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115
        self.socket, theirs = socket.socketpair()
        try:
            with theirs:
                end = theirs.fileno()
                self._process = subprocess.Popen(command, stdin=end, stdout=end, stderr=self._stderr)
        except OSError:
            self.socket.close()
            self._stderr.close()
            raise

    def ending(self) -> str | None:
        """Return how it has ended and what it has said, or None if it runs on."""
        try:
            code = self._process.wait(1)
        except subprocess.TimeoutExpired:
            return None
        self._stderr.seek(0, 2)
        self._stderr.seek(max(0, self._stderr.tell() - _SAID_BYTES))
        said = self._stderr.read().decode(errors="backslashreplace").strip()
        return f"it ended with exit code {code}: {said or 'it said nothing'}"

    def close(self) -> None:
        """End it."""
        self.socket.close()
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_WITHIN_S)
        if self._process.returncode is None:
            self._process.kill()
            self._process.wait()
        self._stderr.close()
