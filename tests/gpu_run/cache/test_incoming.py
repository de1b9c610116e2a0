"""A content that arrives in any order, from several processes, in several tries: in the end it is whole, or nothing."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider_gpu_cluster.gpu_run.cache import incoming
from airflow_provider_gpu_cluster.gpu_run.cache.contents import Contents
from airflow_provider_gpu_cluster.gpu_run.cache.incoming import Busy, Damaged, Incoming
from airflow_provider_gpu_cluster.gpu_run.cache.ranges import merged
from tests.conftest import REPOSITORY
from tests.gpu_run.cache.kept_contents import keep, make_contents, sha256_of, tag_of
from tests.harness.small_disk import fill, small_disk

PIECE = 100_000
DATA = random.Random(0).randbytes(40 * PIECE + 7)
KEY = sha256_of(DATA)
SIZE = len(DATA)


@pytest.fixture
def contents(tmp_path: Path) -> Contents:
    return make_contents(tmp_path)


def begun(contents: Contents, key: str = KEY) -> Incoming:
    """Return a content that is asked for from now on."""
    arriving = Incoming(contents, key, SIZE)
    assert arriving.take()
    arriving.begin()
    return arriving


def write(arriving: Incoming, start: int, end: int) -> None:
    for at in range(start, end, PIECE):
        arriving.write(at, DATA[at : min(at + PIECE, end)])


def left(contents: Contents) -> list[str]:
    """Return what is left of contents that were on their way."""
    return os.listdir(contents.incoming)


def read(contents: Contents) -> bytes:
    return Path(contents.path_of(KEY)).read_bytes()


# -- one writer


@pytest.mark.parametrize("key", [KEY, tag_of("object")])
@pytest.mark.parametrize("order", ["forwards", "backwards", "mixed"])
def test_it_arrives_in_any_order_and_in_several_tries(contents: Contents, key: str, order: str) -> None:
    places = list(range(0, SIZE, PIECE))
    if order != "forwards":
        places.reverse() if order == "backwards" else random.Random(1).shuffle(places)
    for first, last in ((0, 10), (10, 30), (30, len(places))):
        arriving = begun(contents, key)
        for at in places[first:last]:
            arriving.write(at, DATA[at : at + PIECE])
        if last < len(places):
            arriving.leave()
            assert Incoming(contents, key, SIZE).arrived() == sum(len(DATA[at : at + PIECE]) for at in places[:last])
    assert arriving.missing() == []
    assert arriving.publish() == KEY
    assert read(contents) == DATA
    assert contents.find(key, SIZE) == KEY
    assert left(contents) == []


def test_zeros_are_there_without_being_written(contents: Contents) -> None:
    data = bytes(8 << 20) + b"x"
    arriving = Incoming(contents, sha256_of(data), len(data))
    assert arriving.take()
    arriving.begin()
    arriving.skip(0, 8 << 20)
    arriving.write(8 << 20, b"x")
    assert arriving.missing() == []
    arriving.publish()
    found = os.stat(contents.path_of(sha256_of(data)))
    assert found.st_size == len(data)
    assert found.st_blocks * 512 < 100_000


def test_of_what_nothing_has_arrived_nothing_is_kept(contents: Contents) -> None:
    arriving = begun(contents)
    arriving.leave()
    assert left(contents) == []
    arriving.leave()


def test_only_one_asks_for_it(contents: Contents) -> None:
    arriving, other = begun(contents), Incoming(contents, KEY, SIZE)
    assert arriving.take()
    assert not other.take()
    write(arriving, 0, PIECE)
    arriving.release()
    assert other.take()
    assert other.missing() == [(PIECE, SIZE)]


def test_what_is_damaged_is_kept_no_longer(contents: Contents) -> None:
    arriving = begun(contents)
    write(arriving, 0, SIZE)
    arriving.rest()
    with open(arriving.path, "r+b") as file:
        file.write(b"other")
    again = Incoming(contents, KEY, SIZE)
    with pytest.raises(Damaged):
        again.publish()
    arriving.release()
    assert left(contents) == []
    assert contents.find(KEY, SIZE) is None
    # The next try begins from nothing, and succeeds.
    arriving = begun(contents)
    assert arriving.missing() == [(0, SIZE)]
    write(arriving, 0, SIZE)
    assert arriving.publish() == KEY


def test_of_what_was_cut_nothing_counts(contents: Contents) -> None:
    arriving = begun(contents)
    write(arriving, 0, SIZE)
    arriving.leave()
    os.truncate(arriving.path, SIZE // 2)
    assert begun(contents).missing() == [(0, SIZE)]


@pytest.mark.parametrize(
    "rest",
    [b"200 3", b"200 300 400\n", b"\0\0200 300\n", b"\xff\n\n-5 200\n", b"0 1e9\n", b"\0" * 99],
)
def test_notes_that_are_cut_or_damaged_do_not_count(contents: Contents, rest: bytes) -> None:
    arriving = begun(contents)
    Path(arriving.path + ".ranges").write_bytes(b"0 100\n" + rest)
    assert arriving.missing() == [(100, SIZE)]
    assert arriving.arrived() == 100


def test_a_disk_that_is_full_for_a_while(tmp_path: Path) -> None:
    """It cuts a note anywhere; whatever is noted afterwards, nothing counts that is not there."""
    with small_disk(tmp_path / "disk", 10_000) as disk:
        contents = make_contents(disk)
        arriving = begun(contents)
        fill(disk, leave_kb=2000)
        with pytest.raises(OSError, match="No space left"):
            write(arriving, 0, SIZE)
        with contextlib.suppress(OSError):
            arriving.release()
        (disk / "filler").unlink()
        arriving = begun(contents)
        for start, end in arriving.missing():
            write(arriving, start, end)
        assert arriving.publish() == KEY


def test_a_disk_that_says_only_at_the_end_that_it_could_not_store_it(
    contents: Contents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a network's file system does, when the quota there is used up."""

    def fail(fd: int) -> int:
        raise OSError(122, "Disk quota exceeded")

    arriving = begun(contents)
    write(arriving, 0, SIZE)
    with monkeypatch.context() as patch:
        patch.setattr(os, "dup", fail)
        with pytest.raises(OSError, match="quota"):
            arriving.publish()
        with pytest.raises(OSError, match="quota"):
            arriving.release()
    assert arriving.missing() == [(0, SIZE)]
    assert contents.find(KEY, SIZE) is None


