from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.exceptions import ChecksumError, InvalidJobError, SourceError
from airflow_provider_gpu_cluster.files.checksums import sha256_of
from airflow_provider_gpu_cluster.sources import (
    ClusterSource,
    Entry,
    GitSource,
    Source,
    UploadSource,
    parse_sources,
)
from airflow_provider_gpu_cluster.sources.ignore import Ignore


def parse(base_dir: Path, *, code: Any = None, data: Any = None, models: Any = None) -> tuple[Source, ...]:
    return parse_sources(code=code, data=data, models=models, base_dir=base_dir)


def upload(base_dir: Path, **written: Any) -> UploadSource:
    [source] = parse(base_dir, **written)
    assert isinstance(source, UploadSource)
    return source


def tree(source: UploadSource) -> dict[str, str]:
    """Return paths and, in one word, what they are: ``dir``, ``-> target``, or a file's content."""
    return {entry.path: describe(entry) for entry in source.entries()}


def describe(entry: Entry) -> str:
    if entry.kind == "link":
        return f"-> {entry.target}"
    if entry.kind == "dir":
        return "dir"
    with entry.open() as stream:
        content = stream.read()
    assert len(content) == entry.size
    return content.decode(errors="replace")


def write(folder: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


# -- names and places --------------------------------------------------------------------------------------------


def test_no_sources(tmp_path: Path) -> None:
    assert parse(tmp_path) == ()
    assert parse(tmp_path, data=[], models=()) == ()


def test_where_files_and_folders_go(tmp_path: Path) -> None:
    write(tmp_path, {"digits/train.py": "t", "digits.csv": "d", "sets/a/x.csv": "x", "net.pth": "n"})
    sources = parse(tmp_path, code="digits", data=["digits.csv", "sets/a/"], models=Path("net.pth"))
    assert [(source.kind, source.name) for source in sources] == [
        ("code", ""),
        ("data", "digits.csv"),
        ("data", "a"),
        ("models", "net.pth"),
    ]
    assert [tree(source) for source in sources if isinstance(source, UploadSource)] == [
        {"train.py": "t"},
        {"digits.csv": "d"},
        {"x.csv": "x"},
        {"net.pth": "n"},
    ]
    assert [source.to_json().get("single_file") for source in sources] == [False, True, False, True]


def test_a_single_file_of_code(tmp_path: Path) -> None:
    write(tmp_path, {"train.py": "t"})
    source = upload(tmp_path, code="./train.py")
    assert source.name == "train.py"
    assert source.to_json() == {
        "kind": "code",
        "name": "train.py",
        "written": "./train.py",
        "type": "upload",
        "digest": source.digest,
        "single_file": True,
    }


def test_absolute_and_home_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"home/x.csv": "h"})
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    elsewhere = tmp_path / "elsewhere"
    assert tree(upload(elsewhere, data="~/x.csv")) == {"x.csv": "h"}
    assert tree(upload(elsewhere, data=str(tmp_path / "home" / "x.csv"))) == {"x.csv": "h"}
    assert tree(upload(elsewhere, data=f"file://{tmp_path}/home/x.csv")) == {"x.csv": "h"}
    (tmp_path / "~x").write_text("t")
    assert tree(upload(tmp_path, data="./~x")) == {"~x": "t"}


def test_a_name_is_the_written_one_even_if_it_is_a_link(tmp_path: Path) -> None:
    write(tmp_path, {"v3/x.csv": "x"})
    (tmp_path / "latest").symlink_to("v3")
    source = upload(tmp_path, data="latest")
    assert (source.name, tree(source)) == ("latest", {"x.csv": "x"})


def test_the_dag_folder_itself(tmp_path: Path) -> None:
    write(tmp_path, {"dags/a.py": "a"})
    assert upload(tmp_path / "dags", code=".").name == ""
    assert upload(tmp_path / "dags", data=".").name == "dags"


