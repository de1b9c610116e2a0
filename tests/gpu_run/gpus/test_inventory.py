"""What nvidia-smi says, as it says it, and what becomes of it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from airflow_provider_gpu_cluster.gpu_run.errors import Refused
from airflow_provider_gpu_cluster.gpu_run.gpus import inventory
from airflow_provider_gpu_cluster.gpu_run.gpus.allocator import Allocator
from airflow_provider_gpu_cluster.gpu_run.gpus.inventory import Gpu, find_busy, find_gpus, parse_busy, parse_gpus
from airflow_provider_gpu_cluster.gpu_run.gpus.leases import Leases
from airflow_provider_gpu_cluster.gpu_run.gpus.schedule import QueuedJob
from airflow_provider_gpu_cluster.gpu_run.linux import processes

A100 = """\
0, GPU-2f3c1b0a-6a5f-0d2b-8f66-5b1c4d0b7f11, NVIDIA A100-SXM4-80GB, 81920
1, GPU-9c1d7a52-11b3-7a6e-93d4-0c8e1f2a3b44, NVIDIA A100-SXM4-80GB, 81920
"""
MIXED = """\
0, GPU-11111111-0000-0000-0000-000000000000, NVIDIA H100 80GB HBM3, 81559
1, GPU-22222222-0000-0000-0000-000000000000, "Quadro RTX 6000", 24220
2, GPU-33333333-0000-0000-0000-000000000000, NVIDIA GB10, [N/A]
3, GPU-44444444-0000-0000-0000-000000000000, Tesla P100-PCIE-16GB, Rev B, 16384
"""
PROCESSES = """\
GPU-2f3c1b0a-6a5f-0d2b-8f66-5b1c4d0b7f11, 41233, /opt/conda/bin/python
GPU-9c1d7a52-11b3-7a6e-93d4-0c8e1f2a3b44, 977, nvidia-cuda-mps-server
"""


def test_gpus_of_an_a100_host() -> None:
    assert parse_gpus(A100) == [
        Gpu("GPU-2f3c1b0a-6a5f-0d2b-8f66-5b1c4d0b7f11", 0, "NVIDIA A100-SXM4-80GB", 81920),
        Gpu("GPU-9c1d7a52-11b3-7a6e-93d4-0c8e1f2a3b44", 1, "NVIDIA A100-SXM4-80GB", 81920),
    ]


def test_names_with_quotes_and_commas_and_memory_that_is_not_known() -> None:
    found = parse_gpus(MIXED)
    assert [gpu.type for gpu in found] == [
        "NVIDIA H100 80GB HBM3",
        "Quadro RTX 6000",
        "NVIDIA GB10",
        "Tesla P100-PCIE-16GB, Rev B",
    ]
    assert [gpu.memory_mb for gpu in found] == [81559, 24220, 0, 16384]
    assert found[0].is_a("h100")
    assert not found[0].is_a("A100")
    assert found[0].is_a(None)


def test_warnings_between_the_lines_are_no_gpus() -> None:
    warning = "WARNING: infoROM is corrupted at gpu 0000:3B:00.0\n"
    assert parse_gpus(warning + A100 + "\n" + warning) == parse_gpus(A100)
    assert parse_gpus("No devices were found\n") == []
    assert parse_gpus("0, ../../etc/passwd, NVIDIA A100, 1\n") == []


def test_who_computes() -> None:
    assert parse_busy(PROCESSES) == {"GPU-2f3c1b0a-6a5f-0d2b-8f66-5b1c4d0b7f11": "process 41233 (python)"}
    assert parse_busy("") == {}
    assert parse_busy("GPU-1, 12, [Not Found]\n") == {"GPU-1": "process 12 ([Not Found])"}


@pytest.mark.parametrize("name", ["python, train.py", 'python "x', "", "a\tb", '"'])
def test_no_name_of_a_process_hides_it_or_the_next(name: str) -> None:
    assert set(parse_busy(f"GPU-1, 12, {name}\nGPU-2, 13, x\n")) == {"GPU-1", "GPU-2"}


class FakeNvidiaSmi:
    """A program of that name, first in the PATH, that is NOT nvidia-smi: it prints what files beside it hold."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.says(gpus=A100, processes="")
        program = folder / "nvidia-smi"
        program.write_text(
            f"""#!/bin/sh
# A fake for tests, not the real nvidia-smi.
echo "$1" >> {folder}/calls
case "$1" in
  --query-gpu=*) cat {folder}/gpus ;;
  --query-compute-apps=*) cat {folder}/processes ;;
esac
exec sh {folder}/then
"""
        )
        program.chmod(0o755)

    def says(self, *, gpus: str | None = None, processes: str | None = None, then: str = "exit 0") -> None:
        if gpus is not None:
            (self.folder / "gpus").write_text(gpus)
        if processes is not None:
            (self.folder / "processes").write_text(processes)
        (self.folder / "then").write_text(then + "\n")

    def calls(self) -> int:
        path = self.folder / "calls"
        return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeNvidiaSmi:
    fake = FakeNvidiaSmi(tmp_path / "fake-nvidia-smi")
    monkeypatch.setenv("PATH", f"{fake.folder}:{os.environ['PATH']}")
    return fake


