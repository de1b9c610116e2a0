"""What is known about processes, and ending them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster import gpu_run
from airflow_provider_gpu_cluster.gpu_run.linux import processes
from tests.harness.patience import PATIENCE_S


def test_a_process_is_itself_and_no_later_one_with_its_number() -> None:
    me = processes.identity()
    assert me["start"] is not None
    assert processes.is_alive(me)
    assert not processes.is_alive({**me, "start": me["start"] + 1})
    assert not processes.is_alive({**me, "boot": "another"})
    assert not processes.is_alive({**me, "pid": 2**22 + 1})
    assert processes.is_alive({**me, "host": "another"}) is None
    assert processes.is_alive({**me, "start": None}) is None
    assert processes.is_alive({**me, "pid": 2**22 + 1, "start": None}) is False
    assert [processes.is_alive({**me, "pid": pid}) for pid in (0, -1, 2**40)] == [False] * 3


def test_a_zombie_is_dead(eventually: Callable[..., Any]) -> None:
    with subprocess.Popen(["true"]) as process:
        eventually(lambda: processes.start_ticks(process.pid) is None)


def test_a_name_with_brackets_confuses_nobody(tmp_path: Any) -> None:
    path = tmp_path / "a) S 1 (b"
    path.symlink_to("/bin/sleep")
    with subprocess.Popen([path, "20"]) as process:
        assert processes.start_ticks(process.pid)
        assert process.pid in processes.descendants(os.getpid())
        process.kill()


@pytest.mark.parametrize("kernel", ["with lists of children", "without"])
def test_all_that_descends_from_a_process(
    kernel: str, monkeypatch: pytest.MonkeyPatch, eventually: Callable[..., Any]
) -> None:
    if kernel == "without":
        real = os.path.exists
        monkeypatch.setattr(os.path, "exists", lambda path: not str(path).endswith("/children") and real(path))
    with subprocess.Popen(["bash", "-c", "setsid bash -c 'sleep 20 & wait' & sleep 20 & wait"]) as process:
        eventually(lambda: len(processes.descendants(process.pid)) == 3)
        processes.send_signal(processes.descendants(process.pid) | {process.pid}, signal.SIGKILL)
    assert processes.descendants(process.pid) == set()


def test_shared_memory_is_counted_in_shares(eventually: Callable[..., Any]) -> None:
    text = """
import os, sys, time
x = bytearray(os.urandom(1 << 20)) * 64
for _ in range(2): os.fork()
os.write(1, bytes([49, 10]))
time.sleep(20)
"""
    with subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(4)] == [b"1\n"] * 4
        pids = [process.pid, *processes.descendants(process.pid)]
        assert processes.memory_bytes(processes.residents(pids), above=1 << 40) > 4 * (64 << 20)
        assert 64 << 20 < processes.memory_bytes(processes.residents(pids), above=0) < 2 * (64 << 20)
        os.killpg(process.pid, signal.SIGKILL)
    eventually(lambda: processes.memory_bytes(processes.residents(pids), above=0) == 0)


def test_processes_are_found_by_their_environment_and_killed() -> None:
    entry = f"GPU_RUN_ATTEMPT=test-{os.getpid()}-{time.time()}"
    name, value = entry.split("=")
    with subprocess.Popen(["bash", "-c", "setsid sleep 20 & sleep 20"], env={**os.environ, name: value}) as process:
        while len(processes.with_environment(entry)) < 3:
            time.sleep(0.01)
        assert processes.kill_with_environment(entry, 5)
        assert processes.with_environment(entry) == []
        assert process.wait(PATIENCE_S) == -signal.SIGKILL
    assert processes.kill_with_environment(entry + "x", 5)


def test_a_child_dies_with_its_parent(eventually: Callable[..., Any]) -> None:
    text = """
