"""
Waits until the login shell has started the command, before anything is sent that a shell must not read.

What stands in start files may read standard input (``read answer``, ``ssh fileserver quota``) or put another shell into
the place of the one that has the command line (``exec zsh``), which then carries out its standard input. Therefore
requests and the bytes of files follow only after the command line has said that it runs, which costs no round trip:
OpenSSH takes no data for a command before it has started it, anyway.
"""

from __future__ import annotations

import contextlib
import time
from typing import NamedTuple

import paramiko

from airflow_provider_gpu_cluster.connection.channel import text_of
from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError, GpuClusterSetupError

# A shell may print the line that it runs, with the escapes in it carried out (as `echo` of dash does): that must not be
# taken for what the line prints.
READY = b"\x1e gpu-run ready \x1e\n"
SAY_READY = r'printf "\036 gpu-run %s \036\n" ready'
START_TIMEOUT_S = 40.0
_AFTER_END_S = 5.0
_ANSWERS = b"\n" * 16
_MOST_NOISE_BYTES = 1 << 23
_KEPT_BYTES = 1 << 16
_READ_BYTES = 1 << 16
_LOOK = "look at the login shell's start files there (~/.bashrc, ~/.profile, ~/.zshenv and the like)"
PRINTS_WITHOUT_END = f"prints without end before it runs a command; {_LOOK}"


class CommandStart(NamedTuple):
    """
    What came before a command began.

    :param is_ready: whether it runs; if not, the channel has ended.
    :param said: what the login shell has printed.
    :param rest: what came after that.
    """

    is_ready: bool
    said: bytes
    rest: bytes


def await_start(channel: paramiko.Channel, where: str) -> CommandStart:
    """
    Wait until the command of a channel runs, or has ended.

    :param channel: a channel with :data:`SAY_READY` in its command; its time-out stays as it is. What start files print
        on stderr is read together with the rest: unread, it would take up the window of both.
    :param where: the cluster, for messages.
    :raises GpuClusterSetupError: a start file prints without end, or does not let the command begin.
    :raises GpuClusterConnectionError: the command has not begun in time.
    """
    timeout = channel.gettimeout()
    until = time.monotonic() + START_TIMEOUT_S
    channel.set_combine_stderr(True)
    try:
        # A start file that asks questions gets empty answers, for which the program does not care, nor any shell.
        with contextlib.suppress(OSError):
            channel.settimeout(START_TIMEOUT_S)
            channel.sendall(_ANSWERS)
        said = bytearray()
        start = _read_until_ready(channel, said, until, where)
        if start is None:
            raise _stuck(channel, said, where)
        return start
    finally:
        channel.settimeout(timeout)
        channel.set_combine_stderr(False)


def _read_until_ready(channel: paramiko.Channel, said: bytearray, until: float, where: str) -> CommandStart | None:
    """Return what came before the command began; None if it does not begin in time."""
    size = 0
    while (left := until - time.monotonic()) > 0:
        channel.settimeout(left)
        try:
            data = channel.recv(_READ_BYTES)
        except TimeoutError:
            return None
        if not data:
            return CommandStart(False, bytes(said), b"")
        said += data
        at = said.find(READY)
        if at >= 0:
            return CommandStart(True, bytes(said[:at]), bytes(said[at + len(READY) :]))
        size += len(data)
        if size > _MOST_NOISE_BYTES:
            raise GpuClusterSetupError(f"{where} {PRINTS_WITHOUT_END}")
        del said[:-_KEPT_BYTES]
    return None


def _stuck(channel: paramiko.Channel, said: bytearray, where: str) -> GpuClusterSetupError | GpuClusterConnectionError:
    """Find out what keeps the command from beginning, by ending its standard input."""
    with contextlib.suppress(OSError):
        channel.shutdown_write()
    start = _read_until_ready(channel, said, time.monotonic() + _AFTER_END_S, where)
    heard = text_of(said if start is None else start.said)
    seen = f"; it said: {heard}" if heard else ""
    if start is None:
        return GpuClusterConnectionError(
            f"{where}: the login shell has not begun to run the command within {START_TIMEOUT_S:g} s{seen}; something "
            f"in its start files is slow or waits, such as a file system that does not answer: {_LOOK}"
        )
    if start.is_ready:
        return GpuClusterSetupError(
            f"{where}: a start file of the login shell reads standard input to its end (as `cat` does) before the "
            f"command runs{seen}; {_LOOK}, and give what reads there `< /dev/null`"
        )
    return GpuClusterSetupError(
        f"{where}: the login shell did not run the command{seen}; a start file seems to put another program into its "
        f"place (as `exec zsh`, `exec tmux` or `newgrp` do) or its output elsewhere: {_LOOK}, and do that only for a "
        "terminal: [ -t 0 ] && exec ..."
    )
