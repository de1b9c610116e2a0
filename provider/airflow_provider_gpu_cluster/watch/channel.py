"""The Airflow side of ``gpu-run watch``: sends commands and receives events, as lines of JSON over one channel."""

from __future__ import annotations

import contextlib
import json
import math
import time
from typing import TYPE_CHECKING, Any, cast

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.connection.channel import BREAKS, SAID_BYTES, text_of
from airflow_provider_gpu_cluster.connection.reply import garbled, parsed, reply_of
from airflow_provider_gpu_cluster.connection.wire_types import WrongType, checked
from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError, GpuClusterProtocolError
from airflow_provider_gpu_cluster.gpu_run.protocol import events
from airflow_provider_gpu_cluster.jobs.status import JobStatus
from airflow_provider_gpu_cluster.logs.relay import LogPosition, Output
from airflow_provider_gpu_cluster.stats.jobs import count_all
from airflow_provider_gpu_cluster.watch.errands import Launch, TellNote, VerbCall
from airflow_provider_gpu_cluster.watch.events import Acked, Failure, Place, Points, Printed, WatchEvent
from airflow_provider_gpu_cluster.watch.subscriptions import Ack, Following, Subscription

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.gpu_run.protocol.events import Command, Event, SubscribeCommand

# The cluster sends a sign of life every five seconds, and expects one within 150.
SILENCE_S = 20.0
ALIVE_S = 30.0
_FULL_S = 0.1
_PIECE = 1 << 16
_PIECES_AT_ONCE = 16
_MOST_EVENT_BYTES = 1 << 24


_EVENTS: dict[str, Any] = {
    "status": events.StatusEvent,
    "place": events.PlaceEvent,
    "output": events.OutputEvent,
    "printed": events.PrintedEvent,
    "points": events.PointsEvent,
    "acked": events.AckedEvent,
    "launched": events.LaunchedEvent,
    "noted": events.NotedEvent,
    "answered": events.AnsweredEvent,
    "refused": events.RefusedEvent,
    "alive": events.AliveEvent,
}


def _event_of(line: bytes | bytearray) -> Event | None:
    """
    Return an event; None if it is of a kind that is not known here.

    :raises WrongType: it is none.
    """
    message = checked(parsed(line), dict[str, Any])
    kind = message.get("event")
    if not isinstance(kind, str):
        raise WrongType("it is no event")
    if kind not in _EVENTS:
        return None
    event = checked(message, _EVENTS[kind])
    if any(event.get(name, 0) < 0 for name in ("attempt", "offset", "log_bytes")):
        raise WrongType("a position is negative")
    return cast("Event", event)


class WatchRefused(Exception):
    """
    The cluster does not let ``gpu-run watch`` run, although the connection works.

    :param error: the error to report.
    """

    def __init__(self, error: GpuClusterConnectionError) -> None:
        super().__init__(str(error))
        self.error = error


