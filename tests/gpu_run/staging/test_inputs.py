"""Inputs into a job's directory: whole, in their place, and never anywhere else."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster import gpu_run
from airflow_provider_gpu_cluster.exceptions import ChecksumError, SourceError
from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.gpu_run.cache.contents import digest_of
from airflow_provider_gpu_cluster.gpu_run.errors import Refused
from airflow_provider_gpu_cluster.gpu_run.linux import processes
from airflow_provider_gpu_cluster.gpu_run.staging import inputs
from airflow_provider_gpu_cluster.gpu_run.store import records
from airflow_provider_gpu_cluster.gpu_run.store.directories import JobDirectory, Root
from airflow_provider_gpu_cluster.sources import ClusterSource, Entry, Source, UploadSource, parse_sources
from airflow_provider_gpu_cluster.transfer.piece_sender import Content, Piece, PieceSender
from airflow_provider_gpu_cluster.transfer.progress import TransferProgress
from tests.gpu_run.staging import receiver
from tests.harness.real_disk import real_disk, set_quota
from tests.harness.small_disk import small_disk


@pytest.fixture
def job(tmp_path: Path) -> JobDirectory:
    job = Root(str(tmp_path / "root")).job("job")
    job.create()
    return job


@pytest.fixture
def worker(tmp_path: Path) -> Path:
    """Return a folder of the worker."""
    folder = tmp_path / "worker"
    folder.mkdir()
    return folder


def sources(worker: Path, **written: Any) -> tuple[Source, ...]:
    return parse_sources(**{"code": None, "data": None, "models": None, **written}, base_dir=worker)


def stage(job: JobDirectory, *wanted: Source, meanwhile: Callable[[], object] = lambda: None) -> int:
    """Do what the worker and the cluster do together; return how many inputs were sent."""
    return len(receiver.stage(job, [source.to_json() for source in wanted], wanted, meanwhile=meanwhile))


def root_of(job: JobDirectory) -> Root:
    return Root(os.path.dirname(job.path))


class Bytes(UploadSource):
    """An upload of rows and contents, whatever they are."""

    def __init__(self, *rows: list[Any], contents: Sequence[bytes] = (), digest: str = "") -> None:
        super().__init__("code", "", "x", single_file=False)
        entries = [
            Entry("?", "file", len(data), content=sha256(data), open=functools.partial(io.BytesIO, data))
            for data in contents
        ]
        self.__dict__.update(rows=list(rows), digest=digest or digest_of(list(rows)), manifest=tuple(entries))

    rows: Any = None
    digest: Any = None
    manifest: Any = None

    def entries(self) -> Iterator[Entry]:
        raise NotImplementedError

    def _identified(self, entries: Iterable[Entry]) -> Iterable[Entry]:
        raise NotImplementedError


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


EVIL = b"evil"


def file(path: str, content: bytes = EVIL, size: int | None = None) -> list[Any]:
    return [path, "file", 0o644, sha256(content), len(content) if size is None else size]


def link(path: str, target: str) -> list[Any]:
    return [path, "link", 0o755, target]


def folder(path: str) -> list[Any]:
    return [path, "dir", 0o755, ""]


def tree(folder: str | Path) -> dict[str, Any]:
    """Return everything below a folder: bytes of files, None for folders, text for links."""
    found: dict[str, Any] = {}
    for where, folders, files in os.walk(folder):
        for name in folders + files:
            path = os.path.join(where, name)
            key = os.path.relpath(path, folder)
            if os.path.islink(path):
                found[key] = os.readlink(path)
            else:
                found[key] = None if os.path.isdir(path) else Path(path).read_bytes()
    return found


def drafts(job: JobDirectory) -> list[str]:
    """Return what is left of inputs that did not get into place."""
    known = {"asked", "attempts", "checksums", "inputs.json", "lock", "owner.json"}
    # What is noted beside them, for the books.
    known |= {"transfers.jsonl", "staging.json", "events.jsonl"}
    return sorted(set(os.listdir(job.at(".job"))) - known)


# -- from the worker ---------------------------------------------------------------------------------------------


def test_a_folder_arrives_as_it_is(job: JobDirectory, worker: Path) -> None:
    code = worker / "train"
    (code / "pkg" / "deep").mkdir(parents=True)
    (code / "empty").mkdir()
    (code / "train.py").write_text("print()")
    (code / "run.sh").write_text("#!/bin/sh\n")
    (code / "run.sh").chmod(0o755)
    (code / "pkg" / "none").write_bytes(b"")
    (code / "pkg" / "deep" / "up").symlink_to("../../train.py")
    (code / "folder").symlink_to("pkg")

    assert stage(job, *sources(worker, code="train")) == 1

    assert tree(job.at("code")) == tree(code)
    assert os.access(job.at("code", "run.sh"), os.X_OK)
    assert not os.stat(job.at("code", "train.py")).st_mode & 0o111
    assert drafts(job) == []
    noted = json.loads(Path(job.at(".job", "inputs.json")).read_text())["code"]
    assert (noted["files"], noted["bytes"]) == (3, 17)
    checksums = json.loads(Path(job.at(noted["checksums"])).read_text())["sha256"]
    assert checksums["train.py"] == hashlib.sha256(b"print()").hexdigest()


def test_files_and_folders_of_data_keep_their_names(job: JobDirectory, worker: Path) -> None:
    (worker / "digits.csv").write_text("1,2")
    (worker / "images").mkdir()
    (worker / "images" / "1.png").write_bytes(b"\x89")
    (worker / "train.py").write_text("1")
    assert stage(job, *sources(worker, code="train.py", data=["digits.csv", "images"], models="images")) == 4
    assert tree(job.at("code")) == {"train.py": b"1"}
    assert tree(job.at("data")) == {"digits.csv": b"1,2", "images": None, "images/1.png": b"\x89"}
    assert tree(job.at("models")) == {"images": None, "images/1.png": b"\x89"}


def test_any_name_that_a_file_can_have(job: JobDirectory, worker: Path) -> None:
    names = [b"a b", b"new\nline", b"\xff\xfe", "ünï…".encode(), b"-rf", b"'\"$(id)`", b"\\n", b"n" * 255]
    folder = os.fsencode(worker / "data")
    os.mkdir(folder)
    deep = folder + b"/" + b"/".join([b"d" * 100] * 20)
    os.makedirs(deep)
    for where in (folder, deep):
        for name in names:
            Path(os.fsdecode(os.path.join(where, name))).write_bytes(name)
    stage(job, *sources(worker, data="data"))
    assert tree(job.at("data", "data")) == tree(os.fsdecode(folder))


def test_staging_again_sends_nothing_and_other_content_replaces(job: JobDirectory, worker: Path) -> None:
    code = worker / "train"
    code.mkdir()
    (code / "a.py").write_text("1")
    (code / "b.py").write_text("2")
    assert stage(job, *sources(worker, code="train")) == 1
    assert stage(job, *sources(worker, code="train")) == 0

    before = os.stat(job.at("code")).st_ino
    (code / "a.py").write_text("3")
    (code / "b.py").unlink()
    assert stage(job, *sources(worker, code="train")) == 1
    assert tree(job.at("code")) == {"a.py": b"3"}
    assert os.stat(job.at("code")).st_ino != before
    assert drafts(job) == []


def test_what_is_no_longer_asked_for_goes(job: JobDirectory, worker: Path) -> None:
    """A job must not find the data of an earlier generation beside its own."""
    (worker / "train").mkdir()
    (worker / "train" / "old.py").write_text("old")
    for name in ("new.py", "1.csv", "2.csv"):
        (worker / name).write_text(name)
    stage(job, *sources(worker, code="train", data=["1.csv", "2.csv"]))
    stage(job, *sources(worker, code="new.py", data=["2.csv"]))
    assert tree(job.at("code")) == {"new.py": b"new.py"}
    assert tree(job.at("data")) == {"2.csv": b"2.csv"}
    stage(job)
    assert tree(job.at("code")) == tree(job.at("data")) == {}
    stage(job, *sources(worker, code="train"))
    assert tree(job.at("code")) == {"old.py": b"old"}


def test_what_a_job_that_runs_works_with_is_left_alone(job: JobDirectory, worker: Path) -> None:
    """A slow upload that comes to its end when another request has launched the job changes nothing."""
    (worker / "a.csv").write_text("first")
    stage(job, *sources(worker, data="a.csv"))
    (worker / "a.csv").write_text("second")
    (late,) = sources(worker, data="a.csv")
    request: Any = {
        "settings": {},
        "spec": {"gpus": 1, "priority": "normal"},
        "submitted": 0.0,
        "requested_at": records.now(),
        "host": processes.hostname(),
    }
    assert stage(job, late, meanwhile=lambda: job.add_attempt(1, request, {})) == 1
    (attempt,) = job.attempts()
    inputs.stage(root_of(job), job, [])
    assert tree(job.at("data")) == {"a.csv": b"first"}

    attempt.finish("FAILED", "user_error", "")
    # It has come already, and is only put in place now.
    assert stage(job, late) == 0
    assert tree(job.at("data")) == {"a.csv": b"second"}


def test_a_crash_while_content_is_replaced_does_not_leave_a_wrong_note(
    job: JobDirectory, worker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Content is new, the note is old: then going back to the old content must not find it in place."""
    (worker / "a.csv").write_text("old")
    (old,) = sources(worker, data="a.csv")
    stage(job, old)
    (worker / "a.csv").write_text("new")
    (new,) = sources(worker, data="a.csv")
    other = root_of(job).job("other")
    other.create()
    stage(other, new)  # so that it is here, and this process puts it in place
    writes = []
    real = records.write_json

    def write_json(path: str, value: dict[str, Any]) -> None:
        if "data/a.csv" in value:
            writes.append(path)
            raise KeyboardInterrupt  # as if killed
        real(path, value)

    with monkeypatch.context() as patch:
        patch.setattr(records, "write_json", write_json)
        with pytest.raises(KeyboardInterrupt):
            inputs.stage(root_of(job), job, [new.to_json()])
    assert writes
    (worker / "a.csv").write_text("old")
    stage(job, *sources(worker, data="a.csv"))
    assert tree(job.at("data")) == {"a.csv": b"old"}


