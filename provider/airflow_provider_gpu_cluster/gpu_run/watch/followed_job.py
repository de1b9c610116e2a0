"""
One job at which people look on: its status, and the newest of what it prints and reports.

Who looks on does not count as somebody who asks for the job. A job ends by its ``orphan_timeout`` when nothing in
Airflow waits for it any more, and a page that was left open in a browser is nothing that waits: it would keep the GPUs
for as long as nobody closes it. Nor does a page ever end a job, as only the job's supervisor counts that time. For the
same reason, what is to be counted or told to people is left for those who wait.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Mapping

from ..errors import Refused
from ..protocol.following import LOG, TAILS
from ..reply import Reply
from .log_tail import LogTail
from .points_tail import PointsTail
from .watched_job import WatchedJob

if TYPE_CHECKING:
    from ..engines.engine import Engine
    from ..protocol.events import Event
    from ..protocol.following import LookOnRequest, Seen, TailPlace
    from ..protocol.notices import Counted
    from ..protocol.status import Status
    from ..store.directories import Root

# How much new output one reply may have.
_MOST_BYTES = 1 << 20


class FollowedJob(WatchedJob):
    """
    A job as those see it who look on.

    :param tails: the files of which new lines are wanted, and where to begin; None for their present ends.
    """

    def __init__(self, key: int, root: Root, job_id: str, tails: Mapping[str, TailPlace | None]) -> None:
        super().__init__(key, root, job_id, None)
        self._tails: dict[str, LogTail | PointsTail] = {}
        self._has_news = False
        self.want(tails)

    def want(self, tails: Mapping[str, TailPlace | None]) -> None:
        """Tell new lines of these files from now on, and of those of them that were told before go on."""
        for name in TAILS:
            if name not in tails:
                self._tails.pop(name, None)
            elif name not in self._tails:
                place = tails[name]
                is_log = name == LOG
                self._tails[name] = LogTail(self._job, place) if is_log else PointsTail(self._job, name, place)

    _counts_as_asking = False

    def note_asked(self, now: float) -> None:
        """Note nothing."""

    def _count(self, status: Status) -> list[Counted]:
        return []

    @property
    def has_tails(self) -> bool:
        """Whether new lines are wanted."""
        return bool(self._tails)

    def glance_at_tails(self) -> None:
        """See whether any of these files has grown."""
        for tail in self._tails.values():
            self._has_news = tail.has_grown() or self._has_news

    @property
    def has_output(self) -> bool:
        """Whether there may be something new in these files."""
        return self._has_news

    def next_piece(self) -> list[Event]:
        """Return what is new in them, up to a size."""
        self._has_news = False
        events: list[Event] = []
        for name, tail in self._tails.items():
            # A job that has spoilt its records shows nothing, and what cannot be read now is read later.
            with contextlib.suppress(Refused, OSError, ValueError):
                if isinstance(tail, LogTail):
                    log = tail.news(self._attempt)
                    if log is not None:
                        events.append({"event": "printed", "key": self._key, "news": log})
                else:
                    points = tail.news(self._attempt)
                    if points is not None:
                        events.append({"event": "points", "key": self._key, "tail": name, "news": points})
        return events


def answer(root: Root, engine: Engine, request: LookOnRequest) -> Reply:
    """Carry out the verb ``look-on``."""
    jobs: list[Seen] = []
    left = _MOST_BYTES
    for one in request["jobs"]:
        job = FollowedJob(0, root, one["job_id"], one["tails"])
        seen: Seen | None = None
        for event in job.look(engine, time.monotonic()):
            if event["event"] == "status":
                seen = {"status": event["status"]}
        assert seen is not None
        if left > 0:
            for event in job.next_piece():
                if event["event"] == "printed":
                    seen["log"] = event["news"]
                    left -= event["news"]["end"] - event["news"]["offset"]
                elif event["event"] == "points" and event["tail"] == "progress":
                    seen["progress"] = event["news"]
                elif event["event"] == "points":
                    seen["usage"] = event["news"]
                    left -= 1 << 10
        jobs.append(seen)
    return Reply({"jobs": jobs})
