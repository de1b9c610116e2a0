"""One attempt from claim to exit record: its output, its environment, its limits, and the end of all its processes."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.gpu_run.engines.host.engine import HostEngine
from airflow_provider_gpu_cluster.gpu_run.gpus.leases import Leases
from airflow_provider_gpu_cluster.gpu_run.jobs.cancel import cancel
from airflow_provider_gpu_cluster.gpu_run.linux import processes
from airflow_provider_gpu_cluster.gpu_run.store.records import read_json, seconds_between, write_json
from tests.gpu_run.host import Host, in_a_changed_system, is_alive, processes_with
from tests.harness.leftovers import kill_everything_under
from tests.harness.patience import PATIENCE_S
from tests.harness.small_disk import small_disk

MIB = 1 << 20
KILLED = "it was killed by SIGKILL from outside; the kernel counted no kill for lack of memory (signal SIGKILL)"
GPU_MEMORY = "it ran out of GPU memory: RuntimeError: CUDA out of memory (exit code 1)"


def python(host: Host, job_id: str, text: str, **spec: Any) -> str:
    """Launch a job that runs a Python script, in place of the shell."""
    return host.submit(f'exec {sys.executable} "$JOB_DIR/code/main.py"', job_id=job_id, code={"main.py": text}, **spec)


def events(host: Host, job_id: str) -> list[str]:
    lines = Path(host.attempt(job_id).at("events.jsonl")).read_text().splitlines()
    return [json.loads(line)["event"] for line in lines]


def outputs(host: Host, job_id: str) -> set[str]:
    return set(os.listdir(host.job(job_id).at("outputs")))


# -- output ----------------------------------------------------------------------------------------------------------


def test_output_is_kept_byte_for_byte(host: Host) -> None:
    data = b"no newline \xff\xfe\x00 \x1b[31m \r\n\xc3" + os.urandom(1000)
    job = python(host, "binary", f"import sys; sys.stdout.buffer.write({data!r})")
    host.wait(job)
    assert Path(host.job(job).at("logs", "training.log")).read_bytes() == data
    assert Path(host.job(job).at("logs", "error.log")).read_bytes() == b""


def test_errors_are_in_both_logs_byte_for_byte(host: Host) -> None:
    data = os.urandom(300_000)
    job = python(host, "errors", f"import sys; sys.stderr.buffer.write({data!r})")
    host.wait(job)
    assert Path(host.job(job).at("logs", "error.log")).read_bytes() == data
    assert Path(host.job(job).at("logs", "training.log")).read_bytes() == data


def test_50_mb_of_output_arrive_whole_and_quickly(host: Host) -> None:
    job = host.submit("head -c 50000000 /dev/zero | tr '\\0' 'x'; head -c 20000000 /dev/zero >&2")
    host.wait(job)
    log = Path(host.job(job).at("logs", "training.log"))
    assert log.stat().st_size == 70_000_000
    expected = hashlib.sha256(b"x" * 50_000_000 + bytes(20_000_000)).hexdigest()
    assert hashlib.sha256(log.read_bytes()).hexdigest() == expected
    assert Path(host.job(job).at("logs", "error.log")).stat().st_size == 20_000_000


def test_a_job_may_close_its_output(host: Host) -> None:
    status = host.run("exec >&- 2>&-; sleep 0.2; exit 7")
    assert status["exit_code"] == 7


# -- the end ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "exit_code", "number", "message"),
    [
        ("exit 3", 3, None, "it ended with exit code 3"),
        ("exit 255", 255, None, "it ended with exit code 255"),
        ("kill -KILL $$", None, 9, KILLED),
        ("kill -SEGV $$", None, 11, "it crashed (signal SIGSEGV)"),
        ("bash -c 'kill -KILL $$'; exit $?", 137, None, KILLED),
        ("false | tee x", 0, None, ""),
        ("echo 'RuntimeError: CUDA out of memory' >&2; exit 1", 1, None, GPU_MEMORY),
        ("echo 'RuntimeError: CUDA out of memory'; exit 1", 1, None, GPU_MEMORY),
    ],
)
def test_how_it_ended(host: Host, command: str, exit_code: int | None, number: int | None, message: str) -> None:
    status = host.run(command)
    assert (status["exit_code"], status["signal"], status["message"]) == (exit_code, number, message)


def test_what_an_exit_record_says(host: Host) -> None:
    job = host.submit("sleep 0.5; echo done", gpus=2)
    status = host.wait(job)
    assert status["state"] == "SUCCEEDED"
    assert status["reason"] is None
    times = [status[name] for name in ("submitted_at", "leased_at", "started_at", "ended_at", "released_at")]
    assert times == sorted(times)
    assert status["gpus"] == [0, 1]
    assert status["gpu_keys"] == ["virtual-0", "virtual-1"]
    held = seconds_between(status["leased_at"], status["released_at"])
    assert status["gpu_seconds"] == pytest.approx(2 * held, abs=0.01)
    assert 0.5 <= held < 0.5 + 5
    assert MIB < status["peak_memory_bytes"] < 100 * MIB
    assert status["host"] == processes.hostname()
    assert events(host, job) == ["requested", "started", "ended"]


def test_markers_and_the_line_of_status(host: Host) -> None:
    job = host.submit(
        'until grep -qs RUNNING "$OUTPUT_DIR/status.txt"; do sleep 0.05; done; cat "$OUTPUT_DIR/status.txt"; exit 2'
    )
    status = host.wait(job)
    assert host.log(job) == "RUNNING since {}\n".format(status["started_at"])
    assert host.log(job, "start_time.log") == status["started_at"] + "\n"
    assert outputs(host, job) == {"FAILED", "checkpoints", "status.txt"}
    line = Path(host.job(job).at("outputs", "status.txt")).read_text()
    assert line.startswith("FAILED reason=user_error exit_code=2 started_at=")
    job = host.submit("true")
    host.wait(job)
    assert outputs(host, job) == {"SUCCESS", "checkpoints", "status.txt"}


def test_the_next_attempt_keeps_outputs_and_gets_fresh_logs(host: Host) -> None:
    command = """
        echo "attempt $ATTEMPT sees $(ls "$CHECKPOINT_DIR"): $(ls "$OUTPUT_DIR" | tr '\\n' ' ')"
        [ $ATTEMPT = 2 ] || { echo oops >&2; touch "$CHECKPOINT_DIR/epoch-1"; exit 1; }
    """
    job = host.submit(command)
    assert host.wait(job)["attempt"] == 1
    host.submit(command, job_id=job, request_key="2")
    status = host.wait(job)
    assert (status["state"], status["attempt"]) == ("SUCCEEDED", 2)
    assert host.log(job) == "attempt 2 sees epoch-1: checkpoints status.txt \n"
    assert host.log(job, "error.log") == ""
    assert "oops" in host.log(job, "training.attempt-1.log")
    assert host.log(job, "error.attempt-1.log") == "oops\n"
    assert outputs(host, job) == {"SUCCESS", "checkpoints", "status.txt"}


def test_peak_memory_is_known_of_what_grew_and_ended_between_two_looks(host: Host) -> None:
    status = host.run(f"{sys.executable} -c 'x = bytearray(200 << 20)'; true")
    assert 200 * MIB < status["peak_memory_bytes"] < 260 * MIB


# -- environment -----------------------------------------------------------------------------------------------------


def test_the_environment_of_a_job(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    monkeypatch.setenv("SSH_CONNECTION", "1.2.3.4 5 6.7.8.9 10")
    monkeypatch.setenv("VIRTUAL_ENV", "/somebodys/env")
    job = python(host, "env", "import json, os; print(json.dumps(dict(os.environ)))", gpus=2, cpus=3, env={"SEED": "7"})
    host.wait(job)
    env = json.loads(host.log(job))
    folder = host.job(job).path
    expected = {
        "JOB_ID": "env",
        "JOB_DIR": folder,
        "OUTPUT_DIR": f"{folder}/outputs",
        "LOG_DIR": f"{folder}/logs",
        "DATA_DIR": f"{folder}/data",
        "MODEL_DIR": f"{folder}/models",
        "CHECKPOINT_DIR": f"{folder}/outputs/checkpoints",
        "PROGRESS_FILE": f"{folder}/logs/progress.jsonl",
        "ATTEMPT": "1",
        "GPU_COUNT": "2",
        "CUDA_VISIBLE_DEVICES": "0,1",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "OMP_NUM_THREADS": "3",
        "PYTHONUNBUFFERED": "1",
        "SEED": "7",
        "PWD": f"{folder}/code",
        "HOME": os.environ["HOME"],
        "PYTHON": sys.executable,
    }
    assert {name: env.get(name) for name in expected} == expected
    assert env["PATH"].endswith(os.environ["PATH"])
    assert not {"SSH_CONNECTION", "VIRTUAL_ENV"} & set(env)
    for folder in ("outputs/checkpoints", "logs/tensorboard", "data", "models"):
        assert Path(host.job(job).at(folder)).is_dir()


def test_secrets_are_in_no_record_and_on_no_command_line(host: Host, eventually: Callable[..., Any]) -> None:
    secret = "correct-horse-battery"
    blocker = host.submit("sleep 1000", gpus=4)
    host.wait(blocker, state="RUNNING")
    job = host.submit("sleep 1000", env={"API_TOKEN": secret})
    kept = Path(host.attempt(job).at("env.json"))
    assert kept.stat().st_mode & 0o777 == 0o600
    os.kill(host.status(blocker)["pid"], signal.SIGTERM)
    host.wait(job, state="RUNNING")
    eventually(lambda: "started" in events(host, job))
    assert not kept.exists()
    for path in Path(host.root.path).rglob("*"):
        if path.is_file() and path.suffix != ".pyz":
            assert secret.encode() not in path.read_bytes(), path
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                assert secret.encode() not in (folder / "cmdline").read_bytes()
            except OSError:
                continue


def test_a_job_gets_no_lease_and_no_signal_of_its_supervisors(host: Host) -> None:
    text = """