def test_many_at_once(job: JobDirectory, worker: Path) -> None:
    (worker / "code").mkdir()
    for number in range(50):
        (worker / "code" / f"{number}.py").write_text(str(number) * 1000)
    wanted = sources(worker, code="code")
    failures: list[BaseException] = []

    def run() -> None:
        try:
            stage(job, *wanted)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert tree(job.at("code")) == tree(worker / "code")
    assert drafts(job) == []


def test_drafts_of_the_dead_are_removed_and_those_of_the_living_are_not(job: JobDirectory, worker: Path) -> None:
    for name in ("dead", "alive"):
        os.makedirs(job.at(".job", f"incoming-{name}", "content"))
        Path(job.at(".job", f"incoming-{name}", "lock")).touch()
    (worker / "a").write_text("a")
    with open(job.at(".job", "incoming-alive", "lock")) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stage(job, *sources(worker, data="a"))
    assert drafts(job) == ["incoming-alive"]


def test_rows_that_are_not_those_of_the_digest(job: JobDirectory) -> None:
    with pytest.raises(Refused, match="the rows are not those of its digest") as caught:
        stage(job, Bytes(file("a"), contents=[EVIL], digest="0" * 64))
    assert caught.value.code == protocol.BAD_REQUEST
    assert tree(job.at("code")) == {}
    assert drafts(job) == []


