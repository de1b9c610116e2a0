"""The ledger's files: whole lines, and the line of an end once, whatever dies, and whatever lies in their place."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import pytest

from airflow_provider_gpu_cluster.gpu_run.ledger.ledger import Ledger, is_booked
from airflow_provider_gpu_cluster.gpu_run.ledger.month import MOST_LINE_BYTES
from airflow_provider_gpu_cluster.gpu_run.protocol.ledger import EndLine, LedgerLine
from tests.gpu_run.host import as_other_user
from tests.harness.small_disk import fill, small_disk

AT = "2026-11-28T10:00:00.000+00:00"
MONTH = "2026-11.jsonl"


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(str(tmp_path / ".gpu-run"))


def end(job_id: str = "j", attempt: int = 1, at: str = AT, **more: Any) -> EndLine:
    line = {"kind": "end", "at": at, "job_id": job_id, "attempt": attempt, "gpu_seconds": 1.5, "engine": "host"}
    return cast(EndLine, {**line, **more})


def act(job_id: str = "j", **more: Any) -> LedgerLine:
    return cast(LedgerLine, {"kind": "act", "at": AT, "job_id": job_id, **more})


def folder_of(tmp_path: Path, name: str = "attempt") -> str:
    (tmp_path / name).mkdir(parents=True, exist_ok=True)
    return str(tmp_path / name)


def ends(ledger: Ledger) -> list[tuple[str, int]]:
    return [(line["job_id"], line["attempt"]) for line in ledger.lines(kinds=["end"])]


def raw(ledger: Ledger, name: str = MONTH) -> bytes:
    return Path(ledger.folder, name).read_bytes()


def in_child(work: Callable[[], Any]) -> int:
    """Do something in a process of its own, and return how that ended, as waitpid(2) says it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    return os.waitpid(pid, 0)[1]