import os, signal
print([fd for fd in range(3, 200) if os.path.exists(f"/proc/self/fd/{fd}")])
print([signal.Signals(n).name for n in range(1, 32) if signal.getsignal(n) is signal.SIG_IGN])
print(signal.pthread_sigmask(signal.SIG_BLOCK, []))
"""
    job = python(host, "clean", text)
    host.wait(job)
    files, ignored, blocked = host.log(job).splitlines()
    assert files == "[]"
    assert ignored == "['SIGPIPE', 'SIGXFSZ']"  # by Python itself
    assert blocked == "set()"


# -- what the job leaves behind --------------------------------------------------------------------------------------

DAEMONS = {
    "background": "sleep 1001 &",
    "nohup": "nohup sleep 1001 > /dev/null 2>&1 &",
    "session": "setsid sleep 1001 > /dev/null 2>&1 < /dev/null &",
    "double fork": "( setsid sleep 1001 & ) &",
    "no environment": "( setsid env -i /bin/sleep 1001 & ) &",
    "ignores TERM": "setsid bash -c 'trap \"\" TERM; sleep 1001' &",
    "stopped": "( setsid bash -c 'kill -STOP $$; sleep 1001' & ) &",
}


@pytest.fixture
def daemons() -> Iterator[Callable[[], list[int]]]:
    """Return a function that finds the daemons of these tests, which are nobody else's in this worker."""
    before = set(_sleepers())
    yield lambda: [pid for pid in _sleepers() if pid not in before]
    for pid in _sleepers():
        if pid not in before:
            os.kill(pid, signal.SIGKILL)


