"""What nvidia-smi says, as it says it, and what becomes of it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from airflow_provider_gpu_cluster.gpu_run.errors import Refused
from airflow_provider_gpu_cluster.gpu_run.gpus import nvidia_smi
from airflow_provider_gpu_cluster.gpu_run.gpus.allocator import Allocator
from airflow_provider_gpu_cluster.gpu_run.gpus.inventory import (
    BrokenGpu,
    Gpu,
    Inventory,
    find_gpus,
    fitting,
    parse_gpus,
    take_inventory,
)
from airflow_provider_gpu_cluster.gpu_run.gpus.leases import Leases
from airflow_provider_gpu_cluster.gpu_run.gpus.processes import parse_busy
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


def gpus_in(text: str) -> list[Gpu]:
    return [row.gpu for row in parse_gpus(text)[0]]


def test_gpus_of_an_a100_host() -> None:
    assert gpus_in(A100) == [
        Gpu("GPU-2f3c1b0a-6a5f-0d2b-8f66-5b1c4d0b7f11", 0, "NVIDIA A100-SXM4-80GB", 81920),
        Gpu("GPU-9c1d7a52-11b3-7a6e-93d4-0c8e1f2a3b44", 1, "NVIDIA A100-SXM4-80GB", 81920),
    ]


def test_names_with_quotes_and_commas_and_memory_that_is_not_known() -> None:
    found = gpus_in(MIXED)
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
    rows, broken, remarks = parse_gpus(warning + A100 + "\n" + warning)
    assert (rows, broken) == (parse_gpus(A100)[0], [])
    assert remarks == ["nvidia-smi says: WARNING: infoROM is corrupted at gpu 0000:3B:00.0"]
    assert gpus_in("No devices were found\n") == []
    assert gpus_in("0, ../../etc/passwd, NVIDIA A100, 1\n") == []


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
        self.says(gpus=A100, processes="", list_="")
        program = folder / "nvidia-smi"
        program.write_text(
            f"""#!/bin/sh
# A fake for tests, not the real nvidia-smi.
echo "$1" >> {folder}/calls
case "$1" in
  --query-gpu=*) cat {folder}/gpus ;;
  --query-compute-apps=*) cat {folder}/processes ;;
  -L) cat {folder}/list ;;
esac
exec sh {folder}/then
"""
        )
        program.chmod(0o755)

    def says(
        self, *, gpus: str | None = None, processes: str | None = None, list_: str | None = None, then: str = "exit 0"
    ) -> None:
        if gpus is not None:
            (self.folder / "gpus").write_text(gpus)
        if processes is not None:
            (self.folder / "processes").write_text(processes)
        if list_ is not None:
            (self.folder / "list").write_text(list_)
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
    assert find_gpus(None) == gpus_in(A100)
    assert take_inventory(None) == Inventory(gpus_in(A100))


def test_virtual_gpus_need_no_nvidia_smi(fake: FakeNvidiaSmi) -> None:
    assert [gpu.key for gpu in find_gpus(2)] == ["virtual-0", "virtual-1"]
    assert take_inventory(2) == Inventory(find_gpus(2))
    assert fake.calls() == 0


def test_no_nvidia_smi_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(nvidia_smi, "USUAL_PLACES", ())
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
    monkeypatch.setattr(nvidia_smi, "QUERY_S", 0.2)
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


# -- GPUs that do not work ---------------------------------------------------------------------------------------------

UUIDS = [f"GPU-{number}f3c1b0a-6a5f-0d2b-8f66-5b1c4d0b7f11" for number in range(4)]
HANDLE = "Unable to determine the device handle for GPU0000:41:00.0: Unknown Error"


def row(number: int, used: str = "3", mig: str = "Disabled", total: str = "81920") -> str:
    """A line of today's nvidia-smi for the query that is asked, typed in."""
    return f"{number}, {UUIDS[number]}, NVIDIA A100-SXM4-80GB, {total}, {used}, {mig}\n"