# -- several writers

WRITER = """
import os, random, sys, time
from airflow_provider_gpu_cluster.gpu_run.cache.contents import Contents
from airflow_provider_gpu_cluster.gpu_run.cache.ranges import merged
from airflow_provider_gpu_cluster.gpu_run.cache.incoming import Damaged, Incoming
from airflow_provider_gpu_cluster.gpu_run.store.directories import Root
what, folder, key, number, count, piece, source = sys.argv[1:]
number, count, piece = int(number), int(count), int(piece)
data = open(source, "rb").read()
contents = Contents(Root(folder))
print("ready", flush=True)
sys.stdin.readline()
places = range(number * piece, len(data), count * piece)
if what == "fill":
    arriving = Incoming(contents, key, 0)
    for at in places:
        arriving.write(at, data[at : at + piece])
    arriving.release()
elif what == "for ever":
    arriving = Incoming(contents, key, 0)
    for round in range(10**6):
        for at in places:
            arriving.write(at, data[at : at + piece])
            if not at % (3 * piece):
                arriving.rest()
else:
    while contents.find(key, len(data)) is None:
        arriving = Incoming(contents, key, len(data))
        if not arriving.take():
            time.sleep(0.01)
            continue
        if contents.find(key, len(data)) is not None:
            arriving.discard()
            break
        arriving.begin()
        for start, end in arriving.missing():
            for at in range(start, end, piece):
                arriving.write(at, data[at : min(at + piece, end)])
                if what == "give up" and random.random() < 0.1:
                    break
        if not arriving.missing():
            arriving.publish()
            print("published", flush=True)
        arriving.leave()
print("done", flush=True)
"""


