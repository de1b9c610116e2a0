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
import re
import shlex
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO, cast

import paramiko
import pathspec
import tenacity

from airflow_provider_gpu_cluster.exceptions import (
    REPLY_ERRORS,
    CollectError,
    GpuClusterAuthenticationError,
    GpuClusterConnectionError,
    GpuClusterError,
    GpuClusterHostKeyError,
    GpuClusterSetupError,
    InvalidJobError,
)
from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.installation import install
from airflow_provider_gpu_cluster.job import JobHandle, JobSpec, JobStatus
from airflow_provider_gpu_cluster.log_relay import LogChunk, LogPosition
from airflow_provider_gpu_cluster.program import build_program
from airflow_provider_gpu_cluster.sinks import Sink
from airflow_provider_gpu_cluster.sources import Source, UploadSource
from airflow_provider_gpu_cluster.transfer import CollectedFile, receive_files, send_source

log = logging.getLogger(__name__)

# The program on the cluster gives a sign of life every five seconds while it works.
IDLE_TIMEOUT_S = 40.0
# A stock sshd drops connections when many arrive at once (MaxStartups); a wrong address stays wrong.
PATIENCE_S = 120.0
PATIENCE_WITH_ADDRESS_S = 5.0
_MAX_NOISE_BYTES = 1 << 20
_SAID_BYTES = 2000
_NAP_S = 0.2
_NO_EXIT_STATUS = -1
_STAGE_ROUNDS = 3


@dataclass(frozen=True)
class ClusterSettings:
    """
    What a connection says about a cluster, besides how to log in.

    :param conn_id: Airflow connection.
    :param name: the cluster for a person, ``user@host:port``.
    :param root_dir: folder of all jobs on the cluster; ``~`` is the user's home there.
    :param engine: how jobs get to run there: ``host``.
    :param python: interpreter on the cluster; None takes ``python3`` from the PATH.
    :param virtual_gpus: pretend to have that many GPUs; None asks ``nvidia-smi``.
    :param lease_dir: folder of the GPU leases, shared by all users of the host; None for the usual one.
    """

    conn_id: str
    name: str
    root_dir: str = "~/ml-jobs"
    engine: str = "host"
    python: str | None = None
    virtual_gpus: int | None = None
    lease_dir: str | None = None


@dataclass(frozen=True)
class Submission:
    """
    What came of a submit.

    :param created: whether this call made the attempt; False when it found one.
    """

    handle: JobHandle
    status: JobStatus
    created: bool


