"""What somebody sees who looks on at a job: its status, and the newest of what it prints and reports."""

from __future__ import annotations

from typing import Any, TypedDict

from .logs import LogWindow
from .status import Status

# The files of a job of which new lines are told.
LOG = "log"
PROGRESS = "progress"
USAGE = "usage"
TAILS = (LOG, PROGRESS, USAGE)


class TailPlace(TypedDict):
    """
    A place in a file that grows.

    :param file: tells it from another file that takes its place.
    :param offset: in bytes.
    """

    file: str
    offset: int


class LogNews(LogWindow):
    """
    What a job has printed since the last time, without its secrets.

    :param skipped: how many bytes before it are left out, as a job can print more than anybody can read.
    """

    skipped: int


class PointNews(TypedDict):
    """
    Lines that were added to a file of JSON lines, without the job's secrets.

    :param points: the newest of them, in order. Those of ``progress`` have ``at`` (the place of the line), ``t`` (when
        it was seen, in seconds since the epoch), ``attempt`` and ``values``; those of ``usage`` are as the sampler has
        written them, and have ``attempt``. What is no JSON number is one of the texts NaN, Infinity and -Infinity.
    :param skipped: how many other lines there were.
    :param place: where the next ones begin.
    """

    points: list[dict[str, Any]]
    skipped: int
    place: TailPlace


class _SeenStatus(TypedDict):
    status: Status


class Seen(_SeenStatus, total=False):
    """
    A job as it is now.

    :param log: what is new in each file that was asked for; it is left out when nothing is.
    """

    log: LogNews
    progress: PointNews
    usage: PointNews


class LookOnJob(TypedDict):
    """
    A job at which somebody looks on.

    :param tails: the files of which new lines are wanted, and where to begin; None for their present ends.
    """

    job_id: str
    tails: dict[str, TailPlace | None]


class LookOnRequest(TypedDict):
    """Jobs at which somebody looks on, on a cluster that forbids a command that goes on."""

    jobs: list[LookOnJob]


class LookOnReply(TypedDict):
    """These jobs as they are now, in the same order."""

    jobs: list[Seen]
