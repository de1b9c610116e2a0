"""What stands beside a DAG file in a zip archive is sent as from a folder."""

from __future__ import annotations

import os
import stat
import zipfile
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.exceptions import SourceError
from airflow_provider_gpu_cluster.jobs.request import JobRequest
from airflow_provider_gpu_cluster.sources import UploadSource, parse_sources


def member(name: str, mode: int = stat.S_IFREG | 0o644) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "my.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("dag.py", "dag")
        made.writestr("small/train.py", "train" * 1000)
        made.writestr(member("small/run.sh", stat.S_IFREG | 0o755), "run")
        made.writestr("small/.gpujobignore", "*.log\n")
        made.writestr("small/a.log", "log")
        made.writestr("small/deep/er/x", "x")
        made.writestr("small/empty/", "")
        made.writestr("small/__pycache__/x.pyc", "x")
        made.writestr("small/venv/pyvenv.cfg", "x")
        made.writestr("small/venv/bin/python", "x")
        made.writestr(member("small/link", stat.S_IFLNK | 0o777), "deep/er/x")
        made.writestr("digits.csv", "1,2\n")
        made.writestr("run.sh.j2", "echo {{ job_id }}\n")
    return path


def upload(base_dir: Path, kind: str = "code", written: Any = "small") -> UploadSource:
    [source] = parse_sources(**{"code": None, "data": None, "models": None, kind: written}, base_dir=base_dir)
    assert isinstance(source, UploadSource)
    return source


def unpacked(archive: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "unpacked"
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(folder)
    (folder / "small/run.sh").chmod(0o755)
    (folder / "small/link").unlink()
    os.symlink("deep/er/x", folder / "small/link")
    return folder


@pytest.mark.parametrize("written", ["small", "./small/", "digits.csv", "./small/deep"])
@pytest.mark.parametrize("kind", ["code", "data"])
def test_the_same_is_sent_as_from_the_unpacked_folder(archive: Path, tmp_path: Path, kind: str, written: str) -> None:
    zipped, plain = upload(archive, kind, written), upload(unpacked(archive, tmp_path), kind, written)
    assert (zipped.name, zipped.single_file) == (plain.name, plain.single_file)
    assert sorted(zipped.rows) == sorted(plain.rows)
    assert zipped.digest == plain.digest
    assert all(entry.kind != "file" or entry.open().read() for entry in zipped.entries())


@pytest.mark.parametrize("written", ["./", "."])
def test_the_whole_archive_is_a_folder_of_code(archive: Path, written: str) -> None:
    assert {"dag.py", "digits.csv", "small/train.py"} <= {
        entry.path for entry in upload(archive, "code", written).entries()
    }


def test_files_can_be_read_from_any_place(archive: Path) -> None:
    entry = next(entry for entry in upload(archive).entries() if entry.path == "train.py")
    with entry.open() as stream:
        assert stream.seek(4990) == 4990
        assert stream.read(100) == b"traintrain"


def test_archive_that_is_given_as_data_stays_a_file(archive: Path, tmp_path: Path) -> None:
    source = upload(tmp_path, "data", "my.zip")
    assert (source.name, source.single_file) == ("my.zip", True)


def test_what_is_beside_the_archive_is_found(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside" / "x").write_text("x")
    assert [entry.path for entry in upload(archive, "code", "../beside").entries()] == ["x"]


def test_what_is_not_in_the_archive_is_said(archive: Path) -> None:
    with pytest.raises(SourceError, match=r"there is no file or folder 'large' in the archive '.*my.zip'"):
        upload(archive, "code", "large")


@pytest.mark.parametrize(
    ("info", "content", "said"),
    [
        (member("../evil"), "x", "would leave the folder"),
        (member("/etc/evil"), "x", "would leave the folder"),
        (member("small/../../evil"), "x", "would leave the folder"),
        (member("small/out", stat.S_IFLNK | 0o777), "../../etc/passwd", "leads out of what is sent"),
        (member("small/abs", stat.S_IFLNK | 0o777), "/etc/passwd", "leads out of what is sent"),
        (member("small/broken", stat.S_IFLNK | 0o777), "nothing", "which is not there"),
        (member("small/pipe", stat.S_IFIFO | 0o644), "", "neither a file nor a folder"),
        (member("small/train.py/x"), "x", "is a file and a folder as well"),
    ],
)
def test_what_leads_out_of_the_archive_is_refused(
    archive: Path, info: zipfile.ZipInfo, content: str, said: str
) -> None:
    with zipfile.ZipFile(archive, "a") as made:
        made.writestr(info, content)
    with pytest.raises(SourceError, match=said):
        list(upload(archive).entries())


def test_damaged_archive_is_an_error_that_names_it(archive: Path) -> None:
    content = bytearray(archive.read_bytes())
    at = content.index(b"small/train.py") + 20
    content[at : at + 10] = b"\0" * 10
    archive.write_bytes(content)
    with pytest.raises(SourceError, match=r"out of the archive '.*my\.zip'"):
        _ = upload(archive).digest


def test_template_of_run_sh_is_read_out_of_the_archive(archive: Path) -> None:
    request = JobRequest(command="true", run_script_template="run.sh.j2")
    assert request.run_script("job-1", base_dir=archive) == "echo job-1\n"