@pytest.mark.parametrize(
    ("line", "gpu", "why"),
    [
        (HANDLE, "0000:41:00.0", "Unknown Error"),
        (
            "Unable to determine the device handle for GPU 0000:41:00.0: GPU is lost.  Reboot the system to recover "
            "this GPU",
            "0000:41:00.0",
            "GPU is lost.  Reboot the system to recover this GPU",
        ),
        (
            "Unable to determine the device handle for GPU1: 00000000:C1:00.0: GPU requires reset",
            "00000000:C1:00.0",
            "GPU requires reset",
        ),
        (
            "GPU is lost. Reboot the system to recover this GPU",
            "",
            "GPU is lost. Reboot the system to recover this GPU",
        ),
        ("1, [GPU is lost], [GPU is lost], [GPU is lost], [GPU is lost], [GPU is lost]", "1", "GPU is lost"),
        (f"1, {UUIDS[1]}, NVIDIA A100-SXM4-80GB, [Unknown Error], [Unknown Error], Disabled", "1", "Unknown Error"),
        (f"1, {UUIDS[1]}, [Unknown Error], 81920, 3, Disabled", "1", "Unknown Error"),
        (f"1, {UUIDS[1]}, ERR!, ERR!, ERR!, [N/A]", "1", "ERR!"),
        ("1, [N/A], NVIDIA A100-SXM4-80GB, 81920, 3, [N/A]", "1", "its UUID is '[N/A]'"),
    ],
)
@pytest.mark.parametrize("code", [0, 15])
def test_a_gpu_that_does_not_work_is_told_and_the_others_are_used(
    fake: FakeNvidiaSmi, line: str, gpu: str, why: str, code: int
) -> None:
    fake.says(gpus=row(0) + line + "\n" + row(2) + row(3), then=f"exit {code}")
    found = take_inventory(None)
    assert [gpu.number for gpu in found.gpus] == [0, 2, 3]
    assert found.broken == [BrokenGpu(gpu, why)]
    assert found.remarks == []
    # CUDA counts only those that work, so their numbers would be another GPU's.
    assert not found.is_numbered_by_cuda


@pytest.mark.parametrize("value", ["[N/A]", "[Not Supported]", "N/A", "[Insufficient Permissions]"])
def test_a_value_that_is_not_known_is_no_fault(fake: FakeNvidiaSmi, value: str) -> None:
    fake.says(gpus=row(0, value, "[N/A]", value) + row(1, value, "[Not Supported]", value))
    found = take_inventory(None)
    assert found == Inventory([Gpu(key, number, "NVIDIA A100-SXM4-80GB", 0) for number, key in enumerate(UUIDS[:2])])
    assert found.is_numbered_by_cuda


def test_an_exit_code_alone_is_a_remark(fake: FakeNvidiaSmi) -> None:
    fake.says(gpus=row(0), then="exit 14")
    assert take_inventory(None).remarks == ["nvidia-smi ended with exit code 14"]
    fake.says(gpus="WARNING: infoROM is corrupted at gpu 0000:3B:00.0\n" + row(0), then="exit 14")
    assert take_inventory(None).remarks == ["nvidia-smi says: WARNING: infoROM is corrupted at gpu 0000:3B:00.0"]


def test_a_driver_that_knows_no_mig_is_asked_without(fake: FakeNvidiaSmi) -> None:
    said = 'Field "mig.mode.current" is not a valid field to query.'
    (fake.folder / "nvidia-smi").write_text(
        f"#!/bin/sh\ncase $1 in *mig.mode*) echo '{said}'; exit 2 ;; --query-gpu=*) cat {fake.folder}/gpus ;; esac\n"
    )
    assert find_gpus(None) == gpus_in(A100)


def test_a_program_that_cannot_be_started_is_told(fake: FakeNvidiaSmi) -> None:
    (fake.folder / "nvidia-smi").write_bytes(b"\x7fELF")
    with pytest.raises(Refused, match="nvidia-smi cannot be started, so no GPU can be listed: Exec format error"):
        find_gpus(None)


def test_a_job_that_needs_the_broken_gpu_waits_and_says_so(fake: FakeNvidiaSmi, allocator: Allocator) -> None:
    fake.says(gpus=row(0) + HANDLE + "\n" + row(2), then="exit 15")
    _, waits = allocator.grant([ticket(3)])
    assert waits[ticket(3)].why == (
        "it needs 3 GPUs; this host has 2 now; GPU 0000:41:00.0 does not work: Unknown Error"
    )
    grants, _ = allocator.grant([ticket(2)])
    assert [gpu.get("visible") for gpu in grants[ticket(2)].leased] == [UUIDS[0], UUIDS[2]]


