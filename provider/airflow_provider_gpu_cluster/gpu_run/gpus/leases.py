"""
GPU leases on a bare host: shared by all its users and controllers, without root and without a daemon.

One folder, writable for all, holds

``gpu-<uuid>``
    One file per GPU. Whoever holds an exclusive ``flock`` on it has the GPU; its contents are for others to read. The
    processes of a job's supervisor hold the lock through an open file, so the kernel releases it when they die, for
    whatever reason.
``queue-<name>``
    The waiting jobs of one dispatcher; see :mod:`.gpus.queue`.
``mutex``
    Locked for a few milliseconds by each process that reads or changes the above.

Other users wrote most of what is read here, so nothing in it is trusted.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import stat
import time
from typing import TYPE_CHECKING, Iterator, Sequence

from .. import protocol
from ..errors import Refused
from ..linux import locks, processes, regular_files
from .inventory import Gpu
from .queue import live_queued_jobs
from .schedule import Holder, QueuedJob, Slot

if TYPE_CHECKING:
    from ..protocol.settings import Settings

DEFAULT_FOLDER = "/var/tmp/gpu-run-leases"
MUTEX_S = 5.0
_MOST_BYTES = 4096
_MOST_CHARACTERS = 120


_UNKNOWN_HOLDER = Holder("an unnamed job", "unknown user", 0, None)


class Leases:
    """
    The folder of leases.

    :param folder: its path.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def make_folder(self) -> None:
        """
        Make the folder if it is missing.

        :raises Refused: it cannot be made, or this user cannot work in it.
        """
        try:
            locks.make_shared_folder(self.folder)
            usable = stat.S_ISDIR(os.lstat(self.folder).st_mode) and os.access(self.folder, os.R_OK | os.W_OK | os.X_OK)
        except OSError as error:
            raise Refused(
                protocol.GPUS_UNAVAILABLE, f"the folder of GPU leases {self.folder} cannot be made: {error.strerror}"
            ) from error
        if not usable:
            raise Refused(
                protocol.GPUS_UNAVAILABLE,
                f"{self.folder} is no folder that {processes.user()} may write to; GPU leases are kept there for all "
                "users of the host: remove it, or have its owner run 'chmod 1777' on it",
            )

    @contextlib.contextmanager
    def mutex(self, timeout_s: float = MUTEX_S) -> Iterator[None]:
        """
        Keep all other readers and writers of the folder out, for the few milliseconds this takes.

        :param timeout_s: how long to wait for it, in seconds.
        :raises Refused: another process has held it for all that time, which only a stopped process does.
        """
        self.make_folder()
        path = os.path.join(self.folder, "mutex")
        try:
            fd = locks.lock(path, timeout_s=timeout_s, shared=True)
        except OSError as error:
            raise Refused(
                protocol.GPUS_UNAVAILABLE,
                f"{path} cannot be opened: {error.strerror}; it belongs to all users of the host: have its owner "
                "remove it or run 'chmod 666' on it",
            ) from error
        if fd is None:
            owner = locks.lock_owner(path)
            who = "a process" if owner is None else f"process {owner}"
            raise Refused(
                protocol.GPUS_UNAVAILABLE,
                f"{who} has kept {path} locked for {timeout_s:.0f} s, so no GPU can be leased; continue it "
                "(kill -CONT) or end it",
            )
        try:
            yield
        finally:
            os.close(fd)

    def take(self, gpu: Gpu, holder: Holder) -> int | None:
        """
        Lock one GPU; call under the mutex.

        :return: the open file that is the lease; None when another process has it.
        """
        try:
            fd = locks.lock(self._path(gpu.key), shared=True)
        except OSError:
            return None
        if fd is not None:
            _write(fd, json.dumps(holder._asdict()).encode())
        return fd

    def keep(self, key: str, fd: int) -> int:
        """
        Keep a lease that is held in place: cleaners of temporary folders remove old files, and people remove what they
        think is rubbish. If its file was removed, make and lock it again, unless another process was quicker.

        :param key: of its GPU.
        :return: the open file that is the lease now.
        """
        with contextlib.suppress(Refused, OSError):
            os.utime(fd)
            if not locks.is_current(fd, self._path(key)):
                with self.mutex(timeout_s=1.0):
                    again = locks.lock(self._path(key), shared=True)
                if again is not None:
                    _write(again, os.pread(fd, _MOST_BYTES, 0))
                    return again
        return fd

    def slots(self, gpus: Sequence[Gpu], busy: dict[str, str]) -> list[Slot]:
        """
        Return for each GPU when it is free and who has it; call under the mutex.

        :param busy: GPUs in use by processes that hold no lease, each with a few words on the process.
        """
        slots = []
        for gpu in gpus:
            try:
                holder = _holder(self._path(gpu.key))
            except OSError as error:
                slots.append(Slot(gpu, math.inf, f"a lease file that cannot be opened ({error})"))
                continue
            if holder is not None:
                # An overdue end is as good as an unknown one.
                until = holder.until if holder.until is not None and holder.until > time.time() else math.inf
                slots.append(Slot(gpu, until, f"{holder.job_id} ({holder.user})", is_leased=True, holder=holder))
            elif gpu.key in busy:
                slots.append(Slot(gpu, math.inf, busy[gpu.key] + ", which holds no lease"))
            else:
                slots.append(Slot(gpu, 0, ""))
        return slots

    def held(self, gpus: Sequence[Gpu]) -> set[str]:
        """Return the keys of those of these GPUs that are leased; call under the mutex."""
        return {slot.gpu.key for slot in self.slots(gpus, {}) if slot.free_at}

    def held_by(self, job_id: str, owner: str = "") -> bool:
        """
        Return whether a job of that dispatcher holds a lease on any GPU of this host.

        :raises Refused: that cannot be determined now.
        """
        with self.mutex():
            for name in os.listdir(self.folder):
                path = os.path.join(self.folder, name)
                try:
                    holder = _holder(path) if name.startswith("gpu-") else None
                except PermissionError:
                    # What this user may not open, no job of this user has locked.
                    continue
                except OSError as error:
                    raise Refused(protocol.GPUS_UNAVAILABLE, f"{path} cannot be opened: {error.strerror}") from error
                if holder is not None and (holder.job_id, holder.owner) == (job_id, owner):
                    return True
        return False

    def queued_jobs(self) -> list[QueuedJob]:
        """Return the waiting jobs of all live dispatchers; call under the mutex."""
        return live_queued_jobs(self.folder)

    def _path(self, key: str) -> str:
        # Drivers before 470 name MIG instances MIG-GPU-<uuid>/<n>/<n>.
        return os.path.join(self.folder, "gpu-" + key.replace("/", "_"))


