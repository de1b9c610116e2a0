"""Both directions of ``watch``: a client's commands, and the events for it. See :mod:`.watch.server`."""

from __future__ import annotations

from typing import Any, Literal, TypedDict, Union, final

from .following import LogNews, PointNews, TailPlace
from .notices import Counted, NotifyWhen
from .replies import Fault, Handle
from .requests import Acknowledgement, Position, SubmitRequest, ToldRequest
from .status import Status


class _SubscribeCommand(TypedDict):
    do: Literal["subscribe"]
    key: int
    job_id: str
    reader: str | None
    ack: Acknowledgement | None


class SubscribeCommand(_SubscribeCommand, total=False):
    """
    Watch a job; for a reader, send its output as well.

    :param notify: when the client wants to tell people about the job.
    """

    notify: NotifyWhen


class AcknowledgeCommand(Acknowledgement):
    """Note how far a reader has got."""

    do: Literal["ack"]
    key: int


class FollowCommand(TypedDict):
    """
    Look on at a job, without counting as somebody who asks for it; or, of one that is followed, change the files.

    :param tails: the files of which new lines are wanted (see :mod:`.following`), and where to begin; None for their
        present ends. Of those that are told already, what is new goes on.
    """

    do: Literal["follow"]
    key: int
    job_id: str
    tails: dict[str, TailPlace | None]


class UnsubscribeCommand(TypedDict):
    """Stop watching a job."""

    do: Literal["unsubscribe"]
    key: int


class LaunchCommand(TypedDict):
    """Launch a job that needs no files from the client."""

    do: Literal["launch"]
    key: int
    request: SubmitRequest


class ToldCommand(ToldRequest):
    """Note that people were told about an event of a job."""

    do: Literal["told"]
    key: int


class CallCommand(TypedDict):
    """Carry out one of the verbs of :data:`.protocol.CALLS`."""

    do: Literal["call"]
    key: int
    verb: str
    request: dict[str, Any]


class AliveCommand(TypedDict):
    """A sign of life."""

    do: Literal["alive"]


Command = Union[
    SubscribeCommand,
    AcknowledgeCommand,
    FollowCommand,
    UnsubscribeCommand,
    LaunchCommand,
    ToldCommand,
    CallCommand,
    AliveCommand,
]


class _StatusEvent(TypedDict):
    event: Literal["status"]
    key: int
    status: Status


class StatusEvent(_StatusEvent, total=False):
    """
    The present status of the job.

    :param counted: what has happened to it and is to be counted by the client.
    """

    counted: list[Counted]


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


class PrintedEvent(TypedDict):
    """What a followed job has printed."""

    event: Literal["printed"]
    key: int
    news: LogNews


class PointsEvent(TypedDict):
    """What a followed job has reported, or has used."""

    event: Literal["points"]
    key: int
    tail: str
    news: PointNews


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


class NotedEvent(TypedDict):
    """That people were told is written down."""

    event: Literal["noted"]
    key: int


class AnsweredEvent(TypedDict):
    """The reply of a verb."""

    event: Literal["answered"]
    key: int
    reply: Any


class RefusedEvent(Fault):
    """This subscription, launch or call is impossible."""

    event: Literal["refused"]
    key: int


@final
class AliveEvent(TypedDict):
    """A sign of life."""

    event: Literal["alive"]


Event = Union[
    StatusEvent,
    PlaceEvent,
    OutputEvent,
    PrintedEvent,
    PointsEvent,
    AckedEvent,
    LaunchedEvent,
    NotedEvent,
    AnsweredEvent,
    RefusedEvent,
    AliveEvent,
]
