"""Installs the program on a cluster by SFTP: whole or not at all, even if several do so at once."""

from __future__ import annotations

import contextlib
import errno
import itertools
import shlex
import struct
import uuid

import paramiko

from airflow_provider_gpu_cluster.connection.channel import BREAKS, text_of
from airflow_provider_gpu_cluster.connection.connection import Connection
from airflow_provider_gpu_cluster.connection.host_faults import says_disk_is_full
from airflow_provider_gpu_cluster.connection.program import Program
from airflow_provider_gpu_cluster.connection.words import cleaned, words_of
from airflow_provider_gpu_cluster.exceptions import (
    GpuClusterError,
    GpuClusterProtocolError,
    GpuClusterSetupError,
    NoSpaceError,
)

COMMAND = "gpu-run"
_OLD_S = 3600
_MOST_LISTED = 10000
_WHY_SFTP = (
    "gpu-run is uploaded by it. The SSH server needs its sftp subsystem, and the login shell's start files must print "
    "nothing when there is no terminal"
)
# In the C locale, for all systems that have a name for it.


def install(connection: Connection, program: Program) -> None:
    """
    Upload the program under a unique name and rename it to its final one; make ``gpu-run`` a link to it.

    :param connection: an open connection.
    :raises GpuClusterSetupError: ``root_dir`` cannot be written to, or the cluster has no SFTP.
    :raises NoSpaceError: the disk is full, or the quota is used up.
    :raises paramiko.SSHException: the connection broke.
    """
    folder = connection.sftp_path(".gpu-run")
    with connection.sftp(why=_WHY_SFTP, downloads=False) as sftp:
        channel = sftp.get_channel()
        assert channel is not None
        try:
            _upload(sftp, folder, program)
        except OSError as error:
            if channel.closed or isinstance(error, TimeoutError):
                words = f"the connection broke while the program was uploaded: {words_of(error)}"
                raise paramiko.SSHException(words) from error
            raise _explained(connection, folder, len(program.content), error) from error
        except (paramiko.SFTPError, struct.error, UnicodeDecodeError) as error:
            raise GpuClusterProtocolError(
                f"{connection.settings.where}: what its SFTP server answers cannot be right: {words_of(error)}; the "
                "command `sftp` shows what is wrong"
            ) from error


def not_there(connection: Connection, name: str) -> str:
    """
    Find out why a program that was uploaded is not found by the command that runs it, and return it in words.

    SFTP and commands may have different homes (a start file that sets ``HOME``) or roots (``ChrootDirectory``).

    :param name: the program's file name.
    """
    root_dir = connection.settings.root_dir
    path = f"{root_dir.rstrip('/')}/.gpu-run/{name}"
    with connection.sftp(why=_WHY_SFTP, downloads=False) as sftp:
        try:
            size = sftp.stat(connection.sftp_path(f".gpu-run/{name}")).st_size
            by_sftp = sftp.normalize(connection.sftp_path(".gpu-run"))
        except OSError as error:
            return (
                f"the program was uploaded and is not there afterwards ({path}: {words_of(error)}); something removes "
                "it: set 'root_dir' in the connection to a folder that is not cleaned up"
            )
    with contextlib.closing(connection.start("exec sh -c 'pwd; echo \"$HOME\"'")) as channel:
        said = [cleaned(line, 300) for line in text_of(channel.makefile("rb").read(1 << 16)).splitlines()]
    folder, home = said[-2:] if len(said) >= 2 else ("?", "?")
    return (
        f"the program was uploaded by SFTP to {cleaned(by_sftp, 300)} ({size} bytes), and commands do not find it at "
        f"{path}: for them the home directory is {home}, and they start in {folder}. Either a start file there (such "
        "as ~/.bashrc) sets HOME, or SFTP has another root than commands (ChrootDirectory in sshd_config). Set "
        "'root_dir' in the connection to an absolute path that is the same folder for both"
    )


def _upload(sftp: paramiko.SFTPClient, folder: str, program: Program) -> None:
    _make_folders(sftp, folder)
    draft = f"{folder}/.{program.name}.{uuid.uuid4().hex}.tmp"
    try:
        with sftp.open(draft, "wx") as file:
            file.set_pipelined(True)
            file.write(program.content)
        if sftp.stat(draft).st_size != len(program.content):
            raise OSError(errno.ENOSPC, "the file arrived cut short")
        sftp.chmod(draft, 0o755)
        sftp.posix_rename(draft, f"{folder}/{program.name}")
    except OSError:
        with contextlib.suppress(*BREAKS):
            sftp.remove(draft)
        raise
    _link(sftp, program.name, f"{folder}/{COMMAND}")
    _remove_old_drafts(sftp, folder, program)


def _remove_old_drafts(sftp: paramiko.SFTPClient, folder: str, program: Program) -> None:
    """Remove drafts of interrupted uploads; judge their age by the cluster's clock, which may differ from ours."""
    now = sftp.stat(f"{folder}/{program.name}").st_mtime or 0
    for entry in list(itertools.islice(sftp.listdir_iter(folder), _MOST_LISTED)):
        if entry.filename.endswith(".tmp") and (entry.st_mtime or 0) < now - _OLD_S:
            with contextlib.suppress(OSError):
                sftp.remove(f"{folder}/{entry.filename}")


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
            except OSError as error:
                # Somebody else may have made it just now.
                try:
                    sftp.stat(path)
                except OSError:
                    raise error from None


def _link(sftp: paramiko.SFTPClient, target: str, path: str) -> None:
    """Point the person's command to the newest program."""
    draft = f"{path}.{uuid.uuid4().hex}"
    with contextlib.suppress(OSError):
        sftp.symlink(target, draft)
        sftp.posix_rename(draft, path)


def _explained(connection: Connection, folder: str, size: int, error: OSError) -> GpuClusterError:
    """Find out why a file could not be written, because SFTP reports nearly every error as ``Failure``."""
    where, root_dir = connection.settings.where, connection.settings.root_dir
    probe = f".probe-{uuid.uuid4().hex}"
    script = (
        f"LC_ALL=C; export LC_ALL; f={shlex.quote(folder)}; "
        f'mkdir -p "$f" && head -c {size} /dev/zero > "$f/{probe}"; rm -f "$f/{probe}"; '
        'while [ ! -d "$f" ] && [ "$f" != "${f%/*}" ]; do f=${f%/*}; done; df -Pk "$f/." | tail -n 1 >&2'
    )
    with contextlib.closing(connection.start(f"exec sh -c {shlex.quote(script)}")) as channel:
        stderr = channel.makefile_stderr("rb").read(1 << 16)
    said = stderr.decode("utf-8", "backslashreplace").strip().splitlines()
    free = _free_bytes(said.pop()) if said else None
    why = cleaned(said[-1]) if said else words_of(error)
    if says_disk_is_full(why):
        left = "" if free is None else f", of which {free / 1e6:.1f} MB are free"
        return NoSpaceError(
            f"{where}: the program ({size / 1e6:.1f} MB) could not be written to {root_dir}/.gpu-run: {why}{left}; "
            "make room there, or set 'root_dir' in the connection to a folder on another disk"
        )
    return GpuClusterSetupError(
        f"{where}: root_dir {root_dir} cannot be written to: {why}; set 'root_dir' in the connection to a folder of "
        "your own on the cluster"
    )


def _free_bytes(line: str) -> int | None:
    """Read the free space from the last line of ``df -Pk``."""
    words = line.split()
    return int(words[3]) * 1024 if len(words) >= 6 and words[3].isdigit() else None