@pytest.fixture
def allocator(tmp_path: Path) -> Allocator:
    return Allocator(Leases(str(tmp_path / "leases")), None, "me")


def ticket(count: int = 1, job_id: str = "job") -> QueuedJob:
    return QueuedJob(job_id, 1, 0.0, count, None, None, "me")


def test_gpus_are_found_with_nvidia_smi(fake: FakeNvidiaSmi) -> None:
    assert find_gpus(None) == parse_gpus(A100)
    assert find_busy(None) == {}


def test_virtual_gpus_need_no_nvidia_smi(fake: FakeNvidiaSmi) -> None:
    assert [gpu.key for gpu in find_gpus(2)] == ["virtual-0", "virtual-1"]
    assert find_busy(2) == {}
    assert fake.calls() == 0


def test_no_nvidia_smi_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(inventory, "USUAL_PLACES", ())
    with pytest.raises(Refused, match=r"there is no nvidia-smi on this host.*'virtual_gpus'"):
        find_gpus(None)


@pytest.mark.parametrize(
    "words",
    [
        "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.",
        "Failed to initialize NVML: Driver/library version mismatch",
        "Unable to determine the device handle for GPU0000:84:00.0: Unknown Error",
    ],
)
def test_a_failing_driver_is_quoted(fake: FakeNvidiaSmi, words: str) -> None:
    fake.says(gpus=words + "\n", then="exit 9")
    with pytest.raises(Refused) as refusal:
        find_gpus(None)
    assert words in refusal.value.message


def test_no_gpu_in_the_list_is_an_error_and_not_a_host_with_none(fake: FakeNvidiaSmi) -> None:
    fake.says(gpus="No devices were found\n")
    with pytest.raises(Refused, match="No devices were found"):
        find_gpus(None)


def test_a_hanging_driver_is_not_waited_for(fake: FakeNvidiaSmi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inventory, "QUERY_S", 0.2)
    fake.says(then="exec sleep 20 >&- 2>&-")
    began = time.monotonic()
    with pytest.raises(Refused, match="the driver may hang"):
        find_gpus(None)
    assert time.monotonic() - began < 15


def test_gpus_on_which_somebody_computes_are_passed_over(fake: FakeNvidiaSmi, allocator: Allocator) -> None:
    fake.says(processes=PROCESSES)
    grants, _ = allocator.grant([ticket(1)])
    assert [gpu.number for gpu in grants[ticket(1)].gpus] == [1]
    _, waits = allocator.grant([ticket(2, "other")])
    assert waits[ticket(2, "other")].why == (
        f"it needs 2 GPUs; of 2 there are 0 free, 1 with job ({processes.user()}), "
        "1 with process 41233 (python), which holds no lease"
    )


def test_when_a_process_without_a_lease_ends_the_next_job_starts_soon(
    fake: FakeNvidiaSmi, allocator: Allocator
) -> None:
    fake.says(processes=PROCESSES)
    assert not allocator.grant([ticket(2)])[0]
    fake.says(processes="")
    began = time.monotonic()
    while not allocator.grant([ticket(2)])[0]:
        assert time.monotonic() - began < 30
        time.sleep(0.1)


def test_a_process_that_outlives_its_lease_is_seen_before_the_gpu_is_given_on(
    fake: FakeNvidiaSmi, allocator: Allocator
) -> None:
    grants, _ = allocator.grant([ticket(2)])
    fake.says(processes=A100.split(", ")[1] + ", 99, python\n")
    waiting = ticket(1, "next")
    # One GPU becomes free, and the job that had it is still on it.
    os.close(grants[ticket(2)].fds[0])
    grants_now, waits = allocator.grant([waiting])
    assert not grants_now
    assert "process 99 (python), which holds no lease" in waits[waiting].why


def test_what_computes_on_leased_gpus_is_not_asked_for_again_and_again(
    fake: FakeNvidiaSmi, allocator: Allocator
) -> None:
    allocator.grant([ticket(2)])
    fake.says(processes=PROCESSES)
    calls = fake.calls()
    for _ in range(20):
        assert not allocator.grant([ticket(1, "next")])[0]
    assert fake.calls() == calls
