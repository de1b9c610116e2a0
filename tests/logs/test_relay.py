from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_gpu_cluster.jobs.status import JobState, JobStatus
from airflow_provider_gpu_cluster.logs.relay import MAX_LINE_BYTES, TAIL_BYTES, LogChunk, LogPosition, LogRelay, visible

WHERE = "me@gpu1:/jobs/j/logs/training.log"


class Cluster:
    """A job's output as it grows, and the position the cluster remembers for its reader."""

    def __init__(self) -> None:
        self.log = b""
        self.state = JobState.RUNNING
        self.position = LogPosition(1, 0)
        self.read_bytes = 0

    def read_log(self, ack: LogPosition | None, max_bytes: int) -> LogChunk:
        self.position = ack or self.position
        data = self.log[self.position.offset : self.position.offset + max_bytes]
        self.read_bytes += len(data)
        return LogChunk(self.position, data, len(self.log), JobStatus("j", self.state, attempt=1))

    def poke(self, *, max_bytes: int = 1 << 20, cap: int = 10_000_000) -> list[str]:
        """Show what is new, with a relay that knows nothing of earlier ones."""
        lines: list[str] = []
        relay = LogRelay(lines.append, location=WHERE, max_bytes=cap)
        for _ in range(10_000):
            if not relay.feed(self.read_log(relay.position, max_bytes)):
                return lines
        raise AssertionError("the relay never comes to an end")


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def test_lines_are_shown_once_however_often_one_looks(cluster: Cluster) -> None:
    cluster.log = b"one\n\ntwo\n"
    assert cluster.poke() == ["one", "", "two"]
    assert cluster.poke() == []
    cluster.log += b"three\n"
    assert cluster.poke() == ["three"]


def test_a_line_is_shown_when_it_is_complete(cluster: Cluster) -> None:
    cluster.log = b"one\ntw"
    assert cluster.poke() == ["one"]
    cluster.log += b"o\n"
    assert cluster.poke() == ["two"]


def test_the_last_line_needs_no_end_once_the_job_has_ended(cluster: Cluster) -> None:
    cluster.log = b"one\ntwo"
    assert cluster.poke() == ["one"]
    cluster.state = JobState.FAILED
    assert cluster.poke() == ["two"]
    assert cluster.poke() == []


def test_a_reader_who_will_not_come_back_sees_all() -> None:
    lines: list[str] = []
    relay = LogRelay(lines.append)
    chunk = LogChunk(LogPosition(1, 0), b"half", 4, JobStatus("j", JobState.RUNNING, attempt=1))
    assert not relay.feed(chunk)
    assert relay.position == LogPosition(1, 0)
    assert relay.feed(chunk, final=True)
    assert (lines, relay.position, chunk.end) == (["half"], LogPosition(1, 4), LogPosition(1, 4))


def test_the_output_of_an_attempt_ends_where_the_next_one_begins() -> None:
    lines: list[str] = []
    status = JobStatus("j", JobState.RUNNING, attempt=2)
    assert LogRelay(lines.append).feed(LogChunk(LogPosition(1, 10), b"cut o", 15, status))
    assert lines == ["cut o"]


def test_the_end_of_an_earlier_attempt_does_not_cut_a_line() -> None:
    lines: list[str] = []
    status = JobStatus("j", JobState.FAILED, attempt=1)
    assert not LogRelay(lines.append).feed(LogChunk(LogPosition(2, 0), b"hal", 3, status))
    assert lines == []


def test_lines_that_were_shown_are_not_shown_again() -> None:
    lines: list[str] = []
    relay = LogRelay(lines.append)
    relay.lines = 10
    relay.skip(["same", "same"])
    running = JobStatus("j", JobState.RUNNING, attempt=1)
    relay.feed(LogChunk(LogPosition(1, 0), b"same\n", 5, running))
    assert (lines, relay.lines, relay.position) == ([], 11, LogPosition(1, 5))
    relay.feed(LogChunk(LogPosition(1, 5), b"same\nsame\n", 15, running))
    assert (lines, relay.lines) == (["same"], 13)