def test_a_gpu_that_breaks_between_two_jobs_shifts_no_numbers(fake: FakeNvidiaSmi, allocator: Allocator) -> None:
    fake.says(gpus=row(0) + row(1) + row(2))
    grants, _ = allocator.grant([ticket(1, "first")])
    assert grants[ticket(1, "first")].leased == [{"key": UUIDS[0], "index": 0, "type": "NVIDIA A100-SXM4-80GB"}]
    # It is gone without a word, and the numbers of those behind it have moved.
    fake.says(gpus=row(0) + row(2).replace("2, ", "1, ", 1) + HANDLE + "\n")
    grants, _ = allocator.grant([ticket(1, "next")])
    assert grants[ticket(1, "next")].leased == [
        {"key": UUIDS[2], "index": 1, "type": "NVIDIA A100-SXM4-80GB", "visible": UUIDS[2]}
    ]


# -- GPUs that something uses without a lease --------------------------------------------------------------------------


@pytest.mark.parametrize("pid", ["[N/A]", "[Not Found]", "[Insufficient Permissions]", "N/A", "-"])
def test_a_process_without_a_number_is_a_process(fake: FakeNvidiaSmi, allocator: Allocator, pid: str) -> None:
    fake.says(processes=f"{UUIDS[0]}, {pid}, [Not Found]\n", gpus=row(0))
    _, waits = allocator.grant([ticket()])
    assert waits[ticket()].why == (
        "it needs 1 GPU; of 1 there are 0 free, 1 with a process without a number here ([Not Found]), of a container "
        "perhaps, which holds no lease"
    )


def test_memory_in_use_without_a_process_is_somebodys(fake: FakeNvidiaSmi, allocator: Allocator) -> None:
    fake.says(gpus=row(0) + row(1) + row(2, "31744"))
    assert take_inventory(None).busy == {
        UUIDS[2]: "something outside (GPU 2: 31.0 GiB in use, and no process is listed)"
    }
    _, waits = allocator.grant([ticket(3)])
    assert waits[ticket(3)].why == (
        "it needs 3 GPUs; of 3 there are 2 free, "
        "1 with something outside (GPU 2: 31.0 GiB in use, and no process is listed), which holds no lease"
    )
    # Memory is seldom free the moment a job has ended.
    fake.says(gpus=row(0) + row(1) + row(2, "614"))
    began = time.monotonic()
    while not allocator.grant([ticket(3)])[0]:
        assert time.monotonic() - began < 30
        time.sleep(0.1)


def test_memory_of_a_lease_is_its_holders(fake: FakeNvidiaSmi, allocator: Allocator) -> None:
    fake.says(gpus=row(0) + row(1))
    grants, _ = allocator.grant([ticket(1, "mine")])
    fake.says(gpus=row(0, "70000") + row(1))
    found = take_inventory(None)
    assert set(found.busy) == {UUIDS[0]}
    assert found.in_use_without_lease({gpu.key for gpu in grants[ticket(1, "mine")].gpus}) == {}


# -- MIG: typed in after NVIDIA's MIG User Guide, as no such GPU was at hand -------------------------------------------

MIG = [f"MIG-{number}6d4f1ef-42e4-5de3-91c7-45d71c87eb3f" for number in range(3)]
MIG_LIST = f"""\
GPU 0: NVIDIA A100-SXM4-80GB (UUID: {UUIDS[0]})
  MIG 1g.10gb     Device  0: (UUID: {MIG[0]})
  MIG 1g.10gb     Device  1: (UUID: {MIG[1]})
  MIG 3g.40gb     Device  2: (UUID: {MIG[2]})
GPU 1: NVIDIA A100-SXM4-80GB (UUID: {UUIDS[1]})
GPU 2: NVIDIA A100-SXM4-80GB (UUID: {UUIDS[2]})
"""
# Drivers before 470 (the guide of R450).
OLD_MIG = f"MIG-{UUIDS[0]}/1/0"
OLD_MIG_LIST = f"""\
GPU 0: A100-SXM4-40GB (UUID: {UUIDS[0]})
  MIG 3g.20gb Device 0: (UUID: {OLD_MIG})
"""