def leases_of(settings: Settings) -> Leases:
    """
    Return the leases of the GPUs for jobs.

    :param settings: of the engine; without a ``lease_dir``, the leases are those of all users of the host.
    """
    folder = os.path.expanduser(settings.get("lease_dir") or DEFAULT_FOLDER)
    # Like root_dir, a relative path starts at the home, since this process may run in any folder.
    return Leases(os.path.normpath(os.path.join(os.path.expanduser("~"), folder)))


def _write(fd: int, content: bytes) -> None:
    # The lease is valid even when a full disk keeps its holder's name from being written.
    with contextlib.suppress(OSError):
        os.ftruncate(fd, 0)
        os.pwrite(fd, content, 0)


def _holder(path: str) -> Holder | None:
    """Return the holder of that lease file's GPU; None when it is free."""
    try:
        fd = locks.lock(path, create=False)
    except FileNotFoundError:
        return None
    if fd is not None:
        os.close(fd)
        return None
    try:
        value = json.loads(regular_files.read(path, _MOST_BYTES))
        until = value["until"]
        return Holder(
            job_id=printable(value["job_id"]),
            user=printable(value["user"]),
            since=float(value["since"]),
            until=None if until is None else float(until),
            owner=printable(value.get("owner", "")),
        )
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return _UNKNOWN_HOLDER


def printable(text: object, most: int = _MOST_CHARACTERS) -> str:
    """Return text that somebody else wrote in a form that is safe in a message, cut to so many characters."""
    return "".join(char for char in str(text)[:most] if char.isprintable())