_MARK = f"1001.{os.getpid()}"


def _sleepers() -> list[int]:
    return processes_with("sleep", _MARK) + processes_with("/bin/sleep", _MARK)


@pytest.mark.parametrize("kind", DAEMONS)
def test_daemons_end_with_the_job(host: Host, kind: str, daemons: Callable[[], list[int]]) -> None:
    job = host.submit(DAEMONS[kind].replace("1001", _MARK) + "\nsleep 0.2; echo $(pgrep -f ' 100[1]' | wc -l)")
    status = host.wait(job)
    assert status["state"] == "SUCCEEDED"
    assert daemons() == []
    assert "ending_leftovers" in events(host, job)


@pytest.mark.parametrize("kind", DAEMONS)
@pytest.mark.parametrize("victim", ["supervisor", "guard"])
def test_nothing_outlives_a_killed_supervisor(
    host: Host, kind: str, victim: str, daemons: Callable[[], list[int]], eventually: Callable[..., Any]
) -> None:
    job = host.submit(DAEMONS[kind].replace("1001", _MARK) + f"\nsleep {_MARK}", gpus=4, grace_s=0.2)
    supervisor = host.wait(job, state="RUNNING")["pid"]
    waiting = host.submit("true", gpus=4)
    if kind != "stopped":
        eventually(lambda: len(daemons()) == 2)
    else:
        eventually(lambda: len(daemons()) == 1)
    guard = parent(supervisor)
    os.kill(supervisor if victim == "supervisor" else guard, signal.SIGKILL)
    status = host.wait(job)
    assert (status["state"], status["reason"]) == ("LOST", "lost")
    eventually(lambda: daemons() == [])
    # By the guard's word, or by that of a status that came before it.
    said = f"its supervisor (process {supervisor}) was " if victim == "supervisor" else f"its guard (process {guard}) "
    assert status["message"].startswith(said)
    assert host.wait(waiting)["state"] == "SUCCEEDED"


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def test_both_killed_at_one_stroke(
    host: Host, daemons: Callable[[], list[int]], eventually: Callable[..., Any]
) -> None:
    job = host.submit(f"setsid sleep {_MARK} & exec sleep {_MARK}", gpus=4)
    supervisor = host.wait(job, state="RUNNING")["pid"]
    eventually(lambda: len(daemons()) == 2)
    guard = parent(supervisor)
    for pid in (guard, supervisor):
        os.kill(pid, signal.SIGSTOP)
    for pid in (guard, supervisor):
        os.kill(pid, signal.SIGKILL)
    # The kernel ends the one that the supervisor had started; asking ends the others.
    eventually(lambda: len(daemons()) < 2)
    assert host.wait(job)["state"] == "LOST"
    assert daemons() == []
    assert host.run("true", gpus=4)["state"] == "SUCCEEDED"