def test_a_job_whose_directory_was_removed_meanwhile(job: JobDirectory, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="was removed while inputs were sent") as caught:
        stage(job, Bytes(file("a"), contents=[EVIL]), meanwhile=lambda: shutil.rmtree(job.path))
    assert caught.value.code == protocol.NOT_STAGED
    assert not os.path.exists(job.path)


OUT = link("out", "../../..")
D = folder("d")
TO_TOP = link("d/top", "..")
HOSTILE = {
    "absolute path": [file("/tmp/evil")],
    "climbs out": [file("../evil")],
    "climbs out later": [folder("a"), file("a/../../evil")],
    "the folder itself": [file(".")],
    "through a link that leaves": [OUT, file("out/evil")],
    "through a link that stays": [D, TO_TOP, file("d/top/evil")],
    "over a link": [OUT, file("out")],
    "link that leaves": [OUT],
    "absolute link": [link("out", "/etc/passwd")],
    "link that leaves through another": [D, TO_TOP, link("l", "d/top/../x")],
    "twice a file": [file("a"), file("a")],
    "twice, written differently": [file("a"), file("./a")],
    "a file and a folder": [file("a"), folder("a")],
    "a folder and a link": [folder("a"), link("a", "b")],
    "below a file": [file("a"), file("a/b")],
    "in no folder": [file("a/b")],
    "no name": [file("")],
    "a slash at the end": [folder("a"), file("a/")],
    "unknown kind": [["a", "device", 0o644, ""]],
    "negative size": [file("a", size=-1)],
    "no size": [file("a")[:4]],
    "odd mode": [["a", "file", 0o4755, sha256(EVIL), 4]],
    "a key that is a path": [["a", "file", 0o644, "../../x", 4]],
    "no text as path": [[7, "file", 0o644, sha256(EVIL), 4]],
    "no text as target": [["a", "link", 0o644, 7]],
}


