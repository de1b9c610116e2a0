"""What real jobs are told to have used; drivers that hang and crash; and that the sampler is no part of a job."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.gpu_run.gpus import nvml
from airflow_provider_gpu_cluster.gpu_run.linux import processes
from airflow_provider_gpu_cluster.gpu_run.linux.companion import CompanionLine
from airflow_provider_gpu_cluster.gpu_run.supervise import gpu_looks
from airflow_provider_gpu_cluster.gpu_run.supervise.gpu_looks import GpuLooks
from tests.gpu_run.gpus.fake_driver import UUIDS, build_library, make_program
from tests.gpu_run.host import Host, is_alive
from tests.harness.leftovers import processes_under
from tests.harness.patience import PATIENCE_S

GPUS: Any = [{"key": uuid, "index": index} for index, uuid in enumerate(UUIDS)]
MIB = 1 << 20


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> str:
    return build_library(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def silent_line() -> CompanionLine:
    """Return a line on which nobody says anything."""
    source, _ = os.pipe()
    return CompanionLine(source, os.open(os.devnull, os.O_WRONLY))


def until(is_so: Callable[[], object], why: object = "") -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline, why
        time.sleep(0.02)


# -- drivers -----------------------------------------------------------------------------------------------------


def test_a_driver_that_answers(library: str, monkeypatch: pytest.MonkeyPatch, silent_line: CompanionLine) -> None:
    monkeypatch.setattr(nvml, "LIBRARIES", (library,))
    looks = GpuLooks(GPUS, [])
    assert looks.look(silent_line, None) is False
    assert (looks.source, looks.why_not) == ("nvml", "")
    assert [reading.percent for reading in looks.of_job(set())] == [60.0, 0.0]
    assert looks.cost_s > 0


def test_a_driver_that_hangs_is_told_and_waited_for_once(
    library: str, monkeypatch: pytest.MonkeyPatch, silent_line: CompanionLine
) -> None:
    monkeypatch.setattr(nvml, "LIBRARIES", (library,))
    monkeypatch.setattr(gpu_looks, "_USUAL_S", 0.4)
    monkeypatch.setenv("FAKE_NVML", "hangs")
    looks = GpuLooks(GPUS, [])
    looks.look(silent_line, None)
    began = time.monotonic()
    looks.look(silent_line, None)
    assert time.monotonic() - began < 0.35
    assert looks.of_job(set()) == []
    assert looks.source == ""
    assert "has given no answer for" in looks.why_not


def test_the_end_of_the_job_is_heard_while_a_driver_hangs(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "LIBRARIES", (library,))
    monkeypatch.setenv("FAKE_NVML", "hangs")
    source, sink = os.pipe()
    os.write(sink, b"end\n")
    began = time.monotonic()
    assert GpuLooks(GPUS, []).look(CompanionLine(source, sink), None) is True
    assert time.monotonic() - began < gpu_looks._USUAL_S / 2


def test_after_a_crash_nvidia_smi_is_asked(
    library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, silent_line: CompanionLine
) -> None:
    monkeypatch.setattr(nvml, "LIBRARIES", (library,))
    monkeypatch.setenv("FAKE_NVML", "crashes")
    make_program(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    looks = GpuLooks(GPUS, [])
    looks.look(silent_line, None)
    assert looks.of_job(set()) == []
    assert "was ended by signal 11" in looks.why_not
    looks.look(silent_line, None)
    assert looks.source == "nvidia-smi"
    assert [reading.percent for reading in looks.of_job(set())] == [33.0, None]


def test_where_nobody_can_be_asked_it_says_why(monkeypatch: pytest.MonkeyPatch, silent_line: CompanionLine) -> None:
    monkeypatch.setattr(nvml, "LIBRARIES", ("libnothing.so",))
    monkeypatch.setenv("PATH", "/nowhere")
    looks = GpuLooks(GPUS, [])
    looks.look(silent_line, None)
    assert looks.source == ""
    assert looks.why_not.startswith("NVML cannot be loaded: libnothing.so: cannot open shared object file")
    assert "there is no nvidia-smi on this host" in looks.why_not


# -- real jobs -----------------------------------------------------------------------------------------------------

COMPUTES = """
import os, time
with open(os.environ["OUTPUT_DIR"] + "/model", "wb") as file:
    file.write(bytes(20 << 20))
while time.process_time() < 0.2:
    pass
