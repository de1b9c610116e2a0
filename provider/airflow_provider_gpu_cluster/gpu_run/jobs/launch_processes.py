"""
Launch jobs for a client of ``watch``: each in a process of its own, so that no launch delays the client's news.

That process goes on when the client goes: the launch succeeds or fails, and another request with the same request key
finds out.
"""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, BinaryIO

from .. import protocol
from ..engines import engine_of
from ..errors import Refused
from ..linux.copies import Copies
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
        self._copies = Copies(AT_ONCE)

    def add(self, key: int, request: SubmitRequest) -> None:
        """
        Accept a launch; :meth:`answers` returns its result.

        :param key: the client's name for it.
        :param request: as ``submit`` takes it. It must not need files from the client.
        """
        # Imported here, so that each copy of this process has it from the start.
        from . import submission  # noqa: F401

        self._copies.add(key, partial(self._launch_in_copy, request))

    @property
    def fds(self) -> list[int]:
        """Open files that become readable when there may be an answer."""
        return self._copies.fds

    def answers(self) -> list[LaunchedEvent | RefusedEvent]:
        """Return ``launched`` or ``refused`` for each launch that is done."""
        return [_answer(answer.key, answer.data) for answer in self._copies.answers()]

    def _launch_in_copy(self, request: SubmitRequest, answer: BinaryIO) -> None:
        answer.write(json.dumps(self._outcome(request)).encode("ascii"))
        answer.close()
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


def _answer(key: int, said: bytes) -> LaunchedEvent | RefusedEvent:
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
