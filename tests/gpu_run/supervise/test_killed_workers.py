"""A worker process that the kernel kills for memory: by its real counts, in real control groups."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.gpu_run.linux import memory_kills
from airflow_provider_gpu_cluster.gpu_run.linux.memory_kills import MemoryKillCounter, MemoryKills
from airflow_provider_gpu_cluster.gpu_run.supervise import killed_workers
from airflow_provider_gpu_cluster.gpu_run.supervise.killed_workers import KilledWorkers
from tests.gpu_run.host import Host
from tests.harness.memory_group import memory_group

GROW = "x = bytearray(400 << 20)"
# Its parent notices, and ends with exit code 1.
WORKER = f"""
import multiprocessing, sys
def work():
    {GROW}
worker = multiprocessing.Process(target=work)
worker.start()
worker.join()
sys.exit("a worker died")
"""


def test_a_worker_that_the_kernel_kills_for_memory(host: Host) -> None:
    request: Any = host.request(f'exec {sys.executable} "$JOB_DIR/code/main.py"')
    job = host.job(request["job_id"])
    job.create()
    Path(job.at("code", "main.py")).write_text(WORKER)
    for key in ("program", "umask"):
        del request[key]
    with memory_group(120 << 20) as group:
        # The whole host engine runs in the group, as it does in a container.
        command = f"echo $$ > {group}; exec {sys.executable} -I -S {host.program} submit"
        subprocess.run(
            ["sh", "-c", command], input=json.dumps(request).encode() + b"\n", check=True, capture_output=True
        )
        status = host.wait(job.job_id)
    assert (status["reason"], status["exit_code"]) == ("out_of_memory", 1), status
    assert status["message"] == "the kernel killed one of its worker processes for lack of memory (exit code 1)"


def test_somebody_elses_process_that_the_kernel_kills(host: Host, tmp_path: Path) -> None:
    job = host.submit(f'until [ -e "{tmp_path}/go" ]; do sleep 0.05; done; echo "KeyError: text" >&2; exit 1')
    host.wait(job, state="RUNNING")
    before = MemoryKillCounter().read()
    with memory_group(60 << 20) as group:
        subprocess.run(["sh", "-c", f"echo $$ > {group}; {sys.executable} -c '{GROW}'"], check=False)
    assert MemoryKillCounter().read().anywhere > before.anywhere
    (tmp_path / "go").touch()
    status = host.wait(job)
    assert (status["reason"], status["message"]) == ("user_error", "it ended with exit code 1: KeyError: text")


@pytest.mark.parametrize(
    ("looks", "words", "likely"),
    [
        pytest.param([(0, 0, {1: 99}), (0, 0, {})], "Killed", False, id="nothing was counted"),
        pytest.param([(0, 0, {1: 99, 2: 99}), (1, 1, {1: 99}), (1, 1, {})], "", True, id="a large process is gone"),
        pytest.param([(0, 0, {1: 99, 2: 99}), (0, 1, {1: 99}), (0, 1, {})], "", True, id="by the host's count"),
        pytest.param([(0, 0, {1: 99, 2: 1}), (0, 1, {1: 99}), (0, 1, {})], "", False, id="a small one is gone"),
        pytest.param([(0, 0, {1: 99}), (0, 1, {1: 99}), (0, 1, {})], "KeyError", False, id="somebody else's"),
        pytest.param(
            [(0, 0, {1: 99}), (0, 1, {1: 99, 2: 9}), (0, 1, {})], "killed by signal: Killed. ", True, id="said"
        ),
        pytest.param([(0, 0, {1: 99}), (1, 1, None)], "", True, id="at its very end"),
        pytest.param([(0, 0, {1: 99}), (1, 1, {1: 99}), (1, 1, {})], "", True, id="too short for a look, in its group"),
        pytest.param([(0, 0, {1: 99}), (0, 1, None)], "", False, id="at its very end, somebody else's"),
    ],
)
def test_what_speaks_for_a_kill(
    looks: list[tuple[int, int, dict[int, int] | None]], words: str, likely: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The counts are typed in, as only the kernel makes real ones, which the tests above use. Sizes are in MiB."""
    counts = [MemoryKills(5, 7)]
    monkeypatch.setattr(killed_workers, "MemoryKillCounter", lambda: _Typed(lambda: counts[-1]))
    killed = KilledWorkers()
    for near, anywhere, sizes in looks:
        counts.append(MemoryKills(5 + near, 7 + anywhere))
        if sizes is not None:
            killed.look({pid: size << 20 for pid, size in sizes.items()})
    assert killed.is_likely(words) is likely


class _Typed:
    def __init__(self, read: Callable[[], MemoryKills]) -> None:
        self.read = read


@pytest.mark.parametrize(
    ("cgroups", "files", "count"),
    [
        ("0::/user.slice/s.scope\n", {"v2/user.slice/s.scope/memory.events": "oom 9\noom_kill 3\n"}, 3),
        ("0::/a/b\n", {"v2/a/memory.events": "oom_kill 2\n", "v2/memory.events": "oom_kill 7\n"}, 2),
        ("0::/\n", {"v2/memory.events": "oom_kill 4\n"}, 4),
        ("4:cpu,memory:/docker/x\n0::/\n", {"v1/memory.oom_control": "under_oom 0\noom_kill 6\n"}, 6),
        ("4:memory:/j/k\n", {"v1/j/k/memory.oom_control": "oom_kill_disable 0\n"}, 0),
        ("garbage\n::\n", {}, 0),
    ],
)
def test_the_count_of_the_nearest_group(
    cgroups: str, files: dict[str, str], count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = [(name, str(tmp_path / mount), file) for name, mount, file in _MOUNTS]
    monkeypatch.setattr(memory_kills, "_CGROUPS", mounts)
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert MemoryKillCounter(cgroups).read().near == count


_MOUNTS = (("memory", "v1", "memory.oom_control"), ("", "v2", "memory.events"))
