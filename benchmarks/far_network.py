"""
A cluster that is far away: two network namespaces with a line between them that delays every packet.

The line is made of two TUN devices, and this process carries the packets from one to the other; so it needs no module
for network emulation in the kernel, only root and ``ip``. Packets have the usual size, and travel in batches as they do
through a real network card.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import queue
import select
import shutil
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

NEAR_HOST = "10.213.77.1"
FAR_HOST = "10.213.77.2"

_TUN = "/dev/net/tun"
# Of linux/if_tun.h: a device for IP packets; each has a header that says how the kernel has batched it.
_TUNSETIFF = 0x400454CA
_TUNSETOFFLOAD = 0x400454D0
_IFF_TUN, _IFF_NO_PI, _IFF_VNET_HDR = 0x0001, 0x1000, 0x4000
_TUN_F_CSUM, _TUN_F_TSO4 = 0x01, 0x02
_LARGEST_BATCH = 1 << 17
# Packets that may wait to be carried; the line itself never loses one.
_QUEUE_LENGTH = 100_000


@dataclass(frozen=True)
class FarNetwork:
    """
    The two ends.

    :param near: network namespace in which ``FAR_HOST`` is far away.
    :param far: network namespace of that host.
    """

    near: str
    far: str


def missing_for_far_network() -> str:
    """Say what this machine lacks to make such a network; empty when nothing."""
    if os.getuid() != 0:
        return "it takes root"
    if shutil.which("ip") is None:
        return "there is no command ip (package iproute2)"
    return "" if os.path.exists(_TUN) else f"there is no {_TUN}"


@contextlib.contextmanager
def far_network(round_trip_s: float) -> Iterator[FarNetwork]:
    """Make the namespaces and the line, and remove all of it at the end."""
    network = FarNetwork(f"gpu-bench-near-{os.getpid()}", f"gpu-bench-far-{os.getpid()}")
    ends = []
    with contextlib.ExitStack() as to_undo:
        for number, (namespace, host) in enumerate(((network.near, NEAR_HOST), (network.far, FAR_HOST))):
            _ip("netns", "add", namespace)
            to_undo.callback(_ip, "netns", "delete", namespace)
            device = f"gpub{os.getpid()}-{number}"
            fd = _open_device(device)
            to_undo.callback(os.close, fd)
            ends.append(fd)
            _ip("link", "set", device, "netns", namespace)
            _ip("-n", namespace, "address", "add", f"{host}/24", "dev", device)
            _ip("-n", namespace, "link", "set", device, "txqueuelen", str(_QUEUE_LENGTH), "up")
            _ip("-n", namespace, "link", "set", "lo", "up")
        near, far = ends
        stopped = threading.Event()
        threads = [*_carry(near, far, round_trip_s / 2, stopped), *_carry(far, near, round_trip_s / 2, stopped)]
        try:
            yield network
        finally:
            stopped.set()
            for thread in threads:
                thread.join()


def run_within(namespace: str, *module: str, environ: dict[str, str]) -> None:
    """Run a Python module, with its arguments, in a network namespace."""
    command = ["ip", "netns", "exec", namespace, sys.executable, "-m", *module]
    subprocess.run(command, check=True, env={**os.environ, **environ})


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def _open_device(name: str) -> int:
    fd = os.open(_TUN, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    flags = _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR
    fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
    fcntl.ioctl(fd, _TUNSETOFFLOAD, _TUN_F_CSUM | _TUN_F_TSO4)
    return fd


def _carry(source: int, target: int, delay_s: float, stopped: threading.Event) -> list[threading.Thread]:
    """Carry packets in one direction, in two threads: to take each at once, and to give it out when it is due."""
    travelling: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()

    def take() -> None:
        while not stopped.is_set():
            if _is_readable(source):
                with contextlib.suppress(BlockingIOError):
                    while packet := os.read(source, _LARGEST_BATCH):
                        travelling.put((time.monotonic() + delay_s, packet))

    def give_out() -> None:
        while not stopped.is_set():
            try:
                due, packet = travelling.get(timeout=0.2)
            except queue.Empty:
                continue
            time.sleep(max(0.0, due - time.monotonic()))
            _write(target, packet)

    threads = [threading.Thread(target=work, daemon=True) for work in (take, give_out)]
    for thread in threads:
        thread.start()
    return threads


def _is_readable(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(200))


def _write(fd: int, packet: bytes) -> None:
    try:
        os.write(fd, packet)
    except OSError as error:
        # The device is not up yet, or does not want the packet: a network loses some, and TCP sends them again.
        if error.errno not in (errno.EIO, errno.EINVAL, errno.EAGAIN, errno.ENOBUFS):
            raise
