"""What is read of GPUs: through NVML, by nvidia-smi, and from a file. The library is a fake; see fake_nvml.c."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.gpu_run.gpus import nvml
from airflow_provider_gpu_cluster.gpu_run.gpus.fake_nvml import fake_readings
from airflow_provider_gpu_cluster.gpu_run.gpus.gpu_readers import NvmlReader, parse_readings
from airflow_provider_gpu_cluster.gpu_run.gpus.gpu_reading import GpuReading
from airflow_provider_gpu_cluster.gpu_run.gpus.nvml import Nvml, NvmlError
from tests.gpu_run.gpus.fake_driver import MIG, SMI_USE, UUIDS, build_library

MIB = 1 << 20


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("nvml")
    (folder / "old").mkdir()
    return {"new": build_library(folder), "old": build_library(folder / "old", "-DOLD")}


@pytest.fixture
def library(libraries: dict[str, str], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    age, _, words = getattr(request, "param", "new").partition(" ")
    monkeypatch.setattr(nvml, "LIBRARIES", (libraries[age],))
    monkeypatch.setenv("FAKE_NVML", words)


def leased(*keys: str, indexes: tuple[int, ...] = (0, 1)) -> Any:
    return [{"key": key, "index": index} for key, index in zip(keys, indexes, strict=False)]


def of_this(reading: GpuReading) -> tuple[Any, ...]:
    """Return the part of a reading that is the use by this process."""
    return reading.of_job({os.getpid()})[:5]


def test_a_driver_tells_everything(library: None) -> None:
    reader = NvmlReader(leased(*UUIDS), [])
    first, second = reader.read()
    assert of_this(first) == (60.0, 1500, 80000, 300.0, 55.0)
    # Nothing computes there.
    assert of_this(second) == (0.0, 2000, 80000, 300.0, 55.0)
    later = reader.read()
    # The mean of the driver's own looks since then, and the difference of its count of energy.
    assert later[0].percent == 40.0
    assert (later[0].energy_j or 0) > (first.energy_j or 0) > 0
    assert reader.why_not == ""


@pytest.mark.parametrize("library", ["old"], indirect=True)
def test_an_old_driver_lacks_functions(library: None) -> None:
    first, second = NvmlReader(leased(*UUIDS), []).read()
    assert of_this(first) == (60.0, 1500, 80000, 300.0, 55.0)
    # It counts what the driver keeps for itself.
    assert of_this(second) == (0.0, 3000, 80000, 300.0, 55.0)
    assert first.energy_j is None


@pytest.mark.parametrize("library", ["new refuses"], indirect=True)
def test_what_a_gpu_does_not_tell_is_left_out(library: None) -> None:
    reader = NvmlReader(leased(*UUIDS), [])
    assert of_this(reader.read()[0]) == (None, 1500, 80000, None, 55.0)
    assert reader.why_not == ""


def test_a_mig_instance_is_found_by_its_uuid(library: None) -> None:
    assert of_this(NvmlReader(leased(MIG), []).read()[0]) == (None, 2000, 80000, None, 55.0)
    # As a scheduler names it, whose leases have other keys.
    assert NvmlReader(leased("0:5", indexes=(5,)), [MIG]).read()[0].memory_bytes == 2000


@pytest.mark.parametrize(
    ("keys", "indexes", "names", "percents"),
    [
        (("1", "0"), (1, 0), (), [0.0, 60.0]),
        # In a control group of its own, a job sees no others, and they count from 0.
        (("0:4", "0:7"), (4, 7), ("4", "7"), [60.0, 0.0]),
        (("0:3", "0:4"), (0, 1), ("GPU-bbbb", "GPU-aaaa"), [0.0, 60.0]),
    ],
)
def test_gpus_by_index_and_by_name(
    library: None, keys: tuple[str, ...], indexes: tuple[int, ...], names: tuple[str, ...], percents: list[float]
) -> None:
    reader = NvmlReader(leased(*keys, indexes=indexes), names)
    assert [reading.percent for reading in reader.read()] == percents


@pytest.mark.parametrize("library", ["new lost"], indirect=True)
def test_a_lost_gpu_is_told_and_the_others_are_read(library: None) -> None:
    reader = NvmlReader(leased(*UUIDS), [])
    first, second = reader.read()
    assert first.percent == 60.0
    assert second == GpuReading()
    assert "GPU is lost" in reader.why_not


@pytest.mark.parametrize("library", ["new foreign"], indirect=True)
def test_only_the_use_of_the_job_counts_where_it_can_be_told(library: None) -> None:
    reading = NvmlReader(leased(*UUIDS), []).read()[0]
    assert len(reading.memory_by_process) == 40
    assert of_this(reading)[:2] == (12.0, 1500)
    # The memory of the others is not known: then it is that of the whole GPU.
    assert reading.of_job({1})[:2] == (40.0, 2000)
    # Nor is it known whose that is which has other ids.
    assert reading.of_job({-1})[:2] == (60.0, 2000)


@pytest.mark.parametrize("library", ["new unloaded"], indirect=True)
def test_a_library_without_a_driver_says_so(library: None) -> None:
    with pytest.raises(NvmlError, match="nvmlInit_v2: Driver Not Loaded"):
        Nvml()


def test_no_library_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "LIBRARIES", ("/nowhere/libnvidia-ml.so.1",))
    with pytest.raises(NvmlError, match=r"NVML cannot be loaded: /nowhere/libnvidia-ml\.so\.1"):
        Nvml()


@pytest.mark.parametrize(
    ("text", "gpus", "percents"),
    [
        (SMI_USE, leased(*UUIDS), [33.0, None]),
        (SMI_USE, leased("0:1", indexes=(1,)), [None]),
        (f"{UUIDS[0]}, 0, 33, 1000, 80000, 250.5, 60\n", leased("0:6", indexes=(6,)), [33.0]),
        ("Unable to determine the device handle for GPU0000:84:00.0: Unknown Error\n", leased(*UUIDS), [None, None]),
        ("", leased(MIG), [None]),
    ],
)
def test_what_nvidia_smi_tells(text: str, gpus: Any, percents: list[float | None]) -> None:
    readings = parse_readings(text, gpus, [])
    assert [reading.percent for reading in readings] == percents
    if percents[0] is not None:
        assert readings[0] == GpuReading(33.0, 1000 * MIB, 80000 * MIB, 250.5, 60.0)


def test_a_file_plays_the_driver_of_virtual_gpus(tmp_path: Path) -> None:
    path = tmp_path / "gpus.json"
    path.write_text('{"gpus": [{"percent": 80, "memory_bytes": 1e9}, {"percent": "much", "celsius": 30, "other": 1}]}')
    readings = fake_readings(str(path), [0, 1, 5])
    assert readings == [GpuReading(80.0, 10**9), GpuReading(celsius=30.0), GpuReading(celsius=30.0)]
    path.write_text('{"gpus": []}')
    with pytest.raises(ValueError, match="has no list of GPUs"):
        fake_readings(str(path), [0])
