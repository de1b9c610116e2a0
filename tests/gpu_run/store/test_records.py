"""Records are whole or absent, and made once."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.gpu_run.errors import Refused
from airflow_provider_gpu_cluster.gpu_run.store import records
from airflow_provider_gpu_cluster.gpu_run.store.directories import Root
from airflow_provider_gpu_cluster.gpu_run.store.writing import writing


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = str(tmp_path / "r.json")
    assert records.read_json(path) is None
    records.write_json(path, {"name": "\udcff ü \n", "n": 1})
    assert records.read_json(path) == {"name": "\udcff ü \n", "n": 1}
    assert os.listdir(tmp_path) == ["r.json"]
    assert os.stat(path).st_mode & 0o777 == 0o600


@pytest.mark.parametrize("write", [records.write_json, records.create_json])
def test_a_record_that_cannot_be_written_leaves_nothing(tmp_path: Path, write: Callable[..., Any]) -> None:
    with pytest.raises(TypeError):
        write(str(tmp_path / "r.json"), {"x": object()})
    assert os.listdir(tmp_path) == []


def test_a_record_that_cannot_be_put_in_place_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(source: str, target: str) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), source, None, target)

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(OSError, match="Input/output error"):
        records.write_json(str(tmp_path / "r.json"), {})
    assert os.listdir(tmp_path) == []


def test_a_folder_in_the_place_of_a_record_gives_way(tmp_path: Path) -> None:
    (tmp_path / "r.json" / "full").mkdir(parents=True)
    records.write_json(str(tmp_path / "r.json"), {"a": 1})
    assert records.read_json(str(tmp_path / "r.json")) == {"a": 1}
    assert [path.parent.name[-9:] for path in tmp_path.rglob("full")] == [".replaced"]


@pytest.mark.parametrize("has_links", [True, False])
def test_of_many_who_create_a_record_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_links: bool) -> None:
    if not has_links:

        def link(*paths: str) -> None:
            raise OSError(errno.EPERM, "no hard links here")

        monkeypatch.setattr(os, "link", link)
    path = str(tmp_path / "claim.json")
    barrier = threading.Barrier(16)
    won: list[int] = []

    def create(number: int) -> None:
        barrier.wait()
        if records.create_json(path, {"by": number}):
            won.append(number)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert records.read_json(path) == {"by": won[0]}
    assert os.listdir(tmp_path) == ["claim.json"]


def test_a_link_whose_reply_was_lost_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS may carry out a link, lose the reply, and report that it exists."""
    real = os.link

    def link(source: str, target: str) -> None:
        real(source, target)
        raise FileExistsError(target)

    monkeypatch.setattr(os, "link", link)
    assert records.create_json(str(tmp_path / "claim.json"), {}) is True


@pytest.mark.parametrize(
    ("code", "expected", "words"),
    [
        (errno.ENOSPC, protocol.NO_SPACE, "no space left on the disk of .* MB free"),
        (errno.EDQUOT, protocol.NO_SPACE, "the disk quota for .* is used up"),
        (errno.EROFS, protocol.ROOT_NOT_WRITABLE, "Read-only file system"),
        (errno.EACCES, protocol.ROOT_NOT_WRITABLE, "Permission denied"),
        (errno.EISDIR, protocol.ROOT_NOT_WRITABLE, "Is a directory"),
        (errno.EIO, protocol.PASSING_FAULT, "cannot be used now: Input/output error"),
        (errno.ESTALE, protocol.PASSING_FAULT, "cannot be used now: Stale file handle"),
        (errno.EMFILE, protocol.PASSING_FAULT, "cannot be used now: Too many open files"),
        (errno.ENFILE, protocol.PASSING_FAULT, "cannot be used now: Too many open files in system"),
        (errno.ENOMEM, protocol.PASSING_FAULT, "cannot be used now: Cannot allocate memory"),
    ],
)
def test_failures_to_write_are_named(tmp_path: Path, code: int, expected: str, words: str) -> None:
    with pytest.raises(Refused, match=words) as caught, writing(str(tmp_path / "job")):
        raise OSError(code, os.strerror(code), str(tmp_path / "job" / "x"))
    assert caught.value.code == expected


@pytest.mark.parametrize("text", ["", "{half", "[1]", '"x"', "[" * 100_000, "\udcff"])
def test_what_is_no_record_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "exit.json"
    path.write_text(text, errors="surrogateescape")
    with pytest.raises(ValueError, match=r"exit\.json holds no JSON"):
        records.read_json(str(path))
    assert records.is_spoilt(str(path))


def test_a_record_of_an_end_replaces_what_is_none(tmp_path: Path) -> None:
    job = Root(str(tmp_path)).job("x")
    job.create()
    attempt = job.attempt(1)
    os.mkdir(attempt.path)
    Path(attempt.at("exit.json")).write_text("{half")
    attempt.finish(protocol.LOST, protocol.REASON_LOST, "gone")
    ended = attempt.ended()
    assert ended is not None
    assert ended["state"] == protocol.LOST
    attempt.finish(protocol.SUCCEEDED, None, "")
    assert attempt.ended() == ended


def test_every_end_deletes_the_secrets_that_no_start_has_deleted(tmp_path: Path) -> None:
    job = Root(str(tmp_path)).job("x")
    job.create()
    request: Any = {}
    Path(job.at(".job", "attempts", ".a-draft")).mkdir()
    Path(job.at(".job", "attempts", ".a-draft", "env.json")).write_text("{}")
    attempt = job.add_attempt(1, request, {"TOKEN": "secret"})
    assert attempt is not None
    assert [path.parent.name for path in tmp_path.rglob("env.json")] == ["1"]
    attempt.finish(protocol.LOST, protocol.REASON_LOST, "gone")
    assert list(tmp_path.rglob("env.json")) == []
