"""
Garbage collection: remove old jobs, and whatever was kept for jobs but given to none for a long time.

Nothing in use is removed. What cannot be removed is reported, and does not keep the rest from being removed.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from ..ledger.ledger import MOMENT_S
from ..linux import locks
from ..protocol.acts import GC
from ..recovery.words import duration
from ..reply import Reply
from ..store import cancelled_requests, placements
from ..store.acts import note_act, what_was_asked
from ..store.directories import JobDirectory, Root
from ..store.job_folders import jobs_of
from ..store.settling import settle
from ..store.unfinished import all_unfinished
from ..store.writing import writing
from .old_cache import OldCache
from .old_jobs import Needs, OldJobs, alone_with
from .old_programs import OldPrograms
from .trash import Trash, measure

if TYPE_CHECKING:
    from typing import Literal

    from ..protocol.replies import GcReport
    from ..protocol.requests import Caller, GcCall
    from ..protocol.settings import Settings

_MOST_FAILURES = 100


def answer(root: Root, program: str, request: GcCall) -> Reply:
    """Carry out the verb ``gc``."""
    older_than_s, dry_run = request["older_than_s"], request["dry_run"]
    caller = request.get("caller", {})
    return Reply(collect_garbage(root, request["settings"], program, older_than_s, dry_run=dry_run, caller=caller))


def collect_garbage(
    root: Root,
    settings: Settings,
    program: str,
    older_than_s: float,
    *,
    dry_run: bool = False,
    caller: Caller | None = None,
) -> GcReport:
    """
    Remove what has not been used for long enough.

    :param settings: of the engine.
    :param program: path of this program.
    :param older_than_s: how long, in seconds.
    :param dry_run: remove nothing, and report what would be removed.
    :param caller: who asks, for the audit trail; None when nobody does, but the connection's ``retention``.
    :return: ``jobs`` and ``environments`` (names), ``cache_entries``, ``uploads`` and ``programs`` (counts),
        ``bytes_freed``, ``failed`` (a limited number of ``path`` and ``why``), ``failures`` (the full count), and
        ``busy``, which is true when nothing was done because another process is collecting.
    """
    report = _Report(older_than_s, dry_run)
    with writing(root.path):
        os.makedirs(root.own, exist_ok=True)
        lock = locks.lock(os.path.join(root.own, "gc.lock"))
    if lock is None:
        report.values["busy"] = True
        return report.values
    try:
        _Collection(root, settings, program, report, caller).run()
    finally:
        os.close(lock)
    return report.values


class _Report:
    def __init__(self, older_than_s: float, dry_run: bool) -> None:
        self.values: GcReport = {
            "older_than_s": older_than_s,
            "dry_run": dry_run,
            "busy": False,
            "jobs": [],
            "environments": [],
            "cache_entries": 0,
            "uploads": 0,
            "programs": 0,
            "bytes_freed": 0,
            "failed": [],
            "failures": 0,
        }

    def fail(self, path: str, error: Exception) -> None:
        """Note a path that could not be removed, and why."""
        self.values["failures"] += 1
        if len(self.values["failed"]) < _MOST_FAILURES:
            why = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or repr(error)
            # File names need not be text.
            self.values["failed"].append({"path": os.fsencode(path).decode("utf-8", "backslashreplace"), "why": why})

    def count(self, name: Literal["cache_entries", "uploads", "programs"], freed: int) -> None:
        self.values[name] += 1
        self.values["bytes_freed"] += freed


class _Collection:
    """One run; call under the lock that keeps other runs out."""

    def __init__(self, root: Root, settings: Settings, program: str, report: _Report, caller: Caller | None) -> None:
        self._root = root
        self._caller = caller
        self._report = report
        self._dry_run = report.values["dry_run"]
        older_than_s = report.values["older_than_s"]
        now = time.time()
        self._old_jobs = OldJobs(root, settings, program, older_than_s, now)
        self._old_cache = OldCache(root, older_than_s, now, self._dry_run, report.fail)
        self._old_programs = OldPrograms(root, program, older_than_s, now)
        self._wait_s = MOMENT_S
        # Two, as the cache may be on another disk, and a rename cannot move anything there.
        self._trash = Trash(os.path.join(root.own, "trash"), report.fail)
        self._cache_trash = Trash(os.path.join(root.cache, "trash"), report.fail)

    def run(self) -> None:
        needs = self._jobs()
        for freed in self._old_cache.entries():
            self._report.count("cache_entries", freed)
        for freed in self._old_cache.parts():
            self._report.count("uploads", freed)
        for path in self._old_cache.environments(needs, self._cache_trash):
            self._report.values["environments"].append(os.path.basename(path))
            self._measure(path)
        self._programs(needs)
        if not self._dry_run:
            cancelled_requests.forget_old(self._root)
            placements.forget_old(self._root)
            # Looking at the notes of attempts removes those that were left behind.
            for _ in all_unfinished(self._root.path):
                pass
            for trash in (self._trash, self._cache_trash):
                self._report.values["bytes_freed"] += trash.empty()

    def _measure(self, path: str) -> None:
        """Count what a dry run would delete; a real run counts on deletion."""
        if self._dry_run:
            self._report.values["bytes_freed"] += measure(path)

    # -- jobs

    def _jobs(self) -> Needs:
        """Move old jobs to the trash, and return what the jobs in use need."""
        needs = Needs()
        old = []
        for job in jobs_of(self._root):
            try:
                if self._old_jobs.is_in_use(job):
                    needs.add(job)
                elif self._old_jobs.is_old(job):
                    old.append(job)
                elif not job.attempts():
                    # The job is staged, and will be launched.
                    needs.add(job)
                elif not self._dry_run:
                    # An older version of this program may have ended it before its start.
                    for attempt in job.attempts():
                        attempt.forget_secrets()
                    settle(job)
            except Exception as error:  # jobs can write to their records, and so there may be anything in them
                needs.add(job)
                self._fail(job, error)
        for job in old:
            if not needs.are_in(job):
                self._remove(job)
        return needs

    def _remove(self, job: JobDirectory) -> None:
        try:
            if self._dry_run:
                self._measure(job.path)
            elif not self._discard(job):
                return
            self._report.values["jobs"].append(job.job_id)
        except FileNotFoundError:
            return
        except Exception as error:
            self._fail(job, error)

    def _discard(self, job: JobDirectory) -> bool:
        with alone_with(job) as alone:
            # A request that came before has noted its use by now; a later one makes a new directory.
            if not alone or self._old_jobs.is_in_use(job) or not self._old_jobs.is_old(job):
                return False
            asked = what_was_asked(job.path, *[attempt.number for attempt in job.attempts()[-1:]])
            if settle(job, wait_s=self._wait_s):
                self._trash.take(job.path)
                by_itself = "the connection's retention" if self._caller is None else ""
                unused = "unused for {}".format(duration(self._report.values["older_than_s"]))
                note_act(job.path, GC, caller=self._caller, through=by_itself, details=unused, asked=asked)
                return True
            # The next job need not wait for the same again.
            self._wait_s = 0.0
            # Perhaps for lack of space, of which its files take up the most.
            for name in os.listdir(job.path):
                if name != ".job":
                    self._trash.take(job.at(name))
            raise OSError("its end is not in the ledger yet, so its records stay until the next time")

    def _fail(self, job: JobDirectory, error: Exception) -> None:
        if not isinstance(error, FileNotFoundError):
            self._report.fail(job.path, OSError(f"it is not removed: {error or repr(error)}"))

    # -- programs

    def _programs(self, needs: Needs) -> None:
        for name in self._old_programs.find(needs):
            try:
                if self._dry_run:
                    self._report.count("programs", self._old_programs.size(name))
                elif self._old_programs.discard(name, self._trash):
                    self._report.count("programs", 0)
            except OSError as error:
                self._report.fail(os.path.join(self._root.own, name), error)
        for path in self._old_programs.drafts():
            try:
                if not self._dry_run:
                    self._trash.take(path)
            except OSError as error:
                self._report.fail(path, error)
