"""Hand attempts to Slurm once each, even if processes die meanwhile or a reply is lost."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import sys
import time
from typing import TYPE_CHECKING, Iterable, NamedTuple, Sequence

from ... import protocol
from ...errors import Refused
from ...linux import processes
from ...store import records
from ...store.directories import Attempt, Root
from ...supervise.foreign_variables import unused_defaults
from .. import unstarted
from . import commands, limits, words
from .batch import Batch, BatchPiece
from .limits import Limit
from .next_start import NextStart
from .runner import TIMEOUT_S, Answer, run

if TYPE_CHECKING:
    from ...protocol.notes import GateNote, PieceNote
    from ...protocol.records import AttemptRequest
    from ...protocol.settings import Settings
    from ...protocol.spec import Spec

# The claimant of attempts that are ended before they began.
BY = "slurm"
# How much earlier than its sbatch a job may seem to have been submitted, by the clock of another host.
_SKEW_S = 60.0
UNUSED_DEFAULTS = (
    "The login sets {}, which no job follows: what jobs need of it belongs into the connection (account, partition, "
    "qos, sbatch_options)"
)
_SEARCH_S = 20.0
# GPUs stand idle while a compute node tries it.
_TRY_S = 15.0


class Found(NamedTuple):
    """
    The result of a search for a job.

    :param ids: of the jobs of that name; None when Slurm could not be asked.
    """

    ids: list[str] | None
    trouble: str = ""


class Submitter:
    """
    Submits batches for one root.

    :param program: path of this program, which the jobs run.
    :param interval_s: how long to wait after Slurm has refused a job temporarily, in seconds.
    :param only_tries: whether this is a compute node, from where many sites take no jobs: whatever keeps Slurm from
        taking one means nothing then, and a login node hands it over.
    """

    def __init__(
        self, root: Root, settings: Settings, program: str, interval_s: float, *, only_tries: bool = False
    ) -> None:
        self._root = root
        self._settings = settings
        self._program = program
        self._interval_s = interval_s
        self._only_tries = only_tries

    def submit(self, batch: Batch) -> str:
        """
        Make sure that a batch is in Slurm's queue; if it is, this changes nothing.

        The claim of each attempt keeps its code from running twice, even if this misses an earlier submission.

        :return: why it is not in the queue yet; empty when it is.
        :raises Refused: Slurm will never take the batch. Its attempts have ended.
        """
        if not _to_hand_over(batch):
            return ""
        fd = batch.lock()
        if fd is None:
            return "it is being handed to Slurm"
        try:
            why_not = ""
            while not why_not:
                pieces = _to_hand_over(batch)
                if not pieces:
                    return ""
                why_not = self._submit(pieces[0], fd)
            return why_not
        finally:
            os.close(fd)

    def why_not(self, batch: Batch) -> str:
        """Return why a batch cannot be submitted now; empty when it can."""
        return self._gate(batch.attempts[0].request()["spec"]).closed()

    def together(self, attempts: Sequence[Attempt]) -> list[Batch]:
        """Make batches of attempts that ask for the same: one, or as many as Slurm's arrays must be."""
        most = len(attempts)
        if most > 1:
            most = min(most, commands.largest_array(_told(commands.configuration())))
        return Batch.together(self._root, attempts, most)

    def _submit(self, piece: BatchPiece, fd: int) -> str:
        """Hand over a piece, or make it smaller; return why neither is possible now."""
        batch, note = piece.batch, piece.note
        request = batch.attempts[0].request()
        spec, recovery = request["spec"], request.get("recovery")
        gate = self._gate(spec)
        closed = gate.closed()
        if closed:
            return closed
        elsewhere = _asked_elsewhere(note) if recovery else ""
        if elsewhere:
            return f"it is being handed to Slurm on {elsewhere}"
        if note.get("asked_at"):
            # An earlier sbatch may have succeeded.
            found = search(piece, note["asked_at"])
            if found.ids is None and self._only_tries:
                return found.trouble
            if found.ids is None:
                return gate.close(f"Slurm cannot be reached, and may have the job: {found.trouble}", self._interval_s)
            if found.ids:
                return self._note(piece, found.ids)
        waiting = list(piece.waiting())
        if not waiting:
            return ""
        piece.write({"asked_at": note.get("asked_at") or time.time(), "asked_on": processes.hostname()})
        again = None if recovery is None else NextStart.after(recovery)
        answer = self._sbatch(piece, waiting, spec, fd, again)
        remark = ""
        if again is not None and again.exclude and any(sign in answer.errors for sign in words.NO_OTHER_NODES):
            answer = self._sbatch(piece, waiting, spec, fd, again._replace(exclude=()))
            remark = "it may run on {} again, as there is no other node for it".format(", ".join(again.exclude))
        job = commands.submitted_id(answer.output) if answer.code == 0 else None
        if job is not None:
            return self._note(piece, [job], remark)
        if self._only_tries:
            return self._given_up(piece, answer)
        said = commands.said(answer.errors) or f"sbatch ended with exit code {answer.code} and no message"
        if not answer.code or commands.is_unreachable(answer.errors):
            # It is unknown whether Slurm has the job.
            found = search(piece, time.time() - _SEARCH_S)
            if found.ids:
                return self._note(piece, found.ids)
            if found.ids is None or not commands.is_submit_limit(answer.errors):
                return gate.close(f"Slurm has not answered, and may have the job: {said}", self._interval_s)
        if commands.is_submit_limit(answer.errors):
            piece.write({"message": said})
            known = self.limits(spec, answer.errors)
            closed_for_good = [limit for limit in known if limit.most == 0]
            if closed_for_good:
                where = " and ".join(f"{limit.name} is set for {limit.where}" for limit in closed_for_good)
                raise self._refuse(
                    batch, request, f"{said}. It never takes a job like this: {where}; ask for another account or QOS"
                )
            fits = min([limit.room for limit in known], default=len(waiting) // 2)
            if fits >= len(waiting):
                # Somebody else was quicker, or there is a limit that is not known here.
                fits = len(waiting) // 2
            if fits:
                piece.cut(waiting[fits])
                return ""
            return gate.close(
                f"Slurm takes no more jobs of yours now ({said}); it is handed over later", self._interval_s
            )
        raise self._refuse(batch, request, said)

    def _given_up(self, piece: BatchPiece, answer: Answer) -> str:
        """Leave a piece to a login node; return why."""
        if _is_refusal(answer):
            # There is no need to look for it first.
            piece.write({})
        for attempt in piece.attempts:
            attempt.event("not_submitted", on=processes.hostname(), message=commands.said(answer.errors))
        return "a login node is to hand it to Slurm"

    def _refuse(self, batch: Batch, request: AttemptRequest, said: str) -> Refused:
        """End what Slurm will never take, and return the error that says so."""
        spec = request["spec"]
        is_size = any(sign in said for sign in words.NO_SUCH_NODES)
        reason, message = protocol.LAUNCH_FAILED, f"Slurm refuses the job: {said}"
        recovery = request.get("recovery")
        if recovery is not None:
            message = "{}; Slurm refuses attempt {}: {}".format(recovery["why"], batch.attempts[0].number, said)
            if recovery["reason"] == protocol.OUT_OF_MEMORY:
                reason = protocol.OUT_OF_MEMORY
                message += " (it asks for {:.2f} GiB of host memory)".format((spec.get("memory_bytes") or 0) / 2**30)
        for piece in _to_hand_over(batch):
            for attempt in piece.attempts:
                end_unstarted(attempt, protocol.FAILED, reason, message)
        unused = unused_defaults(os.environ)
        hint = f". {UNUSED_DEFAULTS.format(', '.join(unused))}" if unused else ""
        return Refused(
            protocol.NOT_ENOUGH_GPUS if is_size else protocol.LAUNCH_REFUSED,
            f"{message} (it asks for {_wishes(spec, self._settings)}){hint}",
        )

    def limits(self, spec: Spec, errors: str, timeout_s: float = _SEARCH_S) -> list[Limit]:
        """
        Return the limits by which Slurm takes no more jobs, as far as they can be found out.

        :param errors: what sbatch has said.
        :param timeout_s: how long to wait for each answer, in seconds.
        """
        user = processes.user()
        quality = commands.asked(spec, self._settings, "qos")
        qualities = {quality} if quality else set()
        if not qualities and "QOS" in errors:
            qualities = set(_told(commands.usual_qos(user), timeout_s).split())
        if len(qualities) == 1:
            partition = commands.asked(spec, self._settings, "partition")
            qualities.update(commands.qos_of_partition(_told(commands.partitions(), timeout_s), partition))
        else:
            qualities = set()
        account = commands.asked(spec, self._settings, "account")
        return limits.reached(errors, _told(limits.known(user), timeout_s), account=account, qualities=qualities)

    def _sbatch(self, piece: BatchPiece, waiting: list[int], spec: Spec, fd: int, again: NextStart | None) -> Answer:
        try:
            return self._call_sbatch(piece, waiting, spec, fd, again)
        except Refused as refusal:
            if not self._only_tries:
                raise
            return Answer(1, "", refusal.message)

    def _call_sbatch(
        self, piece: BatchPiece, waiting: list[int], spec: Spec, fd: int, again: NextStart | None
    ) -> Answer:
        batch = piece.batch
        command = self.command(
            spec,
            self._gpu_type(spec),
            name=piece.name,
            folder=batch.workdir,
            output=commands.output_option(batch.output, is_array=batch.is_array),
            elements=waiting if batch.is_array else (),
            again=again,
        )
        python = os.path.expanduser(self._settings.get("python") or "") or sys.executable
        script = commands.script(python, self._program, batch.folder, output=batch.output, is_array=batch.is_array)
        return run(command, script, timeout_s=_TRY_S if self._only_tries else TIMEOUT_S, pass_fds=[fd])

    def command(
        self,
        spec: Spec,
        gpu_type: str | None,
        *,
        name: str,
        folder: str,
        output: str,
        elements: Sequence[int] = (),
        again: NextStart | None = None,
    ) -> list[str]:
        """Return the command that submits jobs of this root; see :func:`.commands.sbatch`."""
        return commands.sbatch(
            spec,
            self._settings,
            name=name,
            comment=f"gpu-run {name}",
            folder=folder,
            output=output,
            environment=os.environ,
            gpu_type=gpu_type,
            elements=elements,
            again=again,
        )

    def _note(self, piece: BatchPiece, ids: list[str], remark: str = "") -> str:
        note: PieceNote = {"answered_at": time.time(), "ids": ids}
        if remark:
            note["message"] = remark
        if "asked_at" in piece.note:
            note["asked_at"] = piece.note["asked_at"]
        piece.write(note)
        for attempt in piece.attempts:
            attempt.event("submitted", slurm_jobs=piece.batch.ids_of(attempt, ids))
        return ""

    def _gpu_type(self, spec: Spec) -> str | None:
        """
        Return what Slurm calls the GPUs that a job asks for.

        :raises Refused: no type, or more than one, has that text in its name.
        """
        wanted = spec.get("gpu_type")
        if not wanted:
            return None
        partition = spec.get("partition") or self._settings.get("partition")
        answer = run(commands.nodes(partition))
        if answer.code != 0:
            return wanted.lower()
        return slurm_type(wanted, {gpus.type for gpus in commands.node_gpus(answer.output)})

    def check(self, spec: Spec) -> None:
        """
        Refuse a job that can never run here, as far as this is known without submitting it.

        :raises Refused: with the reason.
        """
        self._gpu_type(spec)

    def _gate(self, spec: Spec) -> _Gate:
        wishes = [spec.get(name) or self._settings.get(name) for name in ("partition", "account", "qos")]
        name = hashlib.sha256(json.dumps(wishes).encode()).hexdigest()[:8]
        return _Gate(os.path.join(self._root.own, "slurm", f"gate-{name}.json"))


class _Gate:
    """Keeps all processes from submitting for a while after Slurm has refused a job temporarily."""

    def __init__(self, path: str) -> None:
        self._path = path

    def closed(self) -> str:
        """Return why it is closed; empty when it is open."""
        with contextlib.suppress(ValueError, KeyError, TypeError):
            state: GateNote | None = records.read_json(self._path)
            if state is not None and time.time() < state["until"] < time.time() + state["for_s"] * 2:
                return str(state["message"])
        return ""

    def close(self, message: str, seconds: float) -> str:
        """Close it, and return why."""
        # Spread the retries, so that the waiting processes do not come all at once.
        until = time.time() + seconds * (0.75 + random.random() / 2)
        with contextlib.suppress(OSError):
            os.makedirs(os.path.dirname(self._path), exist_ok=True)
            state: GateNote = {"until": until, "for_s": seconds, "message": message}
            records.write_json(self._path, state)
        return message


def slurm_type(wanted: str, there: Iterable[str]) -> str:
    """
    Return what Slurm calls the GPUs that a job asks for.

    :param there: what it calls those that it has.
    :raises Refused: no type, or more than one, has that text in its name.
    """
    kinds = sorted(there)
    fitting = [kind for kind in kinds if wanted.lower() in kind.lower()]
    exact = [kind for kind in fitting if kind.lower() == wanted.lower()]
    if len(exact or fitting) == 1:
        return (exact or fitting)[0]
    problem = f"no GPUs here are of type {wanted!r}" if not fitting else f"{wanted!r} may mean {', '.join(fitting)}"
    raise Refused(
        protocol.NOT_ENOUGH_GPUS,
        f"{problem}; Slurm knows {', '.join(kinds) or 'no GPUs'}. Where its GPUs have no types, use 'constraint'",
    )


def _told(command: Sequence[str], timeout_s: float = _SEARCH_S) -> str:
    """Return the answer of a command that a site may keep from its users; an empty text then."""
    with contextlib.suppress(Refused):
        answer = run(command, timeout_s=timeout_s)
        return answer.output if answer.code == 0 else ""
    return ""


def _to_hand_over(batch: Batch) -> list[BatchPiece]:
    """Return the pieces that are not in Slurm's queue, and of which something still is to run."""
    return [piece for piece in batch.pieces() if not piece.note.get("ids") and any(True for _ in piece.waiting())]


def _is_refusal(answer: Answer) -> bool:
    """Return whether Slurm certainly has not taken a job, by the answer of sbatch."""
    return bool(answer.code) and not commands.is_unreachable(answer.errors)


def _asked_elsewhere(note: PieceNote) -> str:
    """Return the other host that hands a piece over right now; empty when there is none."""
    host = note.get("asked_on", "")
    return host if host != processes.hostname() and abs(time.time() - note.get("asked_at", 0.0)) < 2 * _TRY_S else ""


def search(piece: BatchPiece, since: float) -> Found:
    """Look for a piece in the queue, and in the accounting if there is one."""
    folder = commands.folder_key(piece.batch.workdir)
    queue = run(commands.queue(processes.user(), piece.name), timeout_s=_SEARCH_S)
    if queue.code != 0:
        return Found(None, commands.said(queue.errors))
    rows = commands.queue_rows(queue.output)
    if not any(commands.folder_key(row.folder) == folder for row in rows):
        # If the accounting does not answer, the claim still keeps the code from running twice.
        accounting = run(commands.accounting(processes.user(), since - _SKEW_S, piece.name), timeout_s=_SEARCH_S)
        rows += commands.accounting_rows(accounting.output) if accounting.code == 0 else []
    return Found(
        sorted(
            {
                row.id.split("_")[0]
                for row in rows
                if commands.folder_key(row.folder) == folder and row.name == piece.name
            }
        )
    )


def end_unstarted(attempt: Attempt, state: str, reason: str, message: str) -> bool:
    """End an attempt that nobody has claimed, so that it never runs; return False when it was claimed meanwhile."""
    return unstarted.end_unstarted(attempt, BY, state, reason, message)


def _wishes(spec: Spec, settings: Settings) -> str:
    wishes = ["{} nodes with".format(spec["nodes"])] if (spec.get("nodes") or 1) > 1 else []
    wishes.append("{} GPU{}".format(spec["gpus"], "" if spec["gpus"] == 1 else "s"))
    for name in ("gpu_type", "cpus", "memory_bytes", "time_limit_s"):
        if spec.get(name):
            wishes.append(f"{name}={spec[name]}")
    for name in ("partition", "account", "qos", "constraint", "sbatch_options"):
        value = spec.get(name) or settings.get(name)
        if value:
            wishes.append(f"{name}={value}")
    return ", ".join(wishes)
