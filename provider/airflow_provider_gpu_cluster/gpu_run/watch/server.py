"""
The only command of the Airflow side that runs long: a client subscribes to jobs, and gets events about them.

It also launches jobs for the client and carries out verbs that answer soon, which saves a connection for each. Both
sides send lines of JSON. Commands, where ``ack`` contains ``attempt``, ``offset`` and ``note``::

    {"do": "subscribe", "key": 7, "job_id": "x", "reader": "task-ab" or null, "ack": {...} or null}
    {"do": "ack", "key": 7, "attempt": 1, "offset": 4096, "note": {...}}
    {"do": "follow", "key": 7, "job_id": "x", "tails": {"log": {"file": "1-2", "offset": 4096}, "usage": null}}
    {"do": "unsubscribe", "key": 7}
    {"do": "launch", "key": 8, "request": {...}}
    {"do": "told", "key": 9, "job_id": "x", "attempt": 1, "event": "queued_for"}
    {"do": "call", "key": 10, "verb": "capacity", "request": {...}}
    {"do": "alive"}

Events:

``status``   the job's status (in the form of the verb ``status``), at first and after each change
``place``    the reader's position in the output of an attempt, and its note; output is sent from there
``output``   a piece of the output, as UTF-8 in which invalid bytes stand as lone surrogates (PEP 383)
``printed``, ``points``: what is new in the files that those want to see who only look on
``acked``    the reader's position is written down
``launched`` the reply of ``submit`` to a request that needs no files
``noted``    that people were told is written down
``answered`` the reply of a verb
``refused``  this subscription, launch, note or call is impossible
``alive``    a sign of life

It ends when the client has gone, or has given no sign of life for a long time.
"""

from __future__ import annotations

import contextlib
import os
import random
import sys
import time
from typing import TYPE_CHECKING, Any, BinaryIO, Callable, Sequence, cast

from .. import protocol
from ..errors import Refused, traceback_text
from ..jobs.launch_processes import LaunchProcesses
from ..jobs.notices import note_told
from ..linux.inotify import Inotify
from ..reply import Reply
from ..store.directories import Root
from .calls import Calls, Verbs
from .channel import BrokenClient, Channel, ClientGone
from .followed_job import FollowedJob
from .watched_job import FULL_LOOK_S, WatchedJob

if TYPE_CHECKING:
    from ..engines.engine import Engine
    from ..protocol.events import Event
    from ..protocol.following import TailPlace
    from ..protocol.notices import NotifyWhen
    from ..protocol.requests import Acknowledgement, Call

TICK_S = 0.5
WATCHED_TICK_S = 1.0
TAIL_TICK_S = 0.2
ALIVE_S = 5.0
SILENCE_S = 150.0
# A client that lags this far behind gets no news until it has caught up.
_MOST_BACKLOG = 1 << 20
_CALL = (("key", int), ("verb", str), ("request", dict))


def answer(root: Root, engine: Engine, program: str, request: Call, stream: BinaryIO, verbs: Verbs) -> Reply:
    """Carry out the verb ``watch``."""
    launches, calls = LaunchProcesses(root, program, request), Calls(verbs)
    return Reply({}, lambda out: watch(root, engine, launches, calls, stream, out))


def watch(root: Root, engine: Engine, launches: LaunchProcesses, calls: Calls, source: BinaryIO, out: BinaryIO) -> None:
    """
    Serve a client until it is gone.

    :param launches: carries out the client's launches.
    :param calls: carries out the client's calls.
    :param source: the client's commands. Nothing may have been read ahead from it.
    """
    out.flush()
    try:
        _Watch(root, engine, launches, calls, Channel(source.fileno(), out.fileno())).run()
    except BrokenClient as error:
        sys.exit(f"gpu-run watch cannot understand its client: {error}")


