"""The dispatcher keeps going, whatever is wrong with one job, the GPUs or the disk."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.gpu_run.errors import Refused
from airflow_provider_gpu_cluster.gpu_run.jobs import install_check, submission
from airflow_provider_gpu_cluster.gpu_run.protocol.requests import Submit
from airflow_provider_gpu_cluster.gpu_run.store import records
from tests.gpu_run.host import Host
from tests.harness.leftovers import kill_everything_under
from tests.harness.small_disk import fill, small_disk


def test_a_supervisor_that_cannot_begin_is_given_up_after_some_tries(cluster_folder: Path) -> None:
    host = Host(cluster_folder)
    blocker = host.submit("sleep 1000", gpus=4)
    host.wait(blocker, state="RUNNING")
    job = host.submit("true", gpus=4)
    broken = dict(host.attempt(job).request(), program=str(cluster_folder / "no-such-program.pyz"))
    records.write_json(host.attempt(job).at("request.json"), broken)
    dispatcher = host.dispatcher(job)
    os.kill(dispatcher, signal.SIGKILL)
    os.kill(host.status(blocker)["pid"], signal.SIGTERM)
    ended = host.wait(job)
    assert ended["state"] == "FAILED"
    assert ended["reason"] == "launch_failed"
    assert "its supervisor ended before it could begin; see " in ended["message"]
    assert "no-such-program" in host.told(job)
    assert host.wait(host.submit("true", gpus=4))["state"] == "SUCCEEDED"


def test_no_nvidia_smi_is_told_and_a_driver_that_comes_back_is_found(
    cluster_folder: Path, eventually: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = cluster_folder / "bin" / "nvidia-smi"
    fake.parent.mkdir()
    works = "#!/bin/sh\n# A fake for tests.\ncase $1 in --query-gpu=*) echo '0, GPU-0, NVIDIA A100, 81920';; esac\n"
    fake.write_text(works)
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    host = Host(cluster_folder, virtual_gpus=None)
    host.engine.check({"gpus": 1})
    fake.write_text("#!/bin/sh\necho 'Failed to initialize NVML: Driver/library version mismatch'; exit 18\n")
    job = host.submit("echo $CUDA_VISIBLE_DEVICES $GPU_COUNT")
    eventually(lambda: "Driver/library version mismatch" in host.status(job)["message"])
    fake.write_text(works)
    assert host.wait(job)["state"] == "SUCCEEDED"
    assert host.log(job) == "0 1\n"


def test_a_host_with_a_gpu_that_does_not_work_and_one_that_is_taken(
    cluster_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = cluster_folder / "bin" / "nvidia-smi"
    fake.parent.mkdir()
    fake.write_text(
        """#!/bin/sh
# A fake for tests.
case $1 in --query-gpu=*)
    echo '0, GPU-a, NVIDIA A100, 81920, 31744, Disabled'
    echo 'Unable to determine the device handle for GPU0000:41:00.0: Unknown Error'
    echo '2, GPU-c, NVIDIA A100, 81920, 3, Disabled' ;;
esac
exit 15
"""
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    host = Host(cluster_folder, virtual_gpus=None)
    found = install_check.check(host.root, host.engine)
    assert "GPU 0000:41:00.0 does not work: Unknown Error" in found["warnings"]
    assert found["capacity"]["broken_gpus"] == [{"gpu": "0000:41:00.0", "why": "Unknown Error"}]
    assert [gpu.get("state") for gpu in found["capacity"]["gpus"]] == ["other", "free"]
    assert [(gpu["free"], gpu["used_by"]) for gpu in found["capacity"]["gpus"]] == [
        (False, "something outside (GPU 0: 31.0 GiB in use, and no process is listed), which holds no lease"),
        (True, ""),
    ]
    job = host.submit("echo $CUDA_VISIBLE_DEVICES $GPU_COUNT")
    assert host.wait(job)["gpus"] == [2]
    assert host.log(job) == "GPU-c 1\n"
    # One that needs the broken GPU waits for it; one that needs more than there ever were is refused.
    host.engine.check({"gpus": 3, "gpu_type": "A100"})
    with pytest.raises(Refused, match=r"has 2 x NVIDIA A100; GPU 0000:41:00.0 does not work: Unknown Error"):
        host.engine.check({"gpus": 4})


def test_a_disk_that_is_full_at_the_start_delays_a_job_and_loses_none(
    tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    with small_disk(tmp_path / "disk", 4096) as disk:
        host = Host(disk, lease_dir=str(tmp_path / "leases"))
        try:
            blocker = host.submit("sleep 1000", gpus=4)
            host.wait(blocker, state="RUNNING")
            job = host.submit("echo it ran", gpus=4)
            dispatcher = host.dispatcher(job)
            os.kill(dispatcher, signal.SIGSTOP)
            os.kill(host.status(blocker)["pid"], signal.SIGTERM)
            eventually(lambda: host.processes("supervise") == [])
            fill(disk)
            os.kill(dispatcher, signal.SIGCONT)
            supervisor_log = Path(host.attempt(job).at("supervisor.log"))
            eventually(supervisor_log.exists)
            eventually(lambda: host.processes("supervise") == [])
            assert host.status(job)["state"] == "QUEUED"
            os.unlink(disk / "filler")
            assert host.wait(job)["state"] == "SUCCEEDED"
            assert host.log(job) == "it ran\n"
        finally:
            kill_everything_under(tmp_path)


def test_a_root_that_is_deleted_ends_its_dispatcher(cluster_folder: Path, eventually: Callable[..., Any]) -> None:
    host = Host(cluster_folder)
    blocker = host.submit("sleep 1000", gpus=4)
    host.wait(blocker, state="RUNNING")
    host.submit("true")
    # The dispatcher clears its queue away at the same time, and Python may write compiled modules of the program.
    eventually(lambda: subprocess.run(["rm", "-rf", host.root.path], capture_output=True).returncode == 0)
    eventually(lambda: not host.processes("dispatch"))


def test_a_supervisor_is_a_copy_that_ps_knows_by_its_job(cluster_folder: Path) -> None:
    host = Host(cluster_folder)
    job = host.submit("sleep 1000", job_id="a-job-with-a-name")
    supervisor = host.wait(job, state="RUNNING")["pid"]
    words = Path(f"/proc/{supervisor}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    assert words == [host.program.encode(), b"supervise", job.encode()]
    # It has nothing open that belongs to whoever started it.
    others = {os.readlink(path) for path in Path(f"/proc/{supervisor}/fd").iterdir()}
    assert not [name for name in others if name.endswith("dispatcher.lock")]
    assert os.getsid(supervisor) not in (0, os.getsid(0))


def test_a_job_is_supervised_by_the_program_it_was_submitted_with(cluster_folder: Path) -> None:
    host = Host(cluster_folder)
    older = Path(host.program).with_name(f"{'0' * 64}.pyz")
    shutil.copy(host.program, older)
    blocker = host.submit("sleep 1000", gpus=4)
    host.wait(blocker, state="RUNNING")
    request: Submit = {**host.request("true", job_id="older"), "program": str(older)}
    host.job("older").create()
    submission.submit(host.root, host.engine, request)
    host.dispatcher("older")
    os.kill(host.status(blocker)["pid"], signal.SIGTERM)
    assert host.wait("older")["state"] == "SUCCEEDED"
    # It was unpacked, and so it was what ran.
    assert older.with_suffix("").is_dir()
