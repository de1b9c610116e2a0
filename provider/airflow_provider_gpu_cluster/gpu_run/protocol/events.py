"""Both directions of ``watch``: what a client says, and what it is told. See :mod:`.watch.server`."""

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
    """Up to where a reader is done."""

    do: Literal["ack"]
    key: int


class UnsubscribeCommand(TypedDict):
    """Watch a job no more."""

    do: Literal["unsubscribe"]
    key: int


class LaunchCommand(TypedDict):
    """Launch a job for which nothing has to be sent."""

    do: Literal["launch"]
    key: int
    request: SubmitRequest


class AliveCommand(TypedDict):
    """A sign of life."""

    do: Literal["alive"]


Command = Union[SubscribeCommand, AcknowledgeCommand, UnsubscribeCommand, LaunchCommand, AliveCommand]


class StatusEvent(TypedDict):
    """How the job stands now."""

    event: Literal["status"]
    key: int
    status: Status


class PlaceEvent(Position):
    """Where the reader is, and its note; the output that is sent begins there."""

    event: Literal["place"]
    key: int
    note: Any


class OutputEvent(Position):
    """
    A piece of the job's output.

    :param data: the bytes as UTF-8, in which single ones stand as lone surrogates (PEP 383).
    :param log_bytes: size of the whole log.
    """

    event: Literal["output"]
    key: int
    data: str
    log_bytes: int


class AckedEvent(Position):
    """The reader's place is written down."""

    event: Literal["acked"]
    key: int


class _LaunchedEvent(TypedDict):
    event: Literal["launched"]
    key: int
    handle: Handle
    status: Status
    created: bool


class LaunchedEvent(_LaunchedEvent, total=False):
    """What came of a launch, as ``submit`` replies."""

    launched: int


class RefusedEvent(Fault):
    """This subscription or launch cannot be."""

    event: Literal["refused"]
    key: int


@final
class AliveEvent(TypedDict):
    """A sign of life."""

    event: Literal["alive"]


Event = Union[StatusEvent, PlaceEvent, OutputEvent, AckedEvent, LaunchedEvent, RefusedEvent, AliveEvent]
