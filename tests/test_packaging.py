"""What a wheel of this project holds, and what it says about itself."""

from __future__ import annotations

import email
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from importlib.metadata import distribution, version
from pathlib import Path

import pytest

import airflow_provider_gpu_cluster
from tests.conftest import REPOSITORY

PACKAGE = REPOSITORY / "provider" / "airflow_provider_gpu_cluster"


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-t", "sdist", "-d", str(folder)]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Iterator[zipfile.ZipFile]:
    (path,) = dist.glob("*.whl")
    with zipfile.ZipFile(path) as wheel:
        yield wheel


def metadata(wheel: zipfile.ZipFile) -> email.message.Message:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return email.message_from_bytes(wheel.read(name))


def test_the_wheel_holds_every_file_of_the_package(wheel: zipfile.ZipFile) -> None:
    files = {
        path.relative_to(PACKAGE.parent).as_posix()
        for path in PACKAGE.rglob("*")
        if path.is_file() and not any(part.startswith((".", "__pycache__")) for part in path.relative_to(PACKAGE).parts)
    }
    assert files == {name for name in wheel.namelist() if ".dist-info/" not in name}


def test_the_sdist_holds_the_pages_with_their_third_party_files(dist: Path) -> None:
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    pages = PACKAGE / "plugins" / "ui"
    files = {path.relative_to(REPOSITORY).as_posix() for path in pages.rglob("*") if path.is_file()}
    assert any("third_party/uplot" in name for name in files)
    assert files <= names
    assert {"scripts/copy_third_party.py", "scripts/third_party/package-lock.json"} <= names


def test_the_wheel_holds_the_remote_program_and_the_template(wheel: zipfile.ZipFile) -> None:
    assert {
        "airflow_provider_gpu_cluster/gpu_run/__main__.py",
        "airflow_provider_gpu_cluster/gpu_run/engines/host/engine.py",
        "airflow_provider_gpu_cluster/templates/run.sh.j2",
    } <= set(wheel.namelist())


def test_one_version_everywhere(wheel: zipfile.ZipFile) -> None:
    ours = airflow_provider_gpu_cluster.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", ours)
    assert metadata(wheel)["Version"] == ours == version("airflow-provider-gpu-cluster")


def test_every_link_leads_out_of_the_page_of_the_package(wheel: zipfile.ZipFile) -> None:
    about = metadata(wheel)
    homepage = urls(about)["Homepage"]
    readme = (REPOSITORY / "README.md").read_text()
    local = re.findall(r"\]\((?!https?:|#)([^)#]+)", readme)
    assert local
    assert all((REPOSITORY / path).exists() for path in local)
    text = str(about.get_payload())
    assert about["Description-Content-Type"].startswith("text/markdown")
    targets = re.findall(r"\]\(([^)]+)\)", text)
    assert len(targets) == len(re.findall(r"\]\(([^)]+)\)", readme))
    assert all(target.startswith("https://") for target in targets)
    leading_home = [target for target in targets if target.startswith(homepage)]
    assert len(leading_home) == len(local)
    assert f"{homepage}/raw/main/docs/images/graph.png" in leading_home


def urls(about: email.message.Message) -> dict[str, str]:
    return dict(line.split(", ", 1) for line in about.get_all("Project-URL", []))


def test_what_an_index_shows_beside_the_readme(wheel: zipfile.ZipFile) -> None:
    about = urls(metadata(wheel))
    assert set(about) == {"Homepage", "Documentation", "Changelog", "Issues"}
    assert all(url.startswith(about["Homepage"]) for url in about.values())


def test_types_are_declared_as_there(wheel: zipfile.ZipFile) -> None:
    assert "airflow_provider_gpu_cluster/py.typed" in wheel.namelist()


def test_license_and_python_are_declared(wheel: zipfile.ZipFile) -> None:
    about = metadata(wheel)
    assert about["License-Expression"] == "Apache-2.0"
    assert about["Requires-Python"] == ">=3.10"
    assert any(name.endswith("/licenses/LICENSE") for name in wheel.namelist())


@pytest.mark.parametrize(
    ("group", "name"), [("apache_airflow_provider", "provider_info"), ("airflow.plugins", "gpu_cluster")]
)
def test_entry_points_can_be_loaded(group: str, name: str) -> None:
    (entry,) = distribution("airflow-provider-gpu-cluster").entry_points.select(group=group, name=name)
    assert entry.load()