print(time.process_time())
"""


def fake_gpus(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = folder / "gpus.json"
    gpus = [{"percent": 80, "memory_bytes": 6e9, "total_bytes": 8e9, "power_w": 250}, {"percent": 0, "power_w": 50}]
    path.write_text(json.dumps({"gpus": gpus}))
    monkeypatch.setenv("GPU_RUN_FAKE_NVML", str(path))
    return path


def test_what_a_job_has_used(cluster_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_gpus(cluster_folder, monkeypatch)
    host = Host(cluster_folder)
    command = f'{sys.executable} "$JOB_DIR/code/main.py"; until [ -e "$OUTPUT_DIR/over" ]; do sleep 0.1; done'
    job = host.submit(command, code={"main.py": COMPUTES}, gpus=2)
    # It is told while it runs.
    until(lambda: host.status(job).get("usage", {}).get("cpus_mean"), host.status(job))
    assert host.status(job)["seconds"]["running"] > 0
    Path(host.job(job).at("outputs", "over")).touch()
    status = host.wait(job)
    usage, seconds = status["usage"], status["seconds"]
    assert usage["source"] == "fake"
    assert "why_not" not in usage
    assert (usage["gpu_mean_percent"], usage["gpu_peak_percent"]) == (40.0, 40.0)
    first, second = usage["gpus"]
    assert (first["mean_percent"], first["peak_memory_bytes"], first["memory_bytes"]) == (80.0, 6e9, 8e9)
    assert (second["key"], second["mean_percent"]) == ("virtual-1", 0.0)
    ran_s = seconds["running"]
    assert usage["gpu_seconds_used"] == pytest.approx(0.8 * ran_s, rel=0.2, abs=0.1)
    assert usage["energy_j"] == pytest.approx(300 * ran_s, rel=0.2, abs=30)
    # All of its processes have ended before the last sample, and each is counted.
    own_s = float(host.log(job))
    assert own_s <= usage["cpus_mean"] * ran_s * 1.1
    assert 20 * MIB <= usage["written_bytes"] < 30 * MIB
    assert seconds["idle"] == 0
    assert seconds["queued"] >= 0
    lines = [json.loads(line) for line in host.log(job, "usage.jsonl").splitlines()]
    assert len(lines) == usage["samples"]
    assert max(line["memory_bytes"] for line in lines) > 0
    assert sum(line["s"] for line in lines) == pytest.approx(ran_s, abs=0.5)
    # It is in the record as well.
    assert json.loads(Path(host.attempt(job).at("exit.json")).read_text())["usage"] == usage


def test_a_virtual_gpu_is_not_measured_and_says_so(host: Host) -> None:
    usage = host.run("true")["usage"]
    assert (usage["source"], usage["why_not"]) == ("", "its GPUs are virtual, and nobody tells what they do")
    assert "gpu_mean_percent" not in usage
    assert usage["samples"] == 2


@pytest.mark.parametrize("words", ["hangs", "crashes"])
def test_a_driver_that_hangs_or_crashes_touches_no_job(
    cluster_folder: Path, library: str, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    (cluster_folder / "bin").mkdir()
    make_program(cluster_folder / "bin")
    monkeypatch.setenv("PATH", f"{cluster_folder / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("LD_LIBRARY_PATH", os.path.dirname(library))
    monkeypatch.setenv("FAKE_NVML", words)
    host = Host(cluster_folder, virtual_gpus=None)
    job = host.submit("sleep 0.3", gpus=2)
    status = host.wait(job)
    assert status["state"] == "SUCCEEDED"
    assert status["seconds"]["running"] < 5
    assert status["usage"]["samples"] >= 2
    if words == "crashes":
        assert status["usage"]["source"] == "nvidia-smi"
    until(lambda: not sampler_processes(host, job))


def sampler_processes(host: Host, job: str) -> list[int]:
    """Return the processes that belong to the cluster, but for its dispatcher."""
    return [pid for pid in processes_under(Path(host.root.path)) if pid not in host.processes("dispatch")]


def test_the_sampler_is_no_part_of_the_job_and_keeps_nothing_open(host: Host) -> None:
    job = host.submit("exec sleep 1000")
    host.wait(job, state="RUNNING")
    sampler = sampler_of(host, job)
    supervisor = host.status(job)["pid"]
    assert sampler not in processes.descendants(supervisor)
    assert sampler not in processes.descendants(processes.parent_of(supervisor) or 0)
    assert os.getsid(sampler) != os.getsid(supervisor)
    opened = [os.readlink(f"/proc/{sampler}/fd/{fd}") for fd in os.listdir(f"/proc/{sampler}/fd")]
    assert [path for path in opened if not path.startswith(("pipe:", "/dev/null"))] == []
    # The end of its line tells it that the supervisor is gone, in whatever way.
    guard = processes.parent_of(supervisor) or 0
    os.kill(guard, signal.SIGKILL)
    os.kill(supervisor, signal.SIGKILL)
    until(lambda: not is_alive(sampler))
    status = host.wait(job)
    assert status["state"] == "LOST"
    assert status["usage"]["samples"] >= 1


def test_a_sampler_that_is_stopped_delays_nothing_and_is_killed(host: Host) -> None:
    job = host.submit('until [ -e "$OUTPUT_DIR/over" ]; do sleep 0.05; done')
    host.wait(job, state="RUNNING")
    sampler = sampler_of(host, job)
    os.kill(sampler, signal.SIGSTOP)
    Path(host.job(job).at("outputs", "over")).touch()
    assert host.wait(job)["state"] == "SUCCEEDED"
    until(lambda: not is_alive(sampler))


def sampler_of(host: Host, job: str) -> int:
    until(lambda: Path(host.attempt(job).at("usage.json")).exists())
    supervisor = host.status(job)["pid"]

    def others() -> list[int]:
        guard = processes.parent_of(supervisor) or 0
        return [pid for pid in sampler_processes(host, job) if pid not in {guard, *processes.descendants(guard)}]

    # What the job starts and ends meanwhile may be among them.
    until(lambda: len(others()) == 1)
    return others()[0]