def test_a_killed_supervisor_frees_its_gpus_and_the_next_starts_also_without_a_dispatcher(
    host: Host, eventually: Callable[..., Any]
) -> None:
    job = host.submit("sleep 1000", gpus=4)
    supervisor = host.wait(job, state="RUNNING")["pid"]
    waiting = host.attempt(host.submit("true", gpus=4))
    dispatcher = host.dispatcher(waiting.job.job_id)
    os.kill(dispatcher, signal.SIGKILL)
    eventually(lambda: not is_alive(dispatcher))
    os.kill(supervisor, signal.SIGKILL)
    eventually(lambda: os.path.exists(waiting.at("exit.json")))
    assert read_json(host.attempt(job).at("exit.json"))["state"] == "LOST"


def test_a_supervisor_that_cannot_be_looked_at_is_not_lost(host: Host) -> None:
    job = host.submit("sleep 1000")
    pid = host.wait(job, state="RUNNING")["pid"]
    said = in_a_changed_system(host, "mount -t tmpfs none /proc", verb="status", job_ids=[job], tail_bytes=0)
    message = f"whether its process {pid} on {processes.hostname()} still runs cannot be determined: /proc"
    assert [status["state"] for status in said["jobs"]] == ["UNKNOWN"]
    assert said["jobs"][0]["message"].startswith(message)
    assert host.status(job)["state"] == "RUNNING"


def test_after_a_reboot_what_ran_is_lost(host: Host) -> None:
    job = host.submit("sleep 1000")
    pid = host.wait(job, state="RUNNING")["pid"]
    path = host.attempt(job).at("claim.json")
    write_json(path, {**(read_json(path) or {}), "boot": "00000000-0000-0000-0000-000000000000"})
    os.kill(parent(pid), signal.SIGSTOP)  # or it would say so itself
    status = host.status(job)
    assert (status["state"], status["reason"], status["message"]) == ("LOST", "lost", "the host was rebooted")
    os.kill(parent(pid), signal.SIGCONT)


def test_two_supervisors_run_an_attempt_once(host: Host, eventually: Callable[..., Any]) -> None:
    job = host.submit("echo ran; sleep 0.5")
    host.wait(job, state="RUNNING")
    folder = Path(host.lease_dir)
    fd = os.open(folder / "gpu-virtual-3", os.O_RDWR | os.O_CREAT)
    lease = {"fds": [fd], "gpus": [{"key": "virtual-3", "index": 3}], "leased_at": "2026-01-01T00:00:00+00:00"}
    command = [sys.executable, "-I", "-S", host.program, "supervise", host.attempt(job).path]
    subprocess.run(command, input=json.dumps(lease).encode(), pass_fds=[fd], check=True, timeout=PATIENCE_S)
    os.close(fd)
    host.wait(job)
    assert host.log(job) == "ran\n"
    assert host.status(job)["gpus"] == [0]


# -- limits ----------------------------------------------------------------------------------------------------------


def test_a_time_limit_is_a_term_first(host: Host) -> None:
    job = host.submit("trap 'echo saving; exit 0' TERM; while :; do read -t 0.1 < <(:); done", time_limit_s=0.6)
    status = host.wait(job)
    assert (status["state"], status["reason"]) == ("FAILED", "time_limit")
    assert status["message"] == "it ran longer than its time limit of 0.6 s"
    assert host.log(job) == "saving\n"
    assert "killed" not in events(host, job)


