"""What a check of a cluster says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.gpu_run.engines.host.engine import HostEngine
from airflow_provider_gpu_cluster.gpu_run.errors import Refused
from airflow_provider_gpu_cluster.gpu_run.jobs import install_check
from airflow_provider_gpu_cluster.gpu_run.protocol.replies import Check
from airflow_provider_gpu_cluster.gpu_run.protocol.settings import Settings
from airflow_provider_gpu_cluster.gpu_run.store.directories import Root
from tests.harness.small_disk import fill, make_read_only, small_disk


def check(folder: Path, leases: Path, virtual_gpus: int | None = 2) -> Check:
    root = Root(str(folder))
    settings: Settings = {"virtual_gpus": virtual_gpus, "lease_dir": str(leases), "python": None}
    return install_check.check(root, HostEngine(root, settings, "/nonexistent/gpu-run.pyz"))


def test_what_there_is(tmp_path: Path) -> None:
    found = check(tmp_path / "root", tmp_path / "leases")
    assert found["engine"] == "host"
    assert found["capacity"]["free_gpus"] == 2
    assert found["disk"]["free"] > 0
    assert found["git"]
    assert not [name for name in os.listdir(tmp_path / "root" / ".gpu-run") if name.startswith("probe")]


def test_no_git_is_only_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    found = check(tmp_path / "root", tmp_path / "leases")
    assert found["git"] is None
    assert found["uv"] is None
    assert any("no git" in warning for warning in found["warnings"])


def test_little_space_is_a_warning_and_none_an_error(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 512) as disk:
        found = check(disk, tmp_path / "leases")
        assert any(f"MB are free in {disk}" in warning for warning in found["warnings"])
        fill(disk)
        with pytest.raises(Refused, match="no space left on the disk") as caught:
            check(disk, tmp_path / "leases")
        assert caught.value.code == protocol.NO_SPACE
        assert not [name for name in os.listdir(disk / ".gpu-run") if name.startswith("probe")]


def test_a_disk_that_is_read_only(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 512) as disk:
        (disk / ".gpu-run").mkdir()
        make_read_only(disk)
        with pytest.raises(Refused, match="Read-only file system; set 'root_dir'") as caught:
            check(disk, tmp_path / "leases")
        assert caught.value.code == protocol.ROOT_NOT_WRITABLE


def test_no_gpus_says_that_the_rest_is_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(Refused, match=r"everything else is ready: Python 3") as caught:
        check(tmp_path / "root", tmp_path / "leases", virtual_gpus=None)
    assert caught.value.code == protocol.GPUS_UNAVAILABLE
