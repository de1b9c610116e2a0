"""Both directions of ``watch``: a client's commands, and the events for it. See :mod:`.watch.server`."""

from __future__ import annotations

from typing import Any, Literal, TypedDict, Union, final

from .replies import Fault, Handle
from .requests import Acknowledgement, Position, SubmitRequest
from .status import Status


class SubscribeCommand(TypedDict):
    """Watch a job; for a reader, send its output as well."""

    do: Literal["subscribe"]
    key: int
    job_id: str
    reader: str | None
    ack: Acknowledgement | None


class AcknowledgeCommand(Acknowledgement):
    """Note how far a reader has got."""

    do: Literal["ack"]
    key: int


class UnsubscribeCommand(TypedDict):
    """Stop watching a job."""

    do: Literal["unsubscribe"]
    key: int


class LaunchCommand(TypedDict):
    """Launch a job that needs no files from the client."""

    do: Literal["launch"]
    key: int
    request: SubmitRequest


class AliveCommand(TypedDict):
    """A sign of life."""

    do: Literal["alive"]


Command = Union[SubscribeCommand, AcknowledgeCommand, UnsubscribeCommand, LaunchCommand, AliveCommand]


class StatusEvent(TypedDict):
    """The present status of the job."""

    event: Literal["status"]
    key: int
    status: Status


class PlaceEvent(Position):
    """The reader's position, and its note; output is sent from there."""

    event: Literal["place"]
    key: int
    note: Any


class OutputEvent(Position):
    """
    A piece of the job's output.

    :param data: the bytes as UTF-8, in which invalid ones stand as lone surrogates (PEP 383).
    :param log_bytes: size of the whole log.
    """

    event: Literal["output"]
    key: int
    data: str
    log_bytes: int


class AckedEvent(Position):
    """The reader's position is written down."""

    event: Literal["acked"]
    key: int


class _LaunchedEvent(TypedDict):
    event: Literal["launched"]
    key: int
    handle: Handle
    status: Status
    created: bool


class LaunchedEvent(_LaunchedEvent, total=False):
    """The result of a launch, in the form of the reply of ``submit``."""

    launched: int


class RefusedEvent(Fault):
    """This subscription or launch is impossible."""

    event: Literal["refused"]
    key: int


@final
class AliveEvent(TypedDict):
    """A sign of life."""

    event: Literal["alive"]


Event = Union[StatusEvent, PlaceEvent, OutputEvent, AckedEvent, LaunchedEvent, RefusedEvent, AliveEvent]
