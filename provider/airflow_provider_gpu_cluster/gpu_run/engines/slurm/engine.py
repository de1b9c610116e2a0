"""A cluster with Slurm, seen from a login node: Slurm starts the supervisors, and knows how they ended."""

from __future__ import annotations

import json
import os
import threading
import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Callable, Sequence

from ... import protocol
from ...errors import Refused
from ...protocol.grace import grace_s
from ...store import records
from ...store.budgets import why_held
from ...store.directories import Attempt, Root
from ...supervise.foreign_variables import unused_defaults
from ..unstarted import record_unstarted
from . import commands, kill_wait, words
from .batch import Batch, attempts_at
from .ends import UNKNOWN, Held, settle_ended, settle_unstarted
from .requeued import settle_requeued
from .runner import run
from .submitter import UNUSED_DEFAULTS, Submitter, end_unstarted, search
from .views import Told, View, ask_accounting, ask_queue

if TYPE_CHECKING:
    from ...protocol.appraisal import Prospect
    from ...protocol.notes import Moment
    from ...protocol.overview import EngineView
    from ...protocol.records import AttemptRequest, Claim
    from ...protocol.replies import Capacity, GpuState
    from ...protocol.settings import Settings
    from ...protocol.spec import Spec
    from ...protocol.status import Standing
    from ...store.placements import Promise
    from ..wanted import Wanted

INTERVAL_S = 15.0
# In intervals: how much later this host may see records that were written on another node, and how much later the
# accounting may list a job.
_VISIBLE = 2
_ACCOUNTED = 4
_START_STEP_S = 600.0
_SUBMIT_AT_ONCE_S = 10.0
# From the end of a job's grace to its record.
_ENDING_S = 60.0


