"""What a job brings along: all that is of the job, nothing of an attempt, and no part of it unsaid."""

from __future__ import annotations

import hashlib
import io
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.gpu_run.outputs.carried import CarriedFiles
from airflow_provider_gpu_cluster.gpu_run.outputs.folder import Unsendable
from airflow_provider_gpu_cluster.gpu_run.store import records
from airflow_provider_gpu_cluster.gpu_run.store.directories import JobDirectory, Root


@pytest.fixture
def job(tmp_path: Path) -> JobDirectory:
    job = Root(str(tmp_path / "root")).job("job")
    job.create()
    return job


@pytest.fixture
def outputs(job: JobDirectory) -> Path:
    return Path(job.at("outputs"))


def listed(job: JobDirectory, *, with_inputs: bool = False, without_checksums: bool = False) -> Any:
    files = CarriedFiles(Root(os.path.dirname(job.path)), job.job_id)
    return files.listed(with_inputs, without_checksums=without_checksums, out=io.BytesIO())


def rows(job: JobDirectory) -> dict[str, list[Any]]:
    (folder,) = listed(job)["folders"]
    return {row[0]: row[1:] for row in folder["rows"]}


def test_files_folders_and_links(job: JobDirectory, outputs: Path) -> None:
    (outputs / "checkpoints" / "empty").mkdir(parents=True)
    (outputs / "checkpoints" / "1.pt").write_bytes(b"one")
    (outputs / "checkpoints" / "run").touch(0o755)
    (outputs / "latest").symlink_to("checkpoints/1.pt")
    (outputs / "absolute").symlink_to(outputs / "checkpoints")
    (outputs / "checkpoints" / "around").symlink_to("../../outputs/latest")
    (outputs / "dangling").symlink_to("checkpoints/2.pt")
    for marker in ("SUCCESS", "FAILED", "status.txt"):
        (outputs / marker).write_text("of an attempt")
    (outputs / "checkpoints" / "FAILED").write_text("of the job")
    os.mkfifo(outputs / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(outputs / "socket"))
    found = rows(job)
    assert found == {
        "absolute": ["link", 0o755, "checkpoints"],
        "checkpoints": ["dir", 0o755, ""],
        "checkpoints/1.pt": ["file", 0o644, hashlib.sha256(b"one").hexdigest(), 3],
        "checkpoints/FAILED": ["file", 0o644, hashlib.sha256(b"of the job").hexdigest(), 10],
        "checkpoints/around": ["link", 0o755, "1.pt"],
        "checkpoints/empty": ["dir", 0o755, ""],
        "checkpoints/run": ["file", 0o755, hashlib.sha256().hexdigest(), 0],
        "dangling": ["link", 0o755, "checkpoints/2.pt"],
        "latest": ["link", 0o755, "checkpoints/1.pt"],
    }
    # A folder comes before what is in it, so that it can be made in this order.
    assert list(found).index("checkpoints") < list(found).index("checkpoints/1.pt")


@pytest.mark.parametrize("target", ["/etc", "../elsewhere", "/nowhere/at/all", "../../outside"])
def test_a_link_that_leads_out_is_told(job: JobDirectory, outputs: Path, target: str) -> None:
    (outputs / "link").symlink_to(target)
    for without_checksums in (True, False):
        told = listed(job, without_checksums=without_checksums)
        assert told["why_not"] == "outputs/link is a link that leads out of outputs/"
        assert "folders" not in told


def test_what_cannot_be_listed_is_told(job: JobDirectory, outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        (outputs / f"closed{number}").mkdir()
    real = os.listdir

    def refusing(path: str) -> list[str]:
        # Root may list everything.
        if "closed" in path:
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "listdir", refusing)
    assert listed(job)["why_not"] == (
        "outputs/closed0 cannot be listed (Permission denied); outputs/closed1 cannot be listed (Permission denied); "
        "outputs/closed2 cannot be listed (Permission denied); and 2 more"
    )


def test_a_checksum_is_computed_once(job: JobDirectory, outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (outputs / "large.pt").write_bytes(bytes(2_000_000))
    before = rows(job)
    monkeypatch.setattr(CarriedFiles, "_checksum", lambda self, name: pytest.fail("it was computed again"))
    assert rows(job) == before
    monkeypatch.undo()
    (outputs / "large.pt").write_bytes(b"x" * 2_000_000)
    assert rows(job) != before


def test_only_what_is_carried_can_be_read(job: JobDirectory, outputs: Path) -> None:
    files = CarriedFiles(Root(os.path.dirname(job.path)), "job")
    Path(job.at("code", "train.py")).write_text("pass")
    for name in ("outputs/train.py", "code/../outputs/x", ".job/spec.json", "logs/x", "outputs", "outputs/"):
        with pytest.raises((Unsendable, ValueError)):
            files.open(name)
    fd, found = files.open("code/train.py")
    os.close(fd)
    assert found.st_size == 4


def test_inputs_as_they_are(job: JobDirectory, tmp_path: Path) -> None:
    Path(job.at("code", "train.py")).write_text("pass")
    Path(job.at("data", "digits.csv")).write_text("1,2")
    Path(job.at("data", "shared")).symlink_to(tmp_path)
    noted = {
        "code": {"identity": ["git", None, "url"], "written": "git+url", "commit": "1234"},
        "data/digits.csv": {"identity": ["upload", "digest"], "written": "digits.csv", "checksums": "x"},
        "data/shared": {
            "identity": ["cluster", str(tmp_path)],
            "written": f"cluster:{tmp_path}",
            "path": str(tmp_path),
        },
    }
    records.write_json(job.at(".job", "inputs.json"), noted)
    told = listed(job, with_inputs=True)
    outputs, code, data = told["folders"]
    assert (outputs["kind"], outputs["rows"]) == ("outputs", [])
    assert (code["kind"], code["name"], code["facts"]["commit"]) == ("code", "", "1234")
    assert (data["kind"], data["name"], data["single_file"]) == ("data", "digits.csv", True)
    assert [row[0] for row in data["rows"]] == ["digits.csv"]
    assert "checksums" not in data["facts"]
    assert [(one["kind"], one["name"], one["path"]) for one in told["linked"]] == [("data", "shared", str(tmp_path))]
