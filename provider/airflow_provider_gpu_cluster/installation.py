"""Put the program on a cluster, by SFTP: whole or not at all, however many do it at once."""

from __future__ import annotations

import contextlib
import errno
import uuid

import paramiko

from airflow_provider_gpu_cluster.exceptions import GpuClusterSetupError, NoSpaceError
from airflow_provider_gpu_cluster.program import Program

COMMAND = "gpu-run"


def install(client: paramiko.SSHClient, root_dir: str, program: Program, where: str) -> None:
    """
    Upload the program under a name of its own and rename it to its final one; make ``gpu-run`` a link to it.

    :param where: the cluster, for messages.
    :raises GpuClusterSetupError: ``root_dir`` cannot be written to.
    :raises NoSpaceError: the disk is full.
    """
    # SFTP starts in the home directory, and knows no tilde.
    root = root_dir.removeprefix("~/") if root_dir != "~" else "."
    folder = f"{root}/.gpu-run"
    final = f"{folder}/{program.name}"
    draft = f"{folder}/.{program.name}.{uuid.uuid4().hex}.tmp"
    with client.open_sftp() as sftp:
        try:
            _make_folders(sftp, folder)
            try:
                with sftp.open(draft, "wx") as file:
                    file.set_pipelined(True)
                    file.write(program.content)
                if sftp.stat(draft).st_size != len(program.content):
                    raise OSError(errno.ENOSPC, "the file arrived cut short")
                sftp.chmod(draft, 0o755)
                sftp.posix_rename(draft, final)
            except OSError:
                with contextlib.suppress(OSError):
                    sftp.remove(draft)
                raise
            _link(sftp, program.name, f"{folder}/{COMMAND}")
        except PermissionError as error:
            raise GpuClusterSetupError(
                f"{where}: root_dir {root_dir} cannot be written to; set 'root_dir' in the connection to a folder of "
                "your own on the cluster"
            ) from error
        except OSError as error:
            # SFTP has one code for all other failures; a full disk is the likely one.
            raise NoSpaceError(
                f"{where}: the program could not be written to {root_dir}/.gpu-run: {error}; "
                "is the disk full or the quota used up?"
            ) from error


def _make_folders(sftp: paramiko.SFTPClient, folder: str) -> None:
    parts = folder.split("/")
    for count in range(1, len(parts) + 1):
        path = "/".join(parts[:count])
        if not path:
            continue
        try:
            sftp.stat(path)
        except FileNotFoundError:
            try:
                sftp.mkdir(path, 0o700)
            except OSError:
                # Somebody else has made it just now; if not, this says why.
                sftp.stat(path)


def _link(sftp: paramiko.SFTPClient, target: str, path: str) -> None:
    """Point the person's command to the newest program."""
    draft = f"{path}.{uuid.uuid4().hex}"
    with contextlib.suppress(OSError):
        sftp.symlink(target, draft)
        sftp.posix_rename(draft, path)
