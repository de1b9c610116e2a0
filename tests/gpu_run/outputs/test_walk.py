"""A walk through outputs goes on after any place, and meets everything once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from airflow_provider_gpu_cluster.gpu_run.outputs import walk as walk_module
from airflow_provider_gpu_cluster.gpu_run.outputs.walk import walk

NAMES = ["a", "a-b", "a.d/x", "ad/b/c", "ad/b.c", "new\nline", os.fsdecode(b"\xff"), "z/" + "deep/" * 200 + "end"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in NAMES:
        (tmp_path / "outputs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "outputs" / name).touch()
    return tmp_path / "outputs"


def test_everything_once_from_every_place(folder: Path) -> None:
    (folder / "empty").mkdir()
    whole = list(walk(str(folder)))
    assert [found.path for found in whole] == sorted((found.path for found in whole), key=lambda path: path.split("/"))
    assert {found.path for found in whole if found.kind == "entry"} == set(NAMES)
    for place, found in enumerate(whole):
        assert list(walk(str(folder), found.path)) == whole[place + 1 :]


@pytest.mark.parametrize("after", ["ad/b.b", "ad/bb", "ad/zzz", "b", "../..", "/", "a/below a file", "\0"])
def test_on_after_a_place_that_has_gone(folder: Path, after: str) -> None:
    whole = list(walk(str(folder)))
    assert list(walk(str(folder), after)) == [one for one in whole if one.path.split("/") > after.split("/")]


def test_links_to_folders_are_not_followed(folder: Path) -> None:
    (folder / "again").symlink_to("ad")
    (folder / "out").symlink_to("/etc")
    (folder / "loop").symlink_to(".")
    found = {one.path: one.kind for one in walk(str(folder))}
    assert found["out"] == "entry"
    assert not {"again", "loop"} & set(found)


def test_a_folder_with_too_many_names_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk_module, "MOST_IN_FOLDER", 2)
    (folder / "many").mkdir()
    for name in range(5):
        (folder / "many" / str(name)).touch()
    kinds = [one.kind for one in walk(str(folder / "many"))]
    assert kinds == ["cut", "entry", "entry"]
    assert list(walk(str(folder / "gone"))) == []
