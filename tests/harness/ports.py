"""Ports for servers that cannot choose their own."""

from __future__ import annotations

import fcntl
import itertools
import os
import random
import socket
import tempfile
from pathlib import Path

# Below those that Linux gives to outgoing connections (net.ipv4.ip_local_port_range), which would take a port away
# between the moment when it is found free and the moment when the server listens.
_PORTS = range(25_000, 32_000)
_ours: list[int] = []


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback interface that are free, and that no other process of the tests is given."""
    start = random.randrange(len(_PORTS))
    ports = (_PORTS[(start + step) % len(_PORTS)] for step in range(len(_PORTS)))
    found = list(itertools.islice(filter(_is_taken_now, ports), count))
    assert len(found) == count, "no port is free"
    return found


def free_port() -> int:
    """Return one of :func:`free_ports`."""
    return free_ports(1)[0]


def _is_taken_now(port: int) -> bool:
    """Take a port, until this process ends; return whether that worked."""
    folder = Path(tempfile.gettempdir()) / f"gpu-cluster-test-ports-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    claim = os.open(folder / str(port), os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
    except OSError:
        os.close(claim)
        return False
    _ours.append(claim)  # open for as long as this process lives
    return True