def test_who_ignores_a_term_is_killed_after_the_grace(host: Host) -> None:
    job = host.submit("trap '' TERM; while :; do sleep 0.1; done", time_limit_s=0.5, grace_s=0.5)
    status = host.wait(job)
    assert (status["reason"], status["signal"]) == ("time_limit", signal.SIGKILL)
    assert "killed" in events(host, job)


def test_a_stopped_job_meets_its_time_limit(host: Host) -> None:
    status = host.run("trap 'exit 4' TERM; kill -STOP $$", time_limit_s=0.5, grace_s=5)
    assert (status["reason"], status["exit_code"]) == ("time_limit", 4)


def test_a_memory_limit_is_for_all_processes_together(host: Host) -> None:
    one = f"{sys.executable} -c 'import time; x = bytearray(60 << 20); time.sleep(60)'"
    status = host.run(f"{one} & {one} & {one} & wait", memory_bytes=130 * MIB)
    assert (status["state"], status["reason"]) == ("FAILED", "out_of_memory")
    assert status["message"].startswith("it used 0.")
    assert status["message"].endswith("GiB of host memory; its limit is 0.13 GiB")
    assert status["peak_memory_bytes"] > 130 * MIB


def test_memory_that_processes_share_counts_once(host: Host) -> None:
    text = """
import os, time
shared = bytearray(os.urandom(1 << 20)) * 80
for _ in range(3):
    os.fork()  # three times, so that there are eight in the end
time.sleep(1.2)
"""
    job = python(host, "shared", text, memory_bytes=200 * MIB)
    status = host.wait(job)
    assert status["state"] == "SUCCEEDED"
    assert 80 * MIB < status["peak_memory_bytes"] < 200 * MIB


def test_who_goes_on_growing_is_killed_without_grace(host: Host) -> None:
    text = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
x = []
while len(x) < 1000:
    x.append(bytearray(2 << 20))
    time.sleep(0.01)