class SlurmEngine:
    """
    Runs jobs through Slurm.

    :param settings: ``partition``, ``account``, ``qos``, ``constraint``, ``sbatch_options``, ``python``, and
        ``slurm_interval_s``, how often Slurm is asked about all jobs together.
    :param program: path of this program, which the jobs run.
    :param timeout_s: how long a look may wait for Slurm's answer.
    """

    name = "slurm"

    def __init__(self, root: Root, settings: Settings, program: str, timeout_s: float) -> None:
        self._root = root
        self._settings = settings
        self._interval_s: float = settings.get("slurm_interval_s") or INTERVAL_S
        self._timeout_s = timeout_s
        self._submission = Submitter(root, settings, program, self._interval_s)
        self._queue = self._view("queue.json", self._interval_s, ask_queue)
        self._accounting = self._view("accounting.json", 2 * self._interval_s, ask_accounting)
        self._visible_s = _VISIBLE * self._interval_s
        self._accounted_s = _ACCOUNTED * self._interval_s
        self._submitting: threading.Thread | None = None
        self.refresh()

    def _view(self, name: str, interval_s: float, ask: Callable[[float], Told]) -> View:
        path = os.path.join(self._root.own, "slurm", name)
        return View(path, interval_s=interval_s, timeout_s=self._timeout_s, ask=ask)

    def refresh(self) -> None:
        """Let waiting jobs be handed to Slurm again, for a while."""
        self._submitting_until = time.monotonic() + _SUBMIT_AT_ONCE_S

    def check(self, spec: Spec) -> None:
        """
        Refuse a job that can never run here, as far as this is known without submitting it.

        :raises Refused: there are no GPUs of that type.
        """
        self._submission.check(spec)

    def launch(self, attempts: Sequence[Attempt]) -> None:
        """
        Hand attempts to Slurm; those that ask for the same become one array.

        :raises Refused: Slurm will never take one of them.
        """
        batches: list[Batch] = []
        alike: dict[str, list[Attempt]] = {}
        for attempt in attempts:
            request = attempt.request()
            if why_held(attempt, request):
                continue
            batch = Batch.of(attempt)
            if "recovery" in request:
                # Whoever looks at it must not wait for Slurm.
                self._submit_meanwhile(batch)
            elif batch.is_array or batch.is_noted():
                if batch.folder not in [other.folder for other in batches]:
                    batches.append(batch)
            else:
                alike.setdefault(_wishes(attempt), []).append(attempt)
        for group in alike.values():
            batches += self._submission.together(group)
        refusals = []
        for batch in batches:
            try:
                self._submission.submit(batch)
            except Refused as refusal:
                refusals.append(refusal)
        if refusals:
            raise refusals[0]

    def nudge(self) -> None:
        """Do nothing: Slurm serves its queue itself."""

    # -- the state of attempts -----------------------------------------------------------------------------------

    def standing(self, attempt: Attempt, claim: Claim | None) -> Standing | None:
        """Return the state of an attempt, from what Slurm says about its job."""
        if claim is None:
            return self._waiting(attempt)
        if claim["by"] == "supervisor":
            return self._running(attempt, claim)
        record_unstarted(attempt, claim)
        return None

    def _waiting(self, attempt: Attempt) -> Standing | None:
        """Return the state of an attempt that has not begun."""
        request = attempt.request()
        standing = self._in_queue(attempt, request)
        recovery = request.get("recovery")
        if standing is not None and recovery is not None:
            standing["message"] = "{}; attempt {}: {}".format(recovery["why"], attempt.number, standing["message"])
        return standing

    def _in_queue(self, attempt: Attempt, request: AttemptRequest) -> Standing | None:
        held = why_held(attempt, request)
        if held:
            return {"state": protocol.QUEUED, "submitted_at": request["requested_at"], "message": held}
        batch = Batch.of(attempt)
        note = batch.piece_of(attempt).note
        message = "it was just handed to Slurm"
        if not note.get("ids"):
            message = self._submit_meanwhile(batch) or message
            note = batch.piece_of(attempt).note
            if attempt.ended() is not None:
                return None
        queued: Standing = {"state": protocol.QUEUED, "submitted_at": request["requested_at"]}
        if not note.get("ids"):
            return {**queued, "message": message}
        rows = self._rows(batch, attempt, note["answered_at"])
        if isinstance(rows, str):
            return {**queued, "state": protocol.UNKNOWN, "message": rows}
        if rows is None:
            return {**queued, "message": message}
        if not rows:
            queued["message"] = message
            return self._forgotten(attempt, batch, batch.ids_of(attempt, note["ids"]), queued)
        unknown = [row for row in rows if row.state not in words.STATES]
        if unknown:
            return _unknown_word(queued, unknown[0])
        alive = [row for row in rows if words.STATES[row.state].phase != words.ENDED]
        if alive:
            queued["message"] = "; ".join(filter(None, (_why(alive[0]), note.get("message"))))
            if alive[0].nodes:
                queued["host"] = alive[0].nodes
            if alive[0].start is not None and alive[0].start > time.time():
                queued["expected_start"] = records.time_of(alive[0].start)
            return queued
        # The accounting has a line for each run of a job.
        settle_unstarted(attempt, batch, rows[-1])
        # A supervisor may have claimed it meanwhile.
        return None if attempt.ended() is not None else {**queued, "message": message}

    def _submit_meanwhile(self, batch: Batch) -> str:
        """Hand a batch to Slurm that should be there by now; return why it is not there yet."""
        why_not = self._submission.why_not(batch)
        if why_not:
            return why_not
        said = ["it is to be handed to Slurm"]

        def submit() -> None:
            try:
                said.append(self._submission.submit(batch))
            except Refused as refusal:
                said.append(refusal.message)

        # Each submission can take a while, and a process that looks at many jobs must not be held up by all of them.
        if time.monotonic() < self._submitting_until and not (self._submitting and self._submitting.is_alive()):
            self._submitting = threading.Thread(target=submit, daemon=True)
            self._submitting.start()
            self._submitting.join(self._timeout_s)
        return said[-1]

    def _running(self, attempt: Attempt, claim: Claim) -> Standing | None:
        """Return the state of an attempt whose supervisor has begun."""
        batch = Batch.of(attempt)
        running: Standing = {"state": protocol.RUNNING}
        said = claim["slurm_job"]
        submitted = batch.ids_of(attempt, batch.piece_of(attempt).note.get("ids", ()))
        rows = self._rows(batch, attempt, claim["unix_time"], said)
        if not rows and isinstance(rows, list) and said not in submitted:
            # Slurm has never confirmed that this is its job; whatever runs under its name counts.
            rows = self._rows(batch, attempt, claim["unix_time"])
        if isinstance(rows, str):
            return {**running, "state": protocol.UNKNOWN, "message": rows}
        if rows is None:
            return running
        if not rows:
            known = [said] if said in submitted or not submitted else submitted
            return self._forgotten(attempt, batch, known, running, claim=claim)
        # The accounting has a line for each run of the job; the last one is the present run.
        alive = [row for row in rows if row.state in words.STATES and words.STATES[row.state].phase == words.RUNS]
        row = (alive or rows)[-1]
        job = row.id
        state = words.STATES.get(row.state)
        if state is None:
            return _unknown_word(running, row)
        if state.phase == words.RUNS:
            return running
        if state.phase == words.WAITS:
            if row.state == "CONFIGURING":
                return running
            if not self._is_requeued(claim, job):
                return running
            self._settle_requeued(attempt, claim, job)
            return None
        if state.state is None and time.time() < (row.end or 0) + self._visible_s:
            # Its own record says how it ended, and may not be visible here yet.
            return running
        settle_ended(attempt, batch, claim, f"job {row.id}, {row.state}", state, Held(row.start, row.end))
        return None

    def _rows(
        self, batch: Batch, attempt: Attempt, since: float, job: str | None = None
    ) -> list[commands.Row] | str | None:
        """
        Return Slurm's rows for an attempt.

        :param since: a time when Slurm certainly had the attempt, in seconds since the epoch.
        :param job: the only Slurm job that matters; None for all that were submitted for the attempt.
        :return: an empty list when Slurm no longer knows the attempt; a text that says why this is not known now; None
            when it is too early to say.
        """
        queue = self._queue
        queue.look()
        if queue.trouble:
            return f"Slurm cannot be asked: {queue.trouble}"
        if queue.told_at <= since:
            return None
        rows = _rows_of(queue, batch, attempt, job)
        if rows:
            return rows
        accounting = self._accounting
        accounting.look(since - self._accounted_s)
        rows = _rows_of(accounting, batch, attempt, job)
        if rows:
            return rows
        if accounting.trouble:
            return f"Slurm's controller has forgotten it, and its accounting cannot be asked: {accounting.trouble}"
        is_told = accounting.is_off or accounting.told_at > since + self._accounted_s
        return [] if is_told else None

    def _forgotten(
        self,
        attempt: Attempt,
        batch: Batch,
        jobs: Sequence[str],
        standing: Standing,
        claim: Claim | None = None,
    ) -> Standing | None:
        """
        Settle an attempt that neither the queue nor the accounting knows, if the controller agrees.

        :param jobs: what Slurm calls it.
        """
        for job in jobs:
            answer = run(commands.details(job), timeout_s=max(self._timeout_s, 1.0))
            if answer.code == 0 and commands.is_in(answer.output, batch.workdir):
                # It was submitted, or ended, since the caller looked.
                return standing
            if answer.code != 0 and words.UNKNOWN_JOB not in answer.errors:
                message = f"Slurm cannot be asked: {commands.said(answer.errors)}"
                return {**standing, "state": protocol.UNKNOWN, "message": message}
        noted = self._noted(attempt)
        if time.time() < noted + self._visible_s:
            return standing
        named = " and ".join(jobs)
        message = f"Slurm knows nothing of job {named} any more, and it left no record"
        if claim is None:
            end_unstarted(attempt, protocol.LOST, protocol.REASON_LOST, f"{message} of a start")
            return None if attempt.ended() is not None else standing
        settle_ended(attempt, batch, claim, f"job {named}, which it no longer knows", words.State(words.ENDED))
        return None

    def _noted(self, attempt: Attempt) -> float:
        """Return when this program first saw that Slurm has forgotten an attempt."""
        path = attempt.at("forgotten.json")
        seen: Moment = {"at": time.time()}
        records.create_json(path, seen)
        first: Moment | None = records.read_json(path)
        return 0.0 if first is None else float(first.get("at", 0.0))

    def _is_requeued(self, claim: Claim, job: str) -> bool:
        """Return whether a waiting job was started before: its claim is then from a run that is over."""
        answer = run(commands.details(job), timeout_s=max(self._timeout_s, 1.0))
        restarts = commands.detail(answer.output, "Restarts") if answer.code == 0 else None
        return restarts is not None and int(restarts) > claim["restarts"]

    def _settle_requeued(self, attempt: Attempt, claim: Claim, job: str) -> None:
        """End an attempt whose job waits again."""
        self._accounting.look(claim["unix_time"] - self._accounted_s)
        batch = Batch.of(attempt)
        runs = self._accounting.jobs([job], batch.name_of(attempt), batch.workdir)
        over = [row for row in runs if row.end is not None]
        told = words.STATES.get(over[-1].state) if over else None
        settle_requeued(attempt, claim, job, told, Held(over[-1].start, over[-1].end) if over else UNKNOWN)

    # -- the end of attempts -------------------------------------------------------------------------------------

    def leave(self, attempt: Attempt) -> None:
        """Take an attempt out of Slurm's queue. If Slurm cannot be reached, its job will find that it was cancelled."""
        jobs = self._submitted(attempt)
        if jobs:
            self._scancel(jobs, attempt)

    def stop(self, attempt: Attempt, claim: Claim) -> None:
        """End the job of a running attempt. If Slurm cannot be reached, its supervisor finds that it was cancelled."""
        if claim["by"] != "supervisor":
            return
        said, jobs = claim["slurm_job"], self._submitted(attempt)
        # What its supervisor calls it may be another job, unless Slurm calls it so too.
        jobs = [said] if said in jobs else jobs
        if jobs:
            self._scancel(jobs, attempt, is_running=True)

    def _submitted(self, attempt: Attempt) -> list[str]:
        """Return what Slurm has called the jobs that were submitted for an attempt."""
        batch = Batch.of(attempt)
        piece = batch.piece_of(attempt)
        ids = piece.note.get("ids")
        if not ids and piece.note.get("asked_at"):
            ids = search(piece, piece.note["asked_at"]).ids
        return batch.ids_of(attempt, ids or ())

    def _scancel(self, jobs: Sequence[str], attempt: Attempt, *, is_running: bool = False) -> None:
        # Slurm itself would tell every process of the job, and kill them all after a time of its own.
        command = commands.end_softly if is_running and _may_still_end(attempt) else commands.cancel
        answer = run(command(jobs), timeout_s=max(self._timeout_s, 1.0))
        if answer.code != 0:
            attempt.event("scancel_failed", slurm_jobs=list(jobs), message=commands.said(answer.errors))

    def still_runs(self, job_id: str) -> bool:
        """
        Return whether Slurm runs a job, even if the job's directory is gone.

        :raises Refused: Slurm cannot be asked.
        """
        self._queue.look()
        if self._queue.trouble or not self._queue.told_at:
            raise Refused(protocol.GPUS_UNAVAILABLE, f"Slurm cannot be asked: {self._queue.trouble or 'no answer yet'}")
        folder = self._root.job(job_id).path
        return bool(self._queue.named(lambda row: _runs_in(row, folder)))

    # -- the cluster ---------------------------------------------------------------------------------------------

    def capacity(self) -> Capacity:
        """
        Return every GPU of the partition, and how many jobs of all users wait.

        :raises Refused: Slurm cannot be asked.
        """
        found = commands.node_gpus(_answer(commands.nodes(self._settings.get("partition"))))
        waiting = commands.pending_gpus(_answer(commands.pending()))
        gpus: list[GpuState] = []
        for kind in found:
            for number in range(kind.total):
                free = kind.is_up and number >= kind.used
                used_by = "" if free else "a job" if number < kind.used else "its node takes no jobs now"
                gpus.append(
                    {
                        "index": len(gpus),
                        "key": f"{kind.node}:{number}",
                        "type": kind.type,
                        "memory_mb": None,
                        "free": free,
                        "used_by": used_by,
                        "state": "free" if free else "leased" if number < kind.used else "down",
                    }
                )
        return {
            "gpus": gpus,
            "free_gpus": sum(gpu["free"] for gpu in gpus),
            "waiting_jobs": len(waiting),
            "waiting_gpus": sum(waiting),
        }

    def prospects(self, wanted: Sequence[Wanted], promises: Sequence[Promise], *, within_s: float) -> list[Prospect]:
        """Return for each of these jobs whether it fits, and when it could start, by Slurm's own word."""
        from .prospects import SlurmProspects

        return SlurmProspects(self._root, self._settings, self._submission, within_s).of(wanted, promises)

    def overview(self) -> EngineView:
        """
        Return every node and GPU, who has it and how busy it is, and the jobs of all users that wait.

        :raises Refused: Slurm cannot be asked.
        """
        from ...protocol.overview import MOST_RUNNING
        from ..own_jobs import own_attempts, tell_usage, tell_whose
        from .overview import by_slurm_id, slurm_view

        view, ours = slurm_view(by_slurm_id(own_attempts(self._root, MOST_RUNNING)), self._settings.get("partition"))
        for place, attempt in ours.items():
            tell_whose(view["jobs"][place], attempt)
            tell_usage(view["nodes"], place, attempt)
        return view

    def warnings(self) -> list[str]:
        """Return problems to expect on this cluster."""
        unused = unused_defaults(os.environ)
        found = [UNUSED_DEFAULTS.format(", ".join(unused))] if unused else []
        told = ask_accounting(time.time() - 1)
        config = run(commands.configuration()).output
        shown = run(commands.partitions()).output
        grace = grace_s({"gpus": 1}, self._settings)
        found += kill_wait.shorter_than(grace, config, shown, self._settings.get("partition"))
        if told.is_off:
            age = commands.detail(config, "MinJobAge") or "?"
            found.append(
                "Slurm keeps no accounting here, so if a job leaves no record of its own, its end is known for only "
                f"{age} s (MinJobAge)"
            )
        if told.trouble:
            found.append(f"Slurm's accounting cannot be asked: {told.trouble}")
        return found


