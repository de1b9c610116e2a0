"""
Launch jobs for a client of ``watch``: each in a process of its own, so that no launch delays the client's news.

That process is a copy of this one, which costs less than starting a program. It goes on when the client goes: the
launch succeeds or fails, and another request with the same request key finds out.
"""

from __future__ import annotations

import json
import os
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from .. import protocol
from ..engines import engine_of
from ..errors import Refused
from ..linux import processes
from ..protocol.submit_request import to_be_carried_out
from ..store.directories import Root
from ..store.writing import fault_of

if TYPE_CHECKING:
    from ..protocol.events import LaunchedEvent, RefusedEvent
    from ..protocol.replies import Fault, SubmitReply
    from ..protocol.requests import Call, Caller, SubmitRequest

# No more launches than this use a scheduler at the same time.
AT_ONCE = 4
# How long a scheduler may take to answer, in seconds.
_TIMEOUT_S = 20.0
_PIECE = 1 << 16


class _Running(NamedTuple):
    key: int
    said: bytearray


class LaunchProcesses:
    """
    Carries out launches, a few at a time.

    :param program: path of this program.
    :param asked: the request of ``watch``: ``settings`` of the cluster, and ``umask``.
    """

    def __init__(self, root: Root, program: str, asked: Call) -> None:
        self._root = root
        self._program = program
        self._asked = asked
        self._waiting: dict[int, SubmitRequest] = {}
        self._running: dict[int, _Running] = {}

    def add(self, key: int, request: SubmitRequest) -> None:
        """
        Accept a launch; :meth:`answers` returns its result.

        :param key: the client's name for it.
        :param request: as ``submit`` takes it. It must not need files from the client.
        """
        self._waiting[key] = request
        self._start()

    @property
    def fds(self) -> list[int]:
        """Open files that become readable when there may be an answer."""
        return list(self._running)

    def answers(self) -> list[LaunchedEvent | RefusedEvent]:
        """Return ``launched`` or ``refused`` for each launch that is done."""
        events: list[LaunchedEvent | RefusedEvent] = []
        for fd, running in list(self._running.items()):
            if _has_ended(fd, running.said):
                os.close(fd)
                del self._running[fd]
                events.append(_answer(running.key, running.said))
        self._start()
        return events

    def _start(self) -> None:
        # Imported here, so that each copy of this process has it from the start.
        from . import submission  # noqa: F401

        while self._waiting and len(self._running) < AT_ONCE:
            key, request = next(iter(self._waiting.items()))
            del self._waiting[key]
            fd, far_end = os.pipe()
            processes.start_copy(partial(self._launch_in_copy, request, far_end))
            os.close(far_end)
            os.set_blocking(fd, False)
            self._running[fd] = _Running(key, bytearray())

    def _launch_in_copy(self, request: SubmitRequest, answer: int) -> None:
        # The client's channel must end with the process that it was opened for.
        processes.close_files(keep=(2, answer))
        with os.fdopen(answer, "wb") as file:
            file.write(json.dumps(self._outcome(request)).encode("ascii"))
        from .retention import clear_if_due

        clear_if_due(self._root, self._program, self._asked["settings"])

    def _outcome(self, request: SubmitRequest) -> SubmitReply | Fault:
        from .submission import submit

        try:
            settings = self._asked["settings"]
            engine = engine_of(self._root, settings, self._program, timeout_s=_TIMEOUT_S)
            asked = to_be_carried_out(request, settings=settings, umask=self._asked["umask"], program=self._program)
            # The client's channel is that of all of its tasks; each of these says who it is.
            caller: Caller = {**request["record"], **self._asked.get("caller", {})}
            asked["caller"] = caller
            reply = submit(self._root, engine, asked)
            if reply.get("needs"):
                raise Refused(protocol.BAD_REQUEST, "it needs files that only a submit can send")
            return reply
        except Exception as error:
            return fault_of(error, "the launch", self._root.path)


def _has_ended(fd: int, said: bytearray) -> bool:
    """Read what a process has written; return whether it has closed its end."""
    while True:
        try:
            piece = os.read(fd, _PIECE)
        except BlockingIOError:
            return False
        if not piece:
            return True
        said += piece


def _answer(key: int, said: bytearray) -> LaunchedEvent | RefusedEvent:
    try:
        outcome: SubmitReply | Fault = json.loads(said)
    except ValueError:
        message = "the process that was to launch it was killed on the cluster; try again"
        return {"event": "refused", "key": key, "code": protocol.INTERNAL, "message": message}
    if "code" in outcome:
        return {"event": "refused", "key": key, "code": outcome["code"], "message": outcome["message"]}
    return {
        "event": "launched",
        "key": key,
        "handle": outcome["handle"],
        "status": outcome["status"],
        "created": outcome["created"],
    }