"""
    began = time.monotonic()
    job = python(host, "grows", text, memory_bytes=60 * MIB, grace_s=60)
    assert host.wait(job)["reason"] == "out_of_memory"
    assert time.monotonic() - began < 50


# -- what a job can do to itself -------------------------------------------------------------------------------------


def test_a_job_that_deletes_its_directory_fails_and_frees_its_gpus(host: Host) -> None:
    job = host.submit('rm -rf "$JOB_DIR"; exit 0', gpus=4)
    status = host.wait(job)
    assert (status["state"], status["reason"]) == ("FAILED", "user_error")
    assert status["message"] == "it deleted its own job directory"
    assert host.run("true", gpus=4)["state"] == "SUCCEEDED"


def test_a_job_that_fills_the_disk_gets_its_record(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 4096) as disk:
        host = Host(disk, lease_dir=str(tmp_path / "leases"))
        try:
            job = python(host, "fills", "file = open('big', 'wb')\nwhile True: file.write(bytes(65536))")
            status = host.wait(job)
            assert (status["state"], status["reason"]) == ("FAILED", "disk_full"), host.told(job)
            message = "it ran out of disk space: OSError: [Errno 28] No space left on device (main.py:2)"
            assert (status["message"], status["kind"]) == (message, "disk_full")
            assert Path(host.job(job).at("outputs", "FAILED")).exists()
        finally:
            kill_everything_under(tmp_path)


def test_a_job_that_fills_the_disk_and_succeeds_has_succeeded(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 4096) as disk:
        host = Host(disk, lease_dir=str(tmp_path / "leases"))
        try:
            job = host.submit("head -c 100M /dev/zero > big 2> /dev/null; exit 0")
            assert host.wait(job)["state"] == "SUCCEEDED"
        finally:
            kill_everything_under(tmp_path)


def test_no_bash_is_a_failure_to_launch(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    status = host.run("true")
    assert (status["state"], status["reason"]) == ("FAILED", "launch_failed")
    assert "'bash'" in status["message"]
    assert Leases(host.lease_dir).held_by("x") is False


# -- told to end -------------------------------------------------------------------------------------------------------

UNASKED = "somebody, or the system, ended its supervisor (process {}) by a signal"


@pytest.mark.parametrize(
    ("whom", "command"),
    [
        ("supervisor", "sleep 1000"),
        ("their group", "sleep 1000"),
        ("everything", "sleep 1000"),
        ("everything", "trap 'exit 0' TERM; sleep 1000 & wait"),
    ],
)
def test_a_term_that_nobody_has_asked_for_is_a_loss(
    host: Host, whom: str, command: str, eventually: Callable[..., Any]
) -> None:
    job = host.submit(command)
    supervisor = host.wait(job, state="RUNNING")["pid"]
    eventually(lambda: processes.descendants(supervisor))
    guard = parent(supervisor)
    if whom == "their group":
        os.killpg(os.getpgid(guard), signal.SIGTERM)
    else:
        # As systemd does it at logout.
        more = [guard, *processes.descendants(supervisor)] if whom == "everything" else []
        for pid in (supervisor, *more):
            os.kill(pid, signal.SIGTERM)
    status = host.wait(job)
    assert (status["state"], status["reason"], status["message"]) == ("LOST", "lost", UNASKED.format(supervisor))


@pytest.mark.parametrize("victims", [["supervisor"], ["supervisor", "guard"]], ids=" and ".join)
def test_a_cancelled_job_is_cancelled_even_if_its_processes_are_killed(
    host: Host, victims: list[str], eventually: Callable[..., Any]
) -> None:
    job = host.submit("trap '' TERM; touch \"$OUTPUT_DIR/ready\"; while :; do sleep 0.1; done", grace_s=60)
    supervisor = host.wait(job, state="RUNNING")["pid"]
    eventually(Path(host.root.job(job).at("outputs", "ready")).exists)
    pids = {"supervisor": supervisor, "guard": parent(supervisor)}
    assert cancel(host.root, host.engine, [job], "ann", 0)[0]["state"] == "RUNNING"
    for name in victims:
        os.kill(pids[name], signal.SIGSTOP)
    for name in victims:
        os.kill(pids[name], signal.SIGKILL)
    status = host.wait(job)
    assert (status["state"], status["reason"]) == ("CANCELLED", "cancelled")
    assert status["message"].startswith("cancelled by ann; its supervisor")


def test_a_cancel_reaches_a_supervisor_that_got_no_signal(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    job = host.submit("sleep 1000")
    host.wait(job, state="RUNNING")
    monkeypatch.setattr(HostEngine, "stop", lambda *_: None)
    cancel(host.root, host.engine, [job], "ann", 0)
    assert host.wait(job)["message"] == "cancelled by ann"


def test_a_loss_names_what_systemd_does_at_logout(host: Host) -> None:
    """The file is read by a program that sees another /etc, so that this machine's is not touched."""
    settings = Path(host.root.path, "logind.conf")
    settings.write_text("[Login]\nKillUserProcesses=yes\nKillExcludeUsers=\n")
    job = host.submit("sleep 1000")
    supervisor = host.wait(job, state="RUNNING")["pid"]
    for pid in (parent(supervisor), supervisor):
        os.kill(pid, signal.SIGSTOP)
    for pid in (parent(supervisor), supervisor):
        os.kill(pid, signal.SIGKILL)
    shown = "mount -t tmpfs none /etc/systemd && cp $1 /etc/systemd/logind.conf"
    said = in_a_changed_system(host, shown, str(settings), verb="status", job_ids=[job], tail_bytes=0)
    (status,) = said["jobs"]
    assert status["state"] == "LOST"
    assert "(KillUserProcesses=yes in /etc/systemd/logind.conf), which may be why: " in status["message"]
    (warning,) = in_a_changed_system(host, shown, str(settings), verb="install-check")["warnings"][:1]
    assert "(KillUserProcesses=yes in /etc/systemd/logind.conf), and jobs with them" in warning


# -- signals ---------------------------------------------------------------------------------------------------------


def test_a_signal_that_ends_nothing_is_handed_on(host: Host, eventually: Callable[..., Any]) -> None:
    numbers = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGALRM, signal.SIGWINCH)
    job = host.submit(
        'for s in USR1 USR2 HUP ALRM WINCH; do trap "echo $s" $s; done; echo ready; '
        'while [ "$(wc -l < "$LOG_DIR/training.log")" -lt 6 ]; do sleep 0.05; done'
    )
    log = Path(host.job(job).at("logs", "training.log"))
    eventually(lambda: log.exists() and log.read_text() == "ready\n")
    # To the supervisor or to the guard: both are the job's own processes for whoever lists them.
    pid = host.status(job)["pid"]
    guard = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    for count, number in enumerate(numbers, 2):
        os.kill((pid, guard)[count % 2], number)
        eventually(lambda: log.read_text().count("\n") == count)  # noqa: B023
    assert host.wait(job)["state"] == "SUCCEEDED"
    assert log.read_text().split() == ["ready", "USR1", "USR2", "HUP", "ALRM", "WINCH"]