def test_a_missing_path_says_where_it_was_looked_for(tmp_path: Path) -> None:
    for written in ("nowhere/x", "~no-such-user/x"):
        with pytest.raises(SourceError) as caught:
            parse(tmp_path, code=written)
        for part in (
            f"code: there is no file or folder '{tmp_path}/{written}'",
            f"looked up in '{tmp_path}'",
            "s3://",
        ):
            assert part in str(caught.value)


def test_two_sources_of_one_name(tmp_path: Path) -> None:
    write(tmp_path, {"a/x.csv": "1", "b/x.csv": "2"})
    with pytest.raises(InvalidJobError, match=r"'a/x.csv' and 'cluster:/b/x.csv' would both become data/x.csv"):
        parse(tmp_path, data=["a/x.csv", "cluster:/b/x.csv"])
    assert len(parse(tmp_path, data="a/x.csv", models="b/x.csv")) == 2


@pytest.mark.parametrize("written", ["", "  ", "a\0b", 7, b"x", {"a": 1}, ["x", None]])
def test_what_is_no_source(tmp_path: Path, written: Any) -> None:
    with pytest.raises(InvalidJobError, match=r"^data: .* is no source; valid is a path relative to the DAG"):
        parse(tmp_path, data=written)


def test_code_is_one_source(tmp_path: Path) -> None:
    with pytest.raises(InvalidJobError, match="code takes one source, not a list of 2"):
        parse(tmp_path, code=["a", "b"])


def test_a_root_folder_has_no_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidJobError, match="no name of its own"):
        parse(tmp_path, data="/")


# -- what is in a folder -----------------------------------------------------------------------------------------


def test_entries(tmp_path: Path) -> None:
    write(tmp_path, {"b/c.txt": "c", "a.sh": "#!", "b/d/e.txt": ""})
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.sh").chmod(0o700)
    entries = list(upload(tmp_path, code=".").entries())
    assert [(entry.path, entry.kind, entry.size, oct(entry.mode)) for entry in entries] == [
        ("a.sh", "file", 2, "0o755"),
        ("b", "dir", 0, "0o755"),
        ("empty", "dir", 0, "0o755"),
        ("b/c.txt", "file", 1, "0o644"),
        ("b/d", "dir", 0, "0o755"),
        ("b/d/e.txt", "file", 0, "0o644"),
    ]
    with entries[1].open() as nothing:
        assert nothing.read() == b""


def test_digest_is_over_what_arrives(tmp_path: Path) -> None:
    write(tmp_path, {"one/a.sh": "#!", "one/b/c.txt": "c"})
    (tmp_path / "one" / "a.sh").chmod(0o755)
    (tmp_path / "one" / "link").symlink_to("b/c.txt")
    rows = [
        ["a.sh", "file", 0o755, hashlib.sha256(b"#!").hexdigest(), 2],
        ["b", "dir", 0o755, ""],
        ["b/c.txt", "file", 0o644, hashlib.sha256(b"c").hexdigest(), 1],
        ["link", "link", 0o755, "b/c.txt"],
    ]
    expected = hashlib.sha256(json.dumps(rows, separators=(",", ":")).encode()).hexdigest()
    assert upload(tmp_path, code="one").digest == expected


def test_digest_changes_with_what_matters_only(tmp_path: Path) -> None:
    write(tmp_path, {"a/x.sh": "1", "a/y.txt": ""})

    def digest() -> str:
        return upload(tmp_path, code="a").digest

    first = digest()
    os.utime(tmp_path / "a" / "x.sh", (1, 1))
    (tmp_path / "a" / "x.sh").chmod(0o600)
    write(tmp_path, {"a/__pycache__/x.pyc": "cache"})
    assert digest() == first
    seen = {first}
    (tmp_path / "a" / "x.sh").chmod(0o755)
    seen.add(digest())
    (tmp_path / "a" / "x.sh").write_text("2")
    seen.add(digest())
    (tmp_path / "a" / "empty").mkdir()
    seen.add(digest())
    (tmp_path / "a" / "y.txt").rename(tmp_path / "a" / "z.txt")
    seen.add(digest())
    assert len(seen) == 5