def _may_still_end(attempt: Attempt) -> bool:
    """Return whether a supervisor that was told of a cancel may still be at work."""
    asked = attempt.cancellation()
    request = attempt.request()
    grace = grace_s(request["spec"], request["settings"])
    return asked is None or records.seconds_between(asked["at"], records.now()) < 2 * grace + _ENDING_S


def _answer(command: Sequence[str]) -> str:
    answer = run(command)
    if answer.code != 0:
        raise Refused(protocol.GPUS_UNAVAILABLE, f"Slurm cannot be asked: {commands.said(answer.errors)}")
    return answer.output


def _rows_of(view: View, batch: Batch, attempt: Attempt, job: str | None) -> list[commands.Row]:
    name = batch.name_of(attempt)
    if job is None and batch.requeued is not None:
        job = batch.requeued["id"]
    if job is not None:
        return view.jobs([job], name, batch.workdir)
    # Take all jobs of that name: if it was submitted twice, either job may run it.
    rows = view.jobs((), name, batch.workdir)
    end = f"_{batch.index(attempt)}" if batch.is_array else ""
    return [row for row in rows if row.id.endswith(end)]


def _runs_in(row: commands.Row, folder: str) -> bool:
    """Return whether a job runs an attempt of the job with that folder."""
    state = words.STATES.get(row.state)
    if state is None or state.phase != words.RUNS:
        return False
    number = row.id.partition("_")[2]
    paths = attempts_at(row.folder) if number.isdigit() else []
    return paths[int(number)].startswith(folder + os.sep) if int(number or 0) < len(paths) else row.folder == folder


