"""Fakes of NVIDIA's two ways to ask a driver, since no GPU can be had for tests: its library, and its program."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("fake_nvml.c")
UUIDS = ("GPU-aaaaaaaa-0000-0000-0000-000000000000", "GPU-bbbbbbbb-0000-0000-0000-000000000000")
MIG = "MIG-cccccccc-0000-0000-0000-000000000000"
# What nvidia-smi answers to --query-gpu, with the options for CSV.
SMI_USE = f"{UUIDS[0]}, 0, 33, 1000, 80000, 250.5, 60\n{UUIDS[1]}, 1, [N/A], 10, 80000, [N/A], 61\n"
SMI_LIST = f"0, {UUIDS[0]}, NVIDIA Fake, 80000, 0, [N/A]\n1, {UUIDS[1]}, NVIDIA Fake, 80000, 0, [N/A]\n"


def build_library(folder: Path, *options: str) -> str:
    """
    Compile the fake library, and return its path.

    :param options: of the compiler, such as ``-DOLD``.
    """
    if shutil.which("gcc") is None:
        pytest.fail("the tests compile a fake of NVIDIA's library; `make test` installs gcc for that", pytrace=False)
    path = folder / "libnvidia-ml.so.1"
    subprocess.run(["gcc", "-shared", "-fPIC", *options, "-o", str(path), str(SOURCE)], check=True)
    return str(path)


def make_program(folder: Path) -> None:
    """Make a fake ``nvidia-smi`` in a folder."""
    (folder / "use").write_text(SMI_USE)
    (folder / "list").write_text(SMI_LIST)
    program = folder / "nvidia-smi"
    program.write_text(
        f"""#!/bin/sh
# A fake for tests, not the real nvidia-smi.
case "$1" in
  --query-gpu=uuid,index,utilization.gpu,memory.used,*) cat {folder}/use ;;
  --query-gpu=index,*) cat {folder}/list ;;
esac
"""
    )
    program.chmod(0o755)
