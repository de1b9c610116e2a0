"""What people use instead to move files: scp, rsync, tar over ssh, the SFTPOperator; and what paramiko does at best."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

import paramiko
from airflow.providers.ssh.hooks.ssh import SSHHook

from airflow_provider_gpu_cluster.connection.channel import writer
from airflow_provider_gpu_cluster.connection.download_channel import open_download
from benchmarks.measure import SSH_CONN_ID, Bench

CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com", "aes128-ctr")
_PIECE_BYTES = 1 << 20
_TIMEOUT_S = 30


class Rivals:
    """
    The commands between this machine and a cluster. ``up`` brings a local path there, ``down`` one of there home.

    Each puts a file, or what is in a folder, to the path ``target``, whose parent exists.
    """

    def __init__(self, cluster: Bench) -> None:
        self._cluster = cluster

    def scp_up(self, source: Path, target: Path, cipher: str | None = None) -> None:
        self._scp(cipher, str(source), self._there(target))

    def scp_down(self, source: Path, target: Path, cipher: str | None = None) -> None:
        self._scp(cipher, self._there(source), str(target))

    def rsync_up(self, source: Path, target: Path) -> None:
        self._rsync(_content(source), self._there(target))

    def rsync_down(self, source: Path, target: Path) -> None:
        self._rsync(self._there(_content(source)), str(target))

    def tar_up(self, source: Path, target: Path) -> None:
        unpack = f"mkdir {shlex.quote(str(target))} && tar -C {shlex.quote(str(target))} -xf -"
        _piped(["tar", "-C", str(source), "-cf", "-", "."], self._cluster.ssh(unpack))

    def tar_down(self, source: Path, target: Path) -> None:
        target.mkdir()
        pack = shlex.join(["tar", "-C", str(source), "-cf", "-", "."])
        _piped(self._cluster.ssh(pack), ["tar", "-C", str(target), "-xf", "-"])

    def sftp_up(self, source: Path, target: Path, *, compress: bool) -> None:
        """Do what ``SFTPHook.store_file`` does for the operator; its provider is not needed for that."""
        with self._ssh_hook_client(compress) as client, client.open_sftp() as sftp:
            sftp.put(str(source), str(target), confirm=True)

    def sftp_down(self, source: Path, target: Path, *, compress: bool) -> None:
        """Do what ``SFTPHook.retrieve_file`` does for the operator."""
        with self._ssh_hook_client(compress) as client, client.open_sftp() as sftp:
            sftp.get(str(source), str(target), prefetch=True)

    def paramiko_up(self, source: Path, target: Path) -> None:
        """Send a file as fast as a program in Python can, and compare nothing."""
        with self._cluster.connect() as client, _transport(client).open_session() as channel:
            channel.exec_command(f"cat > {shlex.quote(str(target))}")
            out = writer(channel)
            with source.open("rb") as file:
                while piece := file.read(_PIECE_BYTES):
                    out.write(piece)
            channel.shutdown_write()
            assert channel.recv_exit_status() == 0

    def paramiko_down(self, source: Path, target: Path) -> None:
        """Fetch a file as fast as a program in Python can, and compare nothing."""
        with self._cluster.connect() as client, open_download(_transport(client), _TIMEOUT_S) as channel:
            channel.exec_command(f"cat {shlex.quote(str(source))}")
            with target.open("wb") as file:
                while piece := channel.recv(_PIECE_BYTES):
                    file.write(piece)
            assert channel.recv_exit_status() == 0

    def _ssh_hook_client(self, compress: bool) -> paramiko.SSHClient:
        os.environ.update(self._cluster.connections())
        hook = SSHHook(ssh_conn_id=SSH_CONN_ID)
        # True unless a connection says otherwise, and SFTPHook leaves it.
        assert hook.compress
        hook.compress = compress
        client: paramiko.SSHClient = hook.get_conn()
        return client

    def _scp(self, cipher: str | None, *paths: str) -> None:
        ciphers = [] if cipher is None else ["-c", cipher]
        _run(["scp", "-q", "-r", *ciphers, *self._cluster.ssh_options(), *paths])

    def _rsync(self, *paths: str) -> None:
        _run(["rsync", "-a", "-e", shlex.join(["ssh", *self._cluster.ssh_options()]), *paths])

    def _there(self, path: Path | str) -> str:
        return f"{self._cluster.address}:{path}"


def _transport(client: paramiko.SSHClient) -> paramiko.Transport:
    transport = client.get_transport()
    assert transport is not None
    return transport


def _content(source: Path) -> str:
    """Return a path for rsync, to which a folder's content is something else than the folder."""
    return f"{source}/" if source.is_dir() else str(source)


def _run(command: Sequence[str]) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def _piped(sender: Sequence[str], receiver: Sequence[str]) -> None:
    with subprocess.Popen(sender, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as first:
        subprocess.run(receiver, check=True, stdin=first.stdout)
    assert first.returncode == 0, f"{sender[0]} ended with exit code {first.returncode}"
