"""Verbs that a client calls over its ``watch``, which saves it a connection or a command for each."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from .. import protocol
from ..linux.copies import Copies, CopyAnswer

if TYPE_CHECKING:
    from ..protocol.events import AnsweredEvent, RefusedEvent

# No more calls than this are carried out at the same time, and no more than that wait.
AT_ONCE = 4
_MOST_WAITING = 1000
LIMIT_S = 30.0
_MOST_BYTES = 1 << 23


class Verbs(Protocol):
    """Carries out verbs."""

    def prepare(self, name: str) -> None:
        """Import what a verb needs."""

    def answer(self, name: str, request: dict[str, Any]) -> dict[str, Any]:
        """Return its ``reply``, or a fault."""


class Calls:
    """
    Carries out calls of verbs, a few at a time, each in a copy of this process.

    :param limit_s: how long one may take, in seconds.
    """

    def __init__(self, verbs: Verbs, *, limit_s: float = LIMIT_S) -> None:
        self._verbs = verbs
        self._limit_s = limit_s
        self._copies = Copies(AT_ONCE, limit_s=limit_s, most_bytes=_MOST_BYTES)
        self._refused: list[RefusedEvent] = []

    def add(self, key: int, verb: str, request: dict[str, Any]) -> None:
        """
        Accept a call; :meth:`answers` returns its result.

        :param key: the client's name for it.
        """
        if verb not in protocol.CALLS:
            self._refuse(key, protocol.BAD_REQUEST, f"{verb[:100]!r} cannot be called over gpu-run watch")
        elif self._copies.waiting >= _MOST_WAITING:
            self._refuse(key, protocol.PASSING_FAULT, f"{_MOST_WAITING} other calls wait there already")
        else:
            # Before the process is copied, so that no copy has to.
            self._verbs.prepare(verb)
            self._copies.add(key, partial(self._answer_in_copy, verb, request))

    def _answer_in_copy(self, verb: str, request: dict[str, Any], answer: BinaryIO) -> None:
        answer.write(json.dumps(self._verbs.answer(verb, request)).encode("ascii"))

    def _refuse(self, key: int, code: str, message: str) -> None:
        self._refused.append({"event": "refused", "key": key, "code": code, "message": message})

    @property
    def fds(self) -> list[int]:
        """Open files that become readable when there may be an answer."""
        return self._copies.fds

    def answers(self) -> list[AnsweredEvent | RefusedEvent]:
        """Return ``answered`` or ``refused`` for each call that is done."""
        events: list[AnsweredEvent | RefusedEvent] = []
        for answer in self._copies.answers():
            outcome = self._outcome(answer)
            if "reply" in outcome:
                events.append({"event": "answered", "key": answer.key, "reply": outcome["reply"]})
            else:
                self._refuse(answer.key, outcome["code"], outcome["message"])
        refused, self._refused = self._refused, []
        return [*events, *refused]

    def _outcome(self, answer: CopyAnswer) -> dict[str, Any]:
        if answer.is_late:
            message = (
                f"it was ended on the cluster: it took longer than {self._limit_s:g} s, or its answer was too long"
            )
            return {"code": protocol.PASSING_FAULT, "message": message}
        try:
            return dict(json.loads(answer.data))
        except ValueError:
            return {"code": protocol.PASSING_FAULT, "message": "its process was killed on the cluster"}