@pytest.mark.parametrize("rows", HOSTILE.values(), ids=HOSTILE)
def test_hostile_rows_leave_nothing(tmp_path: Path, job: JobDirectory, rows: list[Any]) -> None:
    with pytest.raises(Refused) as caught:
        stage(job, Bytes(*rows, contents=[EVIL]))
    assert caught.value.code in (protocol.CHECKSUM_MISMATCH, protocol.BAD_REQUEST)
    assert tree(job.at("code")) == {}
    assert drafts(job) == []
    assert os.listdir(tmp_path) == ["root"]
    assert sorted(os.listdir(tmp_path / "root")) in ([".gpu-run", "job"], [".cache", ".gpu-run", "job"])


@pytest.mark.parametrize(
    ("kind", "name"), [("code", ".."), ("data", "../x"), ("data", "."), (".job", "x"), ("..", "x"), ("", "/etc/x")]
)
def test_an_input_never_becomes_anything_but_code_data_and_models(job: JobDirectory, kind: str, name: str) -> None:
    source = Bytes(file("a"), contents=[EVIL])
    with pytest.raises(Refused, match="cannot become") as caught:
        receiver.stage(job, [{**source.to_json(), "kind": kind, "name": name}], [source])
    assert caught.value.code == protocol.BAD_REQUEST


def test_a_name_that_the_cluster_cannot_store(job: JobDirectory) -> None:
    with pytest.raises(Refused, match="File name too long") as caught:
        stage(job, Bytes(file("n" * 256), contents=[EVIL]))
    assert caught.value.code == protocol.SOURCE_ERROR
    assert drafts(job) == []


def test_what_does_not_fit_is_refused_before_it_is_sent_with_both_numbers(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 4096) as disk:
        job = Root(str(disk)).job("job")
        job.create()
        large = os.urandom(2 << 20)
        with pytest.raises(Refused, match=r"x needs 4\.2 MB in .*, and there is room for [01]\.\d MB;") as caught:
            stage(job, Bytes(file("big", large), contents=[large]))
        assert caught.value.code == protocol.NO_SPACE
        assert tree(job.at("code")) == {}
        assert drafts(job) == []
        # What has room still gets in.
        stage(job, Bytes(file("small"), contents=[EVIL]))
        assert tree(job.at("code")) == {"small": EVIL}


def test_a_quota_is_noticed_before_anything_is_sent_and_named_with_both_numbers(tmp_path: Path) -> None:
    with real_disk(tmp_path / "disk", "btrfs") as disk:
        set_quota(disk, 30 << 20)
        job = Root(str(disk)).job("job")
        job.create()
        large = os.urandom(40 << 20)
        with pytest.raises(
            Refused, match=r"x needs 41\.9 MB in .* room for (2[7-9]|30|31)\.\d MB within your quota;"
        ) as caught:
            stage(job, Bytes(file("big", large), contents=[large]))
        assert caught.value.code == protocol.NO_SPACE
        assert tree(job.at("code")) == {}
        assert os.listdir(disk / ".cache" / "incoming") == []
        # What fits but once does get in, since the job's file shares the blocks of what is kept.
        fits = large[: 20 << 20]
        stage(job, Bytes(file("fits", fits), contents=[fits]))
        assert tree(job.at("code")) == {"fits": fits}