class Cluster:
    """
    A cluster, through one SSH connection that is opened when first needed. Use it from one thread at a time.

    All methods raise :class:`GpuClusterConnectionError` when the cluster stays out of reach,
    :class:`GpuClusterSetupError` when it cannot run jobs at all, and what else each says.

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
        self._program = build_program()

    def __enter__(self) -> Cluster:
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

    # -- operations ----------------------------------------------------------------------------------------------

    def check(self) -> dict[str, Any]:
        """Look whether the cluster can run jobs, and return what was found. Gives up at once when out of reach."""
        patience, self.patience_s = self.patience_s, 0.0
        try:
            return self._call("install-check", {})
        finally:
            self.patience_s = patience

    def capacity(self) -> dict[str, Any]:
        """Return the cluster's GPUs, with who has them, and how many jobs wait."""
        return self._call("capacity", {})

    def stage(self, job_id: str, sources: Sequence[Source], *, record: Mapping[str, Any]) -> JobHandle:
        """
        Make a job's directory and bring its inputs there, without launching anything.

        :param record: who asks.
        :raises StagingError: a source could not be brought there.
        """
        request = {"job_id": job_id, "inputs": [source.to_json() for source in sources], "record": record}
        return self._handle(self._with_uploads("stage", request, sources)["handle"])

    def submit(
        self,
        job_id: str,
        *,
        spec: JobSpec,
        sources: Sequence[Source] | None,
        env: Mapping[str, str],
        run_script: str,
        request_key: str,
        generation: str,
        record: Mapping[str, Any],
    ) -> Submission:
        """
        Launch a job, or find it launched; see :func:`.gpu_run.submission.submit` for which.

        :param sources: its inputs; None when they are staged.
        :param env: the job's own environment variables; they go into no record.
        :param run_script: text of ``run.sh``.
        :param request_key: names one try; with the same key the same attempt comes back.
        :param generation: changes when a user asks for a new beginning.
        :param record: who asks.
        :raises StagingError: a source could not be brought there.
        :raises LaunchError: the cluster cannot run it.
        """
        request = {
            "job_id": job_id,
            "spec": spec.to_json(),
            "inputs": None if sources is None else [source.to_json() for source in sources],
            "env": dict(env),
            "run_script": run_script,
            "request_key": request_key,
            "generation": generation,
            "record": record,
            "context": _context_variables(record),
        }
        reply = self._with_uploads("submit", request, sources or ())
        return Submission(self._handle(reply["handle"]), JobStatus.from_json(reply["status"]), reply["created"])

    def statuses(self, job_ids: Sequence[str], *, tail_bytes: int = 0) -> list[JobStatus]:
        """
        Return how jobs stand, in one call and in their order.

        :param tail_bytes: how much of the end of each output to bring along.
        """
        reply = self._call("status", {"job_ids": list(job_ids), "tail_bytes": tail_bytes})
        return [JobStatus.from_json(status) for status in reply["jobs"]]

    def read_log(
        self,
        job_id: str,
        *,
        reader: str,
        max_bytes: int = 1 << 20,
        ack: LogPosition | None = None,
        tail_bytes: int = 0,
    ) -> LogChunk:
        """
        Return how a job stands together with the output that this reader has not acknowledged yet.

        :param reader: a name; the cluster keeps the place of each.
        :param ack: up to where the reader is done.
        :param tail_bytes: how much of the end of the output to put into the status.
        """
        place = None if ack is None else {"attempt": ack.attempt, "offset": ack.offset}
        request = {"job_id": job_id, "reader": reader, "ack": place, "max_bytes": max_bytes, "tail_bytes": tail_bytes}

        def take(reply: dict[str, Any], stream: BinaryIO) -> LogChunk:
            data = stream.read(reply["length"])
            if len(data) != reply["length"]:
                raise self._broken("the connection broke while the log was read")
            start = LogPosition(reply["attempt"], reply["offset"])
            return LogChunk(JobStatus.from_json(reply["status"]), start, data, reply["log_bytes"])

        return cast(LogChunk, self._exchange("logs", request, take=take))

    def cancel(self, job_ids: Sequence[str], *, requested_by: str, wait_s: float = 0) -> list[JobStatus]:
        """
        Cancel jobs; those that have ended are left as they are.

        :param requested_by: who asks, for the record.
        :param wait_s: how long to wait for them to be gone, in seconds.
        """
        reply = self._call("cancel", {"job_ids": list(job_ids), "by": requested_by, "wait_s": wait_s})
        return [JobStatus.from_json(status) for status in reply["jobs"]]

    def collect(
        self, job_id: str, sink: Sink, *, include: Sequence[str] = (), exclude: Sequence[str] = ()
    ) -> list[CollectedFile]:
        """
        Bring a job's outputs home, each checked against its checksum.

        :param include: patterns in the language of ``.gitignore``, relative to ``outputs``; empty for everything.
        :param exclude: patterns of what to leave.
        :raises CollectError: a wanted output leaves its folder, is no file, or did not arrive whole.
        """
        entries = self._call("send", {"job_id": job_id, "names": None})["entries"]
        wanted = [entry for entry in entries if _is_wanted(entry["path"], include, exclude)]
        for entry in wanted:
            if entry["kind"] != "file":
                raise CollectError(f"job {job_id} on {self.settings.name}: {_refusal(entry)}")
        left = {entry["path"] for entry in wanted}
        collected: list[CollectedFile] = []

        def take(reply: dict[str, Any], stream: BinaryIO) -> None:
            # What has its final name is whole, so after a broken connection only the rest is asked for.
            for file in receive_files(stream, sink, left, job_id):
                collected.append(file)
                left.discard(file.path)

        while left:
            self._exchange("send", lambda: {"job_id": job_id, "names": sorted(left)}, take=take, continues=True)
        return sorted(collected, key=lambda file: file.path)

    def _with_uploads(self, verb: str, request: dict[str, Any], sources: Sequence[Source]) -> dict[str, Any]:
        """Call a verb that may ask for inputs first, and send those it asks for."""
        for number in range(_STAGE_ROUNDS):
            reply = self._exchange(verb, request, continues=number > 0)
            if not reply.get("needs"):
                return cast("dict[str, Any]", reply)
            for index in reply["needs"]:
                source = cast(UploadSource, sources[index])
                upload = {"job_id": request["job_id"], "input": request["inputs"][index]}
                self._exchange("receive", upload, send=partial(send_source, source), continues=True)
        raise GpuClusterError(f"{self._where()}: inputs of {request['job_id']} were sent and are missing again")

    def _handle(self, reply: dict[str, Any]) -> JobHandle:
        return JobHandle(gpu_cluster_conn_id=self.settings.conn_id, **reply)

    # -- the session ---------------------------------------------------------------------------------------------

    def _call(self, verb: str, request: dict[str, Any]) -> dict[str, Any]:
        return cast("dict[str, Any]", self._exchange(verb, request))

    def _exchange(
        self,
        verb: str,
        request: dict[str, Any] | Callable[[], dict[str, Any]],
        *,
        send: Callable[[BinaryIO], None] | None = None,
        take: Callable[[dict[str, Any], BinaryIO], Any] | None = None,
        continues: bool = False,
    ) -> Any:
        """
        Carry out one operation, however often the connection breaks meanwhile.

        :param request: the request, or what makes it anew for each try.
        :param send: writes what follows the request.
        :param take: reads what follows the reply, and makes the result.
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
                return self._exchange_once(verb, value, send, take)
            except GpuClusterConnectionError:
                self.close()
                # From the first failure on: a transfer may have run for hours before.
                self._trouble_since = self._trouble_since or time.monotonic()
                raise

        return try_once()

    def _worth_another_try(self, error: BaseException) -> bool:
        final = (GpuClusterAuthenticationError, GpuClusterHostKeyError)
        return isinstance(error, GpuClusterConnectionError) and not isinstance(error, final) and not self._interrupted

    def _out_of_patience(self, state: tenacity.RetryCallState) -> bool:
        error = state.outcome.exception() if state.outcome is not None else None
        patience = self.patience_s
        if error is not None and _is_about_address(error.__cause__):
            patience = min(patience, PATIENCE_WITH_ADDRESS_S)
        return self._trouble_since is None or time.monotonic() - self._trouble_since >= patience

    def _stop_if_interrupted(self) -> None:
        if self._interrupted:
            raise self._broken("the call was interrupted")

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
        request: dict[str, Any],
        send: Callable[[BinaryIO], None] | None,
        take: Callable[[dict[str, Any], BinaryIO], Any] | None,
    ) -> Any:
        settings = {name: getattr(self.settings, name) for name in ("virtual_gpus", "lease_dir", "python")}
        line = json.dumps({**request, "settings": settings}).encode("ascii") + b"\n"
        try:
            for is_first in (True, False):
                channel = self._open_channel(verb)
                try:
                    sent = self._send(channel, line, send)
                    stream = io.BufferedReader(_Raw(channel), 1 << 18)
                    reply, noise = self._read_reply(stream)
                    if reply is None:
                        self._missing_reply(channel, verb, noise, may_install=is_first)
                        continue
                    if "error" in reply:
                        raise self._error(reply["error"])
                    if not sent:
                        raise self._broken("the connection broke while files were sent")
                    return reply["ok"] if take is None else take(reply["ok"], stream)
                finally:
                    channel.close()
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise self._broken(f"the connection broke during {verb}: {error or type(error).__name__}") from error
        raise AssertionError("the second round returns or raises")

    def _open_channel(self, verb: str) -> paramiko.Channel:
        transport = self._client.get_transport() if self._client is not None else None
        if transport is None or not transport.is_active():
            self.close()
            self._client = self._connect()
            transport = self._client.get_transport()
            # An interruption while it was being opened found nothing to shut down.
            self._stop_if_interrupted()
            _give_up_on_silence(transport)
        assert transport is not None
        channel = transport.open_session(timeout=IDLE_TIMEOUT_S)
        channel.settimeout(IDLE_TIMEOUT_S)
        _execute(channel, self._command(verb))
        return channel

    def _command(self, verb: str) -> str:
        """Return a line that any login shell understands: start the program, or say by exit code why not."""
        path = f"{_shell_path(self.settings.root_dir)}/.gpu-run/{self._program.name}"
        python = self.settings.python or "python3"
        # A bare name is looked up in the PATH.
        python = _shell_path(python) if "/" in python else shlex.quote(python)
        script = (
            f'p={path}; [ -f "$p" ] || exit {protocol.EXIT_PROGRAM_MISSING}; '
            f"command -v {python} >/dev/null 2>&1 || exit {protocol.EXIT_NO_PYTHON}; "
            f'exec {python} -I -S "$p" {verb}'
        )
        return f"exec sh -c {shlex.quote(script)}"

    def _send(self, channel: paramiko.Channel, line: bytes, send: Callable[[BinaryIO], None] | None) -> bool:
        """Send a request; False when the other side stopped reading, and so has an answer already or is gone."""
        try:
            channel.sendall(line)
            if send is not None:
                send(cast(BinaryIO, _Writer(channel)))
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
                return None, _text(noise)
            if line.rstrip(b"\r\n").endswith(protocol.REPLY_MARK):
                text = stream.readline()
                return (json.loads(text) if text.endswith(b"\n") else None), _text(noise)
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
            raise self._broken(f"the connection broke during {verb}")
        else:
            said = "\n".join(filter(None, (noise, _text(_stderr(channel))))) or "nothing"
            raise GpuClusterSetupError(
                f"{self._where()}: gpu-run {verb} ended with exit code {status} and no reply; it said: {said}"
            )

    def _error(self, error: dict[str, str]) -> GpuClusterError:
        error_class = REPLY_ERRORS.get(error["code"], GpuClusterError)
        return error_class(f"{self._where()}: {error['message']}")

    def _broken(self, message: str) -> GpuClusterConnectionError:
        return GpuClusterConnectionError(f"{self._where()}: {message}")

    def _where(self) -> str:
        return f"cluster {self.settings.name} (connection {self.settings.conn_id})"


class _Raw(io.RawIOBase):
    """A channel as a file to read from."""

    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel = channel

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._channel.recv(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class _Writer:
    """A channel as a file to write to."""

    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel = channel

    def write(self, data: bytes) -> None:
        self._channel.sendall(data)


def _execute(channel: paramiko.Channel, command: str) -> None:
    """
    Have a command executed, without waiting for the server to say that it will.

    That saves a round trip: what goes to the command's standard input may follow at once (RFC 4254, section 5). Should
    the server refuse, paramiko closes the channel, which its reader sees.
    """
    message = paramiko.Message()
    message.add_byte(paramiko.common.cMSG_CHANNEL_REQUEST)
    message.add_int(channel.remote_chanid)
    message.add_string("exec")
    message.add_boolean(True)
    message.add_string(command)
    transport = channel.get_transport()
    transport._send_user_message(message)  # type: ignore[attr-defined]


def _give_up_on_silence(transport: paramiko.Transport | None) -> None:
    """Have the kernel end a connection whose other side stopped acknowledging; by default that takes it 15 minutes."""
    with contextlib.suppress(AttributeError, OSError):
        assert transport is not None
        cast(socket.socket, transport.sock).setsockopt(
            socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(IDLE_TIMEOUT_S * 1000)
        )


def _shell_path(path: str) -> str:
    """Quote a path for sh, with ``~/`` as the home there; a relative path is meant from the home as well."""
    if path == "~":
        return '"$HOME"'
    if path.startswith("/"):
        return shlex.quote(path)
    return '"$HOME"/' + shlex.quote(path.removeprefix("~/"))


def _stderr(channel: paramiko.Channel) -> bytes:
    data = b""
    while len(data) < _SAID_BYTES and channel.recv_stderr_ready():
        data += channel.recv_stderr(_SAID_BYTES)
    return data


def _text(said: bytes | bytearray) -> str:
    return said[-_SAID_BYTES:].decode("utf-8", "backslashreplace").strip()


def _is_about_address(cause: BaseException | None) -> bool:
    if isinstance(cause, paramiko.ssh_exception.NoValidConnectionsError):
        return True
    return isinstance(cause, (socket.gaierror, ConnectionRefusedError))


def _is_wanted(path: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    return (not include or _matches(path, tuple(include))) and not _matches(path, tuple(exclude))


def _matches(path: str, patterns: Iterable[str]) -> bool:
    try:
        return pathspec.GitIgnoreSpec.from_lines(patterns).match_file(path)
    except ValueError as error:
        raise InvalidJobError(f"{list(patterns)} are no patterns: {error}") from error


def _refusal(entry: dict[str, Any]) -> str:
    path = entry["path"]
    why = {
        "outside": f"is a link to {entry.get('target')}, which lies outside the job's outputs",
        "broken": f"is a link to {entry.get('target')}, which does not exist",
        "special": "is no regular file",
        "unreadable": "cannot be read by the user that runs the job",
    }.get(entry["kind"], f"is of an unknown kind ({entry['kind']})")
    remedy = f"leave it out with exclude=[{_pattern(path)!r}]"
    return f"the output {path!r} {why}; nothing was collected. Remove it there, or {remedy}"


def _pattern(path: str) -> str:
    """Return the pattern for a path that may have wildcards in it."""
    return re.sub(r"[][*?!#\\]|\s$", r"\\\g<0>", path)


def _context_variables(record: Mapping[str, Any]) -> dict[str, str]:
    """Return the environment variables by which Airflow tells a task who it is."""
    names = {
        "AIRFLOW_CTX_DAG_ID": "dag_id",
        "AIRFLOW_CTX_TASK_ID": "task_id",
        "AIRFLOW_CTX_DAG_RUN_ID": "run_id",
        "AIRFLOW_CTX_TRY_NUMBER": "try_number",
        "AIRFLOW_CTX_MAP_INDEX": "map_index",
    }
    return {name: str(record[key]) for name, key in names.items() if record.get(key) is not None}