import subprocess, sys
sys.path.insert(0, sys.argv[1])
from gpu_run.linux import processes
from tests.harness.patience import PATIENCE_S
child = subprocess.Popen(["sleep", "20"], preexec_fn=lambda: processes.die_with_parent(9))
print(child.pid, flush=True)
input()
"""
    folder = str(Path(gpu_run.__file__).parents[1])
    command = [sys.executable, "-c", text, folder]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert processes.start_ticks(child)
        parent.kill()
    eventually(lambda: processes.start_ticks(child) is None)


def test_users_without_a_name_have_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 4242424)
    assert processes.user() == "4242424"


def in_program(text: str, *arguments: str) -> str:
    """Run text as a Python program of its own, and return what it prints."""
    folder = str(Path(gpu_run.__file__).parents[1])
    begin = f"import os, sys\nsys.path.insert(0, {folder!r})\nfrom gpu_run.linux import processes\n"
    return subprocess.run(
        [sys.executable, "-c", begin + text, *arguments], check=True, capture_output=True, text=True, timeout=20
    ).stdout


IN_THE_WAY = {
    "no more open files": "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))",
    "a /proc that hides other users' processes": "mount(b'proc', b'hidepid=2'); be_nobody()",
    "a /proc that shows other users' processes closed": "mount(b'proc', b'hidepid=1'); be_nobody()",
    "no /proc": "mount(b'tmpfs', None)",
}


@pytest.mark.parametrize("obstacle", IN_THE_WAY)
def test_what_cannot_be_looked_at_may_be_alive(obstacle: str) -> None:
    text = f"""
import ctypes, json
libc = ctypes.CDLL(None)
def mount(kind, options):
    assert libc.unshare(0x20000) == libc.mount(None, b"/", None, 0x44000, None) == 0
    assert libc.mount(kind, b"/proc", kind, 0, options) == 0
def be_nobody():
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
who = json.loads(sys.argv[1])
assert processes.is_alive(who)
{IN_THE_WAY[obstacle]}
print(processes.is_alive(who), processes.has_ended(who["pid"]), bool(processes.why_unseen(who["pid"])))
print(processes.is_alive({{**who, "pid": 2**22 + 1}}), processes.has_ended(2**22 + 1))
"""
    assert in_program(text, json.dumps(processes.identity())) == "None False True\nFalse True\n"


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ('"gpu-run", "supervise"', "gpu-run|supervise"),
        ("", ""),
        # Longer than what there was: the environment, which comes behind it, stays as it is.
        ('"x" * 100_000', None),
    ],
)
def test_a_process_can_be_known_by_another_command_line(words: str, shown: str | None) -> None:
    text = f"""
before = len(open("/proc/self/cmdline").read())
processes.rename({words})
line = open("/proc/self/cmdline").read()
print(line.rstrip(chr(0)).replace(chr(0), "|"))
print(before, len(line.rstrip(chr(0))))
print(open("/proc/self/environ").read().split(chr(0))[:-1] == [f"{{k}}={{v}}" for k, v in os.environ.items()])
"""
    line, sizes, environment = in_program(text).splitlines()
    before, after = map(int, sizes.split())
    if shown is None:
        assert set(line) == {"x"}
        assert after == before - 1
    else:
        assert line == shown
    assert environment == "True"


def test_a_copy_closes_what_is_not_its_own(tmp_path: Path) -> None:
    text = """
kept, other = (os.open(sys.argv[1], os.O_RDWR | os.O_CREAT) for _ in range(2))
processes.close_files(keep=(1, kept))
paths = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
names = {os.path.basename(path): os.readlink(path) for path in paths if os.path.exists(path)}
print(names == {"0": os.devnull, "1": names["1"], "2": os.devnull, str(kept): sys.argv[1]}, names)
print(os.get_inheritable(0), os.get_inheritable(2))
"""
    said = in_program(text, str(tmp_path / "file"))
    assert said.startswith("True "), said
    assert said.endswith("True True\n")
