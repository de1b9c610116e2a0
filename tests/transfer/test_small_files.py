"""Small files that came together: each is written and noted once, or it is said which is not."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import pytest

from airflow_provider_gpu_cluster.exceptions import CollectError
from airflow_provider_gpu_cluster.sinks import LocalSink
from airflow_provider_gpu_cluster.transfer.small_files import SmallFile, SmallFiles


def small(path: str, content: bytes, sha256: str | None = None) -> SmallFile:
    return SmallFile(path, memoryview(content), 0o644, sha256 or hashlib.sha256(content).hexdigest())


class Noted(list[str]):
    """Keeps the paths that are published, and from which threads that was said."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: set[int] = set()

    def __call__(self, file: SmallFile) -> None:
        self.append(file.path)
        self.threads.add(threading.get_ident())


def damaged(path: str) -> CollectError:
    return CollectError(f"{path} is damaged")


@pytest.mark.parametrize("threads", [1, 4])
def test_all_are_written_and_noted_in_the_thread_that_gives_them(tmp_path: Path, threads: int) -> None:
    sink, noted = LocalSink(tmp_path), Noted()
    sink.concurrent_puts = threads
    files = [small(f"{number % 7}/{number}", b"%d" % number) for number in range(2000)]
    with SmallFiles(sink, noted, damaged) as given:
        for start in range(0, len(files), 100):
            given.give(files[start : start + 100])
    assert sorted(noted) == sorted(file.path for file in files)
    assert noted.threads == {threading.get_ident()}
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.name: path.read_bytes() for path in written} == {str(number): b"%d" % number for number in range(2000)}


@pytest.mark.parametrize("threads", [1, 4])
def test_a_damaged_one_is_not_written_and_the_others_are(tmp_path: Path, threads: int) -> None:
    sink, noted = LocalSink(tmp_path), Noted()
    sink.concurrent_puts = threads
    files = [small(str(number), b"%d" % number, "0" * 64 if number == 70 else None) for number in range(200)]
    with pytest.raises(CollectError, match="70 is damaged"), SmallFiles(sink, noted, damaged) as given:
        given.give(files)
    written = {path.name for path in tmp_path.iterdir()}
    assert set(noted) == written
    assert "70" not in written
    assert {str(number) for number in range(64)} <= written


def test_what_was_given_is_written_when_the_stream_breaks_off(tmp_path: Path) -> None:
    noted = Noted()

    def break_off() -> None:
        with SmallFiles(LocalSink(tmp_path), noted, damaged) as given:
            given.give([small(str(number), b"x") for number in range(500)])
            raise EOFError

    with pytest.raises(EOFError):
        break_off()
    assert len(set(noted)) == len(list(tmp_path.iterdir())) == 500


def test_what_cannot_be_written_is_told_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with (
        pytest.raises(CollectError, match="a cannot be written"),
        SmallFiles(LocalSink(tmp_path), Noted(), damaged) as given,
    ):
        given.give([small("a", b"x"), small("b", b"x")])
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