def test_names_of_any_bytes(tmp_path: Path) -> None:
    names = [
        b"new\nline",
        b"\xff\xfe",
        "größe 日本".encode(),
        b"$(touch x)",
        b"a'b\"c",
        b"-rf",
        b"back\\slash",
        b"tab\t",
    ]
    os.mkdir(tmp_path / "a")
    for name in names:
        with open(os.path.join(os.fsencode(tmp_path / "a"), name), "wb") as stream:
            stream.write(name)
    source = upload(tmp_path, code="a")
    found = {}
    for entry in source.entries():
        with entry.open() as stream:
            found[os.fsencode(entry.path)] = stream.read()
    assert found == {name: name for name in names}
    assert source.digest == upload(tmp_path, code="a").digest


def test_no_folder_is_too_deep(tmp_path: Path) -> None:
    depth = 1500
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    try:
        assert sum(1 for _ in upload(tmp_path, code=".").entries()) == depth
    finally:
        # Too deep for shutil.rmtree, with which pytest clears its folders.
        subprocess.run(["rm", "-rf", tmp_path / "d"], check=True)


def test_a_large_file_is_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    import tracemalloc

    with open(tmp_path / "large", "wb") as stream:
        stream.truncate(64 << 20)
    tracemalloc.start()
    try:
        assert upload(tmp_path, data="large").digest
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_a_file_that_changes_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_provider_gpu_cluster.sources import folder

    write(tmp_path, {"a.log": "1"})

    def grow(stream: Any) -> tuple[str, int]:
        found = sha256_of(stream)
        with open(tmp_path / "a.log", "a") as log:
            log.write("more")
        return found

    monkeypatch.setattr(folder, "sha256_of", grow)
    with pytest.raises(ChecksumError, match=r"a\.log' changed while it was being read or sent"):
        _ = upload(tmp_path, code=".").digest


def test_a_file_that_has_not_changed_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_provider_gpu_cluster.sources import folder

    write(tmp_path, {"a": "1", "b": "2"})
    read: list[str] = []

    def note(stream: Any) -> Any:
        read.append(stream.name)
        return sha256_of(stream)

    monkeypatch.setattr(folder, "sha256_of", note)
    # A file that was written just now may be written to again without its times becoming others.
    monkeypatch.setattr("airflow_provider_gpu_cluster.files.checksums.SETTLED_NS", 0)
    first = upload(tmp_path, data=".").digest
    assert [Path(name).name for name in read] == ["a", "b"]
    read.clear()
    assert upload(tmp_path, data=".").digest == first
    assert read == []

    # Another content of the same size, and as old as before: only the time of the change tells.
    old = os.stat(tmp_path / "a")
    time.sleep(0.02)
    (tmp_path / "a").write_text("3")
    os.utime(tmp_path / "a", ns=(old.st_atime_ns, old.st_mtime_ns))
    assert upload(tmp_path, data=".").digest != first
    assert [Path(name).name for name in read] == ["a"]


# -- what stays at home ------------------------------------------------------------------------------------------


def test_what_is_left_out_by_default(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "train.py": "t",
            ".git/config": "g",
            "sub/__pycache__/x.pyc": "c",
            "sub/y.pyc": "c",
            "sub/z.py": "z",
        },
    )
    write(tmp_path, {"env/pyvenv.cfg": "", "env/bin/python": "p", ".ipynb_checkpoints/x": "i"})
    write(tmp_path, {"submodule/.git": "gitdir: elsewhere"})
    assert set(tree(upload(tmp_path, code="."))) == {"train.py", "sub", "sub/z.py", "submodule"}


def test_gpujobignore(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "a.txt": "a",
            "a.log": "l",
            "b/a.log": "l",
            "b/keep.log": "k",
            "out/x": "o",
            "b/out/x": "o",
            "y.pyc": "y",
            "sub/z": "z",
        },
    )
    (tmp_path / ".gpujobignore").write_text("# notes\n*.log\n!keep.log\n/out/\n!*.pyc\nsub/*\n", encoding="utf-8-sig")
    assert set(tree(upload(tmp_path, code="."))) == {
        ".gpujobignore",
        "a.txt",
        "b",
        "b/keep.log",
        "b/out",
        "b/out/x",
        "sub",
        "y.pyc",
    }