@contextlib.contextmanager
def writers(contents: Contents, what: str, count: int) -> Iterator[list[subprocess.Popen[str]]]:
    """Start processes that write the content, all at once; kill those that are left."""
    source = Path(contents.folder).parent / "source"
    source.write_bytes(DATA)
    root = str(Path(contents.folder).parent)
    with contextlib.ExitStack() as stack:
        children = []
        for number in range(count):
            arguments = [what, root, KEY, str(number), str(count), str(PIECE), str(source)]
            child = subprocess.Popen(
                [sys.executable, "-S", "-c", WRITER, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={"PYTHONPATH": str(REPOSITORY / "provider")},
            )
            stack.enter_context(child)
            stack.callback(child.kill)
            children.append(child)
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
        for child in children:
            assert child.stdin is not None
            child.stdin.write("\n")
            child.stdin.flush()
        yield children


def test_ranges_from_several_processes_at_once(contents: Contents) -> None:
    arriving = begun(contents)
    with writers(contents, "fill", 4) as children:
        assert [child.communicate()[0] for child in children] == ["done\n"] * 4
    assert arriving.missing() == []
    assert arriving.publish() == KEY
    assert read(contents) == DATA


def test_what_has_arrived_before_a_process_is_killed_counts(contents: Contents) -> None:
    begun(contents).release()
    notes = Path(contents.incoming, KEY + ".ranges")
    for _ in range(4):
        before = os.path.getsize(notes) if notes.exists() else 0
        with writers(contents, "for ever", 3) as children:
            while not notes.exists() or os.path.getsize(notes) < before + 200:
                time.sleep(0.005)
            for child in children:
                child.kill()
    arriving = begun(contents)
    assert 0 < arriving.arrived() <= SIZE
    there = Path(arriving.path).read_bytes()
    for start, end in merged(arriving._noted()):
        assert there[start:end] == DATA[start:end]
    for start, end in arriving.missing():
        write(arriving, start, end)
    assert arriving.publish() == KEY


@pytest.mark.parametrize("what", ["send", "give up"])
def test_many_want_one_content_and_exactly_one_gives_it_its_name(contents: Contents, what: str) -> None:
    with writers(contents, what, 8) as children:
        said = [child.communicate()[0] for child in children]
    assert sorted(said) == ["done\n"] * 7 + ["published\ndone\n"]
    assert read(contents) == DATA
    assert left(contents) == []


def test_it_gets_its_name_when_nobody_writes_any_more(contents: Contents, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incoming, "WRITERS_GONE_S", 0.2)
    arriving, other = begun(contents), Incoming(contents, KEY, 0)
    write(arriving, 0, SIZE)
    other.write(0, DATA[:5])
    with pytest.raises(Busy):
        arriving.publish()
    assert contents.find(KEY, SIZE) is None
    monkeypatch.setattr(incoming, "WRITERS_GONE_S", 20)
    gone = threading.Timer(0.1, other.release)
    gone.start()
    assert arriving.publish() == KEY
    gone.join()


def test_what_has_its_name_is_not_written_to(contents: Contents) -> None:
    arriving, other = begun(contents), Incoming(contents, KEY, 0)
    write(arriving, 0, SIZE)
    arriving.publish()
    with pytest.raises(FileNotFoundError):
        other.write(0, b"late")
    with pytest.raises(FileNotFoundError):
        other.skip(0, 4)
    assert read(contents) == DATA
    assert left(contents) == []


def test_who_opened_it_in_the_last_moment_does_not_write_to_what_has_its_name(
    contents: Contents, monkeypatch: pytest.MonkeyPatch
) -> None:
    arriving, other = begun(contents), Incoming(contents, KEY, 0)
    write(arriving, 0, SIZE)
    real = fcntl.flock
    published: list[bool] = []

    def flock(fd: int, how: int) -> None:
        if not published:
            published.append(True)
            arriving.publish()
        real(fd, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(FileNotFoundError, match="final name"):
        other.write(0, b"late")
    assert read(contents) == DATA


def test_it_can_be_written_to_until_it_has_its_name(contents: Contents, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is killed in between would else leave what nobody but root can go on with."""

    def adopt(sha256: str, path: str) -> None:
        assert os.stat(path).st_mode & 0o777 == 0o600
        raise KeyboardInterrupt

    arriving = begun(contents)
    write(arriving, 0, SIZE)
    monkeypatch.setattr(contents, "adopt", adopt)
    with pytest.raises(KeyboardInterrupt):
        arriving.publish()


def test_who_writes_into_bytes_that_were_thrown_away_notes_nothing_of_those_that_came_after(contents: Contents) -> None:
    late = Incoming(contents, tag_of("object"), 0)
    first = begun(contents, tag_of("object"))
    late.write(0, DATA[:PIECE])
    # The connection of who asked for it breaks, and nothing is noted yet.
    first.leave()
    second = begun(contents, tag_of("object"))
    late.release()
    assert second.missing() == [(0, SIZE)]
    write(second, 0, SIZE)
    assert second.publish() == KEY


def test_a_content_that_is_here_already_is_replaced_by_the_same(contents: Contents) -> None:
    keep(contents, DATA)
    before = os.stat(contents.path_of(KEY)).st_ino
    keep(contents, DATA)
    assert os.stat(contents.path_of(KEY)).st_ino != before
    assert read(contents) == DATA
