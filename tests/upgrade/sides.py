"""The two Airflow sides of an upgrade: this version in the tests' own process, an older one in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY
from tests.upgrade import airflow_side

PACKAGE = "provider/airflow_provider_gpu_cluster"

# What may still be there when this version comes, by the commit that it was made of. Each release adds a line.
OLD_VERSIONS = {
    "0.1.0": "a2cd605ece9f8b13c095c3860f7358913f7916d9",
}


class Side:
    """
    One Airflow side. Each function of :mod:`.airflow_side` is a method of it, with the same arguments.

    :param call: carries out a call, from the function's name and its arguments.
    """

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *args, **kwargs: self._call(name, *args, **kwargs)


def new_side() -> Side:
    """Return the side that is tested, with the package as it is here."""
    return Side(airflow_side.answer)


@contextlib.contextmanager
def old_side(version: str, folder: Path) -> Iterator[Side]:
    """
    Start a side of an old version.

    :param folder: an empty one, for that version's files.
    """
    _extract(version, folder)
    _stand_in_for_policy(folder / Path(PACKAGE).parent)
    # It goes before the package that is installed here.
    environment = {**os.environ, "PYTHONPATH": str(folder / Path(PACKAGE).parent)}
    with (
        open(folder / "stderr", "w+") as stderr,
        subprocess.Popen(
            [sys.executable, "-m", airflow_side.__name__],
            cwd=REPOSITORY,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        ) as process,
    ):

        def call(name: str, *args: Any, **kwargs: Any) -> Any:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps([name, args, kwargs]) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
            assert line, f"the side of {version} has ended:\n{Path(stderr.name).read_text()}"
            reply = json.loads(line)
            assert "error" not in reply, f"the side of {version} says:\n{reply['error']}"
            return reply["result"]

        side = Side(call)
        try:
            assert side.package() == str(folder / PACKAGE), "it is not the old version that was imported"
            yield side
        finally:
            # It may be in the middle of something, or have watchers that linger.
            process.kill()


def _extract(version: str, folder: Path) -> None:
    """
    Take a version's package out of git's history.

    Where there is none, as in what was downloaded without it, this skips, and under CI it fails.
    """
    commit = OLD_VERSIONS[version]
    archive = folder / "package.tar"
    try:
        _run("git", "-C", REPOSITORY, "archive", "-o", archive, commit, PACKAGE)
    except (OSError, subprocess.CalledProcessError) as error:
        said = str(getattr(error, "stderr", None) or error).strip()
        why = (
            f"version {version} cannot be taken out of git's history ({said}): run this test in a full clone of the "
            f"repository, which has commit {commit}"
        )
        pytest.fail(why, pytrace=False) if os.environ.get("CI") == "true" else pytest.skip(why)
    _run("tar", "-x", "-f", archive, "-C", folder)


def _stand_in_for_policy(path: Path) -> None:
    """
    Give an old package what Airflow loads by an entry point of the present one, which is installed here.

    Where an old version is really installed, there is no such entry point.
    """
    about = path / "old_version-0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: old-version\nVersion: 0\n")
    (about / "entry_points.txt").write_text("[airflow.policy]\ngpu_cluster = no_policy\n")
    (path / "no_policy.py").touch()


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)