def test_a_virtual_environment_can_be_asked_for(tmp_path: Path) -> None:
    write(tmp_path, {"env/pyvenv.cfg": "", ".gpujobignore": "!env/\n"})
    assert set(tree(upload(tmp_path, code="."))) == {".gpujobignore", "env", "env/pyvenv.cfg"}


def test_names_of_any_bytes_can_be_left_out(tmp_path: Path) -> None:
    (tmp_path / ".gpujobignore").write_bytes("*.log\nä*\n".encode() + b"\xff?\n")
    for name in (b"new\nline.log", b"\xfe.log", "ärger".encode(), b"\xffx"):
        open(os.path.join(os.fsencode(tmp_path), name), "wb").close()
    assert set(tree(upload(tmp_path, code="."))) == {".gpujobignore"}


def test_a_line_that_is_no_pattern(tmp_path: Path) -> None:
    (tmp_path / ".gpujobignore").write_text("ok\n!\n")
    with pytest.raises(SourceError, match=r"\.gpujobignore', line 2: '!' is no .gitignore pattern"):
        list(upload(tmp_path, code=".").entries())


def test_an_ignore_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / ".gpujobignore").mkdir()
    with pytest.raises(SourceError, match=r"cannot read '.*\.gpujobignore': Is a directory"):
        list(upload(tmp_path, code=".").entries())


# -- links and what is no file -----------------------------------------------------------------------------------


def test_links_that_stay_inside(tmp_path: Path) -> None:
    write(tmp_path, {"a/b/x": "x", "y": "y"})
    (tmp_path / "a" / "to_y").symlink_to("../y")
    (tmp_path / "a" / "absolute").symlink_to(tmp_path / "y")
    (tmp_path / "to_a").symlink_to("a")
    (tmp_path / "chain").symlink_to("to_a/to_y")
    (tmp_path / "a" / "b" / "top").symlink_to("../..")
    found = tree(upload(tmp_path, code="."))
    assert {path: what for path, what in found.items() if what.startswith("->")} == {
        "a/to_y": "-> ../y",
        "a/absolute": "-> ../y",
        "to_a": "-> a",
        "chain": "-> y",
        "a/b/top": "-> ../..",
    }


def test_of_links_that_leave_the_content_is_sent(tmp_path: Path) -> None:
    write(tmp_path, {"set/v1/x": "x", "set/x.pyc": "c", "one": "1", "code/train.py": "t"})
    (tmp_path / "set" / "latest").symlink_to("v1")
    (tmp_path / "set" / "home").symlink_to(tmp_path / "code" / "train.py")
    (tmp_path / "code" / "data").symlink_to("../set")
    (tmp_path / "code" / "one").symlink_to("../one")
    assert tree(upload(tmp_path, code="code")) == {
        "train.py": "t",
        "one": "1",
        "data": "dir",
        "data/v1": "dir",
        "data/v1/x": "x",
        "data/latest": "-> v1",
        "data/home": "-> ../train.py",
    }


def test_a_link_to_what_stays_at_home_is_replaced_by_it(tmp_path: Path) -> None:
    write(tmp_path, {".gpujobignore": "/old/\n*.bin\n", "old/x": "x", "w.bin": "w"})
    (tmp_path / "x").symlink_to("old/x")
    (tmp_path / "folder").symlink_to("old")
    (tmp_path / "weights").symlink_to("w.bin")
    assert tree(upload(tmp_path, code=".")) == {
        ".gpujobignore": "/old/\n*.bin\n",
        "x": "x",
        "folder": "dir",
        "folder/x": "x",
        "weights": "w",
    }


def test_links_that_are_left_out_may_be_broken(tmp_path: Path) -> None:
    write(tmp_path, {".gpujobignore": "broken\n"})
    (tmp_path / "broken").symlink_to("nowhere")
    assert set(tree(upload(tmp_path, code="."))) == {".gpujobignore"}


