"""
The gpu-run protocol over an SSH connection.

Every operation is one exec channel: a line of JSON in, a line of JSON out, and frames for files. All operations can be
repeated, so after a broken connection the session reconnects, with back-off, and repeats the call.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, cast

import paramiko
import tenacity

from airflow_provider_gpu_cluster.connection.channel import ChannelFile, reader, said_on_stderr, text_of, writer
from airflow_provider_gpu_cluster.connection.command_line import command_line
from airflow_provider_gpu_cluster.connection.command_start import await_start
from airflow_provider_gpu_cluster.connection.connection import Connection
from airflow_provider_gpu_cluster.connection.host_faults import fault_of_host, says_disk_is_full
from airflow_provider_gpu_cluster.connection.installation import install, not_there
from airflow_provider_gpu_cluster.connection.program import build_program
from airflow_provider_gpu_cluster.connection.reply import garbled, read_reply
from airflow_provider_gpu_cluster.connection.retry import (
    RETRY_FOR_S,
    StopWhenOutOfReach,
    error_of_try,
    is_worth_another_try,
)
from airflow_provider_gpu_cluster.connection.settings import COMMON_SETTINGS, ENGINE_SETTINGS, STREAM, ClusterSettings
from airflow_provider_gpu_cluster.connection.wire_types import WrongType
from airflow_provider_gpu_cluster.connection.words import cleaned
from airflow_provider_gpu_cluster.exceptions import (
    REPLY_ERRORS,
    ChecksumError,
    GpuClusterConnectionError,
    GpuClusterError,
    GpuClusterFaultError,
    GpuClusterSetupError,
    NoSpaceError,
)
from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.gpu_run.protocol import lines

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.gpu_run.protocol.replies import Fault
    from airflow_provider_gpu_cluster.gpu_run.protocol.requests import Caller
    from airflow_provider_gpu_cluster.gpu_run.protocol.settings import Settings

_Result = TypeVar("_Result")

log = logging.getLogger(__name__)

_NO_EXIT_STATUS = -1
# How long a verb may take to reply, while it gives signs of life. Some copy, fetch or remove files before.
ANSWER_WITHIN_S = 600.0
ANSWER_AFTER_FILES_WITHIN_S = 86400.0
_WITH_FILES = ("stage", "submit", "resubmit", "send", "carry-out", "carry-in", "gc")
# Advice for files that did not arrive as they were sent.
IF_DAMAGED_AGAIN = (
    "If it happens again, commands on the cluster may not be given every byte as it is: set 'transfer' in the "
    "connection to sftp"
)


class Session:
    """
    Carries out verbs of gpu-run. Use it from one thread at a time.

    :param connection: opened when it is first needed, and again after it broke.
    :param retry_for_s: how long to keep trying to reach the cluster, in seconds.
    :param caller: who asks, for the audit trails of jobs.
    """

    def __init__(
        self, connection: Connection, *, retry_for_s: float = RETRY_FOR_S, caller: Caller | None = None
    ) -> None:
        self.connection = connection
        self._caller: Caller = caller or {}
        self._retry_for_s = retry_for_s
        self._outage_told = ""
        self._program = build_program()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.connection.close()

    @property
    def settings(self) -> ClusterSettings:
        """The settings of the cluster."""
        return self.connection.settings

    def retrying_for(self, seconds: float) -> Session:
        """Return a session over the same connection, with another time to keep trying to reach the cluster."""
        return Session(self.connection, retry_for_s=seconds, caller=self._caller)

    def beside(self) -> Session:
        """Return a session with its own connection, which another thread can use."""
        return Session(self.connection.beside(), caller=self._caller)

    # -- operations that are repeated until they are done

    def call(self, verb: str, request: Mapping[str, object]) -> Any:
        """Carry out an operation, and return the reply."""
        return self._repeat(verb, lambda: request, lambda reply, channel, stream: reply)

    def read(self, verb: str, request: Mapping[str, object], take: Callable[[Any, BinaryIO], _Result]) -> _Result:
        """
        Carry out an operation whose reply is followed by bytes.

        :param take: gets the reply and the stream of bytes; returns the result.
        """
        return self._repeat(verb, lambda: request, lambda reply, channel, stream: take(reply, stream))

    def converse(
        self,
        verb: str,
        request: Callable[[], Mapping[str, object]],
        speak: Callable[[Any, BinaryIO, BinaryIO], _Result],
        *,
        continues: bool = False,
    ) -> _Result:
        """
        Carry out an operation that continues in both directions after its reply.

        :param request: makes the request, again for each try.
        :param speak: gets the reply, the stream to read and the stream to write; returns the result.
        :param continues: whether it is part of a larger call, whose interruption applies here as well.
        """
        return self._repeat(
            verb,
            request,
            lambda reply, channel, stream: speak(reply, stream, writer(channel)),
            goes_on=True,
            continues=continues,
        )

    def _repeat(
        self,
        verb: str,
        request: Callable[[], Mapping[str, object]],
        use: Callable[[Any, paramiko.Channel, io.BufferedReader], _Result],
        *,
        goes_on: bool = False,
        continues: bool = False,
    ) -> _Result:
        """Carry out one operation, and repeat it after each broken connection."""
        connection = self.connection
        if not continues:
            connection.is_interrupted = False

        @tenacity.retry(
            retry=tenacity.retry_if_exception(
                lambda error: is_worth_another_try(error) and not connection.is_interrupted
            ),
            wait=tenacity.wait_random_exponential(multiplier=0.5, max=10),
            stop=StopWhenOutOfReach(self._retry_for_s),
            before_sleep=self._log_retry,
            sleep=connection.sleep,
            reraise=True,
        )
        def try_once() -> _Result:
            value = request()
            try:
                connection.stop_if_interrupted()
                with connection.breaks_explained(verb):
                    reply, channel, stream = self._ask(verb, value, goes_on=goes_on)
                    with contextlib.closing(channel), self._early_end_explained(verb, channel, stream):
                        return use(reply, channel, stream)
            except GpuClusterConnectionError:
                connection.close()
                raise

        result = try_once()
        self._outage_told = ""
        return result

    @contextlib.contextmanager
    def _early_end_explained(self, verb: str, channel: paramiko.Channel, stream: io.BufferedReader) -> Iterator[None]:
        """Turn a stream that ended early, or that nobody could have sent, into an error that says what was said."""
        try:
            yield
        except lines.BrokenStream as error:
            said = self._said(channel, stream) if self.connection.is_connected() else ""
            seen = f"; it said: {said}" if said else ""
            raise self.broken(f"gpu-run {verb} broke off: {fault_of_host(said) or error}{seen}") from error
        except (lines.GarbledStream, WrongType) as error:
            raise garbled(self.settings.where, f"gpu-run {verb}", str(error)) from error

    def _log_retry(self, state: tenacity.RetryCallState) -> None:
        # A task that waits through an outage calls again and again, and says itself that its cluster is out of reach.
        error = str(error_of_try(state))
        level = logging.DEBUG if error == self._outage_told else logging.INFO
        self._outage_told = error
        log.log(level, "connection to %s failed, trying again: %s", self.settings.name, error)

    # -- operations with one try

    def hold(self, verb: str, request: Mapping[str, object]) -> tuple[paramiko.Channel, bytes]:
        """
        Begin an operation that continues in both directions after its reply; the caller closes the channel.

        There is only one try: the caller decides what to do when the connection breaks, now or later.

        :return: the channel, which is non-blocking in both directions, and the bytes already read after the reply.
        """
        with self.connection.breaks_explained(verb):
            _, channel, stream = self._ask(verb, request, goes_on=True)
            channel.settimeout(0.0)
            try:
                return channel, stream.peek()
            except TimeoutError:
                return channel, b""

    @contextlib.contextmanager
    def conversation(
        self, verb: str, request: Mapping[str, object], first: bytes = b""
    ) -> Iterator[tuple[BinaryIO, BinaryIO]]:
        """
        Carry out an operation that continues in both directions after its reply, with one try.

        :param first: bytes to send without waiting for the reply.
        :return: the stream to read and the stream to write.
        """
        with self.connection.breaks_explained(verb):
            _, channel, stream = self._ask(verb, request, first, goes_on=True)
            with contextlib.closing(channel):
                yield stream, writer(channel)

    # -- request and reply

    def _ask(
        self, verb: str, request: Mapping[str, object], first: bytes = b"", *, goes_on: bool
    ) -> tuple[Any, paramiko.Channel, io.BufferedReader]:
        """
        Send a request, and wait for the reply.

        :param first: bytes to send right after the request.
        :param goes_on: whether more is sent after the reply.
        :return: the reply, the channel, which is still open, and the stream to read.
        """
        names = (*ENGINE_SETTINGS[self.settings.engine], *COMMON_SETTINGS)
        settings = cast("Settings", {name: getattr(self.settings, name) for name in names})
        caller: Caller = {**self._caller, "settings_read_at": self.settings.read_at}
        line = json.dumps({**request, "settings": settings, "caller": caller}).encode("ascii") + b"\n"
        command = command_line(self.settings, self._program.name, verb)
        for is_first in (True, False):
            channel = self.connection.start(command, downloads=verb in ("send", "send-output", "carry-out"))
            try:
                start = await_start(channel, self.settings.where)
                stream = reader(channel, start.rest)
                sent = start.is_ready and _send(channel, line + first, goes_on=goes_on)
                reply, noise = self._read_reply(stream, verb, request)
                if reply is not None:
                    if "error" in reply:
                        raise self.error_of(reply["error"])
                    if not sent:
                        raise self.broken("the connection broke while files were sent")
                    return reply["ok"], channel, stream
                said = "\n".join(filter(None, (text_of(start.said), noise)))
                self._missing_reply(channel, stream, verb, said, has_begun=start.is_ready, may_install=is_first)
            except BaseException:
                channel.close()
                raise
            channel.close()
        raise AssertionError("the second round returns or raises")

    def _read_reply(
        self, stream: io.BufferedReader, verb: str, request: Mapping[str, object]
    ) -> tuple[dict[str, Any] | None, str]:
        """Return the reply, if it comes in time, and what was printed before it."""
        within_s = ANSWER_AFTER_FILES_WITHIN_S if verb in _WITH_FILES else ANSWER_WITHIN_S
        channel_file = cast(ChannelFile, stream.raw)
        channel_file.until = time.monotonic() + within_s + cast(float, request.get("wait_s", 0))
        try:
            return read_reply(cast(BinaryIO, stream), verb, self.settings.where)
        finally:
            channel_file.until = None

    def _missing_reply(
        self,
        channel: paramiko.Channel,
        stream: io.BufferedReader,
        verb: str,
        said: str,
        *,
        has_begun: bool,
        may_install: bool,
    ) -> None:
        """Install the program if it was missing; raise an error if the reply is missing for another reason."""
        status = self.connection.exit_status(channel)
        where = self.settings.where
        if status == _NO_EXIT_STATUS or (status == protocol.EXIT_REQUEST_CUT and not self.connection.is_connected()):
            raise self.broken(f"the connection broke during {verb}")
        said = "\n".join(filter(None, (said, self._said(channel, stream)))) or "nothing"
        fault = fault_of_host(said)
        if status == protocol.EXIT_REQUEST_CUT:
            raise GpuClusterSetupError(
                f"{where}: gpu-run {verb} did not get its request: a start file of the login shell seems to read or to "
                "close standard input (as `exec < /dev/null` or `cat &` do); look at ~/.bashrc, ~/.profile, ~/.zshenv "
                f"and the like there; it said: {said}"
            )
        if status == protocol.EXIT_PROGRAM_MISSING and may_install:
            try:
                install(self.connection, self._program)
            except NoSpaceError as error:
                if verb not in protocol.LOOKS:
                    raise
                # The job that is waited for does not need the room.
                raise GpuClusterFaultError(str(error)) from error
        elif status == protocol.EXIT_PROGRAM_MISSING:
            raise GpuClusterSetupError(f"{where}: {not_there(self.connection, self._program.name)}")
        elif status == protocol.EXIT_NO_ROOT:
            raise self.connection.no_root(said)
        elif status == protocol.EXIT_PROGRAM_UNSAFE:
            raise GpuClusterSetupError(
                f"{where}: the program in root_dir is not run, as others may have put it there: {said}"
            )
        elif status == protocol.EXIT_NO_PYTHON:
            wanted = self.settings.python or "python3"
            raise GpuClusterSetupError(
                f"{where}: there is no {wanted} on the cluster; set 'python' in the connection to the path of "
                "a Python 3.8 or newer there"
            )
        elif verb in protocol.LOOKS and says_disk_is_full(said):
            # A task that waits for its job does not need the room, and waits on.
            raise GpuClusterFaultError(f"{where}: gpu-run {verb} could not begin there; it said: {said}")
        elif fault is not None:
            raise GpuClusterFaultError(f"{where}: gpu-run {verb} could not begin there: {fault}; it said: {said}")
        elif has_begun:
            raise GpuClusterSetupError(
                f"{where}: gpu-run {verb} ended with exit code {status} and no reply; it said: {said}"
            )
        else:
            raise GpuClusterSetupError(
                f"{where}: the login shell ended with exit code {status} and did not run the command; look at its "
                "start files there (~/.bashrc, ~/.profile, ~/.zshenv and the like), which must let commands run "
                f"without a terminal; it said: {said}"
            )

    def _said(self, channel: paramiko.Channel, stream: io.BufferedReader) -> str:
        """Return what a command that has ended said on stderr."""
        self.connection.exit_status(channel)
        return text_of(said_on_stderr(channel, cast(ChannelFile, stream.raw).stderr))

    # -- errors

    def error_of(self, error: Fault) -> GpuClusterError:
        """Return the error for a refusal by the cluster, from its ``code`` and ``message``."""
        if error["code"] == protocol.INTERNAL and (fault := fault_of_host(error["message"])) is not None:
            # It passes, so what was asked for is asked for again.
            last = cleaned(error["message"]).strip().splitlines()[-1:]
            return GpuClusterFaultError(f"{self.settings.where}: {fault} ({''.join(last)})")
        error_class = REPLY_ERRORS.get(error["code"], GpuClusterError)
        hint = ""
        if error_class is ChecksumError and self.settings.transfer == STREAM:
            hint = f". {IF_DAMAGED_AGAIN}"
        refusal = error_class(f"{self.settings.where}: {cleaned(error['message']) or 'it gives no reason'}{hint}")
        refusal.code = error["code"]
        return refusal

    def broken(self, message: str) -> GpuClusterConnectionError:
        """Return the error for a fault of the connection."""
        return self.connection.broken(message)


def _send(channel: paramiko.Channel, data: bytes, *, goes_on: bool) -> bool:
    """Send a request; False if the other side stopped reading, because it has already answered or is gone."""
    try:
        channel.sendall(data)
        if not goes_on:
            channel.shutdown_write()
        return True
    except OSError as error:
        if isinstance(error, socket.timeout):
            raise
        return False
