"""
The waiting jobs of one root on one host: a folder with one small file for each.

A file's name sorts it (priority, then time), so a listing gives the order. One dispatcher runs as long as there are
files. A process that adds a job, asks for its state, or ends one, starts the dispatcher if none runs.
"""

from __future__ import annotations

import contextlib
import json
import os
from functools import cached_property
from typing import TYPE_CHECKING

from ... import protocol
from ...gpus.allocator import Allocator
from ...gpus.leases import Leases, leases_of
from ...gpus.schedule import QueuedJob, Wait
from ...linux import detached, locks, processes, regular_files
from ...protocol.grace import grace_s
from ...store import records
from ...store.directories import Attempt, Root
from ...store.writing import writing

if TYPE_CHECKING:
    from ...protocol.notes import QueueEntry, WaitNotes
    from ...protocol.records import AttemptRequest
    from ...protocol.settings import Settings
    from ...protocol.spec import Spec

# The time from the end of a job's time limit to the end of its grace, and a moment for everything to end.
_ENDING_S = 5.0


class RootQueue:
    """
    The waiting jobs of a root that want GPUs from one pool.

    :param settings: of the engine: ``virtual_gpus``, ``lease_dir``, ``python``.
    """

    def __init__(self, root: Root, settings: Settings) -> None:
        self.root = root
        self.virtual_gpus = settings.get("virtual_gpus")
        self.leases = leases_of(settings)
        self.lease_dir = self.leases.folder

    @cached_property
    def path(self) -> str:
        """Its folder. Several hosts may share a home directory, and each has its own GPUs."""
        pool = json.dumps([processes.hostname(), self.lease_dir, self.virtual_gpus])
        return os.path.join(self.root.own, "queue", _short_hash(pool))

    @property
    def waits_path(self) -> str:
        """The file in which the dispatcher says why the jobs wait."""
        return os.path.join(self.path, "waits.json")

    @classmethod
    def at_path(cls, path: str) -> RootQueue:
        """Return the queue that has that folder."""
        pool: Settings | None = records.read_json(os.path.join(path, "pool.json"))
        queue = cls(Root(os.path.dirname(os.path.dirname(os.path.dirname(path)))), pool or {})
        queue.path = path
        return queue

    def open_leases(self) -> Leases:
        """
        Return the leases for its jobs.

        :raises Refused: this user cannot work with them.
        """
        self.leases.make_folder()
        return self.leases

    def allocator(self, name: str) -> Allocator:
        """Return the allocator for its jobs, under a name that no other process on this host has."""
        return Allocator(self.leases, self.virtual_gpus, name)

    def owner(self) -> str:
        """Return a name for its dispatcher that no other on this host has."""
        return f"{os.getuid()}-{_short_hash(self.path)}"

    def add(self, attempt: Attempt, request: AttemptRequest) -> None:
        """Put an attempt into the queue; a second time changes nothing."""
        rank = protocol.PRIORITIES.index(request["spec"].get("priority") or "normal")
        name = "{}-{:020.6f}-{}".format(rank, request["submitted"], attempt.job.job_id)
        with writing(self.path):
            os.makedirs(self.path, exist_ok=True)
            pool_path = os.path.join(self.path, "pool.json")
            if not os.path.exists(pool_path) or records.is_spoilt(pool_path):
                pool: Settings = {"virtual_gpus": self.virtual_gpus, "lease_dir": self.lease_dir}
                records.write_json(pool_path, pool)
            path = os.path.join(self.path, name)
            if not os.path.exists(path):
                # If the entry is lost, the next request about the job queues it again.
                entry: QueueEntry = {"attempt": attempt.path}
                records.write_json(path, entry, sync=False)

    def entries(self) -> list[str]:
        """Return the names of the waiting jobs' files, in the order in which they are served."""
        try:
            return sorted(
                name for name in os.listdir(self.path) if name[:2] in ("0-", "1-", "2-") and name[-4:] != ".tmp"
            )
        except FileNotFoundError:
            return []

    @staticmethod
    def job_id(name: str) -> str:
        """Return the job of the entry with that name."""
        return name.split("-", 2)[2]

    def read(self, name: str) -> Attempt | None:
        """Return the attempt of an entry; None when the entry has just gone."""
        entry: QueueEntry | None = records.read_json(os.path.join(self.path, name))
        return None if entry is None else Attempt.at_path(entry["attempt"])

    def remove(self, name: str) -> None:
        """Take an entry out of the queue."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self.path, name))

    def queued_job(self, attempt: Attempt, request: AttemptRequest, owner: str) -> QueuedJob:
        """Return an attempt's place in the queue of the whole host."""
        return place_in_queue(
            attempt.job.job_id, request["submitted"], request["spec"], request["settings"], owner=owner
        )

    def waits(self) -> dict[str, Wait]:
        """Return why each job waits, as its dispatcher last saw it."""
        try:
            notes: WaitNotes | None = records.read_json(self.waits_path, records.MOST_BYTES_OF_LISTS)
            return {job_id: Wait(*wait) for job_id, wait in (notes or {}).items()}
        except (ValueError, TypeError, regular_files.NotRegular):
            return {}

    # -- its dispatcher ------------------------------------------------------------------------------------------

    def lock(self) -> int | None:
        """Return the lock of the one dispatcher; None when one runs."""
        return locks.lock(os.path.join(self.path, "dispatcher.lock"))

    def ensure_dispatcher(self, program: str) -> None:
        """
        Start a dispatcher if jobs wait and none runs. The new dispatcher inherits the lock as an open file, so that
        there is no moment in which two are started or none is responsible.
        """
        if not self.entries():
            return
        fd = self.lock()
        if fd is None:
            return
        try:
            with records.log_file(os.path.join(self.path, "dispatcher.log")) as log:
                command = detached.own_command(program, "dispatch", self.path, str(fd))
                detached.leave(detached.start_detached(command, out=log, pass_fds=[fd]))
        finally:
            os.close(fd)


def place_in_queue(job_id: str, submitted: float, spec: Spec, settings: Settings, *, owner: str) -> QueuedJob:
    """
    Return the place of a job in the queue of the whole host.

    :param submitted: when it was submitted, in seconds since the epoch.
    :param owner: the dispatcher that starts it.
    """
    limit = spec.get("time_limit_s")
    return QueuedJob(
        job_id=job_id,
        rank=protocol.PRIORITIES.index(spec.get("priority") or "normal"),
        submitted=submitted,
        gpus=spec["gpus"],
        gpu_type=spec.get("gpu_type"),
        time_limit_s=None if limit is None else limit + grace_s(spec, settings) + _ENDING_S,
        owner=owner,
    )


def _short_hash(text: str) -> str:
    # OpenSSL, which comes with it, is a tenth of the time that a look at a job takes, and most looks need no hash.
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()[:12]
