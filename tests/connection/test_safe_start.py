"""
The program is run only from where nobody else can have put it.

Two users share a machine: alice, whose jobs these are, and eve. Only root can play both.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.connection.command_line import command_line
from airflow_provider_gpu_cluster.connection.safe_start import SAFE_START
from airflow_provider_gpu_cluster.connection.settings import ClusterSettings
from airflow_provider_gpu_cluster.exceptions import GpuClusterSetupError
from airflow_provider_gpu_cluster.gpu_run import protocol
from tests.harness.jobs import submit

ALICE, EVE, NOBODY = 1234, 1235, 65534
NAME = f"{'0' * 64}.pyz"

pytestmark = pytest.mark.skipif(
    os.getuid() != 0 and os.environ.get("CI") != "true", reason="only root can be two users"
)


class Machine:
    """
    A folder that both users can reach, with alice's root_dir in it.

    :param folder: belongs to root.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "home" / "ml-jobs"
        self.own = self.root / ".gpu-run"
        self.program = self.own / NAME
        make(folder / "home", ALICE)
        make(self.root, ALICE)
        make(self.own, ALICE, 0o700)
        write_program(self.program, ALICE)

    def start(self, root_dir: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run as alice what the provider sends to her login shell."""
        settings = ClusterSettings("conn", "name", root_dir=str(root_dir or self.root), python="/usr/bin/python3")
        line = command_line(settings, NAME, "status")
        return subprocess.run(
            ["/bin/sh", "-c", line],
            user=ALICE,
            group=ALICE,
            extra_groups=[],
            cwd="/",
            env={"PATH": os.defpath},
            capture_output=True,
            text=True,
        )


def make(folder: Path, owner: int, mode: int = 0o755) -> Path:
    folder.mkdir()
    return change(folder, owner, mode)


def change(path: Path, owner: int, mode: int) -> Path:
    os.chown(path, owner, owner)
    path.chmod(mode)
    return path


def write_program(path: Path, owner: int, mode: int = 0o755) -> None:
    """A program that says that it ran."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("__main__.py", "import sys; print('ran', *sys.argv[1:])")
    change(path, owner, mode)


@pytest.fixture
def machine() -> Iterator[Machine]:
    folder = Path(tempfile.mkdtemp(prefix="gpu-cluster-two-users-"))
    folder.chmod(0o755)
    yield Machine(folder)
    shutil.rmtree(folder)


def eves_program_folder(machine: Machine) -> None:
    shutil.rmtree(machine.own)
    make(machine.own, EVE)
    write_program(machine.program, EVE)


def eves_program(machine: Machine) -> None:
    machine.program.unlink()
    write_program(machine.program, EVE)


def eves_root(machine: Machine) -> None:
    """In a folder like /tmp, she was quicker."""
    machine.folder.chmod(0o1777)
    change(machine.folder / "home", EVE, 0o755)


def eves_link(machine: Machine) -> None:
    """In a folder like /tmp, to a folder of alice's."""
    machine.folder.chmod(0o1777)
    (machine.folder / "home").rename(machine.folder / "elsewhere")
    (machine.folder / "home").symlink_to("elsewhere")
    os.chown(machine.folder / "home", EVE, EVE, follow_symlinks=False)


@pytest.mark.parametrize(
    ("change_it", "words"),
    [
        (eves_program_folder, "/.gpu-run belongs to 1235, not to 1234: remove it if you may; or set root_dir"),
        (eves_program, f"/{NAME} belongs to 1235, not to 1234"),
        (eves_root, "/home belongs to 1235, not to 1234"),
        (eves_link, "/home belongs to 1235, not to 1234"),
        (lambda machine: make(machine.own / ("0" * 64), EVE), f"/{'0' * 64} belongs to 1235, not to 1234"),
        (lambda machine: change(machine.root, EVE, 0o755), "/ml-jobs belongs to 1235, not to 1234"),
        (
            lambda machine: change(machine.own, NOBODY, 0o755),
            "(on NFS, the owner nobody means that user ids are not mapped)",
        ),
        (lambda machine: machine.own.chmod(0o770), "/.gpu-run can be written to by others"),
        (lambda machine: machine.own.chmod(0o1777), "/.gpu-run can be written to by others"),
        (lambda machine: machine.program.chmod(0o666), f"/{NAME} can be written to by others: if you trust what is in"),
        (
            lambda machine: machine.root.chmod(0o777),
            "/ml-jobs can be written to by everybody, who could replace .gpu-run: have its owner run chmod o-w on it",
        ),
        (
            lambda machine: machine.folder.chmod(0o777),
            "can be written to by everybody, who could replace home: have its owner run chmod o-w on it; or set",
        ),
    ],
)
def test_what_others_may_have_put_there_is_not_run(
    machine: Machine, change_it: Callable[[Machine], Any], words: str
) -> None:
    change_it(machine)
    done = machine.start()
    assert done.returncode == protocol.EXIT_PROGRAM_UNSAFE, done
    assert "ran" not in done.stdout
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def linked_by_alice(machine: Machine) -> Path:
    link = machine.folder / "link"
    link.symlink_to("home/../home/ml-jobs")
    os.chown(link, ALICE, ALICE, follow_symlinks=False)
    machine.folder.chmod(0o1777)
    return link


def shut_below_a_folder_for_all(machine: Machine) -> None:
    """Nobody else can reach the folder that all can write to."""
    (machine.folder / "home").chmod(0o777)
    change(machine.folder, ALICE, 0o700)


@pytest.mark.parametrize(
    "change_it",
    [
        lambda machine: None,
        linked_by_alice,
        # A project's folder, and a folder like /tmp.
        lambda machine: machine.folder.chmod(0o2775),
        lambda machine: machine.folder.chmod(0o1777),
        lambda machine: change(machine.root, 0, 0o1777),
        lambda machine: machine.root.chmod(0o775),
        shut_below_a_folder_for_all,
    ],
)
def test_what_only_root_and_the_user_can_have_put_there_is_run(
    machine: Machine, change_it: Callable[[Machine], Path | None]
) -> None:
    done = machine.start(link if isinstance(link := change_it(machine), Path) else None)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "ran status"


def test_every_login_shell_can_read_the_line() -> None:
    assert not set("!\n") & set(SAFE_START)
    assert SAFE_START.count("'") == 2
    assert "\\\\" not in SAFE_START


def test_over_ssh(cluster: Cluster, cluster_settings: ClusterSettings) -> None:
    root = Path(cluster_settings.root_dir)
    assert not [warning for warning in cluster.check()["warnings"] if "written to" in warning]

    os.chown(root, -1, ALICE)
    root.chmod(0o770)
    assert [warning for warning in cluster.check()["warnings"] if "written to" in warning] == [
        f"{root} can be written to by the group {ALICE}, who could put their own folder in the place of "
        f"{root}/.gpu-run and so run code as root; that is right if you trust them (access lists are not looked at)"
    ]

    # A job may have opened its directory; it is closed again.
    make(root / "opened", 0, 0o777)
    submit(cluster, job_id="opened")
    assert (root / "opened").stat().st_mode & 0o777 == 0o700

    make(root / "job", EVE)
    with pytest.raises(GpuClusterSetupError, match=r"/job belongs to 1235, not to root, so nothing in it is used"):
        submit(cluster, job_id="job")
    make(root / ".cache", EVE)
    with pytest.raises(GpuClusterSetupError, match=r"/\.cache belongs to 1235, not to root, so nothing in it is used"):
        cluster.check()
    shutil.rmtree(root / ".cache")

    change(root / ".gpu-run", EVE, 0o755)
    words = r"is not run, as others may have put it there: .*/\.gpu-run belongs to 1235, not to root"
    with pytest.raises(GpuClusterSetupError, match=words):
        cluster.check()
