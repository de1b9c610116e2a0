"""
GPU leases on a bare host: shared by all its users and controllers, without root and without a daemon.

One folder, writable for all, holds

``gpu-<uuid>``
    One file per GPU. Who holds an exclusive ``flock`` on it has the GPU; what is written in it is for others to read.
    The supervisor of a job holds the lock through an open file, so the kernel releases it when the supervisor dies,
    however it dies.
``queue-<name>``
    The waiting jobs of one dispatcher, which keeps its file locked. An unlocked queue file is a dead dispatcher's, and
    counts for nothing.
``mutex``
    Locked by whoever reads or changes the above, for a few milliseconds.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
import time
from typing import Any, Iterator, NamedTuple, Sequence

from . import processes, protocol
from .errors import Refused
from .gpus import Gpu
from .schedule import Slot, Ticket

DEFAULT_FOLDER = "/var/tmp/gpu-run-leases"
_MUTEX_S = 10.0
_NEVER = float("inf")


class Holder(NamedTuple):
    """Who has a GPU: written into its file for everyone to read."""

    job_id: str
    user: str
    since: float
    until: float | None


class Leases:
    """
    The folder of leases.

    :param folder: where it is; made when missing.
    :raises Refused: it cannot be made, or others could not use it.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        try:
            os.mkdir(folder)
            os.chmod(folder, 0o1777)
        except FileExistsError:
            pass
        except OSError as error:
            raise Refused(
                protocol.GPUS_UNAVAILABLE, f"the folder of GPU leases {folder} cannot be made: {error.strerror}"
            ) from error
        if not stat.S_ISDIR(os.lstat(folder).st_mode) or not os.access(folder, os.W_OK | os.X_OK):
            raise Refused(
                protocol.GPUS_UNAVAILABLE,
                f"{folder} is no folder that {processes.user()} may write to; GPU leases are kept there for all users of the"
                " host: remove it, or have its owner run 'chmod 1777' on it",
            )

    @contextlib.contextmanager
    def mutex(self) -> Iterator[None]:
        """
        Keep every other reader and writer of the folder out, for the few milliseconds this takes.

        :raises Refused: somebody has held it for ten seconds, which only a stopped process does.
        """
        fd = _open(os.path.join(self.folder, "mutex"))
        deadline = time.monotonic() + _MUTEX_S
        try:
            while not _try_lock(fd):
                if time.monotonic() > deadline:
                    raise Refused(
                        protocol.GPUS_UNAVAILABLE,
                        f"another process has kept {self.folder}/mutex locked for {_MUTEX_S:.0f} s; 'fuser' names it",
                    )
                time.sleep(0.005)
            yield
        finally:
            os.close(fd)

    def take(self, gpu: Gpu, holder: Holder) -> int | None:
        """
        Lock one GPU; call under the mutex.

        :return: the open file that is the lease; None when somebody has it.
        """
        fd = _lock_file(self._gpu_path(gpu))
        if fd is not None:
            os.ftruncate(fd, 0)
            os.pwrite(fd, json.dumps(holder._asdict()).encode(), 0)
        return fd

    def slots(self, gpus: Sequence[Gpu], busy: dict[str, str]) -> list[Slot]:
        """
        Say for each GPU when it is free and who has it; call under the mutex.

        :param busy: GPUs on which processes compute that hold no lease, with a word on the process.
        """
        slots = []
        for gpu in gpus:
            holder = self._holder(gpu)
            if holder is not None:
                # An end that is overdue is as good as unknown.
                until = holder.until if holder.until is not None and holder.until > time.time() else _NEVER
                slots.append(Slot(gpu, until, f"{holder.job_id} ({holder.user})"))
            elif gpu.key in busy:
                slots.append(Slot(gpu, _NEVER, busy[gpu.key] + ", which holds no lease"))
            else:
                slots.append(Slot(gpu, 0, ""))
        return slots

    def held_by(self, job_id: str) -> bool:
        """Tell whether a job holds a lease on any GPU of this host."""
        with self.mutex():
            for name in os.listdir(self.folder):
                if name.startswith("gpu-"):
                    holder = self._read_holder(os.path.join(self.folder, name))
                    if holder is not None and holder.job_id == job_id:
                        return True
        return False

    def _gpu_path(self, gpu: Gpu) -> str:
        return os.path.join(self.folder, "gpu-" + gpu.key)

    def _holder(self, gpu: Gpu) -> Holder | None:
        return self._read_holder(self._gpu_path(gpu))

    def _read_holder(self, path: str) -> Holder | None:
        fd = _lock_file(path)
        if fd is not None:
            os.close(fd)
            return None
        try:
            with open(path, encoding="utf-8") as file:
                return Holder(**json.load(file))
        except (OSError, ValueError, TypeError):
            return Holder("a job that does not say its name", "unknown user", 0, None)

    def tickets(self) -> list[Ticket]:
        """Return the waiting jobs of every dispatcher that lives; call under the mutex."""
        tickets: list[Ticket] = []
        for name in os.listdir(self.folder):
            if name.startswith("queue-"):
                tickets += self._live_tickets(os.path.join(self.folder, name))
        return tickets

    def _live_tickets(self, path: str) -> list[Ticket]:
        try:
            fd = _lock_file(path)
            if fd is not None:
                # Nobody keeps it: its dispatcher is dead. It is locked now, so it can go, if it is ours to remove.
                with contextlib.suppress(OSError):
                    os.unlink(path)
                os.close(fd)
                return []
            with open(path, encoding="utf-8") as file:
                return [Ticket(*values) for values in json.load(file)]
        except (OSError, ValueError, TypeError):
            return []


class Queue:
    """
    The queue file of one dispatcher, locked as long as this object lives.

    :param name: unique among the dispatchers of the host.
    """

    def __init__(self, leases: Leases, name: str) -> None:
        self._leases = leases
        self._written: list[Any] | None = None
        self.name = name
        with leases.mutex():
            fd = _lock_file(os.path.join(leases.folder, "queue-" + name))
        if fd is None:
            raise Refused(protocol.INTERNAL, f"another dispatcher uses the queue {name}")
        self._fd = fd

    def publish(self, tickets: Sequence[Ticket]) -> None:
        """Write the waiting jobs, where they have changed; call under the mutex."""
        values = [list(ticket) for ticket in tickets]
        if values != self._written:
            text = json.dumps(values).encode()
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, text, 0)
            self._written = values

    def close(self) -> None:
        """Leave the queue."""
        with self._leases.mutex():
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(self._leases.folder, "queue-" + self.name))
            os.close(self._fd)


def keep_fresh(fds: Sequence[int]) -> None:
    """Renew the time stamps of lease files, since cleaners of temporary folders remove what looks old."""
    for fd in fds:
        with contextlib.suppress(OSError):
            os.utime(fd)


def _open(path: str) -> int:
    """
    Open a file that all users share.

    First without O_CREAT: with ``fs.protected_regular`` the kernel refuses O_CREAT on other users' files in a folder
    that is writable for all.
    """
    while True:
        try:
            return os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            pass
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_CREAT | os.O_EXCL, 0o666)
            os.fchmod(fd, 0o666)
            return fd
        except FileExistsError:
            continue


def _lock_file(path: str) -> int | None:
    """Open and lock a file; None when somebody else has it. A file that was removed meanwhile is made again."""
    while True:
        fd = _open(path)
        if not _try_lock(fd):
            os.close(fd)
            return None
        try:
            if os.stat(path).st_ino == os.fstat(fd).st_ino:
                return fd
        except FileNotFoundError:
            pass
        os.close(fd)


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES, errno.EINTR):
            return False
        raise
