"""root_dir as text for shells: what is a variable there, and what is only text."""

from __future__ import annotations

import dataclasses
import os
import pwd
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import paramiko
import pytest

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.connection.command_line import root_line
from airflow_provider_gpu_cluster.connection.root_dir import is_valid
from airflow_provider_gpu_cluster.connection.settings import ClusterSettings
from airflow_provider_gpu_cluster.exceptions import GpuClusterSetupError
from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.sinks import open_sink
from airflow_provider_gpu_cluster.sources import parse_sources
from tests.harness.jobs import submit, wait

ENV = {
    "PATH": os.environ["PATH"],
    "HOME": "/home/anna smith",
    "SCRATCH": "/scratch/a b",
    "X": "x",
    "ODD": "/$(touch x)`touch y`\"'*",
    "EMPTY": "",
    "RELATIVE": "scratch",
    "TILDE": "~/scratch",
}
HOME = pwd.getpwuid(0).pw_dir


def printed(root_dir: str, folder: Path, shell: str = "sh") -> tuple[int, str, str]:
    """Return exit code, output and errors of a login shell that is given the line."""
    line = root_line(ClusterSettings("c", "c", root_dir=root_dir))
    done = subprocess.run([shell, "-c", line], env=ENV, cwd=folder, capture_output=True, text=True, check=False)
    assert list(folder.iterdir()) == []
    return done.returncode, done.stdout.removeprefix("\n"), done.stderr.strip()


@pytest.mark.parametrize(
    ("root_dir", "path"),
    [
        ("/jobs", "/jobs"),
        ("~", "/home/anna smith"),
        ("~/a b", "/home/anna smith/a b"),
        ("a/b", "/home/anna smith/a/b"),
        ("/a`touch x`;'\"&*?! \\b", "/a`touch x`;'\"&*?! \\b"),
        ("$SCRATCH", "/scratch/a b"),
        ("$SCRATCH/jobs", "/scratch/a b/jobs"),
        ("${SCRATCH}jobs", "/scratch/a bjobs"),
        ("/w/$X/${X}_$X/it's", "/w/x/x_x/it's"),
        ("~/$X", "/home/anna smith/x"),
        ("j$X/y", "/home/anna smith/jx/y"),
        ("$ODD/jobs", "/$(touch x)`touch y`\"'*/jobs"),
        ("~root", HOME),
        ("~root/a b/$X", f"{HOME}/a b/x"),
    ],
)
@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_paths(root_dir: str, path: str, shell: str, tmp_path: Path) -> None:
    assert printed(root_dir, tmp_path, shell) == (0, path, "")


@pytest.mark.parametrize(
    "root_dir",
    ["$(touch x)/a", "$", "/a/$", "$1", "$$/a", "${X:-/tmp}", "${X", "${}", "$-", "~;x/a", "~-/a", "~$X", "~+", "$ä"],
)
def test_no_paths(root_dir: str) -> None:
    assert not is_valid(root_dir)
    assert all(map(is_valid, ("~root/$X", "/a~b", "~")))


@pytest.mark.parametrize("shell", [shell for shell in ("zsh", "tcsh", "csh", "fish", "ksh") if shutil.which(shell)])
def test_paths_in_other_shells(shell: str, tmp_path: Path) -> None:
    assert printed("~root/$X/${X}'s", tmp_path, shell) == (0, f"{HOME}/x/x's", "")


@pytest.mark.parametrize(
    ("root_dir", "said"),
    [
        ("$MISSING/jobs", "the variable MISSING is not set in a login"),
        ("/a/${MISSING}", "the variable MISSING is not set in a login"),
        ("$EMPTY/jobs", "the variable EMPTY is not set in a login"),
        ("$RELATIVE/jobs", "it is no absolute path: scratch/jobs"),
        ("$TILDE/jobs", "it is no absolute path: ~/scratch/jobs"),
        ("~nobody-of-that-name/jobs", "there is no user nobody-of-that-name"),
    ],
)
def test_what_means_no_folder(root_dir: str, said: str, tmp_path: Path) -> None:
    assert printed(root_dir, tmp_path) == (protocol.EXIT_NO_ROOT, "", said)


@pytest.mark.parametrize("transfer", ["stream", "sftp"])
def test_everything_is_in_the_expanded_folder(
    ssh_connect: Callable[..., paramiko.SSHClient], cluster_settings: ClusterSettings, tmp_path: Path, transfer: str
) -> None:
    folder = Path(cluster_settings.root_dir).parent
    root = folder / pwd.getpwuid(os.getuid()).pw_name / "jobs"
    (tmp_path / "train.sh").write_text('echo done > "$OUTPUT_DIR/result"\n')
    settings = dataclasses.replace(cluster_settings, root_dir=f"{folder}/$USER/jobs", transfer=transfer)
    with Cluster(settings, ssh_connect) as other:
        sources = parse_sources(code="train.sh", data=(), models=(), base_dir=tmp_path)
        handle = submit(other, command=None, entry_script="train.sh", sources=sources).handle
        assert handle.job_dir == str(root / handle.job_id)
        assert wait(other, handle.job_id).state == "SUCCEEDED"
        other.collect(handle.job_id, open_sink(tmp_path / "home"), include=["result"])
        assert other.check()["root_dir"] == str(root)
        assert other.collect_garbage(1.0, dry_run=True)["failed"] == []
    assert (tmp_path / "home" / "result").read_text() == "done\n"
    assert not list(folder.glob("*$*"))
    assert (root / ".gpu-run" / "gpu-run").exists()


def test_a_variable_that_is_not_set_is_named(
    ssh_connect: Callable[..., paramiko.SSHClient], cluster_settings: ClusterSettings
) -> None:
    settings = dataclasses.replace(cluster_settings, root_dir="$NO_SUCH_PLACE/jobs")
    said = r"root_dir \$NO_SUCH_PLACE/jobs means no folder there: the variable NO_SUCH_PLACE is not set"
    with Cluster(settings, ssh_connect) as other, pytest.raises(GpuClusterSetupError, match=said):
        other.check()
