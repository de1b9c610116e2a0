"""A real OpenSSH server on a free loopback port, with throw-away keys."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.harness.patience import PATIENCE_S
from tests.harness.ports import free_port

SSHD = shutil.which("sshd", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"]))

HOW_TO_INSTALL = (
    "The tests need a real OpenSSH server, and there is no sshd here. `make test` installs it; "
    "by hand, on Debian and Ubuntu: sudo apt-get install openssh-server"
)

# What the machine's network needs, so that a job on the "cluster" can install its requirements.
_PASSED_ON = ("PIP_", "UV_", "SSL_CERT", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")

_CONFIG = """\
ListenAddress {host}
Port {port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
PasswordAuthentication no
KbdInteractiveAuthentication no
PubkeyAuthentication yes
PermitRootLogin yes
UsePAM {pam}
# The temporary folder may lie below one that others can write to.
StrictModes no
# What a stock server has; hundreds of tasks must get along with it.
MaxStartups 10:30:100
Subsystem sftp internal-sftp
LogLevel VERBOSE
SetEnv {environment}
{more}
"""


class RealSshd:
    """
    An OpenSSH server that lets the current user in.

    :param folder: an empty folder for its keys, configuration and log.
    :param host: the address at which it listens.
    :param within: a command that starts another in its own place, such as one that enters a network namespace.
    :param more: a further line of its configuration.
    :param environment: variables that its sessions have besides the usual ones.
    """

    host = "127.0.0.1"

    def __init__(
        self,
        folder: Path,
        *,
        host: str = host,
        within: Sequence[str] = (),
        more: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.host = host
        self._within = within
        self._more = more
        self._environment = {**_environment(), **(environment or {})}
        self.log = folder / "sshd.log"
        self.client_key_file = folder / "client_key"
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        for name in ("host_key", "client_key"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(folder / name)]
            subprocess.run(command, check=True)
        shutil.copy(folder / "client_key.pub", folder / "authorized_keys")
        self.client_key = self.client_key_file.read_text()
        self.host_key = " ".join((folder / "host_key.pub").read_text().split()[:2])

    def start(self) -> None:
        """Start it, on the port it had before or else on a free one, and return when it accepts connections."""
        assert SSHD, HOW_TO_INSTALL
        if os.getuid() == 0:
            # sshd insists on it; the system's own service would have made it at boot.
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        ports = [self.port] if self.port else []
        for _ in range(5):  # somebody else may take the free port in between
            self.port = ports.pop() if ports else free_port()
            config = self.folder / "sshd_config"
            config.write_text(
                _CONFIG.format(
                    host=self.host,
                    port=self.port,
                    folder=self.folder,
                    pam="yes" if _account_is_locked() else "no",
                    environment=" ".join(f'"{name}={value}"' for name, value in self._environment.items()),
                    more=self._more,
                )
            )
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(
                    [*self._within, SSHD, "-D", "-e", "-f", str(config)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            if self._wait():
                return
        raise RuntimeError(f"sshd does not start:\n{self.log.read_text()}")

    def stop(self) -> None:
        """Stop listening, and end the connections that are still open."""
        if self._process is None:
            return
        sessions = _children(self._process.pid)
        self._process.terminate()
        self._process.wait(PATIENCE_S)
        for pid in sessions:
            try:
                os.kill(pid, 15)
            except ProcessLookupError:
                continue
        self._process = None

    def _wait(self) -> bool:
        assert self._process is not None
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline and self._process.poll() is None:
            with socket.socket() as probe:
                probe.settimeout(1)
                if probe.connect_ex((self.host, self.port)) == 0:
                    return True
            time.sleep(0.02)
        self._process.kill()
        self._process.wait()
        return False


def login() -> str:
    """Return the name of the user that the tests run as."""
    return pwd.getpwuid(os.getuid()).pw_name


def _environment() -> dict[str, str]:
    # The first python3 that a job finds is the one that runs the tests: same version, same certificates.
    path = f"{Path(sys.executable).parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    passed_on = {name: value for name, value in os.environ.items() if name.upper().startswith(_PASSED_ON)}
    # bash reads ~/.bashrc in its first level below sshd, and whatever is in there is not part of the tests.
    fixed = {"PATH": path, "LANG": "C.UTF-8", "SHLVL": "1"}
    # To compile all of what is installed takes longer than to compile what a job imports of it. And threads of a
    # training that wait for each other on a machine where much else runs make it many times as long.
    quick = {"PIP_NO_COMPILE": "1", "OPENBLAS_NUM_THREADS": "1"}
    return {**fixed, **quick, **passed_on}


def _account_is_locked() -> bool:
    """Tell whether root's password is locked: sshd without PAM would refuse even a key then."""
    try:
        lines = Path("/etc/shadow").read_text().splitlines()
    except PermissionError:
        return False  # then sshd, which runs as the same user, cannot know either
    return any(line.startswith("root:!") for line in lines)


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
