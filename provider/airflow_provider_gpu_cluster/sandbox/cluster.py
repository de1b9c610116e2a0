"""One cluster of a sandbox: its folder, its keys, its server's thread, and the Airflow connection to it."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import json
import logging
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import asyncssh

from airflow_provider_gpu_cluster.gpu_run.linux.processes import kill_with_environment
from airflow_provider_gpu_cluster.sandbox.server import SandboxServer

_FAKE_NVML = "GPU_RUN_FAKE_NVML"
_KILL_TIMEOUT_S = 5.0
# asyncssh logs every connection and command at INFO, in the process that uses the sandbox.
if logging.getLogger("asyncssh").level == logging.NOTSET:
    logging.getLogger("asyncssh").setLevel(logging.WARNING)


def marker(folder: Path) -> str:
    """Return the environment entry, ``NAME=value``, that every process of a cluster inherits."""
    return f"GPU_CLUSTER_SANDBOX={folder}"


class SandboxCluster:
    """
    One cluster of a sandbox.

    To try what happens when a cluster fails, :meth:`cut_off`, :meth:`hang` or :meth:`crash` it. :meth:`restore` brings
    it back at the same address, with its jobs and files.

    :param conn_id: the Airflow connection to it.
    :param folder: for its keys, jobs and GPU leases; made if it is not there.
    :param gpus: number of virtual GPUs.
    :param port: TCP port to listen on; 0 takes a free one, which it keeps.
    :param fake_gpus: see :class:`Sandbox`.
    """

    host = "127.0.0.1"

    def __init__(
        self,
        conn_id: str,
        folder: Path,
        *,
        gpus: int,
        port: int = 0,
        fake_gpus: Sequence[Mapping[str, float]] | None = None,
    ) -> None:
        self.conn_id = conn_id
        self.folder = folder
        self.gpus = gpus
        self.port = port
        self.fake_gpus = fake_gpus
        self._server: SandboxServer | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._may_speak = threading.Event()
        self._may_speak.set()

    def start(self) -> None:
        """
        Start the server and return when it accepts connections.

        :raises OSError: the port is taken, or the folder cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        host_key = _load_or_make_key(self.folder / "host_key")
        client_key = _load_or_make_key(self.folder / "client_key")
        self._host_key = host_key.export_public_key("openssh").decode().strip()
        self._client_key = (self.folder / "client_key").read_text()
        variables = [marker(self.folder)]
        if self.fake_gpus is not None:
            fake = self.folder / "gpus.json"
            fake.write_text(json.dumps({"gpus": [dict(gpu) for gpu in self.fake_gpus]}))
            variables.append(f"{_FAKE_NVML}={fake}")
        self._server = SandboxServer(host_key, client_key, variables)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="gpu-sandbox", daemon=True)
        self._thread.start()
        listening = asyncio.run_coroutine_threadsafe(self._server.start(self.host, self.port), self._loop)
        self.port = listening.result()

    def stop(self, *, end_jobs: bool = False) -> None:
        """
        Stop the server.

        :param end_jobs: kill everything that runs on the cluster too.
        """
        self._may_speak.set()
        if self._loop is not None and self._thread is not None:
            if self._server is not None:
                asyncio.run_coroutine_threadsafe(self._server.stop(), self._loop).result()
                if end_jobs:
                    self._kill_all()
                    # Done while its loop still runs, because the loop notices when they end.
                    asyncio.run_coroutine_threadsafe(self._server.see_the_end(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
            self._loop = self._thread = self._server = None
        if end_jobs:
            self._kill_all()

    def cut_off(self) -> None:
        """Cut the network to the cluster: connections break, new ones are refused. Its jobs run on."""
        self.stop()

    def crash(self) -> None:
        """Kill everything that runs on the cluster and cut the network to it, as a power failure does."""
        self.stop(end_jobs=True)

    def hang(self) -> None:
        """Let the cluster fall silent: connections stay open and new ones are accepted, but nothing is answered."""
        if self._loop is not None and self._may_speak.is_set():
            self._may_speak.clear()
            self._loop.call_soon_threadsafe(self._may_speak.wait)

    def restore(self) -> None:
        """
        Bring the cluster back after :meth:`cut_off`, :meth:`crash` or :meth:`hang`.

        :raises OSError: another program has taken its port meanwhile.
        """
        self._may_speak.set()
        if self._loop is None:
            self.start()

    def _kill_all(self) -> None:
        kill_with_environment(marker(self.folder), _KILL_TIMEOUT_S)

    @property
    def root_dir(self) -> Path:
        """The folder of its jobs."""
        return self.folder / "ml-jobs"

    @property
    def lease_dir(self) -> Path:
        """The folder of its GPU leases."""
        return self.folder / "leases"

    @property
    def login(self) -> str:
        """The user that jobs run as."""
        with contextlib.suppress(KeyError, OSError):
            return getpass.getuser()
        return "sandbox"

    @property
    def connection(self) -> dict[str, Any]:
        """The Airflow connection, in the form of ``airflow connections add --conn-json``."""
        return {
            "conn_type": "gpu_cluster",
            "description": f"Sandbox cluster with {self.gpus} virtual GPUs",
            "host": self.host,
            "port": self.port,
            "login": self.login,
            "extra": {
                "private_key": self._client_key,
                "host_key": self._host_key,
                "root_dir": str(self.root_dir),
                "lease_dir": str(self.lease_dir),
                "virtual_gpus": self.gpus,
                "python": sys.executable,
            },
        }


def _load_or_make_key(path: Path) -> asyncssh.SSHKey:
    if not path.exists():
        path.touch(mode=0o600)
        asyncssh.generate_private_key("ssh-ed25519").write_private_key(path)
    return asyncssh.read_private_key(path)