def divided(processes: str = "") -> dict[str, str]:
    """A host whose GPU 0 is divided, GPU 1 is not, and GPU 2 has MIG on and no instance."""
    gpus = row(0, "9000", "Enabled") + row(1) + row(2, "87", "Enabled")
    return {"gpus": gpus, "list_": MIG_LIST, "processes": processes}


def test_mig_instances_take_the_place_of_their_gpu(fake: FakeNvidiaSmi) -> None:
    fake.says(**divided())
    found = take_inventory(None)
    name = "NVIDIA A100-SXM4-80GB"
    assert found.gpus == [
        Gpu(MIG[0], 0, f"{name} MIG 1g.10gb", 0),
        Gpu(MIG[1], 0, f"{name} MIG 1g.10gb", 0),
        Gpu(MIG[2], 0, f"{name} MIG 3g.40gb", 0),
        Gpu(UUIDS[1], 1, name, 81920),
    ]
    assert found.remarks == [
        f"GPU 2 ({name}) has MIG on and no instance, so no job can use it: make instances with "
        "'nvidia-smi mig -i 2 -cgi <profile> -C', or turn MIG off"
    ]
    assert not found.is_numbered_by_cuda
    assert found.busy == {}


@pytest.mark.parametrize(
    ("count", "gpu_type", "keys"),
    [
        # Who names no instance gets whole GPUs, if there are any.
        (1, None, [UUIDS[1]]),
        (1, "a100", [UUIDS[1]]),
        (2, None, [UUIDS[1]]),
        (1, "1g.10gb", MIG[:2]),
        (2, "1G.10GB", MIG[:2]),
        (1, "MIG", MIG),
        (1, "A100-SXM4-80GB MIG 3g.40gb", MIG[2:]),
        (1, "H100", []),
    ],
)
def test_a_job_gets_whole_gpus_or_instances_and_never_both(
    fake: FakeNvidiaSmi, count: int, gpu_type: str | None, keys: list[str]
) -> None:
    fake.says(**divided())
    assert [gpu.key for gpu in fitting(find_gpus(None), count, gpu_type)] == keys


def test_where_all_gpus_are_divided_one_instance_is_a_gpu_and_two_must_be_named(fake: FakeNvidiaSmi) -> None:
    fake.says(gpus=row(0, "9000", "Enabled"), list_=MIG_LIST)
    found = find_gpus(None)
    assert [gpu.key for gpu in fitting(found, 1, "A100")] == MIG
    assert fitting(found, 2, "A100") == []
    assert [gpu.key for gpu in fitting(found, 2, "1g.10gb")] == MIG[:2]


def test_an_instance_is_leased_by_its_uuid(fake: FakeNvidiaSmi, allocator: Allocator, tmp_path: Path) -> None:
    fake.says(gpus=row(0, mig="Enabled"), list_=OLD_MIG_LIST)
    grants, _ = allocator.grant([ticket()])
    kind = "NVIDIA A100-SXM4-80GB MIG 3g.20gb"
    assert grants[ticket()].leased == [{"key": OLD_MIG, "index": 0, "type": kind, "visible": OLD_MIG}]
    assert (tmp_path / "leases" / f"gpu-MIG-{UUIDS[0]}_1_0").exists()
    assert not allocator.grant([ticket(1, "next")])[0]


def test_a_host_whose_gpus_have_mig_on_and_no_instance(fake: FakeNvidiaSmi) -> None:
    fake.says(gpus=row(0, mig="Enabled"), list_=f"GPU 0: NVIDIA A100-SXM4-80GB (UUID: {UUIDS[0]})\n")
    with pytest.raises(Refused, match=r"no GPU of this host can be used: GPU 0 .* has MIG on and no instance"):
        find_gpus(None)


def test_a_process_on_an_instance_takes_that_one_and_one_on_its_gpu_all_free_ones(fake: FakeNvidiaSmi) -> None:
    fake.says(**divided(f"{MIG[1]}, 77, python\n"))
    assert take_inventory(None).in_use_without_lease(set()) == {MIG[1]: "process 77 (python)"}
    fake.says(**divided(f"{UUIDS[0]}, 77, python\n"))
    found = take_inventory(None)
    assert set(found.in_use_without_lease(set())) == set(MIG)
    # It may be the process of the lease.
    assert found.in_use_without_lease({MIG[0]}) == {}
