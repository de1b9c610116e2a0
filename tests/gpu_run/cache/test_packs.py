"""Small contents in packs: found again, and never taken for what they are not."""

from __future__ import annotations

import os
import struct
import time
import tracemalloc
from pathlib import Path

import pytest

from airflow_provider_gpu_cluster.gpu_run.cache import packs
from airflow_provider_gpu_cluster.gpu_run.cache.packs import Packs, PackWriter
from tests.gpu_run.cache.kept_contents import sha256_of, tag_of


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path / "packs")


def write(folder: str, *contents: bytes, tags: dict[str, bytes] | None = None) -> None:
    writer = PackWriter(Packs(folder))
    for data in contents:
        writer.add(sha256_of(data), sha256_of(data), data)
    for text, data in (tags or {}).items():
        writer.add(tag_of(text), sha256_of(data), data)
    writer.close()


def read(where: Packs | str, data: bytes) -> bytes | None:
    """Return what is kept of a content, looked at anew if a folder is given."""
    found = (where if isinstance(where, Packs) else Packs(where)).read(sha256_of(data), len(data))
    return None if found is None else found[0]


def named(folder: str, suffix: str) -> list[str]:
    return sorted(os.path.join(folder, name) for name in os.listdir(folder) if name.endswith(suffix))


def test_what_was_written_is_found_by_its_checksum_and_its_tag(folder: str) -> None:
    write(folder, b"one", b"two", tags={"object 3": b"three"})
    kept = Packs(folder)
    assert kept.read(sha256_of(b"two"), 3) == (b"two", sha256_of(b"two"))
    assert kept.read(tag_of("object 3"), 5) == (b"three", sha256_of(b"three"))
    assert kept.read(sha256_of(b"three"), 5) == (b"three", sha256_of(b"three"))
    assert kept.find(tag_of("object 3"), 5) == sha256_of(b"three")
    # A tag is no checksum, even where their digits are the same.
    assert kept.find(tag_of("object 3")[4:], 5) is None
    assert kept.find("tag-" + sha256_of(b"one"), 3) is None


def test_another_size_is_another_content(folder: str) -> None:
    write(folder, b"one")
    assert Packs(folder).find(sha256_of(b"one"), 4) is None
    assert Packs(folder).read(sha256_of(b"one"), 2) is None


def test_a_folder_that_is_not_there_holds_nothing(folder: str) -> None:
    kept = Packs(folder)
    assert kept.find(sha256_of(b"x"), 1) is None
    kept.remove(sha256_of(b"x"))
    PackWriter(kept).close()
    assert not os.path.exists(folder)


def test_more_packs_than_are_kept_open(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "MOST_OPEN", 5)
    contents = [str(number).encode() for number in range(40)]
    for data in contents:
        write(folder, data)
    kept = Packs(folder)
    before = len(os.listdir("/proc/self/fd"))
    for data in contents + contents[::-1]:
        assert read(kept, data) == data
    assert len(os.listdir("/proc/self/fd")) <= before + 5


def test_a_pack_has_a_limited_size_and_what_is_larger_goes_into_the_next(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packs, "MOST_BYTES", 100)
    contents = [bytes([number]) * 30 for number in range(10)] + [b"x" * 250]
    write(folder, *contents)
    assert [os.path.getsize(path) for path in named(folder, ".data")].count(90) == 3
    assert max(os.path.getsize(path) for path in named(folder, ".data")) == 250
    assert all(read(folder, data) == data for data in contents)


def test_two_writers_at_once(folder: str) -> None:
    first, second = PackWriter(Packs(folder)), PackWriter(Packs(folder))
    for number in range(100):
        for writer in (first, second):
            data = str(number).encode()
            writer.add(sha256_of(data), sha256_of(data), data)
    first.close()
    seen = Packs(folder)
    assert read(seen, b"5") == b"5"
    second.close()
    assert len(named(folder, ".data")) == 2
    # What is gone from one pack is still in the other.
    os.unlink(named(folder, ".index")[0])
    assert all(read(folder, str(number).encode()) for number in range(100))


