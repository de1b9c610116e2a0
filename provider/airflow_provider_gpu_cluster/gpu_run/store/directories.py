"""
The job directories under ``root_dir``, and who may write what, once.

Each attempt has a few records. One process writes each of them, once:

``request.json``   the attempt itself: what to run and who asked; appears together with its folder
``env.json``       the job's own environment variables; mode 0600. The supervisor deletes them once it has read them,
                   unless the job can go on in a next attempt by itself; every end of the job deletes them
``claim.json``     who runs it: only the process that creates this file may run or cancel the attempt
``cancel.json``    who has asked for its cancellation
``exit.json``      how it ended, and whether another attempt follows by itself
``checkpoint.json``  the newest file of a checkpoint when it began
``log_starts.json``  where its part of the logs begins
``usage.json``     what it has used until the last sample; its sampler replaces it after each
``idle.json``      that it leaves its GPUs idle, as long as it does; its sampler writes it and takes it away
``stopped.json``   how its end looked from within, if a scheduler has to say why it ended; the first one is kept
``events.jsonl``   what happened when, within the attempt
``booked.json``    where the line of its end is in the ledger; ``booking.json`` until that line is written

In ``.job``, ``events.jsonl`` is the audit trail of the whole job; see :mod:`.acts`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from copy import copy
from typing import TYPE_CHECKING, Any, Iterator, cast

from .. import protocol
from ..errors import Refused
from ..linux import locks, regular_files
from ..linux.newest_file import newest_file
from ..protocol import job_ids
from ..protocol.acts import END
from ..protocol.placement import MARKS
from ..recovery.policy import Checkpoints, Decision, decide
from . import markers, records
from .acts import note_act
from .asked import note_asked
from .booking import book_end
from .restoring import make_folder
from .safe_folders import check_own
from .used import seconds_of, used_so_far
from .writing import remove_tree, writing

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ..protocol.cancellation import CancelRecord
    from ..protocol.records import (
        AttemptRequest,
        CheckpointNote,
        Claim,
        EndFacts,
        ExitRecord,
        LogStarts,
        Stopped,
    )

# Set aside for the exit record, which must fit even on a disk that the job has filled.
_RESERVE_BYTES = 16384
_FOLDERS = ("code", "data", "models", "outputs", "logs", ".job/attempts")


class Root:
    """The folder of all jobs of one user on one cluster."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.own = os.path.join(path, ".gpu-run")
        self.cache = os.path.join(path, ".cache")

    def job(self, job_id: str) -> JobDirectory:
        """
        Return the directory of a job, whether it exists or not.

        :raises Refused: the id could name something outside the root, or be taken for an option.
        """
        fault = job_ids.fault_of(job_id)
        if fault is not None:
            raise Refused(protocol.BAD_REQUEST, fault)
        return JobDirectory(os.path.join(self.path, job_id), job_id)