def test_small_files_need_room_twice_even_where_blocks_are_shared(tmp_path: Path) -> None:
    """They are kept many to a pack, which no file shares blocks with."""
    with real_disk(tmp_path / "disk", "btrfs") as disk:
        set_quota(disk, 30 << 20)
        job = Root(str(disk)).job("job")
        job.create()
        small = [os.urandom(1 << 20) for _ in range(20)]
        rows = [file(str(number), data) for number, data in enumerate(small)]
        with pytest.raises(Refused, match=r"x needs 41\.9 MB in .* within your quota"):
            stage(job, Bytes(*rows, contents=small))
        assert os.listdir(disk / ".cache" / "packs") == []


class Bad(io.BytesIO):
    """A file that cannot be read. An OSError must not pass for one of the connection."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    def read(self, size: int | None = -1) -> bytes:
        raise self._error


def sending(opened: Callable[[], io.BytesIO]) -> PieceSender:
    source = Bytes()
    entry = Entry("x", "file", 5, content="key", open=opened)
    return PieceSender({"key": Content(source, entry)}, io.BytesIO(), TransferProgress("x", 5))


def test_a_file_that_is_shorter_than_it_was() -> None:
    with pytest.raises(ChecksumError, match="'x' changed while it was being sent"):
        sending(lambda: io.BytesIO(b"123")).send_all(deque([Piece("key", 0, 5)]))


@pytest.mark.parametrize("error", [OSError(116, "Stale file handle"), RuntimeError("503 Slow Down")])
def test_a_file_that_cannot_be_read_while_it_is_sent(error: Exception) -> None:
    with pytest.raises(SourceError, match="code x: 'x' cannot be read"):
        sending(lambda: Bad(error)).send_all(deque([Piece("key", 0, 5)]))


def test_a_file_that_has_vanished(worker: Path) -> None:
    (worker / "d").mkdir()
    (worker / "d" / "x").write_text("x")
    (source,) = sources(worker, data="d")
    assert isinstance(source, UploadSource)
    entries = source.entries()
    entry = next(entries)
    (worker / "d" / "x").unlink()
    with pytest.raises(SourceError, match="cannot read"):
        entry.open()


# -- on the cluster already --------------------------------------------------------------------------------------


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """Return a folder of the cluster."""
    folder = tmp_path / "shared"
    (folder / "pkg").mkdir(parents=True)
    (folder / "train.py").write_text("1")
    (folder / "pkg" / "m.py").write_text("2")
    return folder


def test_code_is_copied_and_data_is_linked(job: JobDirectory, shared: Path) -> None:
    code = ClusterSource("code", "", f"cluster:{shared}", path=str(shared))
    data = ClusterSource("data", "shared", f"cluster:{shared}", path=str(shared))
    model = ClusterSource("models", "train.py", f"cluster:{shared}/train.py", path=f"{shared}/train.py")
    stage(job, code, data, model)
    (shared / "train.py").write_text("changed")
    assert tree(job.at("code")) == {"train.py": b"1", "pkg": None, "pkg/m.py": b"2"}
    assert os.readlink(job.at("data", "shared")) == str(shared)
    assert Path(job.at("models", "train.py")).read_text() == "changed"
    # What is linked is not ours to delete.
    stage(job)
    assert tree(shared) == {"train.py": b"changed", "pkg": None, "pkg/m.py": b"2"}


def test_one_file_of_code_is_copied_by_its_name(job: JobDirectory, shared: Path) -> None:
    stage(job, ClusterSource("code", "", "x", path=f"{shared}/train.py"))
    assert tree(job.at("code")) == {"train.py": b"1"}


def test_the_home_folder_is_meant_by_a_tilde(job: JobDirectory, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(shared))
    stage(job, ClusterSource("data", "pkg", "cluster:~/pkg", path="~/pkg"))
    assert os.readlink(job.at("data", "pkg")) == str(shared / "pkg")


def test_a_copy_can_be_written_to_and_its_links_lead_where_they_led(job: JobDirectory, shared: Path) -> None:
    (shared.parent / "lib.py").write_text("lib")
    (shared / "pkg" / "lib.py").symlink_to("../../lib.py")
    (shared / "pkg" / "t.py").symlink_to("../train.py")
    (shared / "pkg").chmod(0o555)
    shared.chmod(0o555)
    try:
        stage(job, ClusterSource("code", "", "x", path=str(shared)))
    finally:
        shared.chmod(0o755)
        (shared / "pkg").chmod(0o755)
    assert Path(job.at("code", "pkg", "lib.py")).read_text() == "lib"
    assert os.readlink(job.at("code", "pkg", "t.py")) == "../train.py"
    for folder in ("", "pkg"):
        assert os.stat(job.at("code", folder)).st_mode & 0o700 == 0o700


def test_sources_that_are_not_there(job: JobDirectory, shared: Path) -> None:
    os.mkfifo(shared / "pipe")
    for path, words in (
        (f"{shared}/missing", "No such file or directory"),
        (f"{shared}/train.py/x", "Not a directory"),
        (str(shared), "pipe could not be copied: .*is a pipe, and not a file"),
        (os.path.dirname(os.path.dirname(job.path)), "a copy of it has no end"),
        ("/", "a copy of it has no end"),
    ):
        with pytest.raises(Refused, match=words) as caught:
            inputs.stage(root_of(job), job, [ClusterSource("code", "", f"cluster:{path}", path=path).to_json()])
        assert caught.value.code == protocol.SOURCE_ERROR
        assert f"code cluster:{path}: " in caught.value.message
        assert tree(job.at("code")) == {}
        assert drafts(job) == []


def test_a_copy_that_does_not_fit(tmp_path: Path, shared: Path) -> None:
    (shared / "pkg" / "big").write_bytes(bytes(1 << 20))
    with small_disk(tmp_path / "disk", 256) as disk:
        job = Root(str(disk)).job("job")
        job.create()
        with pytest.raises(Refused, match="no space left on the disk") as caught:
            inputs.stage(root_of(job), job, [ClusterSource("code", "", "x", path=str(shared)).to_json()])
        assert caught.value.code == protocol.NO_SPACE
        assert tree(job.at("code")) == {}
        assert drafts(job) == []


# All that is imported late, too: the interpreter may lie where nobody but root can read.
AS_NOBODY = f"""
import os, shutil, sys
sys.path.insert(0, {str(Path(gpu_run.__file__).parents[2])!r})
from airflow_provider_gpu_cluster.gpu_run.staging import inputs
from airflow_provider_gpu_cluster.gpu_run.cache.contents import digest_of
from airflow_provider_gpu_cluster.gpu_run.errors import Refused
from airflow_provider_gpu_cluster.gpu_run.store.directories import Root
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
os.umask(0o077)
root = Root(sys.argv[1] + "/root")
job = root.job("job")
job.create()
for name in ("secret", "inner", "readonly"):
    source = dict(type="cluster", kind="code", name="", written=name, path=sys.argv[1] + "/" + name)
    try:
        inputs.stage(root, job, [source])
        print(name, "staged", sorted(os.listdir(job.at("code"))))
    except Refused as refusal:
        print(name, refusal.code, refusal.message)
inputs.stage(root, job, [])
print(sorted(os.listdir(job.at("code"))))
print(sorted(name for name in os.listdir(job.at(".job")) if name.startswith(("incoming", "replaced", "."))))
"""


def test_as_an_ordinary_user() -> None:
    """What root never notices: folders that may not be read, and read-only ones that cannot be moved."""
    # Not below pytest's own folder, which other users cannot enter.
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        for name, mode in (("secret", 0o000), ("inner/secret", 0o000), ("readonly/sub", 0o555), ("readonly", 0o555)):
            (top / name).mkdir(parents=True, exist_ok=True)
            (top / name).chmod(mode)
        top.chmod(0o777)
        done = subprocess.run([sys.executable, "-c", AS_NOBODY, folder], capture_output=True, text=True)
        for name in ("secret", "inner/secret", "readonly", "readonly/sub"):
            (top / name).chmod(0o755)
    assert done.stdout.splitlines() == [
        f"secret source_error code secret: {folder}/secret cannot be read by this user on the cluster",
        f"inner source_error code inner: {folder}/inner/secret could not be copied: "
        f"[Errno 13] Permission denied: '{folder}/inner/secret'",
        "readonly staged ['sub']",
        "[]",
        "[]",
    ], done.stderr