def _why(row: commands.Row) -> str:
    """Return a message that says why a job waits."""
    if row.state == "COMPLETING":
        return f"job {row.id}: Slurm still cleans up after a run of it"
    if words.STATES[row.state].phase == words.RUNS or row.state == "CONFIGURING":
        return f"Slurm has given it {row.nodes or 'its nodes'}, where it is being prepared (job {row.id})"
    why = words.PENDING_REASONS.get(row.reason) or words.PENDING_REASONS.get(row.reason.split(",")[0])
    text = f"{why} ({row.reason.split(',')[0]})" if why else f"Slurm says: {row.reason}"
    if row.start is not None and row.start > time.time():
        # Rounded, since the task's log reports every change.
        start = datetime.fromtimestamp(-(-row.start // _START_STEP_S) * _START_STEP_S, timezone.utc)
        text += f"; expected to start before {start:%Y-%m-%d %H:%M} UTC"
    return f"job {row.id}: {text}"


def _wishes(attempt: Attempt) -> str:
    """Return what an attempt asks Slurm for, in a form to compare."""
    spec = attempt.request()["spec"]
    resources = commands.sbatch(
        spec, {}, name="", comment="", folder="", output="", environment=(), gpu_type=spec.get("gpu_type")
    )
    return json.dumps(resources)


def _unknown_word(standing: Standing, row: commands.Row) -> Standing:
    message = f"Slurm says that job {row.id} is {row.state}, which is an unknown word here"
    return {**standing, "state": protocol.UNKNOWN, "message": message}
