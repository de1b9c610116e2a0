"""Modules of the pages without React: the tests beside this one, which Node runs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

NODE = shutil.which("node")
FILES = sorted(map(str, Path(__file__).parent.glob("*.test.js")))
# Later ones see by themselves that a file is a module.
_FIRST_TO_SEE = (20, 19)


def version() -> tuple[int, ...]:
    assert NODE is not None
    text = subprocess.run([NODE, "--version"], capture_output=True, text=True, check=True).stdout
    return tuple(int(part) for part in text.strip().lstrip("v").split("."))


def test_modules() -> None:
    if NODE is None:
        pytest.fail("these tests need Node: apt-get install nodejs", pytrace=False)
    flags = ["--experimental-default-type=module"] if version() < _FIRST_TO_SEE else []
    done = subprocess.run([NODE, *flags, "--test", *FILES], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