class _Watch:
    def __init__(self, root: Root, engine: Engine, launches: LaunchProcesses, calls: Calls, channel: Channel) -> None:
        self._root = root
        self._engine = engine
        self._launches = launches
        self._calls = calls
        self._channel = channel
        self._inotify = Inotify()
        self._subscriptions: dict[int, WatchedJob] = {}
        # Subscriptions that a fault of the disk keeps from being begun now.
        self._postponed: dict[int, Callable[[], Sequence[Event]]] = {}
        # What was told, and could not be written down yet.
        self._untold: list[dict[str, Any]] = []
        # The keys of the jobs with output to send; the one that has waited longest comes first.
        self._talking: dict[int, None] = {}
        self._heard_at = time.monotonic()
        self._alive_at = self._heard_at + ALIVE_S
        self._tick_at = self._tails_at = self._heard_at
        self._nudge_at = self._heard_at

    def run(self) -> None:
        with contextlib.suppress(ClientGone):
            while time.monotonic() < self._heard_at + SILENCE_S:
                self._channel.wait(self._pause(), self._also())
                self._engine.refresh()
                self._obey()
                self._tell_answers()
                self._look()
                self._glance_at_tails()
                self._send_output()
                self._give_sign_of_life()

    @property
    def _is_clogged(self) -> bool:
        return self._channel.backlog > _MOST_BACKLOG

    def _pause(self) -> float:
        if self._talking and not self._channel.backlog:
            return 0
        until = min(self._alive_at, self._heard_at + SILENCE_S)
        if (self._subscriptions or self._postponed or self._untold) and not self._is_clogged:
            until = min(until, self._tick_at)
            if any(isinstance(one, FollowedJob) and one.has_tails for one in self._subscriptions.values()):
                until = min(until, self._tails_at)
        return until - time.monotonic()

    def _also(self) -> list[int]:
        """Return the open files besides the channel that may become readable."""
        calls = [] if self._is_clogged else self._calls.fds
        return [*self._launches.fds, *calls, *([] if self._inotify.fd is None else [self._inotify.fd])]

    def _give_sign_of_life(self) -> None:
        now = time.monotonic()
        if now >= self._alive_at:
            self._alive_at = now + ALIVE_S
            self._channel.send({"event": "alive"})

    # -- commands ------------------------------------------------------------------------------------------------

    def _obey(self) -> None:
        for command in self._channel.commands():
            self._heard_at = time.monotonic()
            do = command.get("do")
            if do == "subscribe":
                self._subscribe(command)
            elif do == "follow":
                self._follow(command)
            elif do == "unsubscribe":
                self._drop(_take(command, "key", int))
            elif do == "ack":
                self._acknowledge(_take(command, "key", int), _checked_ack(command))
            elif do == "launch":
                self._launches.add(_take(command, "key", int), _take(command, "request", dict))
            elif do == "call":
                self._calls.add(*(_take(command, name, kind) for name, kind in _CALL))
            elif do == "told":
                self._note_told(command)
            elif do != "alive":
                raise BrokenClient(f"no such command: {command}")

    def _subscribe(self, command: dict[str, Any]) -> None:
        key = _take(command, "key", int)
        job_id = _take(command, "job_id", str)
        reader = _take(command, "reader", str, type(None))
        ack = _take(command, "ack", dict, type(None))
        notify: NotifyWhen | None = _take(command, "notify", dict, type(None))
        acknowledged = None if ack is None else _checked_ack(ack)
        self._drop(key)

        def begin() -> Sequence[Event]:
            subscription = WatchedJob(key, self._root, job_id, reader, notify)
            acked = [] if acknowledged is None else subscription.acknowledge(acknowledged)
            self._subscriptions[key] = subscription
            now = time.monotonic()
            # Spread the full looks, or jobs that were subscribed together would always be looked at together.
            subscription.full_look_at = now + FULL_LOOK_S * random.random()
            return [*subscription.look(self._engine, now), *acked]

        self._tell(key, begin)

    def _follow(self, command: dict[str, Any]) -> None:
        key, job_id, tails = _take(command, "key", int), _take(command, "job_id", str), _checked_tails(command)
        known = self._subscriptions.get(key)
        if isinstance(known, FollowedJob):
            known.want(tails)
            return
        self._drop(key)

        def begin() -> Sequence[Event]:
            subscription = FollowedJob(key, self._root, job_id, tails)
            self._subscriptions[key] = subscription
            now = time.monotonic()
            subscription.full_look_at = now + FULL_LOOK_S * random.random()
            return subscription.look(self._engine, now)

        self._tell(key, begin)

    def _acknowledge(self, key: int, ack: Acknowledgement) -> None:
        subscription = self._subscriptions.get(key)
        if subscription is not None:
            self._tell(key, lambda: subscription.acknowledge(ack))

    def _note_told(self, command: dict[str, Any]) -> None:
        key, job_id, event = _take(command, "key", int), _take(command, "job_id", str), _take(command, "event", str)
        try:
            note_told(self._root, job_id, event, _take(command, "attempt", int))
        except Refused as refusal:
            self._refuse(key, refusal.code, refusal.message)
        except OSError:
            # A full disk, for example; the next look tries again.
            self._untold.append(command)
        else:
            self._channel.send({"event": "noted", "key": key})

    def _drop(self, key: int) -> None:
        self._subscriptions.pop(key, None)
        self._postponed.pop(key, None)
        self._talking.pop(key, None)
        self._inotify.leave(key)

    # -- events --------------------------------------------------------------------------------------------------

    def _tell(self, key: int, find: Callable[[], Sequence[Event]]) -> None:
        """Send the events that ``find`` returns. A failure ends this subscription alone; one that passes ends none."""
        try:
            for event in find():
                self._channel.send(event)
            subscription = self._subscriptions[key]
            self._inotify.follow(key, subscription.folder)
            if subscription.has_output:
                # A key that is in line keeps its place.
                self._talking.setdefault(key)
        except Refused as refusal:
            self._refuse(key, refusal.code, refusal.message)
        except OSError:
            # A fault of the disk, or too many open files: the next look tries again.
            if key not in self._subscriptions:
                self._postponed[key] = find
        except Exception as error:
            message = f"gpu-run watch failed on the cluster: {error!r}\n{traceback_text()}"
            self._refuse(key, protocol.INTERNAL, message)
        self._give_sign_of_life()

    def _tell_answers(self) -> None:
        for event in self._launches.answers():
            self._channel.send(event)
        # An answer that is not taken keeps its process waiting.
        if not self._is_clogged:
            for answer in self._calls.answers():
                self._channel.send(answer)

    def _refuse(self, key: int, code: str, message: str) -> None:
        self._drop(key)
        self._channel.send({"event": "refused", "key": key, "code": code, "message": message})

    def _look(self) -> None:
        """Look at the jobs whose turn it is, and at those for which the kernel has reported news."""
        news = self._inotify.news()
        for key in news:
            self._subscriptions[key].glance_at = 0.0
            if not self._inotify.follows(key):
                # Its folder is gone.
                self._subscriptions[key].full_look_at = 0.0
        now = time.monotonic()
        for subscription in self._subscriptions.values():
            subscription.note_asked(now)
        if self._is_clogged:
            return
        keys = list(news)
        if (self._subscriptions or self._postponed or self._untold) and now >= self._tick_at:
            self._tick_at = now + TICK_S
            keys = list(self._subscriptions)
            self._begin_postponed()
            if now >= self._nudge_at:
                self._nudge_at = now + FULL_LOOK_S
                self._nudge()
        for key in keys:
            self._look_at(key, self._subscriptions[key], now)

    def _glance_at_tails(self) -> None:
        now = time.monotonic()
        if self._is_clogged or now < self._tails_at:
            return
        self._tails_at = now + TAIL_TICK_S
        for key, subscription in self._subscriptions.items():
            if isinstance(subscription, FollowedJob):
                subscription.glance_at_tails()
                if subscription.has_output:
                    self._talking.setdefault(key)

    def _begin_postponed(self) -> None:
        untold, self._untold = self._untold, []
        for command in untold:
            self._note_told(command)
        postponed, self._postponed = self._postponed, {}
        for key, begin in postponed.items():
            self._tell(key, begin)

    def _look_at(self, key: int, subscription: WatchedJob, now: float) -> None:
        if now < subscription.full_look_at:
            if now < subscription.glance_at:
                return
            pause = WATCHED_TICK_S if self._inotify.follows(key) else TICK_S
            # It must not miss its tick by a hair.
            subscription.glance_at = now + pause - TICK_S / 2
            is_news = subscription.glance(now)
        else:
            subscription.full_look_at = now + FULL_LOOK_S
            is_news = not subscription.is_well()
        if is_news:
            # A record may appear after this look and before the folder is followed.
            subscription.glance_at = 0.0
            self._tell(key, lambda: subscription.look(self._engine, now))
        elif subscription.has_output:
            self._talking.setdefault(key)

    def _send_output(self) -> None:
        """Send a piece for each job that has output, as far as the client reads it."""
        for key in list(self._talking):
            if self._channel.backlog:
                break
            del self._talking[key]
            # Jobs with more output go to the end of the line.
            self._tell(key, self._subscriptions[key].next_piece)

    # -- the engine ----------------------------------------------------------------------------------------------

    def _nudge(self) -> None:
        """Make sure that the queue is served; reap dispatchers that this process started earlier."""
        with contextlib.suppress(OSError, Refused):
            self._engine.nudge()
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _take(command: dict[str, Any], name: str, *types: type) -> Any:
    value = command.get(name)
    if not isinstance(value, types):
        raise BrokenClient(f"{name} is {value!r} in {command}")
    return value


def _checked_tails(command: dict[str, Any]) -> dict[str, TailPlace | None]:
    tails: dict[str, TailPlace | None] = {}
    for name, place in _take(command, "tails", dict).items():
        if place is not None:
            _take(command["tails"], name, dict)
            tails[name] = {"file": _take(place, "file", str), "offset": _take(place, "offset", int)}
        else:
            tails[name] = None
    return tails


def _checked_ack(ack: dict[str, Any]) -> Acknowledgement:
    for name in ("attempt", "offset"):
        _take(ack, name, int)
    return cast("Acknowledgement", ack)
