"""The SSH server of the sandbox: it runs commands as real processes and serves SFTP, like sshd."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import asyncssh

_PIECE = 1 << 16
# Airflow's own settings carry secrets, and an interpreter's settings would change the job's interpreter.
_PRIVATE_PREFIXES = ("AIRFLOW", "_AIRFLOW", "PYTHON")
_PRIVATE_NAMES = ("VIRTUAL_ENV", "CUDA_VISIBLE_DEVICES", "OLDPWD")


class SandboxServer:
    """
    An SSH server that lets one key in.

    :param host_key: the server's own key.
    :param client_key: the key that may log in, under any user name.
    :param variables: each ``NAME=value``, put into the environment of every process that it starts.
    """

    def __init__(self, host_key: asyncssh.SSHKey, client_key: asyncssh.SSHKey, variables: Sequence[str]) -> None:
        self._host_key = host_key
        self._authorized = asyncssh.import_authorized_keys(client_key.export_public_key("openssh").decode())
        self._env = _environment(variables)
        self._connections: set[asyncssh.SSHServerConnection] = set()
        self._sessions: set[asyncio.Task[None]] = set()
        self._processes: set[asyncio.subprocess.Process] = set()
        self._acceptor: asyncssh.SSHAcceptor | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen, and return the port."""
        self._acceptor = await asyncssh.listen(
            host,
            port,
            server_factory=lambda: _Connections(self._connections),
            server_host_keys=[self._host_key],
            authorized_client_keys=self._authorized,
            password_auth=False,
            session_factory=self._open_session,
            sftp_factory=_HomeSFTPServer,
            encoding=None,
            line_editor=False,
            backlog=1024,
        )
        return self._acceptor.get_port()

    async def stop(self) -> None:
        """Stop listening and drop every connection; the processes see the end of their input."""
        if self._acceptor is not None:
            self._acceptor.close()
        for connection in list(self._connections):
            connection.abort()
        if self._sessions:
            await asyncio.wait(self._sessions, timeout=1)
        for session in self._sessions:
            session.cancel()
        await asyncio.gather(*self._sessions, return_exceptions=True)

    async def see_the_end(self) -> None:
        """Wait for the processes that were left when the server stopped and have been killed since."""
        if waits := [asyncio.ensure_future(process.wait()) for process in self._processes]:
            await asyncio.wait(waits, timeout=1)

    def _open_session(
        self,
        stdin: asyncssh.SSHReader[bytes],
        stdout: asyncssh.SSHWriter[bytes],
        stderr: asyncssh.SSHWriter[bytes],
    ) -> None:
        session = asyncio.ensure_future(self._run(stdin, stdout, stderr))
        self._sessions.add(session)
        session.add_done_callback(self._sessions.discard)

    async def _run(
        self,
        stdin: asyncssh.SSHReader[bytes],
        stdout: asyncssh.SSHWriter[bytes],
        stderr: asyncssh.SSHWriter[bytes],
    ) -> None:
        channel = cast("asyncssh.SSHServerChannel[bytes]", stdout.channel)
        command = channel.get_command()
        arguments = [] if command is None else ["-c", command]
        # As every SSH server says it.
        client, here = channel.get_extra_info("peername"), channel.get_extra_info("sockname")
        if client is None or here is None:
            return  # the client has gone meanwhile
        outputs = [os.pipe(), os.pipe()]
        try:
            process = await asyncio.create_subprocess_exec(
                "/bin/sh",
                *arguments,
                stdin=asyncio.subprocess.PIPE,
                stdout=outputs[0][1],
                stderr=outputs[1][1],
                env={**self._env, "SSH_CLIENT": f"{client[0]} {client[1]} {here[1]}"},
                cwd=Path.home(),
                start_new_session=True,
            )
        except OSError as error:
            for read_end, _ in outputs:
                os.close(read_end)
            stderr.write(f"sandbox: cannot start a process: {error}\n".encode())
            channel.exit(255)
            return
        finally:
            for _, write_end in outputs:
                os.close(write_end)
        self._processes.add(process)
        feeding = asyncio.ensure_future(_feed(stdin, process))
        try:
            await asyncio.gather(_drain(outputs[0][0], stdout), _drain(outputs[1][0], stderr))
            status = await process.wait()
            self._processes.discard(process)
        finally:
            feeding.cancel()
            _close_input(process)
        if status >= 0:
            channel.exit(status)
        else:
            channel.exit_with_signal(signal.Signals(-status).name.removeprefix("SIG"))


async def _feed(stdin: asyncssh.SSHReader[bytes], process: asyncio.subprocess.Process) -> None:
    """Pass the client's input to the process, until either of them closes it."""
    assert process.stdin is not None
    try:
        while True:
            try:
                data = await stdin.read(_PIECE)
            except asyncssh.SignalReceived as request:
                _send_signal(process.pid, request.signal)
                continue
            except (asyncssh.BreakReceived, asyncssh.TerminalSizeChanged):
                continue
            if not data:
                break
            process.stdin.write(data)
            await process.stdin.drain()
    except (asyncssh.Error, OSError):
        pass  # the client is gone, or the process reads no more
    finally:
        _close_input(process)


def _close_input(process: asyncio.subprocess.Process) -> None:
    if process.stdin is not None and not process.stdin.is_closing():
        process.stdin.close()


def _send_signal(pid: int, name: str) -> None:
    number = getattr(signal, f"SIG{name}", None)
    if number is not None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, number)


async def _drain(read_end: int, writer: asyncssh.SSHWriter[bytes]) -> None:
    """Pass the process's output to the client, no faster than the client reads it."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=_PIECE)
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read_end, "rb", buffering=0)
    )
    try:
        while data := await reader.read(_PIECE):
            writer.write(data)
            await writer.drain()
    except (asyncssh.Error, OSError):
        pass  # the client is gone: closing the pipe tells the process
    finally:
        transport.close()


class _Connections(asyncssh.SSHServer):
    """Keeps the set of open connections."""

    def __init__(self, connections: set[asyncssh.SSHServerConnection]) -> None:
        self._connections = connections

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn
        self._connections.add(conn)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self._connection)


class _HomeSFTPServer(asyncssh.SFTPServer):
    """SFTP whose relative paths start in the home directory, as with sshd."""

    def map_path(self, path: bytes) -> bytes:
        return os.path.join(os.fsencode(Path.home()), super().map_path(path))


def _environment(variables: Sequence[str]) -> dict[str, str]:
    """Return the environment of every command: the user's, with this interpreter's folder first in PATH."""
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(_PRIVATE_PREFIXES) and name not in _PRIVATE_NAMES
    }
    env.update((name, value) for name, _, value in (variable.partition("=") for variable in variables))
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", os.defpath)])
    return env
