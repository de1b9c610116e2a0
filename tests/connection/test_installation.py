"""Putting the program on a cluster, whatever its disk, its paths and its login shell are like."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paramiko
import pytest

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.connection import command_start
from airflow_provider_gpu_cluster.connection import session as session_module
from airflow_provider_gpu_cluster.connection.installation import COMMAND
from airflow_provider_gpu_cluster.connection.installation import install as real_install
from airflow_provider_gpu_cluster.connection.program import build_program
from airflow_provider_gpu_cluster.connection.settings import ClusterSettings
from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError, GpuClusterSetupError, NoSpaceError
from airflow_provider_gpu_cluster.sources import parse_sources
from tests.harness.jobs import submit, wait
from tests.harness.small_disk import fill, make_read_only, small_disk
from tests.servers.proxy import CutProxy
from tests.servers.sshd import HOW_TO_INSTALL, SSHD, RealSshd

Connect = Callable[..., paramiko.SSHClient]

PYTHON = os.path.realpath(sys.executable)
SFTP_SERVER = next(
    (path for path in ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server") if os.path.exists(path)), ""
)

# What sshd runs for every login, with the file "start" in the place of the user's own start files.
SHELL = """\
#!/bin/sh
. {folder}/start
case $SSH_ORIGINAL_COMMAND in
    internal-sftp*) exec {sftp_server} ;;
    *) exec sh -c "$SSH_ORIGINAL_COMMAND" ;;
esac
"""


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealSshd]:
    """Return a server whose login shell does what the test says."""
    assert SSHD, HOW_TO_INSTALL
    assert SFTP_SERVER, "the OpenSSH server comes with sftp-server, and it is not where it should be"
    server = RealSshd(tmp_path_factory.mktemp("sshd"))
    shell = server.folder / "shell"
    shell.write_text(SHELL.format(folder=server.folder, sftp_server=SFTP_SERVER))
    shell.chmod(0o755)
    keys = server.folder / "authorized_keys"
    keys.write_text(f'command="{shell}" {keys.read_text()}')
    (server.folder / "start").touch()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def start_file(sshd: RealSshd) -> Iterator[Callable[[str], Any]]:
    """Return a function that sets what the login shell runs at its start."""
    yield (sshd.folder / "start").write_text
    (sshd.folder / "start").write_text("")


@pytest.fixture
def home(tmp_path: Path, start_file: Callable[[str], Any]) -> Path:
    """Return the user's home directory on the cluster."""
    folder = tmp_path / "home"
    folder.mkdir()
    start_file(f"HOME='{folder}'; export HOME; cd")
    return folder


def installed(root: Path | str) -> list[str]:
    """Return what lies beside the program, without what it writes itself."""
    own = (COMMAND, "queue", "pool.json")
    names = os.listdir(Path(root) / ".gpu-run")
    return sorted(name for name in names if name not in own and not os.path.isdir(Path(root) / ".gpu-run" / name))


def other(settings: ClusterSettings, connect: Connect, **changes: Any) -> Cluster:
    return Cluster(dataclasses.replace(settings, **changes), connect)