def die_at(step: int) -> None:
    """Kill this process at that of its next calls of the system; a write has written half by then."""
    left = iter(range(step, -1, -1))

    def dying(call: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **more: Any) -> Any:
            if next(left) == 0:
                if call.__name__ == "write":
                    call(args[0], args[1][: len(args[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **more)

        return called

    for name in ("open", "write", "pread", "fsync", "ftruncate", "replace", "mkdir", "close"):
        setattr(os, name, dying(getattr(os, name)))


def test_a_writer_that_is_killed_at_any_step_leaves_the_line_whole_and_once_for_the_next(
    ledger: Ledger, tmp_path: Path
) -> None:
    steps = 0
    while True:
        folder = folder_of(tmp_path, f"attempt-{steps}")
        line = end(attempt=steps)

        def work(folder: str = folder, line: EndLine = line, step: int = steps) -> None:
            die_at(step)
            ledger.append_end(line, folder)

        was_killed = os.WIFSIGNALED(in_child(work))
        # Another job's line may come in between.
        assert ledger.append(act())
        before = ends(ledger)
        assert set(before) <= {("j", number) for number in range(steps + 1)}
        assert is_booked(folder) <= (("j", steps) in before)
        assert ledger.append_end(line, folder)
        assert ends(ledger).count(("j", steps)) == 1
        assert ledger.append_end(line, folder)
        steps += 1
        if not was_killed:
            break
    assert steps > 8
    assert sorted(ends(ledger)) == [("j", number) for number in range(steps)]
    assert all(json.loads(text) for text in raw(ledger).splitlines())


def test_many_writers_at_once(ledger: Ledger, tmp_path: Path) -> None:
    folders = [folder_of(tmp_path, f"a/{number}") for number in range(20)]

    def work() -> None:
        for number, folder in enumerate(folders):
            # All of them see the same ends.
            ledger.append_end(end(attempt=number), folder, wait_s=60)
            ledger.append_all([act(f"of-{os.getpid()}", number=number), act(f"of-{os.getpid()}")], wait_s=60)

    threads = [threading.Thread(target=in_child, args=(work,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ends(ledger)) == [("j", number) for number in range(20)]
    assert len(list(ledger.lines(kinds=["act"]))) == 4 * 20 * 2
    assert len(raw(ledger).splitlines()) == 20 + 160


@pytest.mark.parametrize("torn", [b'{"kind": "end", "at"', b"\0" * 5000, b"\n{"])
@pytest.mark.parametrize("before", [0, 1])
def test_a_torn_line_is_never_seen_and_is_cut_off_by_the_next_writer(ledger: Ledger, torn: bytes, before: int) -> None:
    ledger.append_all([act("first")] * before)
    os.makedirs(ledger.folder, exist_ok=True)
    with open(Path(ledger.folder, MONTH), "ab") as file:
        file.write(torn)
    assert [line["job_id"] for line in ledger.lines()] == ["first"] * before
    assert ledger.append(act("second"))
    assert [line["job_id"] for line in ledger.lines()] == ["first"] * before + ["second"]
    assert all(json.loads(text) for text in raw(ledger).splitlines() if text)


def put_folder(path: Path) -> None:
    path.mkdir()
    (path / "in it").touch()


WHAT: dict[str, Callable[[Path], Any]] = {
    "folder": put_folder,
    "pipe": os.mkfifo,
    "link to a file": lambda path: path.symlink_to("/etc/passwd"),
    "link to nothing": lambda path: path.symlink_to("/nowhere/at/all"),
    "rubbish": lambda path: path.write_bytes(b"x" * 3 * MOST_LINE_BYTES),
}


@pytest.mark.parametrize("what", WHAT)
@pytest.mark.parametrize("place", [MONTH, "lock", ""])
def test_what_lies_in_the_place_of_a_file_is_put_aside(ledger: Ledger, tmp_path: Path, what: str, place: str) -> None:
    if place:
        os.makedirs(ledger.folder)
    else:
        Path(ledger.folder).parent.mkdir()
    path = Path(ledger.folder, place)
    WHAT[what](path)
    assert list(ledger.lines()) == []
    folder = folder_of(tmp_path)
    done = [ledger.append_end(end(), folder) for _ in range(2)]
    if what == "folder" and not place:
        # A folder is in its place.
        assert (done, ends(ledger)) == ([True, True], [("j", 1)])
        return
    assert (done, ends(ledger)) == ([True, True], [("j", 1)])
    kept = list(path.parent.glob(f"{path.name}.*.replaced"))
    # What has been written into a lock says nothing.
    assert len(kept) == (0 if (what, place) == ("rubbish", "lock") else 1)


def test_lines_that_make_no_sense_are_passed_over(ledger: Ledger) -> None:
    os.makedirs(ledger.folder)
    lines = [
        b'{"kind": "end", "at": "2026-11-01", "job_id": "good-1"}',
        b"rubbish \xff",
        b'{"kind": "end", "at": 7, "job_id": "x"}',
        b'{"kind": "end", "at": "2026-11-01"}',
        b'{"kind": "end", ' + b'"a": [' * 100000,
        b'{"kind": "end", "at": "2026-11-01", "job_id": "long", "a": "' + b"x" * MOST_LINE_BYTES + b'"}',
        b'{"kind": "end", "at": "1", "job_id": "x"}, {"kind": "end"}',
        b"",
        b"x" * (3 << 20),
        b'{"kind": "end", "at": "2026-11-01", "job_id": "good-2"}',
    ]
    Path(ledger.folder, MONTH).write_bytes(b"\n".join(lines) + b"\n")
    Path(ledger.folder, "notes.txt").write_text("no month")
    assert [line["job_id"] for line in ledger.lines()] == ["good-1", "good-2"]
    assert [line["job_id"] for line in ledger.lines(are_brief=True)] == ["good-1", "good-2"]


def test_a_lock_that_is_held_for_long_keeps_nobody_waiting(ledger: Ledger, tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    assert ledger.append(act())
    with open(Path(ledger.folder, "lock")) as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        began = time.monotonic()
        assert not ledger.append_end(end(), folder, wait_s=0.1)
        assert time.monotonic() - began < 5
        assert not ledger.append(act(), wait_s=0)
    assert ledger.append_end(end(), folder)
    assert ends(ledger) == [("j", 1)]


def test_a_full_disk_leaves_no_piece_of_a_line_and_the_line_follows(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 256) as disk:
        ledger, folder = Ledger(str(disk)), folder_of(disk)
        # The last block of the file has room for a part of the line.
        while raw_size(ledger) % 4096 < 3900:
            assert ledger.append(act(more="x" * 50))
        before = raw(ledger)
        fill(disk)
        assert not ledger.append_end(end(host="h" * 400), folder)
        assert not ledger.append(act(more="x" * 400))
        assert raw(ledger) == before
        (disk / "filler").unlink()
        assert ledger.append_end(end(host="h" * 400), folder)
        assert raw(ledger).startswith(before)
        assert ends(ledger) == [("j", 1)]


def raw_size(ledger: Ledger) -> int:
    path = Path(ledger.folder, MONTH)
    return path.stat().st_size if path.exists() else 0


def test_a_file_that_is_read_only_is_made_writable(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    for folder in tmp_path.parents:
        if not os.access(folder, os.W_OK) or folder.stat().st_mode & 0o001:
            break
        folder.chmod(folder.stat().st_mode | 0o011)
    own = tmp_path / "own"
    own.mkdir()
    own.chmod(0o777)

    def work() -> Any:
        ledger = Ledger(str(own))
        assert ledger.append(act("first"))
        os.chmod(Path(ledger.folder, MONTH), 0o400)
        return ledger.append(act("second")), [line["job_id"] for line in ledger.lines()]

    assert as_other_user(work) == (True, ["first", "second"])


def test_a_line_belongs_to_the_month_of_its_time_in_utc_and_none_is_of_the_future(ledger: Ledger) -> None:
    now = time.time()
    ledger.append(act("new-year", at="2026-01-01T00:30:00.000+01:00"))
    ledger.append(act("ahead", at="2199-01-01T00:00:00.000+00:00"))
    ledger.append(act("odd", at="at noon"))
    (first, *others) = ledger.lines()
    assert (first["job_id"], first["at"]) == ("new-year", "2025-12-31T23:30:00.000+00:00")
    assert ledger.months()[0] == "2025-12.jsonl"
    assert [line["job_id"] for line in others] == ["ahead", "odd"]
    assert all(abs(datetime.fromisoformat(line["at"]).timestamp() - now) < 60 for line in others)


def test_only_the_lines_of_a_time_are_read_and_only_its_months_are_opened(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    for day in ("2026-08-31", "2026-09-01", "2026-09-15", "2026-10-01", "2026-10-02"):
        ledger.append(act(day, at=f"{day}T00:00:00.000+00:00"))
    opened: list[str] = []
    read = ledger.lines_from

    def reading(name: str, *args: Any, **more: Any) -> Any:
        opened.append(name)
        return read(name, *args, **more)

    monkeypatch.setattr(ledger, "lines_from", reading)
    found = ledger.lines("2026-09-15T00:00:00.000+00:00", "2026-10-02T00:00:00.000+00:00")
    assert [line["job_id"] for line in found] == ["2026-09-15", "2026-10-01"]
    assert opened == ["2026-09.jsonl", "2026-10.jsonl"]


def test_files_are_for_this_user_alone_and_a_line_that_is_too_long_is_refused(ledger: Ledger) -> None:
    assert not ledger.append(act(more="x" * MOST_LINE_BYTES))
    assert ledger.append(act())
    assert Path(ledger.folder).stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in Path(ledger.folder).iterdir())


def test_a_brief_line_has_what_is_added_up_whatever_is_in_its_texts(ledger: Ledger, tmp_path: Path) -> None:
    odd = 'a", "engine": "b'
    ledger.append_end(end(user=odd, dag_id=odd, metrics={odd: 1}, gpu_keys=[odd]), folder_of(tmp_path))
    (brief,) = ledger.lines(are_brief=True)
    (whole,) = ledger.lines()
    assert (brief["user"], brief["gpu_seconds"]) == (odd, 1.5)
    assert whole["metrics"] == {odd: 1}
    assert brief.items() < whole.items()