def test_a_difference_ends_the_skipping() -> None:
    lines: list[str] = []
    relay = LogRelay(lines.append)
    relay.skip(["one", "two", "three"])
    data = b"one\nother\nthree\n"
    relay.feed(LogChunk(LogPosition(1, 0), data, len(data), JobStatus("j", JobState.RUNNING, attempt=1)))
    assert lines == ["other", "three"]


def test_a_new_attempt_ends_the_skipping() -> None:
    lines: list[str] = []
    relay = LogRelay(lines.append)
    relay.position = LogPosition(1, 100)
    relay.skip(["one"])
    relay.feed(LogChunk(LogPosition(2, 0), b"one\n", 4, JobStatus("j", JobState.RUNNING, attempt=2)))
    assert lines == ["one"]


def test_a_character_cut_in_two_comes_out_whole(cluster: Cluster) -> None:
    cluster.log = "größer 😀\n".encode()
    assert cluster.poke(max_bytes=4) == []
    whole = cluster.log
    for cut in range(len(whole)):
        again = Cluster()
        again.log = whole[:cut]
        lines = again.poke()
        again.log = whole
        assert lines + again.poke() == ["größer 😀"]


def test_a_long_line_without_end_is_shown_in_pieces(cluster: Cluster) -> None:
    cluster.log = b"x" * MAX_LINE_BYTES
    assert cluster.poke() == []
    cluster.log += b"yz"
    assert cluster.poke() == ["x" * MAX_LINE_BYTES]
    cluster.log += b"\n"
    assert cluster.poke() == ["yz"]


def test_a_line_that_just_fits_is_not_followed_by_an_empty_one(cluster: Cluster) -> None:
    cluster.log = b"x" * MAX_LINE_BYTES + b"\nnext\n"
    assert cluster.poke() == ["x" * MAX_LINE_BYTES, "next"]


def test_pieces_of_a_long_line_keep_characters_whole(cluster: Cluster) -> None:
    cluster.log = ("x" + "😀" * MAX_LINE_BYTES).encode()
    cluster.state = JobState.SUCCEEDED
    lines = cluster.poke()
    assert "".join(lines) == "x" + "😀" * MAX_LINE_BYTES
    assert len(lines) == 5


def test_a_progress_bar_without_end_shows_whole_pictures(cluster: Cluster) -> None:
    cluster.log = b"".join(b"\r%6d%% of the epoch" % step for step in range(10_000))
    lines = cluster.poke()
    assert all(line.endswith("of the epoch") for line in lines)
    assert 1 <= len(lines) <= 10_000 * 21 // MAX_LINE_BYTES


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (b"  plain\ttext  ", "  plain\ttext  "),
        (b"10%\r50%\r100%", "100%"),
        (b"10%\r100%\r", "100%"),
        (b"windows\r", "windows"),
        (b"\r\r", ""),
        (b"\x1b[31mred\x1b[0m \x1b[1;38;5;10mx\x1b[m", "\x1b[31mred\x1b[0m \x1b[1;38;5;10mx\x1b[m"),
        (b"\x1b[2K\x1b[1Aup\x1b[?25l", "up"),
        (b"\x1b]0;title\x07x\x1b]8;;http://h\x1b\\link\x1b]8;;\x1b\\", "xlink"),
        (b"a\x00b\x07\x1b\x7f", "a\\x00b\\x07\\x1b\\x7f"),
        (b"\xff\xfe ok \xc3", "\\xff\\xfe ok \\xc3"),
        ("\u0085\u009b é".encode(), "\\x85\\x9b é"),
        (b"\x0b\x0c", "\\x0b\\x0c"),
    ],
)
def test_what_is_shown_of_a_line(line: bytes, shown: str) -> None:
    assert visible(line) == shown


def numbered(count: int, start: int = 0) -> bytes:
    return b"".join(b"line %08d\n" % number for number in range(start, start + count))