class WatchChannel:
    """
    Delivers events of jobs to subscriptions, over a channel that stays open. Nothing here blocks on the cluster.

    :param cluster: a connected cluster; its connection is closed with the channel.
    :raises WatchRefused: the channel was opened but gave no answer.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        try:
            self._channel, received = cluster.session.hold("watch", {})
        except GpuClusterConnectionError as error:
            if cluster.is_connected():
                raise WatchRefused(error) from error
            raise
        self._received = bytearray(received)
        self._to_send = bytearray()
        self._said = b""
        self._subscriptions: dict[int, Subscription] = {}
        self._errands: dict[int, Launch | TellNote | VerbCall] = {}
        self._sent_acks: dict[int, Ack | None] = {}
        self._heard_at = self._spoke_at = time.monotonic()

    def close(self) -> None:
        """Tell the cluster that nobody listens any more, and disconnect."""
        with contextlib.suppress(*BREAKS):
            self._channel.shutdown_write()
        # The connection is closed first. This ends the thread that writes to the pipe, which the channel then closes.
        self._cluster.close()
        self._channel.close()

    def fileno(self) -> int:
        """Return the file descriptor that becomes readable when there is something to do."""
        return self._channel.fileno()

    @property
    def due(self) -> float:
        """When there is something to do even if nothing arrives, by the monotonic clock."""
        full = time.monotonic() + _FULL_S if self._to_send else math.inf
        return min(self._heard_at + SILENCE_S, self._spoke_at + ALIVE_S, full)

    def change(self, subscription: Subscription) -> None:
        """Tell the cluster about a subscription that is new, was closed, or has acknowledged something."""
        key, ack = subscription.key, subscription.latest_ack
        if isinstance(subscription, Following) and not subscription.closed:
            self._subscriptions[key] = subscription
            self._say({"do": "follow", "key": key, "job_id": subscription.job_id, "tails": subscription.places})
        elif key in self._subscriptions:
            if ack is not None and ack is not self._sent_acks[key]:
                self._say({"do": "ack", "key": key, **ack.to_json()})
        elif not subscription.closed:
            self._subscriptions[key] = subscription
            place = None if ack is None else ack.to_json()
            command: SubscribeCommand = {
                "do": "subscribe",
                "key": key,
                "job_id": subscription.job_id,
                "reader": subscription.reader,
                "ack": place,
            }
            if subscription.when:
                command["notify"] = subscription.when
            self._say(command)
        self._sent_acks[key] = ack
        if subscription.closed:
            del self._sent_acks[key]
            if self._subscriptions.pop(key, None) is not None:
                self._say({"do": "unsubscribe", "key": key})

    def send(self, errand: Launch | TellNote | VerbCall) -> None:
        """Ask the cluster to do something once."""
        if isinstance(errand, Launch):
            if not errand.begin():
                return
            self._say({"do": "launch", "key": errand.key, "request": errand.request})
        elif isinstance(errand, VerbCall):
            if errand.future.done():
                return
            self._say({"do": "call", "key": errand.key, "verb": errand.verb, "request": errand.request})
        else:
            event, attempt = errand.notice["event"], errand.notice["attempt"]
            self._say({"do": "told", "key": errand.key, "job_id": errand.job_id, "event": event, "attempt": attempt})
        self._errands[errand.key] = errand

    @property
    def silent_s(self) -> float:
        """For how long nothing was heard from the cluster, in seconds."""
        return time.monotonic() - self._heard_at

    def work(self) -> None:
        """
        Deliver what has arrived, and send what can be sent.

        :raises WatchRefused: the cluster has ended the program.
        :raises GpuClusterConnectionError: the connection is broken or silent.
        """
        lives = self._receive()
        self._deliver()
        if not lives:
            raise self._end()
        now = time.monotonic()
        if now - self._heard_at > SILENCE_S:
            raise self._cluster.session.broken(f"nothing was heard from it for {SILENCE_S:g} s")
        if now - self._spoke_at >= ALIVE_S:
            self._say({"do": "alive"})
        self._send()

    def _say(self, command: Command) -> None:
        self._to_send += json.dumps(command).encode("ascii") + b"\n"
        self._spoke_at = time.monotonic()

    def _send(self) -> None:
        """Send as much as the cluster has room for; it may have none while it waits for us to read."""
        # Reading shows whether the channel has ended. (paramiko raises EOFError if it cannot write.)
        with contextlib.suppress(*BREAKS):
            while self._to_send and (sent := self._channel.send(bytes(self._to_send[:_PIECE]))):
                del self._to_send[:sent]

    def _receive(self) -> bool:
        """Read what has arrived, up to a limit; False if no more will arrive."""
        self._receive_errors()
        for _ in range(_PIECES_AT_ONCE):
            try:
                piece = self._channel.recv(_PIECE)
            except TimeoutError:
                return True
            if not piece:
                return False
            self._received += piece
            self._heard_at = time.monotonic()
        return True

    def _receive_errors(self) -> None:
        while self._channel.recv_stderr_ready():
            self._said = (self._said + self._channel.recv_stderr(_PIECE))[-SAID_BYTES:]

    def _end(self) -> GpuClusterConnectionError | WatchRefused:
        if not self._channel.eof_received:
            return self._cluster.session.broken("the connection broke")
        self._receive_errors()
        said = text_of(self._said) or "nothing"
        return WatchRefused(self._cluster.session.broken(f"gpu-run watch was ended there; it said: {said}"))

    def _deliver(self) -> None:
        *lines, self._received = self._received.split(b"\n")
        try:
            for line in lines:
                if line:
                    self._take(_event_of(line + b"\n"))
            if len(self._received) > _MOST_EVENT_BYTES:
                raise WrongType(f"it is longer than {_MOST_EVENT_BYTES} bytes")
        except WrongType as error:
            raise garbled(self._cluster.settings.where, "gpu-run watch", str(error)) from error

    def _take(self, message: Event | None) -> None:
        if message is None or "key" not in message:
            # A sign of life, or an event of a newer program.
            return
        key = message["key"]
        if key in self._errands:
            self._answer(self._errands.pop(key), message)
            return
        subscription = self._subscriptions.get(key)
        event = self._event(message)
        if subscription is not None and event is not None:
            subscription.deliver(event)

    def _answer(self, errand: Launch | TellNote | VerbCall, message: Event) -> None:
        if isinstance(errand, TellNote):
            # What is refused could not be noted at a later time either.
            errand.succeed(None)
        elif message["event"] == "refused":
            errand.fail(self._cluster.session.error_of(message))
        elif isinstance(errand, Launch) and message["event"] == "launched":
            record = errand.request["record"]
            try:
                errand.succeed(self._cluster.submission_of(message, errand.request["job_id"], record))
            except GpuClusterProtocolError as error:
                errand.fail(error)
        elif isinstance(errand, VerbCall) and message["event"] == "answered":
            try:
                errand.succeed(reply_of(message["reply"], errand.verb, self._cluster.settings.where))
            except GpuClusterProtocolError as error:
                errand.fail(error)
        else:
            raise WrongType(f"it answers a {type(errand).__name__.lower()} with another event")

    def _event(self, message: Event) -> WatchEvent | None:
        if message["event"] == "status":
            count_all(self._cluster.settings.conn_id, message.get("counted"))
            try:
                return JobStatus.from_json(message["status"])
            except GpuClusterProtocolError as error:
                return Failure(error)
        if message["event"] == "refused":
            return Failure(self._cluster.session.error_of(message))
        if message["event"] == "place":
            return Place(LogPosition(message["attempt"], message["offset"]), message["note"])
        if message["event"] == "printed":
            return Printed(message["news"])
        if message["event"] == "points":
            return Points(message["tail"], message["news"])
        if message["event"] == "acked":
            return Acked(LogPosition(message["attempt"], message["offset"]))
        if message["event"] == "output":
            try:
                data = message["data"].encode("utf-8", "surrogateescape")
            except UnicodeEncodeError:
                raise WrongType("its output is no text") from None
            return Output(LogPosition(message["attempt"], message["offset"]), data, message["log_bytes"])
        # The program is newer, and reports an event that is not known here.
        return None
