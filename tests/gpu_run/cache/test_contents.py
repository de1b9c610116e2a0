"""What is kept for all jobs: found by what it is, and only as long as it is that."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.gpu_run.cache.contents import Contents, checked_key, digest_of
from airflow_provider_gpu_cluster.gpu_run.errors import Refused
from tests.gpu_run.cache.kept_contents import LARGE, keep, make_contents, sha256_of, tag_of

DATA = os.urandom(LARGE)
ROWS = [["b", "dir", 0o755, ""], ["a", "file", 0o644, sha256_of(b"a"), 1], ["…", "link", 0o755, "a"]]


@pytest.fixture
def contents(tmp_path: Path) -> Contents:
    return make_contents(tmp_path)


def read(contents: Contents, key: str, size: int = LARGE) -> bytes | None:
    opened = contents.open(key, size)
    if opened is None:
        return None
    with open(opened[0], "rb") as file:
        return file.read()


@pytest.mark.parametrize("data", [b"small", DATA], ids=["small", "large"])
def test_a_content_is_found_by_its_checksum_and_by_its_tag(contents: Contents, data: bytes) -> None:
    sha256 = sha256_of(data)
    for key in (sha256, tag_of("x")):
        assert contents.find(key, len(data)) is None
    keep(contents, data, tag_of("x"))
    for key in (sha256, tag_of("x")):
        assert contents.find(key, len(data)) == sha256


def test_a_large_content_is_a_file_that_cannot_be_written_to(contents: Contents) -> None:
    sha256 = keep(contents, DATA, tag_of("x")) and sha256_of(DATA)
    assert read(contents, sha256) == read(contents, tag_of("x")) == DATA
    assert os.stat(contents.path_of(sha256)).st_mode & 0o777 == 0o400
    assert os.listdir(contents.incoming) == []


@pytest.mark.parametrize("look", ["find", "open"])
def test_a_content_of_another_size_is_kept_no_longer(contents: Contents, look: str) -> None:
    key = keep(contents, DATA)
    os.truncate(contents.path_of(key), LARGE - 1)
    assert getattr(contents, look)(key, LARGE) is None
    assert not os.path.exists(contents.path_of(key))


def test_a_tag_leads_to_the_content_that_it_was_given_last(contents: Contents) -> None:
    keep(contents, DATA, tag_of("x"))
    other = os.urandom(LARGE)
    keep(contents, other, tag_of("x"))
    assert read(contents, tag_of("x")) == other
    contents.remove(sha256_of(other))
    assert contents.find(tag_of("x"), LARGE) is None
    assert contents.find(sha256_of(DATA), LARGE) == sha256_of(DATA)
    contents.tag(sha256_of(DATA), sha256_of(DATA))
    assert os.listdir(contents.at("tags")) == [tag_of("x")]


def test_a_tag_that_is_cleared_up_while_it_is_read(contents: Contents, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(contents, DATA, tag_of("x"))
    real = os.readlink

    def readlink(path: str) -> str:
        link = real(path)
        os.unlink(path)
        return link

    monkeypatch.setattr(os, "readlink", readlink)
    assert contents.find(tag_of("x"), LARGE) is None


def test_what_is_removed_may_not_be_there(contents: Contents) -> None:
    contents.remove(sha256_of(DATA))
    key = keep(contents, DATA)
    contents.remove(key)
    assert contents.find(key, LARGE) is None


def test_use_is_noted_of_the_content_and_of_its_tag(contents: Contents) -> None:
    keep(contents, DATA, tag_of("x"))
    long_ago = time.time() - 7200
    paths = contents.path_of(sha256_of(DATA)), contents.at("tags", tag_of("x"))
    for path in paths:
        os.utime(path, (long_ago, long_ago), follow_symlinks=False)
    contents.find(tag_of("x"), LARGE)
    assert all(os.lstat(path).st_mtime > long_ago + 3600 for path in paths)


@pytest.mark.parametrize("key", ["0" * 64, "tag-" + "f" * 64])
def test_keys(key: str) -> None:
    assert checked_key(key) == key


@pytest.mark.parametrize(
    "key",
    [
        *("", "0" * 63, "0" * 65, "0" * 64 + "\n", "0" * 63 + "\0", "A" * 64, "\u0660" * 64),
        *("../" + "0" * 61, "/" + "0" * 63, "tag-", "tag-../x", "tag-tag-" + "0" * 64),
        *(None, 7, ["0" * 64], b"0" * 64),
    ],
)
def test_whatever_else_would_become_a_path_is_no_key(key: object) -> None:
    with pytest.raises(Refused, match="is no SHA-256 and no tag") as caught:
        checked_key(key)
    assert caught.value.code == protocol.BAD_REQUEST


# -- manifests


def test_the_rows_of_an_input_are_kept_under_its_digest_whatever_that_is(contents: Contents) -> None:
    for digest in (digest_of(ROWS), "etag:../../x", ""):
        assert contents.manifest(digest) is None
        contents.keep_manifest(digest, ROWS)
        assert contents.manifest(digest) == ROWS
    contents.keep_manifest("", [])
    assert contents.manifest("") == []
    assert len(os.listdir(contents.at("manifests"))) == 3


def test_a_digest_is_of_the_rows_in_any_order(contents: Contents) -> None:
    assert digest_of(ROWS) == digest_of(ROWS[::-1]) != digest_of(ROWS[1:])


def test_a_manifest_that_is_damaged_or_cut_anywhere_is_none(contents: Contents) -> None:
    contents.keep_manifest("x", ROWS)
    (name,) = os.listdir(contents.at("manifests"))
    path = Path(contents.at("manifests", name))
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at])
        assert contents.manifest("x") is None
        for bit in (0x01, 0x10, 0x80):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :])
            assert contents.manifest("x") in (None, ROWS)


@pytest.mark.parametrize("found", [[], {}, None, 7, "x", {"rows": 5, "check": ""}, {"rows": [1, "x"], "check": ""}])
def test_what_is_no_manifest_is_none(contents: Contents, found: object) -> None:
    contents.keep_manifest("x", ROWS)
    (name,) = os.listdir(contents.at("manifests"))
    Path(contents.at("manifests", name)).write_text(json.dumps(found))
    assert contents.manifest("x") is None