def test_what_is_removed_is_gone_and_its_neighbours_stay(folder: str) -> None:
    write(folder, b"one", b"two", tags={"t": b"two"})
    kept = Packs(folder)
    kept.remove(sha256_of(b"two"))
    for where in (kept, Packs(folder)):
        assert read(where, b"one") == b"one"
        assert read(where, b"two") is None
        assert where.find(tag_of("t"), 3) is None


def test_an_index_that_is_cut(folder: str) -> None:
    write(folder, b"one", b"two")
    (index,) = named(folder, ".index")
    whole = Path(index).read_bytes()
    for length in range(len(whole)):
        Path(index).write_bytes(whole[:length])
        kept = Packs(folder)
        found = [data for data in (b"one", b"two") if read(kept, data) == data]
        assert len(found) == length // (len(whole) // 2)


@pytest.mark.parametrize("at", ["key", "sha256", "offset", "size"])
def test_an_index_that_is_damaged_vouches_for_nothing_once_it_is_noticed(folder: str, at: str) -> None:
    write(folder, b"one")
    (index,) = named(folder, ".index")
    record = bytearray(Path(index).read_bytes())
    place = {"key": 1, "sha256": 33, "offset": 65, "size": 73}[at]
    record[place] ^= 0x80
    Path(index).write_bytes(record)
    kept = Packs(folder)
    found = kept.read(sha256_of(b"one"), 3)
    if found is not None:
        data, sha256 = found
        assert sha256_of(data) != sha256
        kept.remove(sha256)
    assert Packs(folder).find(sha256_of(b"one"), 3) is None


def test_data_that_is_gone_is_not_promised_again(folder: str) -> None:
    write(folder, b"one")
    write(folder, b"two")
    os.unlink(next(path for path in named(folder, ".data") if Path(path).read_bytes() == b"one"))
    kept = Packs(folder)
    assert kept.find(sha256_of(b"one"), 3) is not None
    assert read(kept, b"one") is None
    assert kept.find(sha256_of(b"one"), 3) is None
    assert read(kept, b"two") == b"two"


def test_an_index_without_a_pack_that_is_removed_meanwhile(folder: str) -> None:
    """Old packs are cleared up while others work with them."""
    write(folder, b"one", b"two")
    kept = Packs(folder)
    assert read(kept, b"one") == b"one"
    for path in named(folder, ""):
        os.unlink(path)
    # It was opened before.
    assert read(kept, b"two") == b"two"
    kept.remove(sha256_of(b"one"))
    assert read(folder, b"two") is None


def test_a_pack_that_could_not_be_written_leaves_no_data(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    writer = PackWriter(Packs(folder))
    writer.add(sha256_of(b"one"), sha256_of(b"one"), b"one")
    with monkeypatch.context() as patch:
        patch.setattr(Packs, "write_index", fail)
        with pytest.raises(OSError, match="No space"):
            writer.close()
    assert os.listdir(folder) == []
    # It can be used on, and has forgotten what was lost.
    writer.add(sha256_of(b"two"), sha256_of(b"two"), b"two")
    writer.close()
    assert read(folder, b"one") is None
    assert read(folder, b"two") == b"two"


def test_use_is_noted_now_and_then(folder: str) -> None:
    write(folder, b"one")
    (index,) = named(folder, ".index")
    for ago, is_noted in ((100, False), (7200, True)):
        then = time.time() - ago
        os.utime(index, (then, then))
        Packs(folder).find(sha256_of(b"one"), 3)
        assert (os.stat(index).st_mtime > then + 1) is is_noted


def test_a_large_index_takes_little_memory(folder: str) -> None:
    count = 20_000
    os.makedirs(folder)
    with open(os.path.join(folder, "0" * 32 + ".index"), "wb") as file:
        for number in range(count):
            key = struct.pack(">QQQQ", number, 0, 0, 0)
            file.write(struct.pack(">?32s32sQQ", False, key, key, number, 1))
    tracemalloc.start()
    try:
        assert Packs(folder).find("0" * 64, 1) == "0" * 64
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 450 * count
