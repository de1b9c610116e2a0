"""What the processes below one use of a host."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from airflow_provider_gpu_cluster.gpu_run.linux import tree_use
from airflow_provider_gpu_cluster.gpu_run.linux.proc_files import read_text
from airflow_provider_gpu_cluster.gpu_run.linux.tree_use import usable_cpus, use_below
from tests.harness.patience import PATIENCE_S

# A subreaper that starts a shell, which starts a program that ends, and then one that lives. Another program loses its
# parent.
TREE = """
import ctypes, os, subprocess, sys
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
work = f"{sys.executable} {sys.argv[1]}"
shell = subprocess.Popen(["bash", "-c", f"{work} 1000000; sleep 1000"])
subprocess.run(["bash", "-c", f"{work} 3000000 & exit"])
os.wait()
print("ready", flush=True)
sys.stdin.read()
"""
WORK = """
import os, sys, time
while time.process_time() < 0.1:
    pass
with open(os.devnull, "wb") as file:
    file.write(bytes(int(sys.argv[1])))
"""


def test_those_that_have_ended_count_and_the_root_does_not(tmp_path: Path) -> None:
    (tmp_path / "work.py").write_text(WORK)
    command = [sys.executable, "-c", TREE, str(tmp_path / "work.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as root:
        assert root.stdout is not None
        root.stdout.readline()
        deadline = time.monotonic() + PATIENCE_S
        while (use := use_below(root.pid)).cpu_s < 0.15 or (use.written_bytes or 0) < 4_000_000:
            assert time.monotonic() < deadline, use
            time.sleep(0.05)
        assert use.written_bytes is not None
        assert use.written_bytes < 4_100_000
        assert use.sizes
        assert root.pid not in use.sizes
        assert not use.is_stopped
        os.kill(min(use.sizes), signal.SIGSTOP)
        while not use_below(root.pid).is_stopped:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.killpg(root.pid, signal.SIGKILL)


def test_a_process_that_does_not_exist_has_used_nothing() -> None:
    assert use_below(2**22 + 1) == (0.0, None, False, {})


@pytest.mark.parametrize(
    ("inner", "outer", "most"), [("150000 100000\n", "max 100000\n", 2), ("max 1\n", "50000 100000\n", 1)]
)
def test_processors_that_a_control_group_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inner: str, outer: str, most: int
) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "cpu.max").write_text(inner)
    (tmp_path / "a" / "cpu.max").write_text(outer)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)))

    def read(path: str, most_bytes: int) -> str:
        return "0::/a/b\n" if path == "/proc/self/cgroup" else read_text(path, most_bytes)

    monkeypatch.setattr(tree_use, "read_text", read)
    assert usable_cpus(str(tmp_path)) == most
