from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_gpu_cluster.jobs.status import JobState, JobStatus
from airflow_provider_gpu_cluster.logs import relay as log_relay
from airflow_provider_gpu_cluster.logs.buffer import OutputBuffer
from airflow_provider_gpu_cluster.logs.relay import LogChunk, LogPosition, LogRelay, Output

RUNNING = JobStatus("j", JobState.RUNNING, attempt=1)
SECOND = JobStatus("j", JobState.RUNNING, attempt=2)


class Shown:
    """A relay that collects its lines, and the buffer that feeds it."""

    def __init__(self, cap: int = 10_000_000) -> None:
        self.lines: list[str] = []
        self.relay = LogRelay(self.lines.append, max_bytes=cap)
        self.buffer = OutputBuffer(self.relay)

    def add(self, offset: int, data: bytes, log_bytes: int | None = None, *, attempt: int = 1) -> None:
        size = offset + len(data) if log_bytes is None else log_bytes
        self.buffer.add(Output(LogPosition(attempt, offset), data, size))

    def show(self, status: JobStatus = RUNNING, *, max_bytes: int = 16384, max_lines: int = 1000) -> list[str]:
        """Show all there is, and return what is new."""
        before = len(self.lines)
        while self.buffer.show(status, max_bytes=max_bytes, max_lines=max_lines):
            pass
        return self.lines[before:]


@pytest.fixture
def shown() -> Shown:
    shown = Shown()
    shown.buffer.place(LogPosition(1, 0))
    return shown