def test_it_is_uploaded_when_it_is_missing_and_only_then(
    cluster: Cluster, cluster_settings: ClusterSettings, ssh_connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploads: list[str] = []

    def install(*arguments: Any) -> None:
        uploads.append("upload")
        real_install(*arguments)

    monkeypatch.setattr(session_module, "install", install)
    for _ in range(2):
        cluster.check()
    with other(cluster_settings, ssh_connect) as second:
        second.check()
    assert uploads == ["upload"]
    folder = Path(cluster_settings.root_dir) / ".gpu-run"
    name = build_program().name
    assert (folder / name).read_bytes() == build_program().content
    assert os.readlink(folder / COMMAND) == name
    assert folder.stat().st_mode & 0o777 == 0o700

    (folder / name).unlink()
    cluster.check()
    assert uploads == ["upload", "upload"]


def test_ten_at_once(cluster_settings: ClusterSettings, ssh_connect: Connect) -> None:
    """Whoever sees the program under its name sees all of it."""
    seen: set[int] = set()
    done = threading.Event()
    final = Path(cluster_settings.root_dir) / ".gpu-run" / build_program().name

    def watch() -> None:
        while not done.is_set():
            if final.exists():
                seen.add(final.stat().st_size)

    failures: list[BaseException] = []

    def check() -> None:
        try:
            with other(cluster_settings, ssh_connect) as cluster:
                cluster.check()
        except BaseException as error:
            failures.append(error)

    watcher = threading.Thread(target=watch)
    threads = [threading.Thread(target=check) for _ in range(10)]
    for thread in (watcher, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    watcher.join()
    assert failures == []
    assert seen == {len(build_program().content)}
    assert installed(cluster_settings.root_dir) == [build_program().name]


def test_a_connection_that_breaks_during_the_upload(
    cluster_settings: ClusterSettings, ssh_connect: Connect, cut_proxy: CutProxy
) -> None:
    half = len(build_program().content) // 2
    with other(cluster_settings, lambda: ssh_connect(cut_proxy.port)) as cluster:
        cut_proxy.cut_after(nbytes=half, direction="up", times=2)
        cluster.capacity()
    assert cut_proxy.connections == 3
    *drafts, name = sorted(installed(cluster_settings.root_dir), key=lambda name: not name.startswith("."))
    assert name == build_program().name
    assert drafts

    # Drafts that are surely nobody's any more go with the next upload.
    folder = Path(cluster_settings.root_dir) / ".gpu-run"
    for draft in drafts:
        os.utime(folder / draft, (0, 0))
    (folder / name).unlink()
    with other(cluster_settings, ssh_connect) as cluster:
        cluster.check()
    assert installed(cluster_settings.root_dir) == [name]


# -- paths -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("root_dir", "where"),
    [
        ("~", ""),
        ("~/", ""),
        ("~/ml-jobs", "ml-jobs"),
        ("~/x y/", "x y"),
        ("~//x", "x"),
        ("jobs", "jobs"),
        ("a/b c", "a/b c"),
        ('~/it\'s "here" `id` \\ ; *', 'it\'s "here" `id` \\ ; *'),
    ],
)
def test_roots_in_the_home_directory(
    cluster_settings: ClusterSettings, ssh_connect: Connect, home: Path, root_dir: str, where: str
) -> None:
    with other(cluster_settings, ssh_connect, root_dir=root_dir) as cluster:
        assert cluster.check()["root_dir"] == str(home / where).rstrip("/")
        assert cluster.capacity()["free_gpus"] == 4
    assert installed(home / where) == [build_program().name]


@pytest.mark.parametrize("name", ["x y", "it's", '"', "`id`", "\\", "~", "-rf", "ünï", "a;b&c|d>e"])
def test_absolute_roots(
    cluster_settings: ClusterSettings, ssh_connect: Connect, cluster_folder: Path, name: str
) -> None:
    root = cluster_folder / name
    with other(cluster_settings, ssh_connect, root_dir=str(root)) as cluster:
        assert cluster.check()["root_dir"] == str(root)
    assert installed(root) == [build_program().name]


def test_an_interpreter_with_blanks_in_its_path(
    cluster_settings: ClusterSettings, ssh_connect: Connect, home: Path
) -> None:
    (home / "my python's").mkdir()
    (home / "my python's" / "python 3").symlink_to(PYTHON)
    for python in ("~/my python's/python 3", f"{home}/my python's/python 3"):
        with other(cluster_settings, ssh_connect, python=python) as cluster:
            assert cluster.check()["python"]["version"] == ".".join(map(str, sys.version_info[:3]))


@pytest.mark.parametrize("python", ["/nonexistent/python3", "python3.99", "~/nope"])
def test_no_such_interpreter(cluster_settings: ClusterSettings, ssh_connect: Connect, python: str) -> None:
    with (
        other(cluster_settings, ssh_connect, python=python) as cluster,
        pytest.raises(GpuClusterSetupError, match=f"there is no {python} on the cluster; set 'python'"),
    ):
        cluster.check()


def test_an_interpreter_that_is_none(cluster_settings: ClusterSettings, ssh_connect: Connect) -> None:
    with (
        other(cluster_settings, ssh_connect, python="/bin/echo") as cluster,
        pytest.raises(
            GpuClusterSetupError, match=r"(?s)ended with exit code 0 and no reply; it said: .* install-check$"
        ),
    ):
        cluster.check()


# -- login shells ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "noise",
    [
        pytest.param("echo Welcome; echo; echo 'Disk quota: 90%'", id="lines"),
        pytest.param("printf 'no newline'", id="no newline"),
        pytest.param("printf '\\033[1m\\377\\000\\036 gpu-run 1'", id="bytes"),
        pytest.param("echo warning >&2", id="stderr"),
        pytest.param("head -c 200000 /dev/zero | tr '\\0' '\\n'", id="many lines"),
        pytest.param("head -c 200000 /dev/zero; head -c 200000 /dev/zero >&2", id="much"),
    ],
)
def test_a_login_shell_that_prints(cluster: Cluster, start_file: Callable[[str], Any], noise: str) -> None:
    # SFTP cannot stand it, and has start files of its own on most systems.
    start_file(f"case $SSH_ORIGINAL_COMMAND in internal-sftp*) ;; *) {noise} ;; esac")
    cluster.check()
    assert submit(cluster, job_id="job").created