class JobDirectory:
    """One job: its inputs, outputs, logs, and its attempts."""

    def __init__(self, path: str, job_id: str) -> None:
        self.path = path
        self.job_id = job_id
        self.spec = self.at(".job", "spec.json")

    def at(self, *parts: str) -> str:
        """Return the path of a file or folder in this directory."""
        return os.path.join(self.path, *parts)

    def exists(self) -> bool:
        """Return whether this cluster knows the job."""
        return os.path.isdir(self.at(".job"))

    def create(self) -> None:
        """
        Make the missing folders of the directory, and note its use.

        :raises Refused: the root cannot be written to, or another user has made the directory.
        """
        # Garbage collection can remove an old directory at any moment until its use is noted.
        for is_last in (False, False, True):
            try:
                self._make_folders()
                with self.lock():
                    os.utime(self.at(".job", "lock"))
                note_asked(self.path)
                return
            except FileNotFoundError:
                if is_last:
                    raise

    def _make_folders(self) -> None:
        with writing(self.path):
            os.makedirs(self.path, mode=0o700, exist_ok=True)
            # A job may have opened its own to others.
            check_own(self.path, may_be_open=True)
            os.chmod(self.path, 0o700)
            for folder in _FOLDERS:
                # An earlier attempt may have put anything there.
                make_folder(self.path, *folder.split("/"))

    def use(self) -> bool:
        """
        Note that the job is used now, so that garbage collection does not remove it as an old one (see
        :mod:`.gc.old_jobs`); return False when it has no directory.
        """
        try:
            with self.lock():
                os.utime(self.at(".job", "lock"))
            note_asked(self.path)
            return True
        except FileNotFoundError:
            return False

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """
        Make other requests for this job wait.

        :raises FileNotFoundError: it has no directory.
        """
        with writing(self.path):
            fd = locks.lock(self.at(".job", "lock"), timeout_s=None)
        assert fd is not None
        try:
            yield
        finally:
            os.close(fd)

    def attempts(self) -> list[Attempt]:
        """Return the attempts, first to last."""
        try:
            names = os.listdir(self.at(".job", "attempts"))
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [self.attempt(number) for number in sorted(int(name) for name in names if name.isdigit())]

    def attempt(self, number: int) -> Attempt:
        """Return the attempt of that number, whether it exists or not."""
        return Attempt(self, number)

    def add_attempt(self, number: int, request: AttemptRequest, env: dict[str, str]) -> Attempt | None:
        """
        Add an attempt, and return it; return None when that number is taken. Call under the job's lock.

        It appears by rename, with its request in it, and a folder cannot be renamed over one that has content.
        """
        self._remove_drafts()
        draft = self.at(".job", "attempts", f".{records.new_name()}")
        with writing(self.path):
            os.mkdir(draft, 0o700)
            try:
                records.write_json(os.path.join(draft, "request.json"), request)
                with open(os.path.join(draft, "reserve"), "wb") as file:
                    file.write(os.urandom(_RESERVE_BYTES))
                # Last, as it holds secrets, and a draft stays when this process is killed.
                records.write_json(os.path.join(draft, "env.json"), env)
                os.rename(draft, self.attempt(number).path)
            except OSError as error:
                remove_tree(draft)
                if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
                    return None
                raise
        return self.attempt(number)

    def _remove_drafts(self) -> None:
        """Remove what killed processes have left, secrets perhaps."""
        for name in os.listdir(self.at(".job", "attempts")):
            if name.startswith("."):
                remove_tree(self.at(".job", "attempts", name))