@pytest.fixture
def short_lines() -> Iterator[None]:
    """Make long lines and floods of what a test can afford."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log_relay, "MAX_LINE_BYTES", 16)
        patch.setattr(log_relay, "TAIL_BYTES", 16)
        yield


def ended(log_bytes: int, *, attempt: int = 1) -> JobStatus:
    return JobStatus("j", JobState.SUCCEEDED, attempt=attempt, log_bytes=log_bytes)


def test_lines_are_shown_as_they_are_complete(shown: Shown) -> None:
    assert shown.show() == []
    shown.add(0, b"one\ntw")
    assert shown.show() == ["one"]
    assert shown.relay.position == LogPosition(1, 4)
    shown.add(6, b"o\n")
    assert shown.show() == ["two"]
    assert shown.relay.lines == 2


def test_what_was_dealt_with_is_dropped(shown: Shown) -> None:
    shown.add(0, b"one\ntw")
    shown.add(0, b"one\n")
    shown.show()
    shown.add(0, b"one\ntwo\nth")
    shown.add(4, b"two\n")
    shown.add(0, b"o")
    assert shown.show() == ["two"]
    assert shown.buffer.left(RUNNING) == 2


def test_what_is_left_is_counted_from_the_latest_size(shown: Shown) -> None:
    shown.add(0, b"one\ntw", 100)
    shown.add(0, b"one\n", 50)
    shown.show()
    assert shown.buffer.left(RUNNING) == 96
    assert shown.buffer.left(ended(110)) == 106


def test_last_line_needs_no_end_when_all_has_arrived(shown: Shown) -> None:
    shown.add(0, b"one\ntw", 7)
    status = ended(7)
    assert shown.show(status) == ["one"]
    assert (shown.buffer.left(status), shown.buffer.drained(status)) == (3, False)
    shown.add(6, b"o", 7)
    assert not shown.buffer.drained(status)
    assert shown.show(status) == ["two"]
    assert (shown.buffer.left(status), shown.buffer.drained(status)) == (0, True)
    assert not shown.buffer.drained(RUNNING)


def test_end_may_come_before_the_output_and_before_the_place() -> None:
    shown, status = Shown(), ended(4)
    assert not shown.buffer.show(status)
    assert (shown.buffer.left(status), shown.buffer.drained(status)) == (4, False)
    assert shown.buffer.drained(ended(0))
    shown.buffer.place(LogPosition(1, 0))
    assert (shown.buffer.left(status), shown.buffer.drained(status)) == (4, False)
    shown.add(0, b"one\n")
    assert shown.show(status) == ["one"]
    assert shown.buffer.drained(status)


def test_attempts_that_follow_by_themselves_have_one_log(shown: Shown) -> None:
    second = replace(SECOND, log_attempt=1, log_bytes=8)
    shown.add(0, b"one\ntw")
    # The next attempt has begun, and the line is not yet whole.
    assert (shown.show(second), shown.buffer.left(second)) == (["one"], 4)
    shown.add(6, b"o\n", 8)
    end = replace(ended(8, attempt=3), log_attempt=1)
    assert (shown.show(end), shown.buffer.drained(end)) == (["two"], True)
    # A third that Airflow asks for has a log of its own.
    assert not shown.buffer.drained(ended(8, attempt=4))


def test_a_job_that_is_gone_has_no_more_output(shown: Shown) -> None:
    shown.add(0, b"one\ntw", 1000)
    gone = JobStatus("j", JobState.LOST)
    assert not shown.buffer.drained(gone)
    assert shown.show(gone) == ["one", "tw"]
    assert shown.buffer.drained(gone)


def test_it_goes_on_from_where_the_reader_is() -> None:
    shown = Shown()
    shown.buffer.place(LogPosition(1, 4))
    shown.add(4, b"two\n")
    assert shown.show() == ["two"]
    # What was shown is not acknowledged, and comes again.
    shown.buffer.place(LogPosition(1, 4))
    shown.add(4, b"two\nthr")
    assert shown.show() == []
    # Somebody else has shown more.
    shown.buffer.place(LogPosition(1, 14))
    assert shown.buffer.left(RUNNING) == 0
    shown.add(14, b"four\n")
    assert shown.show() == ["four"]


def test_it_goes_on_from_where_the_relay_is() -> None:
    lines: list[str] = []
    relay = LogRelay(lines.append)
    relay.position = LogPosition(1, 4)
    buffer = OutputBuffer(relay)
    buffer.add(Output(LogPosition(1, 0), b"one\ntwo\n", 8))
    buffer.show(RUNNING)
    assert lines == ["two"]


def test_a_new_attempt_comes_after_all_of_the_one_before(shown: Shown) -> None:
    shown.add(0, b"one\ntw", 100)
    shown.buffer.place(LogPosition(2, 0))
    shown.add(0, b"ONE\nTW", attempt=2)
    shown.add(6, b"o\n")
    assert shown.show(RUNNING, max_lines=1) == ["one", "tw", "ONE"]
    assert shown.relay.position == LogPosition(2, 4)
    assert shown.show(ended(6, attempt=2)) == ["TW"]


def test_end_of_an_attempt_is_not_the_end_of_the_next(shown: Shown) -> None:
    shown.add(0, b"one", 3)
    assert shown.show(SECOND) == ["one"]
    shown.add(0, b"ON", attempt=2)
    assert shown.show(ended(3)) == []
    assert not shown.buffer.drained(ended(3))
    shown.add(2, b"E\n", attempt=2)
    assert shown.show(SECOND) == ["ONE"]
    assert not shown.buffer.drained(ended(3))
    assert (shown.buffer.left(ended(4, attempt=2)), shown.buffer.left(ended(9, attempt=3))) == (0, 9)


def test_output_goes_on_after_a_gap(shown: Shown) -> None:
    shown.add(0, b"one\ntw")
    shown.add(10, b"four\n")
    assert shown.show() == ["one", "tw", "four"]


def test_a_turn_is_as_long_as_it_was_asked_to_be(shown: Shown) -> None:
    shown.add(0, b"a\n" * 100 + b"x" * 100 + b"\n" + b"b\n" * 101)
    assert shown.buffer.show(RUNNING, max_bytes=11)
    assert len(shown.lines) == 5
    assert shown.buffer.show(RUNNING, max_lines=7)
    assert len(shown.lines) == 12
    while len(shown.lines) < 100:
        shown.buffer.show(RUNNING, max_bytes=11)
    # A line is not cut because it does not fit, and comes alone.
    assert shown.buffer.show(RUNNING, max_bytes=11)
    assert shown.lines[100:] == ["x" * 100]
    assert shown.show(max_bytes=11) == ["b"] * 101


def numbered(count: int) -> bytes:
    return b"".join(b"%05d\n" % number for number in range(count))


class Watch:
    """The cluster's end: sends a job's output piece by piece, up to a window beyond what was acknowledged."""

    def __init__(self, log: bytes) -> None:
        self.log = log
        self.grown = 0
        self.acked = self.sent = 0
        self.log_bytes = len(log)

    def send(self, shown: Shown, piece: int, window: int) -> None:
        end = min(self.sent + piece, self.grown, self.acked + window)
        shown.add(self.sent, self.log[self.sent : end], self.grown)
        self.sent = max(self.sent, end)

    def ack(self, shown: Shown) -> None:
        if shown.relay.position is not None and shown.relay.position.offset > self.acked:
            self.acked = shown.relay.position.offset
            self.sent = max(self.sent, self.acked)

    @property
    def status(self) -> JobStatus:
        return ended(len(self.log)) if self.grown == len(self.log) else RUNNING

    def follow(self, shown: Shown, growth: list[int], piece: int, window: int) -> None:
        for grown in growth:
            self.grown = min(max(self.grown, grown), len(self.log))
            self.send(shown, piece, window)
            shown.buffer.show(self.status, max_bytes=piece)
            self.ack(shown)
        self.grown = len(self.log)
        for _ in range(20 * len(self.log) + 100):
            self.send(shown, piece, window)
            shown.show(self.status)
            self.ack(shown)
            if shown.buffer.drained(self.status):
                return
        raise AssertionError("it never comes to an end")


@pytest.mark.usefixtures("short_lines")
@settings(deadline=None, database=None)
@given(
    lines=st.integers(0, 40),
    growth=st.lists(st.integers(0, 240), max_size=12),
    piece=st.integers(1, 40),
    window=st.integers(20, 60),
)
def test_a_flood_loses_its_middle_once(lines: int, growth: list[int], piece: int, window: int) -> None:
    cap, tail, log = 64, 16, numbered(lines)
    shown = Shown(cap)
    shown.buffer.place(LogPosition(1, 0))
    Watch(log).follow(shown, sorted(growth), piece, window)
    notices = [line for line in shown.lines if line.startswith("[")]
    output = [line for line in shown.lines if not line.startswith("[")]
    left_out = [notice for notice in notices if "left out here" in notice]
    assert len(left_out) == (len(log) > cap + tail)
    assert len(notices) - len(left_out) <= (len(log) > cap)
    if log:
        assert output[0] == "00000"
        assert output[-1] == f"{lines - 1:05d}"
    numbers = [int(line) for line in output if len(line) == 5]
    assert numbers == sorted(set(numbers))
    if not notices:
        assert len(numbers) == lines


LOGS = st.binary(max_size=120) | st.text("a\né😀\r", max_size=60).map(str.encode)


def all_at_once(log: bytes) -> list[str]:
    lines: list[str] = []
    LogRelay(lines.append).feed(LogChunk(LogPosition(1, 0), log, len(log), ended(len(log))))
    return lines


@pytest.mark.usefixtures("short_lines")
@settings(deadline=None, database=None)
@given(
    log=LOGS,
    pieces=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 40), st.integers(0, 3)), max_size=12),
    known_end=st.integers(0, 120),
    max_bytes=st.integers(1, 40),
    max_lines=st.integers(1, 4),
    crash=st.none() | st.integers(0, 12),
)
def test_how_output_arrives_makes_no_difference(
    log: bytes,
    pieces: list[tuple[int, int, int]],
    known_end: int,
    max_bytes: int,
    max_lines: int,
    crash: int | None,
) -> None:
    shown = Shown()
    shown.buffer.place(LogPosition(1, 0))
    received, acked, acked_lines = 0, LogPosition(1, 0), 0
    for number, (again, length, turns) in enumerate([*pieces, (0, len(log), 0)]):
        start = max(0, received - again)
        status = ended(len(log)) if received >= known_end else RUNNING
        shown.add(start, log[start : start + length], min(len(log), start + length + again))
        received = max(received, min(len(log), start + length))
        for _ in range(turns):
            shown.buffer.show(status, max_bytes=max_bytes, max_lines=max_lines)
        if number == crash:
            seen = shown.lines
            shown = Shown()
            shown.lines += seen
            shown.relay.lines = acked_lines
            shown.relay.skip(seen[acked_lines:])
            shown.buffer.place(acked)
            received = acked.offset
        elif again % 2 and shown.relay.position is not None:
            acked, acked_lines = shown.relay.position, shown.relay.lines
    shown.add(received, log[received:])
    status = ended(len(log))
    shown.show(status, max_bytes=max_bytes, max_lines=max_lines)
    assert shown.lines == all_at_once(log)
    assert shown.relay.lines == len(shown.lines)
    assert (shown.buffer.drained(status), shown.buffer.left(status)) == (True, 0)