@pytest.mark.parametrize("noise", ["yes", "cat /dev/zero", "yes ''"])
def test_a_login_shell_that_prints_without_end(cluster: Cluster, start_file: Callable[[str], Any], noise: str) -> None:
    start_file(f"timeout 120 {noise}")
    began = time.monotonic()
    with pytest.raises(GpuClusterSetupError, match="prints without end before it runs a command"):
        cluster.check()
    assert time.monotonic() - began < 100


def test_a_login_shell_that_refuses(cluster: Cluster, start_file: Callable[[str], Any]) -> None:
    start_file("echo 'This account is for file transfer only.' >&2; exit 1")
    words = r"exit code 1 and did not run the command; look at its start files .*; it said: This account is for file"
    with pytest.raises(GpuClusterSetupError, match=words):
        cluster.check()


@pytest.mark.parametrize(
    "start",
    [
        pytest.param('read answer; test -z "$answer"', id="a question"),
        pytest.param("cat < /dev/null; ssh -V; head -n 1", id="a line"),
        pytest.param("sleep 0.3; cd /; HOME=/; set -eu; ulimit -n 64; trap 'echo bye' EXIT", id="a slow one"),
        pytest.param('stty erase x; echo "$SSH_ORIGINAL_COMMAND"; head -c 3000000 /dev/zero >&2', id="much"),
    ],
)
def test_a_start_file_that_takes_standard_input(
    cluster: Cluster, start_file: Callable[[str], Any], tmp_path: Path, start: str
) -> None:
    cluster.check()
    start_file(f"case $SSH_ORIGINAL_COMMAND in internal-sftp*) ;; *) {start} ;; esac")
    (tmp_path / "data").write_bytes(os.urandom(3000))
    (source,) = parse_sources(code=None, data=str(tmp_path / "data"), models=None, base_dir=tmp_path)
    submit(cluster, 'cmp "$DATA_DIR/data" ' + str(tmp_path / "data"), job_id="job", sources=[source])
    assert wait(cluster, "job").state == "SUCCEEDED"