def test_a_link_to_a_virtual_environment_is_left_out(tmp_path: Path) -> None:
    write(tmp_path, {"env/pyvenv.cfg": "", "code/a": "a"})
    (tmp_path / "code" / ".venv").symlink_to("../env")
    assert tree(upload(tmp_path, code="code")) == {"a": "a"}


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("nowhere", "points to nothing"),
        ("broken", "leads round in a circle"),
        ("..", "a folder that contains the link itself"),
        ("/", "a folder that contains the link itself"),
    ],
)
def test_links_that_cannot_be_sent(tmp_path: Path, target: str, problem: str) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "broken").symlink_to(target)
    with pytest.raises(SourceError, match=problem) as caught:
        list(upload(tmp_path, code="code").entries())
    assert f"'{tmp_path}/code/broken'" in str(caught.value)
    assert ".gpujobignore" in str(caught.value)


def test_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SourceError, match=r"pipe' is a named pipe; only files, folders and links can be sent"):
        _ = upload(tmp_path, code=".").digest
    with pytest.raises(SourceError, match="is a named pipe"):
        _ = upload(tmp_path, data="pipe").digest


def test_a_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s")
        with pytest.raises(SourceError, match="is a socket"):
            list(upload(tmp_path, code=".").entries())


def test_a_device(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="'/dev/null' is a device"):
        list(upload(tmp_path, data="/dev/null").entries())


def test_what_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"a": "a", "sub/b": "b"})

    def refuse(*_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    source = upload(tmp_path, code=".")
    # Tests may run as root, who can read everything.
    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", refuse)
        with pytest.raises(SourceError, match="Permission denied; make it readable"):
            list(source.entries())
        patch.setattr(Ignore, "of_folder", lambda _: Ignore([]))
        with pytest.raises(SourceError, match=f"cannot read '{tmp_path}/a': Permission denied; make it readable"):
            _ = source.digest
    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", refuse)
        with pytest.raises(SourceError, match=f"cannot list the folder '{tmp_path}': Permission denied"):
            list(source.entries())


# -- git ---------------------------------------------------------------------------------------------------------


def git(written: str, kind: str = "code") -> GitSource:
    [source] = parse(Path("/"), **{kind: written})
    assert isinstance(source, GitSource)
    return source


@pytest.mark.parametrize(
    ("written", "url", "ref", "subdirectory"),
    [
        ("git+https://h/o/r.git", "https://h/o/r.git", None, None),
        ("git+https://h/o/r.git@main", "https://h/o/r.git", "main", None),
        ("git+https://h/o/r@feature/x#subdirectory=a/b", "https://h/o/r", "feature/x", "a/b"),
        ("git+https://h:8443/o/r.git@v1.0#subdirectory=./a/", "https://h:8443/o/r.git", "v1.0", "a"),
        ("git+https://h/o/r.git@@scope/pkg@1.2", "https://h/o/r.git", "@scope/pkg@1.2", None),
        ("git+https://h/@scope/r", "https://h/@scope/r", None, None),
        ("git+https://h/o/r@a%23b", "https://h/o/r", "a#b", None),
        ("git+ssh://git@h/o/r.git", "ssh://git@h/o/r.git", None, None),
        ("git+ssh://git@h:2222/o/r.git@dev", "ssh://git@h:2222/o/r.git", "dev", None),
        ("git+file:///srv/r@main", "file:///srv/r", "main", None),
        ("git+file:///srv/a@b/r.git@main", "file:///srv/a@b/r.git", "main", None),
        ("git+git://[::1]:9418/r", "git://[::1]:9418/r", None, None),
    ],
)
def test_git(written: str, url: str, ref: str | None, subdirectory: str | None) -> None:
    source = git(written)
    assert (source.name, source.url, source.ref, source.subdirectory) == ("", url, ref, subdirectory)
    assert source.credentials is None


@pytest.mark.parametrize(
    ("user_info", "credentials"),
    [("me:s3cret", "me:s3cret"), ("s3cret", "x-access-token:s3cret"), ("me:s3cret%2F%40", "me:s3cret/@")],
)
def test_git_credentials_travel_apart(user_info: str, credentials: str) -> None:
    source = git(f"git+https://{user_info}@h/o/r.git@main#subdirectory=x")
    assert source.credentials == credentials
    value = dict(source.to_json())
    assert value.pop("credentials") == credentials
    assert "s3cret" not in json.dumps(value) + repr(source)
    assert value == {
        "kind": "code",
        "name": "",
        "written": "git+https://h/o/r.git@main#subdirectory=x",
        "type": "git",
        "url": "https://h/o/r.git",
        "ref": "main",
        "subdirectory": "x",
    }


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("git+https://h/o/my%20set.git@v1", "my set"),
        ("git+https://h/o/set/", "set"),
        ("git+https://h/o/set#subdirectory=a/b", "b"),
    ],
)
def test_git_data_is_named_after_the_repository_or_folder(written: str, name: str) -> None:
    assert git(written, "data").name == name


