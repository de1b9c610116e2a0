"""The product name of a host's GPUs, from files as the driver writes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_provider_gpu_cluster.gpu_run.gpus.model import model_here

INFORMATION = "Model: \t\t {}\nIRQ:   \t\t 130\nGPU UUID: \t GPU-1\nBus Location: \t 0000:01:00.0\n"


@pytest.mark.parametrize(
    ("models", "found"),
    [
        ([], None),
        (["NVIDIA H200"], "NVIDIA H200"),
        (["NVIDIA H200", "NVIDIA H200"], "NVIDIA H200"),
        (["NVIDIA H200", "NVIDIA L4"], None),
        ([""], None),
    ],
)
def test_all_of_one_kind(tmp_path: Path, models: list[str], found: str | None) -> None:
    for number, model in enumerate(models):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "information").write_text(INFORMATION.format(model))
    assert model_here(str(tmp_path)) == found