@pytest.mark.parametrize(
    ("start", "words"),
    [
        pytest.param("cat > /dev/null", "reads standard input to its end", id="cat"),
        pytest.param("while read line; do :; done", "reads standard input to its end", id="read"),
        pytest.param("exec sh", "seems to put another program into its place", id="exec"),
        pytest.param("exec cat", "seems to put another program into its place", id="exec cat"),
        pytest.param("exec sleep 30", "has not begun to run the command within 0.5 s", id="hangs"),
    ],
)
def test_a_start_file_that_keeps_the_command_from_running(
    cluster: Cluster,
    start_file: Callable[[str], Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    start: str,
    words: str,
) -> None:
    """The error names the start files, and no shell ever reads what a user has given."""
    monkeypatch.setattr(command_start, "START_TIMEOUT_S", 0.5)
    monkeypatch.setattr(command_start, "_AFTER_END_S", 0.5)
    start_file(f"case $SSH_ORIGINAL_COMMAND in internal-sftp*) ;; *) {start} ;; esac")
    secret = f"$(touch {tmp_path}/carried-out)\ntouch {tmp_path}/carried-out\n"
    error = GpuClusterConnectionError if "sleep" in start else GpuClusterSetupError
    with pytest.raises(error, match=rf"{words}.*\.bashrc"):
        submit(cluster.retrying_for(0), secret, job_id="job", env={"X": secret})
    assert not (tmp_path / "carried-out").exists()


@pytest.mark.parametrize(
    ("start", "words"),
    [
        ("echo Welcome to the cluster", "Garbage packet"),
        # It has ended when it is spoken to, or a moment later.
        ("exit 0", "the other side closed the connection"),
        ("printf '\\000\\000\\000\\001'; exit", ""),
    ],
)
def test_no_sftp(cluster: Cluster, start_file: Callable[[str], Any], start: str, words: str) -> None:
    start_file(f"case $SSH_ORIGINAL_COMMAND in internal-sftp*) {start} ;; esac")
    began = time.monotonic()
    with pytest.raises(GpuClusterSetupError, match=rf"SFTP does not work there \(.*{words}.*must print nothing"):
        cluster.check()
    assert time.monotonic() - began < 100


# -- disks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_home", [False, True])
def test_a_root_below_a_file(
    cluster_settings: ClusterSettings, ssh_connect: Connect, home: Path, in_home: bool
) -> None:
    (home / "file").touch()
    root = "~/file/ml-jobs" if in_home else f"{home}/file/ml-jobs"
    words = f"root_dir {root} cannot be written to: .*Not a directory; set 'root_dir'"
    with other(cluster_settings, ssh_connect, root_dir=root) as cluster:
        with pytest.raises(GpuClusterSetupError, match=words):
            cluster.check()
        # Some file systems have a path that looks right and is none.
        cluster.close()


def test_a_root_that_is_a_file(cluster_settings: ClusterSettings, ssh_connect: Connect, home: Path) -> None:
    (home / "file").touch()
    with (
        other(cluster_settings, ssh_connect, root_dir="~/file") as cluster,
        pytest.raises(GpuClusterSetupError, match="root_dir ~/file cannot be written to: "),
    ):
        cluster.check()


def test_a_disk_that_is_read_only(cluster_settings: ClusterSettings, ssh_connect: Connect, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1024) as disk:
        make_read_only(disk)
        with (
            other(cluster_settings, ssh_connect, root_dir=f"{disk}/jobs") as cluster,
            pytest.raises(GpuClusterSetupError, match=r"cannot be written to: .*Read-only file system"),
        ):
            cluster.check()


@pytest.mark.parametrize("leave_kb", [0, 12, 24])
def test_a_disk_that_is_full(
    cluster_settings: ClusterSettings, ssh_connect: Connect, tmp_path: Path, leave_kb: int
) -> None:
    with small_disk(tmp_path / "disk", 4096) as disk:
        fill(disk, leave_kb)
        with other(cluster_settings, ssh_connect, root_dir=f"{disk}/jobs") as cluster:
            words = r"the program \(0\.\d MB\) could not be written .*: .*No space left on device, of which 0\.0 MB are"
            with pytest.raises(NoSpaceError, match=words):
                cluster.check()
            assert not os.path.exists(disk / "jobs" / ".gpu-run") or installed(disk / "jobs") == []
            (disk / "filler").unlink()
            assert cluster.check()["root_dir"] == f"{disk}/jobs"


def test_the_program_vanishes_at_once(
    cluster: Cluster, start_file: Callable[[str], Any], cluster_settings: Any
) -> None:
    """A cleaner of temporary folders that is too eager: say so, and do not upload for ever."""
    start_file(f"case $SSH_ORIGINAL_COMMAND in internal-sftp*) ;; *) rm -rf '{cluster_settings.root_dir}' ;; esac")
    with pytest.raises(GpuClusterSetupError, match="was uploaded and is not there afterwards"):
        cluster.check()


def test_commands_have_another_home_than_sftp(
    cluster_settings: ClusterSettings, ssh_connect: Connect, start_file: Callable[[str], Any], home: Path
) -> None:
    """A start file that sets HOME; a chrooted SFTP looks the same."""
    (home / "moved").mkdir()
    start_file(
        f"HOME='{home}'; export HOME; cd; "
        f"case $SSH_ORIGINAL_COMMAND in internal-sftp*) ;; *) HOME='{home}/moved'; cd ;; esac"
    )
    words = rf"uploaded by SFTP to {home}/ml-jobs/\.gpu-run .* home directory is {home}/moved, .*sets HOME, or SFTP has"
    with (
        other(cluster_settings, ssh_connect, root_dir="~/ml-jobs") as cluster,
        pytest.raises(GpuClusterSetupError, match=words),
    ):
        cluster.check()


@pytest.mark.parametrize("said", ["-bash: fork: retry: Resource temporarily unavailable", "cannot allocate memory"])
def test_a_host_that_has_no_room_for_a_process_is_asked_again(
    cluster: Cluster, start_file: Callable[[str], Any], tmp_path: Path, said: str
) -> None:
    tries = tmp_path / "tries"
    start_file(f"echo try >> {tries}; if [ $(wc -l < {tries}) -lt 2 ]; then echo '{said}' >&2; exit 254; fi")
    assert cluster.capacity()["free_gpus"] == 4


def test_out_of_reach_during_the_upload(
    cluster_settings: ClusterSettings, ssh_connect: Connect, cut_proxy: CutProxy
) -> None:
    """A check tries once, and what broke is the connection, not the disk."""
    with other(cluster_settings, lambda: ssh_connect(cut_proxy.port)) as cluster:
        cut_proxy.cut_after(nbytes=20000, direction="up")
        with pytest.raises(GpuClusterConnectionError, match=re.escape("the connection broke")):
            cluster.check()
    shutil.rmtree(cluster_settings.root_dir)