@pytest.mark.parametrize(
    "written",
    [
        "git+",
        "git+ftp://h/r",
        "git+https://me:s3cret@[h/o/r",
        "git+git@h:o/r.git",
        "git+me:s3cret@h/o/r.git",
        "git+https:/me:s3cret@h/o/r.git",
        "git+https://h",
        "git+https://h/",
        "git+https:///o/r",
        "git+https://me:s3cret@/o/r",
        "git+https://me:s3cret/x@h/o/r",
        "git+https://me:s3cret@h:port/o/r",
        "git+https://me:s3cret@h/o/r?token=1",
        "git+ssh://me:s3cret@h/o/r",
        "git+ssh://-oProxyCommand=x/o/r",
        "git+ssh://-x@h/o/r",
        "git+https://h/o/r.git@",
        "git+https://h/o/r.git@--upload-pack=x",
        "git+https://h/o/r.git@a..b",
        "git+https://me:s3cret@h/o/r.git@a~1",
        "git+https://h/o/r.git@a b",
        "git+https://h/o/r.git@a%0Ab",
        "git+https://h/o/r#subdirectory=../x",
        "git+https://h/o/r#subdirectory=/x",
        "git+https://h/o/r#subdirectory=-x",
        "git+https://me:s3cret@h/o/r#egg=x",
        "git+https://h/o/r#subdirectory=a&subdirectory=b",
    ],
)
def test_git_urls_that_are_none(written: str) -> None:
    with pytest.raises(InvalidJobError, match=r"; write git\+https://host/repo.git@ref#subdirectory=folder") as caught:
        git(written)
    assert "s3cret" not in str(caught.value)


# -- on the cluster ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "path", "name"),
    [
        ("cluster:/shared/imagenet/", "/shared/imagenet", "imagenet"),
        ("cluster:/shared//a/../b.csv", "/shared/b.csv", "b.csv"),
        ("cluster:~/sets/x", "~/sets/x", "x"),
        ("cluster:~me/x", "~me/x", "x"),
    ],
)
def test_cluster_paths(written: str, path: str, name: str) -> None:
    code, data = parse(Path("/"), code=written, data=written)
    assert isinstance(code, ClusterSource)
    assert (code.name, data.name) == ("", name)
    assert data.to_json() == {
        "kind": "data",
        "name": name,
        "written": written,
        "type": "cluster",
        "path": path,
    }


@pytest.mark.parametrize("written", ["cluster:", "cluster:x", "cluster:./x", "cluster:../x"])
def test_cluster_paths_must_be_absolute(written: str) -> None:
    with pytest.raises(InvalidJobError, match="must name an absolute path on the cluster"):
        parse(Path("/"), code=written)


@pytest.mark.parametrize("written", ["cluster:/", "cluster:~", "cluster:~me", "cluster:/a/.."])
def test_cluster_data_needs_a_name(written: str) -> None:
    with pytest.raises(InvalidJobError, match="has no name of its own"):
        parse(Path("/"), data=written)