def test_a_flood_loses_its_middle_and_never_its_end(cluster: Cluster) -> None:
    cluster.log = numbered(200_000)
    cluster.state = JobState.SUCCEEDED
    lines = cluster.poke(cap=100_000)
    assert lines[:2] == ["line 00000000", "line 00000001"]
    assert lines[-1] == "line 00199999"
    [notice] = [line for line in lines if not line.startswith("line")]
    shown = sum(len(line) + 1 for line in lines) - len(notice) - 1
    assert shown <= 100_000 + TAIL_BYTES + 20
    where = lines.index(notice)
    # All lines but the one cut at the cap are whole, and the number of bytes left out is right.
    assert all(len(line) == 13 for line in lines[: where - 1] + lines[where + 1 :])
    left_out = 200_000 * 14 - 100_000 - 14 * (len(lines) - where - 1)
    assert notice == f"[{left_out:,} bytes of output are left out here; all of it is in {WHERE}]"
    assert cluster.read_bytes < 4 << 20
    assert cluster.poke(cap=100_000) == []


def test_a_flood_that_is_watched_as_it_runs(cluster: Cluster) -> None:
    shown: list[str] = []
    for start in range(0, 100_000, 10_000):
        cluster.log += numbered(10_000, start)
        shown += cluster.poke(cap=200_000)
    notices = [line for line in shown if not line.startswith("line")]
    assert notices[0].startswith("[more than 200,000 bytes of output: what follows is not shown until the job ends")
    assert len(notices) == 1
    assert shown[-1] == notices[0]

    cluster.read_bytes = 0
    assert cluster.poke(cap=200_000) == []
    assert cluster.read_bytes <= 2 * TAIL_BYTES

    cluster.state = JobState.FAILED
    end = cluster.poke(cap=200_000)
    assert "bytes of output are left out here" in end[0]
    assert end[-1] == "line 00099999"
    assert len(end) == TAIL_BYTES // 14 + 1
    assert cluster.poke(cap=200_000) == []


def test_a_log_that_is_hardly_longer_than_the_cap_is_shown_whole(cluster: Cluster) -> None:
    cluster.log = numbered(3_000)
    shown = cluster.poke(cap=20_000)
    assert "not shown until the job ends" in shown.pop()
    cluster.state = JobState.SUCCEEDED
    shown += cluster.poke(cap=20_000)
    assert "".join(shown) == numbered(3_000).decode().replace("\n", "")


def test_the_tail_of_a_flood_may_come_in_pieces() -> None:
    lines: list[str] = []
    relay = LogRelay(lines.append, location=WHERE, max_bytes=100)
    log_bytes = 100_000 + TAIL_BYTES
    status = JobStatus("j", JobState.SUCCEEDED, attempt=1)

    def feed(start: int, data: bytes) -> bool:
        return relay.feed(LogChunk(LogPosition(1, start), data, log_bytes, status))

    tail = b"cut\n" + b"x" * (TAIL_BYTES - 8) + b"\nend"
    assert not feed(100_000, tail[:2])
    assert feed(100_000, tail[:4])
    assert lines == [f"[99,904 bytes of output are left out here; all of it is in {WHERE}]"]
    assert not feed(100_004, tail[4:100])
    assert feed(100_004, tail[4:])
    assert lines[1:] == ["x" * (TAIL_BYTES - 8), "end"]


def test_a_flood_without_any_line_end(cluster: Cluster) -> None:
    cluster.log = b"\0" * 1_000_000
    cluster.state = JobState.SUCCEEDED
    lines = cluster.poke(cap=100_000)
    notice = next(index for index, line in enumerate(lines) if line.startswith("["))
    assert sum(line.count("\\x00") for line in lines[:notice]) == 100_000
    assert sum(line.count("\\x00") for line in lines[notice:]) == TAIL_BYTES


@settings(deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    log=st.binary(max_size=400) | st.text("a\né😀\r", max_size=100).map(str.encode),
    cuts=st.lists(st.integers(0, 400), max_size=6),
    max_bytes=st.integers(100, 500),
)
def test_how_the_log_arrives_makes_no_difference(log: bytes, cuts: list[int], max_bytes: int) -> None:
    cluster = Cluster()
    shown: list[str] = []
    for cut in sorted(cuts):
        cluster.log = log[: max(cut, len(cluster.log))]
        shown += cluster.poke()
    cluster.log, cluster.state = log, JobState.SUCCEEDED
    shown += cluster.poke(max_bytes=max(max_bytes, len(log)))
    lines = log.split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    assert shown == [visible(line) for line in lines]
