"""
One SSH session that speaks the gpu-run protocol.

Every operation is one exec channel: a line of JSON in, a line of JSON out, and where files travel, their frames. All
operations can be asked for again, so a connection that breaks is opened again, with back-off, and the call repeated.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, cast

import paramiko
import tenacity

from airflow_provider_gpu_cluster.connection.channel import (
    BREAKS,
    execute,
    give_up_on_silence,
    reader,
    said_on_stderr,
    shortest_round_trip_s,
    text_of,
    writer,
)
from airflow_provider_gpu_cluster.connection.command_line import command_line
from airflow_provider_gpu_cluster.connection.download_channel import open_download
from airflow_provider_gpu_cluster.connection.installation import install, sftp_path
from airflow_provider_gpu_cluster.connection.program import build_program
from airflow_provider_gpu_cluster.connection.retry import PATIENCE_S, is_worth_another_try, patience_with
from airflow_provider_gpu_cluster.connection.settings import ENGINE_SETTINGS, SFTP, STREAM, ClusterSettings
from airflow_provider_gpu_cluster.connection.sftp import open_sftp
from airflow_provider_gpu_cluster.exceptions import (
    REPLY_ERRORS,
    ChecksumError,
    GpuClusterConnectionError,
    GpuClusterError,
    GpuClusterSetupError,
)
from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.transfer.sftp_upload import Parcels

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.gpu_run.protocol.replies import Fault
    from airflow_provider_gpu_cluster.gpu_run.protocol.settings import Settings

_Self = TypeVar("_Self", bound="Session")

log = logging.getLogger(__name__)

# The program on the cluster gives a sign of life every five seconds while it works.
IDLE_TIMEOUT_S = 40.0
_MAX_NOISE_BYTES = 1 << 20
_NAP_S = 0.2
_NO_EXIT_STATUS = -1
_MOMENT_S = 0.2
# What to say of files that did not arrive as they were sent.
IF_DAMAGED_AGAIN = (
    "If it happens again, commands on the cluster may not be given every byte as it is: set 'transfer' in the "
    "connection to sftp"
)


class Session:
    """
    An SSH connection that is opened when first needed, and again when it broke. Use it from one thread at a time.

    :param connect: opens an SSH connection, or raises an error of :mod:`.exceptions`.
    :param patience_s: how long to try to reconnect, in seconds.
    """

    def __init__(
        self,
        settings: ClusterSettings,
        connect: Callable[[], paramiko.SSHClient],
        *,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.settings = settings
        self.patience_s = patience_s
        self._connect = connect
        self._client: paramiko.SSHClient | None = None
        self._interrupted = False
        self._trouble_since: float | None = None
        self._answered_after_s = math.inf
        self._program = build_program()

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the next call opens another."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def interrupt(self) -> None:
        """
        Make a call that waits for the cluster fail now, without another try. The next call works as usual.

        Safe in a signal handler: it only shuts the socket down, and takes no lock.
        """
        self._interrupted = True
        transport = self._client.get_transport() if self._client is not None else None
        if transport is not None:
            with contextlib.suppress(OSError, AttributeError):
                transport.sock.shutdown(socket.SHUT_RDWR)

    def open(self) -> None:
        """
        Connect now, unless it is connected.

        :raises GpuClusterConnectionError: the cluster cannot be reached; there is no second try.
        """
        with self._breaks_explained("the login"):
            self._transport()

    @property
    def round_trip_s(self) -> float:
        """
        How long the line to the other side and back is, in seconds.

        The kernel knows best, as it does not wait for anybody's processor. Where the connection goes through another
        program, it is how soon the other side has answered at best.
        """
        transport = self._client.get_transport() if self._client is not None else None
        seen = None if transport is None else shortest_round_trip_s(transport)
        return self._answered_after_s if seen is None else seen

    def is_connected(self) -> bool:
        """Tell whether the connection lives, as far as is known without asking the other side."""
        transport = self._client.get_transport() if self._client is not None else None
        if transport is None:
            return False
        # When it breaks, its channels are told a moment before it is inactive itself.
        transport.join(_MOMENT_S)
        return transport.is_active()

    def hold(self, verb: str, request: Mapping[str, object]) -> tuple[paramiko.Channel, bytes]:
        """
        Begin an operation that goes on in both directions after its reply; the caller closes the channel.

        There is one try only: what to do when it breaks is for the caller to know, then as well as later.

        :return: the channel, which blocks in neither direction, and what was read from it behind the reply.
        """
        with self._breaks_explained(verb):
            _, channel, stream = self._ask(verb, request, None, goes_on=True)
            channel.settimeout(0.0)
            try:
                return channel, stream.peek()
            except TimeoutError:
                return channel, b""

    def _call(self, verb: str, request: Mapping[str, object]) -> Any:
        """Return the reply of a verb. What it holds is for whoever calls to say."""
        return self._exchange(verb, request)

    def _exchange(
        self,
        verb: str,
        request: Mapping[str, object] | Callable[[], Mapping[str, object]],
        *,
        send: Callable[[BinaryIO], None] | None = None,
        take: Callable[[Any, BinaryIO], Any] | None = None,
        converse: Callable[[Any, BinaryIO, BinaryIO], Any] | None = None,
        continues: bool = False,
    ) -> Any:
        """
        Carry out one operation, however often the connection breaks meanwhile.

        :param request: the request, or what makes it anew for each try.
        :param send: writes what follows the request.
        :param take: reads what follows the reply, and makes the result.
        :param converse: reads and writes what follows the reply, and makes the result; in place of ``take``.
        :param continues: whether it is a part of a larger call, whose interruption counts here as well.
        """
        if not continues:
            self._interrupted = False
        self._trouble_since = None

        @tenacity.retry(
            retry=tenacity.retry_if_exception(self._worth_another_try),
            wait=tenacity.wait_random_exponential(multiplier=0.5, max=10),
            stop=self._out_of_patience,
            before_sleep=self._log_retry,
            sleep=self._nap,
            reraise=True,
        )
        def try_once() -> Any:
            value = request() if callable(request) else request
            try:
                self._stop_if_interrupted()
                return self._exchange_once(verb, value, send, take, converse)
            except GpuClusterConnectionError:
                self.close()
                # From the first failure on: a transfer may have run for hours before.
                self._trouble_since = self._trouble_since or time.monotonic()
                raise

        return try_once()

    def _worth_another_try(self, error: BaseException) -> bool:
        return is_worth_another_try(error) and not self._interrupted

    def _out_of_patience(self, state: tenacity.RetryCallState) -> bool:
        error = state.outcome.exception() if state.outcome is not None else None
        patience = patience_with(error, self.patience_s)
        return self._trouble_since is None or time.monotonic() - self._trouble_since >= patience

    def _stop_if_interrupted(self) -> None:
        if self._interrupted:
            raise self.broken("the call was interrupted")

    def _nap(self, seconds: float) -> None:
        """Sleep in short pieces: a signal handler that returns does not end a sleep."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._stop_if_interrupted()
            time.sleep(min(left, _NAP_S))

    def _log_retry(self, state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        log.info("connection to %s failed, trying again: %s", self.settings.name, error)

    def _exchange_once(
        self,
        verb: str,
        request: Mapping[str, object],
        send: Callable[[BinaryIO], None] | None,
        take: Callable[[Any, BinaryIO], Any] | None,
        converse: Callable[[Any, BinaryIO, BinaryIO], Any] | None,
    ) -> Any:
        with self._breaks_explained(verb):
            reply, channel, stream = self._ask(verb, request, send, goes_on=converse is not None)
            try:
                if converse is not None:
                    return converse(reply, stream, writer(channel))
                return reply if take is None else take(reply, stream)
            finally:
                channel.close()

    def beside(self) -> Session:
        """Return a session with a connection of its own, which can be used from another thread."""
        return Session(self.settings, self._connect)

    @contextlib.contextmanager
    def conversation(
        self, verb: str, request: Mapping[str, object], send: Callable[[BinaryIO], None] | None = None
    ) -> Iterator[tuple[BinaryIO, BinaryIO]]:
        """
        Carry out an operation that goes on in both directions after its reply, with one try.

        :param send: writes what need not wait for the reply.
        :return: what to read from it and what to write to.
        """
        with self._breaks_explained(verb):
            _, channel, stream = self._ask(verb, request, send, goes_on=True)
            try:
                yield stream, writer(channel)
            finally:
                channel.close()

    @contextlib.contextmanager
    def lane(self, verb: str) -> Iterator[tuple[BinaryIO, BinaryIO]]:
        """Carry out such an operation beside another one, over a connection of its own."""
        with (
            self.beside() as beside,
            beside.conversation(verb, {}) as (stream, out),
            beside.pieces_to(out) as pieces_out,
        ):
            yield stream, pieces_out

    @contextlib.contextmanager
    def pieces_to(self, out: BinaryIO) -> Iterator[BinaryIO]:
        """Return what to write the bytes of inputs to, for a command whose channel is ``out``."""
        if self.settings.transfer == SFTP:
            with self.sftp() as sftp, Parcels(sftp, self.sftp_path(".cache/incoming"), out) as parcels:
                yield cast(BinaryIO, parcels)
        else:
            yield out

    @contextlib.contextmanager
    def sftp(self) -> Iterator[paramiko.SFTPClient]:
        """Speak SFTP over the connection that is open."""
        transport = self._client.get_transport() if self._client is not None else None
        if transport is None:
            raise self.broken("the connection broke")
        with open_sftp(transport, IDLE_TIMEOUT_S, self._where()) as sftp:
            yield sftp

    def sftp_path(self, path: str) -> str:
        """Return the path by which SFTP knows something below the root."""
        return f"{sftp_path(self.settings.root_dir)}/{path}"

    @contextlib.contextmanager
    def _breaks_explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except BREAKS as error:
            raise self.broken(f"the connection broke during {what}: {error or type(error).__name__}") from error

    def _ask(
        self,
        verb: str,
        request: Mapping[str, object],
        send: Callable[[BinaryIO], None] | None,
        *,
        goes_on: bool = False,
    ) -> tuple[Any, paramiko.Channel, io.BufferedReader]:
        """
        Send a request, and what follows it, and wait for the reply.

        :param goes_on: whether more is sent after the reply.
        :return: the reply, the channel, which is still open, and what to read from it.
        """
        names = (*ENGINE_SETTINGS[self.settings.engine], "engine", "python", "retention_s")
        settings = cast("Settings", {name: getattr(self.settings, name) for name in names})
        line = json.dumps({**request, "settings": settings}).encode("ascii") + b"\n"
        for is_first in (True, False):
            channel = self._open_channel(verb)
            try:
                sent = self._send(channel, line, send, goes_on)
                stream = reader(channel)
                reply, noise = self._read_reply(stream)
                if reply is not None:
                    if "error" in reply:
                        raise self.error_of(reply["error"])
                    if not sent:
                        raise self.broken("the connection broke while files were sent")
                    return reply["ok"], channel, stream
                self._missing_reply(channel, verb, noise, may_install=is_first)
            except BaseException:
                channel.close()
                raise
            channel.close()
        raise AssertionError("the second round returns or raises")

    def _transport(self) -> paramiko.Transport:
        """Return the connection, opened if there is none."""
        transport = self._client.get_transport() if self._client is not None else None
        if transport is None or not transport.is_active():
            self.close()
            self._client = self._connect()
            transport = self._client.get_transport()
            # An interruption while it was being opened found nothing to shut down.
            self._stop_if_interrupted()
            if transport is not None:
                give_up_on_silence(transport, IDLE_TIMEOUT_S)
        assert transport is not None
        return transport

    def _open_channel(self, verb: str) -> paramiko.Channel:
        transport = self._transport()
        open_channel = open_download if verb == "send" else paramiko.Transport.open_session
        began = time.monotonic()
        channel = open_channel(transport, timeout=IDLE_TIMEOUT_S)
        self._answered_after_s = min(self._answered_after_s, time.monotonic() - began)
        channel.settimeout(IDLE_TIMEOUT_S)
        execute(channel, command_line(self.settings, self._program.name, verb))
        return channel

    def _send(
        self, channel: paramiko.Channel, line: bytes, send: Callable[[BinaryIO], None] | None, goes_on: bool
    ) -> bool:
        """Send a request; False when the other side stopped reading, and so has an answer already or is gone."""
        try:
            channel.sendall(line)
            if send is not None:
                send(writer(channel))
            if not goes_on:
                channel.shutdown_write()
            return True
        except OSError as error:
            if isinstance(error, socket.timeout):
                raise
            return False

    def _read_reply(self, stream: BinaryIO) -> tuple[dict[str, Any] | None, str]:
        """Return the reply, None when there is none, and what a login shell printed before it."""
        noise = bytearray()
        size = 0
        while size < _MAX_NOISE_BYTES:
            line = stream.readline(_MAX_NOISE_BYTES)
            if not line:
                return None, text_of(noise)
            if line.rstrip(b"\r\n").endswith(protocol.REPLY_MARK):
                text = stream.readline()
                return (json.loads(text) if text.endswith(b"\n") else None), text_of(noise)
            # Signs of life are empty lines; they count, as a shell may print those without end as well.
            size += len(line)
            noise += line.lstrip(b"\n")
        raise GpuClusterSetupError(
            f"{self._where()} prints without end before it runs a command; look at the login shell's start files there"
        )

    def _missing_reply(self, channel: paramiko.Channel, verb: str, noise: str, *, may_install: bool) -> None:
        """Install the program where it was missing; raise whatever else kept the reply from coming."""
        channel.status_event.wait(IDLE_TIMEOUT_S)
        status = channel.exit_status
        if status == protocol.EXIT_PROGRAM_MISSING and may_install:
            assert self._client is not None
            install(self._client, self.settings.root_dir, self._program, self._where())
        elif status == protocol.EXIT_PROGRAM_MISSING:
            raise GpuClusterSetupError(f"{self._where()}: the program was uploaded and is not there afterwards")
        elif status == protocol.EXIT_NO_PYTHON:
            wanted = self.settings.python or "python3"
            raise GpuClusterSetupError(
                f"{self._where()}: there is no {wanted} on the cluster; set 'python' in the connection to the path of "
                "a Python 3.8 or newer there"
            )
        elif status in (_NO_EXIT_STATUS, protocol.EXIT_REQUEST_CUT):
            raise self.broken(f"the connection broke during {verb}")
        else:
            said = "\n".join(filter(None, (noise, text_of(said_on_stderr(channel))))) or "nothing"
            raise GpuClusterSetupError(
                f"{self._where()}: gpu-run {verb} ended with exit code {status} and no reply; it said: {said}"
            )

    def error_of(self, error: Fault) -> GpuClusterError:
        """Return the error for a refusal by the cluster, its ``code`` and ``message``."""
        error_class = REPLY_ERRORS.get(error["code"], GpuClusterError)
        hint = ""
        if error_class is ChecksumError and self.settings.transfer == STREAM:
            hint = f". {IF_DAMAGED_AGAIN}"
        return error_class(f"{self._where()}: {error['message']}{hint}")

    def broken(self, message: str) -> GpuClusterConnectionError:
        """Return the error for something that went wrong on the way."""
        return GpuClusterConnectionError(f"{self._where()}: {message}")

    def _where(self) -> str:
        return f"cluster {self.settings.name} (connection {self.settings.conn_id})"
