"""The sandbox cluster: its folder, its keys, its server's thread, and the Airflow connection to it."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import json
import logging
import shutil
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import asyncssh

from airflow_provider_gpu_cluster.gpu_run.linux.processes import kill_with_environment
from airflow_provider_gpu_cluster.sandbox.server import SandboxServer

CONN_ENV = "AIRFLOW_CONN_GPU_CLUSTER_DEFAULT"
_FAKE_NVML = "GPU_RUN_FAKE_NVML"
_KILL_TIMEOUT_S = 5.0
# asyncssh logs every connection and command at INFO, in the process that uses the sandbox.
if logging.getLogger("asyncssh").level == logging.NOTSET:
    logging.getLogger("asyncssh").setLevel(logging.WARNING)


def marker(folder: Path) -> str:
    """Return the environment entry, ``NAME=value``, that every process of a sandbox inherits."""
    return f"GPU_CLUSTER_SANDBOX={folder}"


class Sandbox:
    """
    A cluster on this machine, as a context manager. It listens only on loopback, with its own keys.

    Everything submitted to it runs as the current user. Leaving the context ends the jobs that still run, unless
    ``root`` is given.

    :param gpus: number of virtual GPUs.
    :param port: TCP port to listen on; 0 takes a free one.
    :param root: folder for its keys, jobs and GPU leases; the folder and running jobs are kept for the next time.
        None makes a temporary folder, which is removed at the end.
    :param fake_gpus: what its GPUs are said to do, each by ``percent``, ``memory_bytes``, ``total_bytes``, ``power_w``
        and ``celsius``; the last entry is for all others. It is written into ``gpus.json`` in its folder, which may be
        changed while it runs. None leaves it to the file that the variable GPU_RUN_FAKE_NVML names, if there is one:
        otherwise nothing is known of what virtual GPUs do.
    :raises OSError: the port is taken, or the folder cannot be written.
    """

    host = "127.0.0.1"

    def __init__(
        self,
        *,
        gpus: int = 4,
        port: int = 0,
        root: str | Path | None = None,
        fake_gpus: Sequence[Mapping[str, float]] | None = None,
    ) -> None:
        self.gpus = gpus
        self.port = port
        self.temporary = root is None
        self.folder = Path(root).expanduser().absolute() if root else Path()
        self.fake_gpus = fake_gpus
        self._server: SandboxServer | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the server and return when it accepts connections."""
        if self.temporary:
            self.folder = Path(tempfile.mkdtemp(prefix="gpu-sandbox-"))
        else:
            self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._serve()
        except BaseException:
            self.stop()
            raise

    def _serve(self) -> None:
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

    def stop(self) -> None:
        """Stop the server; end what runs in a temporary folder, and remove the folder."""
        if self._loop is not None and self._thread is not None:
            if self._server is not None:
                asyncio.run_coroutine_threadsafe(self._server.stop(), self._loop).result()
                if self.temporary:
                    self._kill_all()
                    # Done while its loop still runs, because the loop notices when they end.
                    asyncio.run_coroutine_threadsafe(self._server.see_the_end(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
            self._loop = self._thread = self._server = None
        if self.temporary and self.folder != Path():
            self._kill_all()
            shutil.rmtree(self.folder, ignore_errors=True)

    def _kill_all(self) -> None:
        kill_with_environment(marker(self.folder), _KILL_TIMEOUT_S)

    def __enter__(self) -> Sandbox:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

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

    def environ(self) -> dict[str, str]:
        """Return the environment variable that makes it Airflow's connection ``gpu_cluster_default``."""
        return {CONN_ENV: json.dumps(self.connection)}


def _load_or_make_key(path: Path) -> asyncssh.SSHKey:
    if not path.exists():
        path.touch(mode=0o600)
        asyncssh.generate_private_key("ssh-ed25519").write_private_key(path)
    return asyncssh.read_private_key(path)
