"""The verb ``read-series``: what a job has reported and used over time, thinned to what a chart can show."""

from __future__ import annotations

from typing import Sequence, TypedDict

PROGRESS, USAGE = "progress", "usage"
#: How many curves of PROGRESS_FILE one reply has, and how many points each curve has at most.
MOST_CURVES = 8
MOST_POINTS = 2000
#: How many names one reply tells.
MOST_NAMES = 200


class _SeriesRequest(TypedDict):
    job_id: str
    what: str


class SeriesRequest(_SeriesRequest, total=False):
    """
    What to read.

    :param what: ``progress``: PROGRESS_FILE; or ``usage``: what the job has used.
    :param names: whose points to return; by default some that are worth a look.
    :param x: the name over which they are drawn, such as ``step``; by default the first that fits.
    :param slice: number of the slice, of a history that is too large to be read at once.
    :param until: ``until`` of the reply about the first slice, for all further ones.
    """

    names: Sequence[str]
    x: str
    slice: int
    until: int


class SeriesName(TypedDict):
    """
    One of the numbers that a job has reported, as far as the lines that were read tell it.

    :param count: how often.
    :param least: the lowest finite one, and ``most`` the highest; None without any.
    :param last: the last one; NaN and infinities as words.
    :param is_rising: whether it never gets smaller within an attempt, so that others can be drawn over it.
    """

    name: str
    count: int
    least: float | None
    most: float | None
    last: float | str | None
    is_rising: bool


class Curve(TypedDict):
    """
    The points of one number, in the order in which they were written.

    :param at: places of its points, by which those of several slices are put together.
    :param x: what they are drawn over; None where a line does not say it. Empty for what is drawn over time alone.
    :param y: the values; None for NaN and infinities.
    :param t: when they were written, in seconds since the epoch; None where nobody knows.
    """

    name: str
    at: list[int]
    x: list[float | None]
    y: list[float | None]
    t: list[float | None]


class Section(TypedDict):
    """
    The part of the history that is of one attempt.

    :param at: the place at which it begins; None if nobody knows.
    :param resumed_from: why the attempt before had ended, if this one followed it by itself.
    """

    attempt: int
    at: int | None
    started_at: str | None
    ended_at: str | None
    reason: str | None
    resumed_from: str | None


class SeriesReply(TypedDict):
    """
    What was read.

    :param names: what there is, the most recent first; at most :data:`MOST_NAMES`.
    :param more_names: how many others were met; of very many, not all are counted.
    :param x: the name over which the curves are drawn; None if nothing fits, and they are drawn in their order.
    :param times: who says when a line was written: ``lines`` (each says it itself), ``samples`` (the samples of the
        job's use had the size of the file), ``both`` or ``none``.
    :param within_s: then, how far a time from the samples may be off, in seconds.
    :param slices: in how many slices all of it can be read, and ``slice`` which one this is.
    :param until: the place up to which there was something.
    :param live_from: the place at which the file begins that the job writes to now.
    :param lines: how many lines were read, and ``bad_lines`` how many of them were no JSON objects.
    :param left_out_bytes: what no slice shows, since it is too much.
    :param problem: why there is no more, as a sentence; empty if nothing is wrong.
    """

    names: list[SeriesName]
    more_names: int
    x: str | None
    times: str
    within_s: float | None
    curves: list[Curve]
    sections: list[Section]
    slice: int
    slices: int
    until: int
    live_from: int
    lines: int
    bad_lines: int
    left_out_bytes: int
    problem: str
