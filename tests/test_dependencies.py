"""The bounds of the direct dependencies are true: part of the suite passes with the lowest versions and the newest."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import requires, version
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

# A loopback cluster that runs jobs, between asyncssh as server and paramiko as client; and what Airflow reads of us.
PART = ("tests/sandbox", "tests/test_get_provider_info.py")

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def bounds() -> dict[str, str]:
    """The direct dependencies with the lowest versions that are allowed."""
    requirements = requires("airflow-provider-gpu-cluster")
    assert requirements
    return dict(requirement.split(">=") for requirement in requirements)


def uv(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run uv, with the index of packages that pip has: as scripts/install does."""
    asked = [sys.executable, "-m", "pip", "config", "get", "global.index-url"]
    index = os.environ.get("PIP_INDEX_URL") or subprocess.run(asked, capture_output=True, text=True).stdout.strip()
    variables = {"UV_DEFAULT_INDEX": index, **os.environ} if index else dict(os.environ)
    command = [sys.executable, "-m", "uv", *arguments]
    done = subprocess.run(command, cwd=REPOSITORY, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def environment_with(resolution: str, folder: Path) -> Path:
    """Make a virtual environment; return its interpreter."""
    uv("venv", "--python", sys.executable, str(folder))
    python = folder / "bin" / "python"
    # Compiled is what the tests import, and no more.
    what = ("--editable", ".", "--group", "pytest")
    uv("pip", "install", "--no-compile-bytecode", "--python", str(python), "--resolution", resolution, *what)
    return python


def versions(python: Path, names: list[str]) -> dict[str, str]:
    program = "import importlib.metadata as m, sys; print(*[m.version(name) for name in sys.argv[1:]])"
    done = subprocess.run([str(python), "-c", program, *names], check=True, capture_output=True, text=True)
    return dict(zip(names, done.stdout.split(), strict=True))


def run_part(python: Path) -> None:
    command = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", *PART]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def release(text: str) -> list[int]:
    """``3.1.0`` and ``3.1`` are the same release."""
    numbers = [int(number) for number in re.findall(r"\d+", text)]
    return [*numbers, 0, 0][:3]


def test_with_the_lowest(tmp_path: Path, bounds: dict[str, str]) -> None:
    python = environment_with("lowest-direct", tmp_path / "lowest")
    installed = versions(python, list(bounds))
    assert {name: release(there) for name, there in installed.items()} == {
        name: release(bound) for name, bound in bounds.items()
    }
    run_part(python)


def test_with_the_newest(tmp_path: Path, bounds: dict[str, str]) -> None:
    """The environment of the suite has them unless it is an old one; then they are tried in one of their own."""
    upgrades = [argument for name in bounds for argument in ("--upgrade-package", name)]
    done = uv("pip", "install", "--dry-run", "--python", sys.executable, "--editable", ".", *upgrades)
    would_change = [name for name in bounds if re.search(rf"^ [+-] {name}==", done.stderr, re.MULTILINE)]
    if would_change:
        python = environment_with("highest", tmp_path / "newest")
        assert versions(python, would_change) != {name: version(name) for name in would_change}
        run_part(python)