class Attempt:
    """One attempt at running a job."""

    def __init__(self, job: JobDirectory, number: int) -> None:
        self.job = job
        self.number = number
        # As it was when somebody needed it, for the line of its end: the job may delete it.
        self._asked: AttemptRequest | None = None
        self.path = job.at(".job", "attempts", str(number))

    @classmethod
    def at_path(cls, path: str) -> Attempt:
        """Return the attempt that has that folder."""
        folder, number = os.path.split(path)
        job_path = os.path.dirname(os.path.dirname(folder))
        return cls(JobDirectory(job_path, os.path.basename(job_path)), int(number))

    def at(self, name: str) -> str:
        """Return the path of one of its files."""
        return os.path.join(self.path, name)

    def request(self) -> AttemptRequest:
        """Return what to run and who asked."""
        request = self.recorded_request()
        if request is None:
            raise Refused(
                protocol.NO_SUCH_JOB,
                f"the records of job {self.job.job_id} were deleted on the cluster, by the job itself perhaps; "
                f"remove {self.job.path} there to launch it anew",
            )
        if self._asked is None:
            self._asked = copy(request)
        return request

    @property
    def log_number(self) -> int:
        """
        Number of the attempt with which this one's log begins.

        Attempts that follow each other by themselves go on in one log; places in it have the number of the first.

        :raises OSError: that cannot be read now.
        """
        # A job can write to its records.
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError, regular_files.NotRegular):
            request: Any = self.recorded_request()
            first = request["recovery"]["first"]
            if isinstance(first, int) and 0 < first <= self.number:
                return first
        return self.number

    def recorded_request(self) -> AttemptRequest | None:
        """Do the same; return None when the job has deleted the record."""
        request: AttemptRequest | None = records.read_json(self.at("request.json"), records.MOST_BYTES_OF_LISTS)
        return request

    def claimed(self) -> Claim | None:
        """Return the claim of the process that runs it, or cancelled it before it ran; None while it waits."""
        claim: Claim | None = records.read_json(self.at("claim.json"))
        return claim

    def claim(self, claim: Claim) -> bool:
        """Take the attempt; only one caller ever gets True."""
        return records.create_json(self.at("claim.json"), claim)

    def ended(self) -> ExitRecord | None:
        """
        Return how it ended; None while it has not. What is no file is no record, and :meth:`finish` replaces it.

        :raises ValueError: the record tells of no end.
        """
        try:
            ended: ExitRecord | None = records.read_json(self.at("exit.json"))
        except regular_files.NotRegular:
            return None
        if ended is not None and ended.get("state") not in protocol.FINAL_STATES:
            raise ValueError(f"{self.at('exit.json')} tells of no end")
        return ended

    def cancellation(self) -> CancelRecord | None:
        """Return who has asked for its cancellation; None while nobody has, or when the job has spoilt the record."""
        with contextlib.suppress(OSError, ValueError):
            asked: CancelRecord | None = records.read_json(self.at("cancel.json"))
            if asked is not None and isinstance(asked.get("by"), str):
                if asked.get("placement") not in (None, *MARKS):
                    del asked["placement"]
                return asked
        return None

    def note_log_starts(self, starts: LogStarts) -> None:
        """Note where this attempt's part of each log begins."""
        records.write_json(self.at("log_starts.json"), starts, sync=False)

    def log_starts(self) -> LogStarts:
        """Return where its part of each log begins, in bytes; 0 where this is not known."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            starts: LogStarts | None = records.read_json(self.at("log_starts.json"))
            if starts is not None:
                found: LogStarts = {"training": int(starts["training"]), "error": int(starts["error"])}
                if "progress" in starts:
                    found["progress"] = int(starts["progress"])
                return found
        return {"training": 0, "error": 0}

    def note_checkpoint(self) -> None:
        """Note the newest file of a checkpoint, to see at the end whether this attempt has saved anything."""
        newest = newest_file(self.job.at("outputs", "checkpoints"))
        if newest is not None:
            note: CheckpointNote = {"path": newest.path, "modified_ns": newest.modified_ns}
            records.write_json(self.at("checkpoint.json"), note, sync=False)

    def checkpoints(self) -> Checkpoints:
        """Return what this attempt has left to go on from."""
        newest = newest_file(self.job.at("outputs", "checkpoints"))
        if newest is None:
            return Checkpoints(None, False)
        before: CheckpointNote | None = None
        with contextlib.suppress(OSError, ValueError):
            before = records.read_json(self.at("checkpoint.json"))
        is_new = before is None or before.get("modified_ns") != newest.modified_ns or before["path"] != newest.path
        return Checkpoints(os.path.relpath(newest.path, self.job.at("outputs")), is_new)

    def forget_secrets(self) -> None:
        """Delete the job's own environment variables: a secret must not lie on the disk for longer than needed."""
        with contextlib.suppress(OSError):
            os.unlink(self.at("env.json"))

    def event(self, name: str, **details: Any) -> None:
        """Note an event, if the disk has room."""
        with contextlib.suppress(OSError):
            records.append_line(self.at("events.jsonl"), dict(details, at=records.now(), event=name))

    def finish(self, state: str, reason: str | None, message: str, **details: Unpack[EndFacts]) -> None:
        """
        Record the end, if none is recorded yet: first the exit record, which is the proof, then the markers.

        If the job has deleted the folder, it is made again; what the job has put in the place of the record is put
        aside. Disk space was reserved at the start of the attempt, so that a full disk does not swallow the record.
        """
        make_folder(self.job.path, ".job", "attempts", str(self.number))
        record: ExitRecord = {
            "exit_code": None,
            "signal": None,
            "gpus": [],
            "gpu_seconds": 0.0,
            "peak_memory_bytes": None,
            "job_id": self.job.job_id,
            "attempt": self.number,
            "state": state,
            "reason": reason,
            "message": message,
            "ended_at": records.now(),
        }
        record.update(cast("ExitRecord", details))
        asked = self.cancellation()
        if (state, reason) == (protocol.CANCELLED, protocol.REASON_CANCELLED) and asked and "placement" in asked:
            record.setdefault("placement", asked["placement"])
        self._add_use(record)
        if "gpu_seconds" not in details:
            record["gpu_seconds"] = _gpu_seconds(record)
        decision = self._decision(record)
        if decision.next is not None:
            record["next"] = decision.next
        else:
            self.forget_secrets()
            record["message"] = "; ".join(filter(None, (message, decision.why_not)))
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.at("reserve"))
        is_recorded = self._create_exit(record)
        if not is_recorded and records.is_spoilt(self.at("exit.json")):
            records.put_aside(self.at("exit.json"))
            is_recorded = records.create_json(self.at("exit.json"), record)
        if is_recorded:
            self.event("ended", state=state, reason=reason)
            if decision.next is None:
                markers.mark(self.job.at("outputs"), record)
            request = self._asked or self.request_or_none()
            book_end(self.job.path, self.number, record, request)
            kind = record.get("kind")
            why = ", ".join(filter(None, (reason, kind if kind != reason else None, record.get("placement"))))
            told = f"{state}: {why}" if why else state
            note_act(self.job.path, END, attempt=self.number, details=told, asked=request)

    def request_or_none(self) -> AttemptRequest | None:
        """Return what to run and who asked; None when the job has spoilt or deleted that."""
        with contextlib.suppress(OSError, ValueError):
            return self.recorded_request()
        return None

    def _add_use(self, record: ExitRecord) -> None:
        so_far = used_so_far(self.path)
        if "usage" in so_far:
            record.setdefault("usage", so_far["usage"])
        record["seconds"] = seconds_of(self.path, record, so_far, record["ended_at"])

    def _create_exit(self, record: ExitRecord) -> bool:
        try:
            return records.create_json(self.at("exit.json"), record)
        except OSError:
            if "usage" not in record:
                raise
        # On a full disk there may be room for the end alone.
        bare = copy(record)
        del bare["usage"]
        return records.create_json(self.at("exit.json"), bare)

    def _decision(self, record: ExitRecord) -> Decision:
        """Return what follows an end that is about to be recorded."""
        # The job may have spoilt its records in any way, and its end is recorded all the same.
        with contextlib.suppress(Exception):
            request = self.recorded_request()
            if request is not None and request["spec"].get("recover") and self.cancellation() is None:
                return self._decided(record, request)
        return Decision(None)

    def _decided(self, record: ExitRecord, request: AttemptRequest) -> Decision:
        before = request.get("recovery")
        if before is not None:
            record["resumed_from"] = before["reason"]
        claim = self.claimed()
        if claim is not None and "memory_limit_bytes" in claim:
            record["memory_limit_bytes"] = claim["memory_limit_bytes"]
        started_at, ended_at, host = record.get("started_at"), record.get("ended_at"), record.get("host") or ""
        ran_s = records.seconds_between(started_at, ended_at) if started_at and ended_at else 0.0
        is_one_of_many = request["settings"].get("engine") == "slurm" and host and not set("[,") & set(host)
        return decide(
            request["spec"],
            record,
            before,
            self.checkpoints(),
            ran_s=ran_s,
            node=record.get("failed_nodes") or (host if is_one_of_many else None),
            now=time.time(),
        )

    def use_reserve(self) -> None:
        """Give up half of the space that was set aside for the end, for another record that a full disk must have."""
        with contextlib.suppress(OSError):
            os.truncate(self.at("reserve"), _RESERVE_BYTES // 2)

    def note_stop(self, state: str, reason: str | None, message: str, facts: EndFacts) -> None:
        """Note an end about which a scheduler knows more; the process that asks it writes the exit record."""
        with contextlib.suppress(OSError):
            stopped: Stopped = {"end": {"state": state, "reason": reason, "message": message}, "facts": facts}
            records.create_json(self.at("stopped.json"), stopped)

    def stopped(self) -> Stopped:
        """
        Return the note of :meth:`note_stop`, with ``end`` and ``facts``; an empty one if there is none, or if the job
        has spoilt it.
        """
        with contextlib.suppress(ValueError, regular_files.NotRegular):
            stopped: Stopped | None = records.read_json(self.at("stopped.json"))
            if stopped is not None and _is_sound(stopped):
                return stopped
        return {}


def _gpu_seconds(record: ExitRecord) -> float:
    """Return for how long an attempt has had its GPUs, multiplied by their number."""
    with contextlib.suppress(KeyError, ValueError, TypeError):
        until = record.get("released_at") or record["ended_at"]
        return round(len(record["gpus"]) * max(0.0, records.seconds_between(record["leased_at"], until)), 3)
    return 0.0


def _is_sound(stopped: Stopped) -> bool:
    end: Any = stopped.get("end")
    names = ("state", "reason", "message")
    is_end = isinstance(end, dict) and end.get("state") in protocol.FINAL_STATES and all(name in end for name in names)
    return is_end and isinstance(stopped.get("facts"), dict)
