"""Third-party files are those of their packages, at the versions of the lock, and nobody has changed one."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from tests.conftest import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "scripts"))

from copy_third_party import FILES, FOLDER, HERE, integrity, locked

RECORD: list[dict[str, Any]] = json.loads((HERE / "files.json").read_text())
AGAIN = "run scripts/copy_third_party.py"


@pytest.mark.parametrize("entry", RECORD, ids=lambda entry: entry["path"].partition("third_party/")[2])
def test_each_file_is_as_it_was_copied(entry: dict[str, Any]) -> None:
    assert integrity((REPOSITORY / entry["path"]).read_bytes()) == entry["integrity"], AGAIN


def test_no_other_files_are_there() -> None:
    there = {path for path in (REPOSITORY / FOLDER).rglob("*") if path.is_file()}
    assert there == {REPOSITORY / entry["path"] for entry in RECORD}, AGAIN


def test_they_are_of_the_packages_of_the_lock() -> None:
    packages = locked()
    of_lock = {name: (entry["version"], entry["integrity"]) for name, entry in packages.items()}
    assert {entry["package"]: (entry["version"], entry["package_integrity"]) for entry in RECORD} == of_lock, AGAIN
    assert [(entry["package"], entry["source"], entry["ending"]) for entry in RECORD] == [
        (one.package, one.source, one.ending) for one in FILES
    ], AGAIN
    assert all(f"/{entry['package']}-{entry['version']}/" in entry["path"] for entry in RECORD), AGAIN


def test_the_lock_names_exact_versions_and_no_address() -> None:
    wanted = json.loads((HERE / "package.json").read_text())
    assert wanted["dependencies"] == {name: entry["version"] for name, entry in locked().items()}
    assert "resolved" not in (HERE / "package-lock.json").read_text()


def test_each_package_has_its_licence_beside_it_and_in_the_docs() -> None:
    told = (REPOSITORY / "docs" / "third-party.md").read_text()
    for name, entry in locked().items():
        assert [one.name for one in FILES if one.package == name].count("LICENSE") == 1
        assert f"| {name} | {entry['version']} | {entry['license']} |" in told
