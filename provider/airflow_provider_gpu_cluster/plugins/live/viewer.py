"""One open page: what it is to be told next. However slow it is, it takes no more memory than a little."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from fastapi import HTTPException

# Of a page that is so far behind, what it has not been told of logs and curves is dropped; it notices and asks anew.
MOST_WAITING_BYTES = 1 << 20


@dataclass(frozen=True)
class Message:
    """
    Something to tell, which many pages share.

    :param kind: its ``type``.
    :param text: all of it as JSON.
    :param count: how many points it has.
    """

    kind: str
    text: str
    count: int = 0

    @classmethod
    def of(cls, kind: str, **fields: Any) -> Message:
        """Return a message of JSON values."""
        return cls(kind, json.dumps({"type": kind, **fields}, allow_nan=False), len(fields.get("points", ())))


@dataclass(eq=False)
class OpenPage:
    """
    Collects what a page is to be told. All is done in the thread of the event loop.

    :param wants: the files of the job of which it is told new lines.
    """

    wants: frozenset[str] = frozenset()
    _waiting: list[Message] = field(default_factory=list)
    _skipped: dict[str, int] = field(default_factory=dict)
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    is_over: bool = False

    def tell(self, message: Message) -> None:
        """Tell something as soon as the page takes it; of how the job stands, only the newest is told."""
        if message.kind in ("job", "alive"):
            self._waiting = [one for one in self._waiting if one.kind != message.kind]
        self._waiting.append(message)
        if sum(len(one.text) for one in self._waiting) > MOST_WAITING_BYTES:
            for one in self._waiting:
                if one.count:
                    self._skipped[one.kind] = self._skipped.get(one.kind, 0) + one.count
            self._waiting = [one for one in self._waiting if one.kind not in ("log", "progress", "usage", "rows")]
        self._news.set()

    def end(self, message: Message | None = None) -> None:
        """Tell nothing after this."""
        if message is not None:
            self.tell(message)
        self.is_over = True
        self._news.set()

    @contextlib.contextmanager
    def told_why(self) -> Iterator[None]:
        """End with the reason, for people, when the user may no longer look, or there is nothing more to see."""
        try:
            yield
        except HTTPException as error:
            self.end(Message.of("gone", sentence=str(error.detail), status=error.status_code))

    async def next(self) -> list[str]:
        """Return what is to be told, when there is something; nothing at the end."""
        while not self._waiting and not self.is_over:
            self._news.clear()
            await self._news.wait()
        waiting, self._waiting = self._waiting, []
        return [self._text_of(message) for message in waiting]

    def _text_of(self, message: Message) -> str:
        skipped = self._skipped.pop(message.kind, 0)
        if not skipped:
            return message.text
        fields = json.loads(message.text)
        return json.dumps({**fields, "skipped": fields.get("skipped", 0) + skipped})
