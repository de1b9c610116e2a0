"""
A cluster with a launcher of its own: a command that takes a script, starts it when its turn has come, and prints the id
of a process that lives as long as the job.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from typing import TYPE_CHECKING, Sequence

from ... import protocol
from ...errors import Refused
from ...linux import detached, processes
from ...linux.logout import logout_warnings
from ...recovery.words import waiting
from ...store import markers, records
from ...store.budgets import why_held
from ...store.claims import run_facts
from ...store.directories import Attempt, Root
from ..lost import settle_lost_supervisor, unseen
from ..unstarted import end_unstarted, record_unstarted
from ..wanted import refuse_what_only_slurm_has, unfit
from .handover import BY, Handover, end_launcher, end_process, program_of, said_by_launcher, template_of
from .launch_notes import LaunchNotes
from .processes import Processes, alive
from .template import NotGiven, values_of

if TYPE_CHECKING:
    from ...protocol.appraisal import Prospect
    from ...protocol.notes import LaunchNote
    from ...protocol.overview import EngineView, OverviewJob
    from ...protocol.records import AttemptRequest, Claim, EndFacts, ProcessIdentity
    from ...protocol.replies import Capacity
    from ...protocol.settings import Settings
    from ...protocol.spec import Spec
    from ...protocol.status import Standing
    from ...store.placements import Promise
    from ..wanted import Wanted

# How often this asks ps.
INTERVAL_S = 5.0
# How long after the end of the launcher's process the script may still claim the attempt, as that process may
# have handed it on.
GONE_S = 10.0
# How long after an attempt was noted another process waits before it calls the launcher for it.
_HANDED_OVER_WITHIN_S = 10.0


class CommandEngine:
    """
    Runs jobs through the site's launcher, on the host where this program runs.

    :param settings: ``launch_command``, see :mod:`.template`; and ``python``.
    :param program: path of this program, for the processes it starts.
    """

    name = "command"

    def __init__(self, root: Root, settings: Settings, program: str) -> None:
        self._root = root
        self._settings = settings
        self._program = program
        self._notes = LaunchNotes(root)
        self._handover = Handover(self._notes)
        self._processes = Processes(INTERVAL_S)

    def refresh(self) -> None:
        """Do nothing: the processes are looked at anew at every interval anyway."""

    def check(self, spec: Spec) -> None:
        """
        Refuse a job that the launcher cannot run.

        :raises Refused: there is no launcher, or its command has no placeholder for what the job asks for.
        """
        if (spec.get("nodes") or 1) > 1:
            raise Refused(
                protocol.NOT_ENOUGH_GPUS,
                f"the job asks for {spec['nodes']} nodes, and a launch_command starts a script once; take a connection "
                "whose engine is slurm",
            )
        template = template_of(self._settings)
        program_of(template)
        try:
            template.arguments(values_of(spec, self._settings, script="", job_id="", job_dir=""))
        except NotGiven as error:
            raise Refused(protocol.BAD_REQUEST, str(error)) from None
        for name, is_wanted in (("gpus", spec["gpus"] != 1), ("gpu_type", bool(spec.get("gpu_type")))):
            if is_wanted and not template.has(name):
                raise Refused(
                    protocol.BAD_REQUEST,
                    f"the job asks for {name}={spec.get(name)}, but launch_command of the connection has no "
                    f"{{{name}}} to tell the launcher",
                )

    def launch(self, attempts: Sequence[Attempt]) -> None:
        """
        Call the launcher for each attempt, unless it was called before.

        :raises Refused: the launcher failed with one of them, which has ended.
        """
        attempts = [attempt for attempt in attempts if not why_held(attempt, attempt.request())]
        following = [attempt for attempt in attempts if "recovery" in attempt.request()]
        for attempt in following:
            # Whoever looks at them must not wait for the launcher.
            self._handover.note(attempt)
        if following:
            self._launch_waiting()
        others = [attempt for attempt in attempts if attempt not in following]
        if others:
            self._handover.launch(others)

    def nudge(self) -> None:
        """Hand those attempts to the launcher whose own request died before it could, or whose time has come."""
        now = time.time()
        for attempt, note in self._notes.all():
            due_at = note.get("not_before", note["noted_at"] + _HANDED_OVER_WITHIN_S)
            is_left = "process" not in note and now > due_at
            if is_left and note["host"] == processes.hostname() and attempt.claimed() is None:
                self._launch_waiting()
                return

    def _launch_waiting(self) -> None:
        if self._handover.is_handing_over():
            return
        with records.log_file(os.path.join(self._notes.folder, "launching.log")) as log:
            command = detached.own_command(self._program, "launch-waiting")
            detached.leave(detached.start_detached(command, out=log))

    # -- the state of attempts -----------------------------------------------------------------------------------

    def standing(self, attempt: Attempt, claim: Claim | None) -> Standing | None:
        """Return the state of an attempt, by the launcher's process and the process that has claimed it."""
        if claim is None:
            return self._waiting(attempt)
        if claim["by"] == "supervisor":
            return self._running(attempt, claim)
        record_unstarted(attempt, claim)
        return None

    def _waiting(self, attempt: Attempt) -> Standing | None:
        """Return the state of an attempt that has not begun."""
        request = attempt.request()
        standing = self._before_start(attempt, request)
        why = waiting(request, attempt.number)
        if standing is not None and why:
            standing["message"] = why
        return standing

    def _before_start(self, attempt: Attempt, request: AttemptRequest) -> Standing | None:
        queued: Standing = {
            "state": protocol.QUEUED,
            "submitted_at": request["requested_at"],
            "host": request["host"],
        }
        held = why_held(attempt, request)
        if held:
            return {**queued, "message": held}
        note = self._notes.read(attempt)
        if note is None:
            # The process that made the attempt died before it noted it, or is about to note it.
            if request["host"] == processes.hostname():
                self._handover.note(attempt)
                if "recovery" in request or "over_budget" in request:
                    self._launch_waiting()
            return {**queued, "message": "it is to be handed to the launcher"}
        if note["host"] != processes.hostname():
            return _unknown(queued, _elsewhere("it was handed over on", note["host"]))
        process = note.get("process")
        if process is None:
            return {**queued, "message": "it is being handed to the launcher"}
        is_there = self._is_there(note)
        if isinstance(is_there, str):
            return _unknown(queued, is_there)
        if is_there is not False:
            message = f"process {process['pid']} of the launcher lives, and has not begun the job"
            return {**queued, "message": message}
        if not self._is_over(attempt, note):
            return {**queued, "message": f"process {process['pid']} of the launcher has ended"}
        self._settle_unstarted(attempt, process)
        # A supervisor may have claimed it meanwhile.
        return None if attempt.ended() is not None else queued

    def _running(self, attempt: Attempt, claim: Claim) -> Standing | None:
        """Return the state of an attempt whose supervisor has begun."""
        running: Standing = {"state": protocol.RUNNING}
        is_alive = processes.is_alive(claim)
        if is_alive:
            return running
        if is_alive is False:
            # It may have ended since the caller looked.
            if attempt.ended() is None and not _settle_marked(attempt, claim):
                settle_lost_supervisor(attempt, claim)
            return None
        if claim["host"] == processes.hostname():
            return _unknown(running, unseen(claim))
        # The launcher has taken it to another host.
        note = self._notes.read(attempt)
        if note is None or "process" not in note or note["host"] != processes.hostname():
            where = "" if note is None else note["host"]
            return _unknown(running, _elsewhere(f"it runs on {claim['host']}, from", where))
        is_there = self._is_there(note)
        if isinstance(is_there, str):
            return _unknown(running, is_there)
        if is_there is not False or not self._is_over(attempt, note):
            return running
        if attempt.ended() is not None or _settle_marked(attempt, claim):
            return None
        message = (
            f"process {note['process']['pid']} of the launcher has ended, and this host cannot see whether the "
            f"job's supervisor still runs on {claim['host']} (process {claim['pid']}); if it does not, create "
            f"{attempt.job.at('outputs', 'FAILED')}"
        )
        return _unknown(running, message)

    def _is_there(self, note: LaunchNote) -> bool | str | None:
        """
        Return whether the launcher's process for an attempt lives.

        :param note: of an attempt that was handed over on this host.
        :return: a text that says why this is not known now; None when it is too early to say.
        """
        if "gone_at" in note:
            return False
        view = self._processes
        if view.is_due():
            self._look()
        if view.trouble:
            return f"the processes on {processes.hostname()} cannot be looked at: {view.trouble}"
        return view.is_alive(note["process"]) if view.told_at > note["noted_at"] else None

    def _look(self) -> None:
        here, boot = processes.hostname(), processes.boot_id()
        named = [note["process"] for _, note in self._notes.all() if "process" in note]
        self._processes.look([one["pid"] for one in named if (one["host"], one["boot"]) == (here, boot)])

    def _is_over(self, attempt: Attempt, note: LaunchNote) -> bool:
        """Return whether the process has been gone so long that a script it handed on would have shown by now."""
        if "gone_at" not in note:
            note["gone_at"] = time.time()
            self._notes.write(attempt, note)
        return time.time() > note["gone_at"] + GONE_S

    def _settle_unstarted(self, attempt: Attempt, process: ProcessIdentity) -> None:
        marked = markers.marked(attempt.job.at("outputs"))
        if marked is not None:
            end_unstarted(attempt, BY, marked["state"], marked["reason"], marked["message"])
            return
        if process["boot"] != processes.boot_id():
            message = "the host was rebooted before it began"
        else:
            said = said_by_launcher(attempt)
            message = (
                f"process {process['pid']} of the launcher has ended, and has not begun it; the launcher said: {said}"
            )
        end_unstarted(attempt, BY, protocol.FAILED, protocol.LAUNCH_FAILED, message)

    # -- the end of attempts -------------------------------------------------------------------------------------

    def leave(self, attempt: Attempt) -> None:
        """End the launcher's process for an attempt. If that fails, its script finds nothing to do."""
        note = self._notes.read(attempt)
        if note is None:
            return
        if "process" in note:
            end_process(note["process"])
        elif "launcher" in note:
            end_launcher(note["launcher"])

    def stop(self, attempt: Attempt, claim: Claim) -> None:
        """Tell the supervisor of a running attempt to end it. A supervisor on another host notices by itself."""
        if claim["by"] == "supervisor":
            end_process(claim)

    def still_runs(self, job_id: str) -> bool:
        """
        Return whether a job waits or runs, even if the job's directory is gone.

        :raises Refused: that is not known now.
        """
        notes = self._notes.of_job(job_id)
        for attempt, note in notes:
            if note["host"] != processes.hostname():
                message = _elsewhere(f"job {job_id} was handed over on", note["host"])
                raise Refused(protocol.GPUS_UNAVAILABLE, message)
            is_there = self._is_there(note) if "process" in note else False
            if isinstance(is_there, str):
                raise Refused(protocol.GPUS_UNAVAILABLE, is_there)
            if is_there is not False:
                return True
            if not os.path.exists(attempt.path):
                self._notes.remove(attempt)
        # A process may have passed the job on to another.
        try:
            return bool(notes) and bool(processes.with_environment(f"JOB_DIR={self._root.job(job_id).path}"))
        except OSError as error:
            message = f"the processes on {processes.hostname()} cannot be looked at: {error.strerror}"
            raise Refused(protocol.GPUS_UNAVAILABLE, message) from error

    # -- the cluster ---------------------------------------------------------------------------------------------

    def capacity(self) -> Capacity:
        """
        Return what is known: the launcher, and how many of the user's jobs wait.

        :raises Refused: the launcher cannot start jobs, or this host cannot follow them.
        """
        template = template_of(self._settings)
        launcher = program_of(template)
        try:
            alive([])
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            raise Refused(
                protocol.GPUS_UNAVAILABLE,
                f"jobs cannot be followed on {processes.hostname()}, as 'ps -p PID -o stat' does not work: {error}",
            ) from None
        waiting = []
        for attempt, _ in self._notes.all():
            with contextlib.suppress(Refused):
                if attempt.claimed() is None:
                    waiting.append(attempt.request()["spec"]["gpus"])
        return {
            "launcher": launcher,
            "gpus": [],
            "free_gpus": None,
            "waiting_jobs": len(waiting),
            "waiting_gpus": sum(waiting),
        }

    def prospects(self, wanted: Sequence[Wanted], promises: Sequence[Promise], *, within_s: float) -> list[Prospect]:
        """Return for each of these jobs whether the launcher can run it; it does not say when it starts one."""

        def prospect(spec: Spec) -> Prospect:
            try:
                self.check(spec)
                refuse_what_only_slurm_has(spec)
            except Refused as refusal:
                return unfit(refusal)
            return {"fits": True}

        return [prospect(one.spec) for one in wanted]

    def overview(self) -> EngineView:
        """
        Return what is known: the launcher, and this root's jobs.

        :raises Refused: the launcher cannot start jobs, or this host cannot follow them.
        """
        from ...protocol.overview import MOST_RUNNING
        from ..own_jobs import own_attempts, tell_whose

        known = self.capacity()
        jobs: list[OverviewJob] = []
        for attempt in own_attempts(self._root, MOST_RUNNING):
            with contextlib.suppress(Refused):
                claim, request = attempt.claimed(), attempt.request()
                job: OverviewJob = {"is_running": claim is not None, "user": processes.user(), "gpus": 0}
                job["gpus"] = request["spec"]["gpus"]
                job["submitted_at"] = request["requested_at"]
                if claim is not None:
                    job["since"] = claim["at"]
                tell_whose(job, attempt)
                jobs.append(job)
        return {
            "nodes": [],
            "jobs": jobs,
            "waiting_jobs": known["waiting_jobs"],
            "waiting_gpus": known["waiting_gpus"],
            "launcher": known.get("launcher", ""),
        }

    def warnings(self) -> list[str]:
        """Return problems to expect on this cluster."""
        warnings = logout_warnings()
        with contextlib.suppress(Refused):
            if not template_of(self._settings).has("gpus"):
                warnings.append("launch_command has no {gpus}, so a job can ask for one GPU and no more")
        return warnings


def _unknown(standing: Standing, message: str) -> Standing:
    return {**standing, "state": protocol.UNKNOWN, "message": message}


def _elsewhere(what: str, host: str) -> str:
    return f"{what} {host or 'another host'}, and this is {processes.hostname()}; point the connection there"


def _settle_marked(attempt: Attempt, claim: Claim) -> bool:
    """Record the end that the marker in outputs/ shows; return False when there is none."""
    marked = markers.marked(attempt.job.at("outputs"))
    if marked is None:
        return False
    facts: EndFacts = run_facts(claim)
    facts.update(marked["facts"])
    attempt.finish(marked["state"], marked["reason"], marked["message"], **facts)
    return True
