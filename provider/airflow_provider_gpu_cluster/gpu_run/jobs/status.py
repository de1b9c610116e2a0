"""The status of an attempt, from its records and, where they do not say it, from its engine."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from typing import TYPE_CHECKING, Mapping, cast

from .. import protocol
from ..errors import Refused
from ..linux import processes, regular_files
from ..protocol.orphan_timeout import orphan_timeout_s
from ..protocol.placement import CLAIM
from ..reply import Reply
from ..store.asked import note_asked
from ..store.claims import run_facts
from ..store.directories import Attempt, JobDirectory, Root
from ..store.idle_notes import idle_note
from ..store.next_attempt import follow, is_followed
from ..store.placements import placement_note
from ..store.records import now
from ..store.settling import settle
from ..store.used import seconds_of, used_so_far
from ..verdict import log_ends
from .counts import count
from .notices import take_notices
from .sound_status import sound

if TYPE_CHECKING:
    from ..engines.engine import Engine
    from ..protocol.records import Claim, ExitRecord
    from ..protocol.recovery import Recovery
    from ..protocol.requests import StatusRequest
    from ..protocol.spec import Spec
    from ..protocol.status import AskedFor, Observed, Progress, Standing, Started, Status, Used

_PROGRESS_BYTES = 4096
# Nested more deeply, a status could not be sent.
_MOST_BRACKETS = 200


def answer(root: Root, engine: Engine, request: StatusRequest) -> Reply:
    """Carry out the verb ``status``."""
    found = statuses(root, engine, request["job_ids"], request["tail_bytes"], whole=request.get("whole_tail", False))
    for status in found:
        take_notices(root, status, request.get("notify", {}).get(status["job_id"]))
    return Reply({"jobs": found, "counted": count(root, found)})


def statuses(root: Root, engine: Engine, job_ids: list[str], tail_bytes: int, *, whole: bool = False) -> list[Status]:
    """
    Return the status of each job; a job whose status cannot be found does not affect the others.

    :param whole: see :func:`.verdict.log_ends.tail`.
    :raises Refused: one of them is no job id.
    """
    for job in [root.job(job_id) for job_id in job_ids]:
        # Before anybody serves the queue, who would end a job that nobody has asked about.
        note_asked(job.path)
    # What keeps the queue from being served, such as a full disk, keeps nobody from looking.
    with contextlib.suppress(OSError, Refused):
        engine.nudge()
    return [status_or_unknown(root, engine, job_id, tail_bytes, whole=whole) for job_id in job_ids]


def status_or_unknown(
    root: Root, engine: Engine, job_id: str, tail_bytes: int = 0, *, whole: bool = False, counts: bool = True
) -> Status:
    """
    Return the status of a job; UNKNOWN, and the reason, when it cannot be found.

    :param counts: see :func:`job_status`.
    """
    try:
        return job_status(root, engine, job_id, tail_bytes, whole=whole, counts=counts)
    except Refused as refusal:
        return _unknown(job_id, refusal.message)
    except OSError as error:
        return _unknown(job_id, f"its records cannot be read: {words_of(error)}")
    except Exception as error:  # jobs can write to their records, so these may contain anything
        return _unknown(job_id, f"its records cannot be read: {error or repr(error)}")


def job_status(
    root: Root, engine: Engine, job_id: str, tail_bytes: int = 0, *, whole: bool = False, counts: bool = True
) -> Status:
    """
    Return the status of a job, with the last lines of its output if it has ended or has printed any.

    :param counts: whether this is a question about each element of an array, which are then kept alive by it.
    """
    status = _job_status(root, engine, job_id, tail_bytes, whole, counts)
    where = _moved_to(root, job_id)
    if where:
        status["moved_to"] = where
        if not status.get("attempt") and "elements" not in status:
            status = {**_unknown(job_id, f"it was placed on another cluster ({where})"), "moved_to": where}
    return sound(status)


def _moved_to(root: Root, job_id: str) -> str:
    """Return the connection of the cluster on which a job was placed instead; empty if this one was told of none."""
    note = placement_note(root, job_id)
    if note is None or note["kind"] == CLAIM:
        return ""
    return note["placement"].get("conn_id", "")


def _job_status(root: Root, engine: Engine, job_id: str, tail_bytes: int, whole: bool, counts: bool) -> Status:
    job = root.job(job_id)
    attempts = job.attempts()
    if not attempts:
        return _without_attempt(root, engine, job_id, tail_bytes, whole, counts)
    status = status_of(attempts[-1], engine)
    if status["state"] == protocol.QUEUED:
        try:
            if carry_on(job, engine) is not None:
                status = status_of(job.attempts()[-1], engine)
        except (Refused, OSError) as error:
            # A full disk, for example; the next look tries again.
            why = error.message if isinstance(error, Refused) else words_of(error)
            status["message"] = f"{status['message']}, but it cannot be made now: {why}"
    settle(job)
    if tail_bytes:
        status["log_tail"] = tail_of(root, status, tail_bytes, whole=whole)
    return status


def tail_of(root: Root, status: Status, size: int, *, whole: bool = False) -> str:
    """
    Return the last lines of a job's output, without its secrets.

    :param size: how many bytes at most.
    :param whole: see :func:`.verdict.log_ends.tail`.
    """
    job = root.job(status["job_id"])
    logs = job.at("logs")
    # A person who looks at the whole output sees that of earlier attempts before it.
    starts = None if whole else _log_starts(job, status)
    masks = status.get("masks")
    if masks is None:
        return log_ends.tail(logs, size, whole=whole, starts=starts)
    from ..protocol.masks import hidden, longest
    from .hiding import finished

    # A secret may begin before the text that is shown.
    text = log_ends.tail(logs, size + 4 * longest(masks), whole=whole, starts=starts)
    start = max(0, len(text) - size)
    if start:
        start = text.find("\n", start - 1) + 1 or start
    if status["state"] not in protocol.FINAL_STATES:
        data = text.encode()
        text = data[: finished(data, masks)].decode("utf-8", "ignore")
    return hidden(text, masks, min(start, len(text)))


def _log_starts(job: JobDirectory, status: Status) -> Mapping[str, int]:
    """Return where the output of a job's latest attempt begins in which log."""
    if "log_attempt" in status and not status.get("started_at"):
        # It has not begun, so there is only output of earlier attempts.
        sizes: dict[str, int] = {}
        for name in ("training", "error"):
            with contextlib.suppress(OSError):
                sizes[name] = _log_size(job.at("logs", f"{name}.log"))
        return sizes
    return cast("Mapping[str, int]", job.attempt(status["attempt"]).log_starts()) if status.get("attempt") else {}


def _without_attempt(root: Root, engine: Engine, job_id: str, tail_bytes: int, whole: bool, counts: bool) -> Status:
    job = root.job(job_id)
    if job.exists():
        from ..store import arrays

        elements = arrays.elements_of(job)
        if elements:
            return _array_status(root, engine, job_id, elements, tail_bytes, whole, counts)
        return _unknown(job_id, "it is staged, and was not launched")
    if engine.still_runs(job_id):
        return _unknown(job_id, f"it runs, but its directory {job.path} is gone")
    gone = "there is no {} on {} and nothing runs for it: it was deleted, or the connection has another root_dir"
    return {
        **_unknown(job_id, gone.format(job.path, processes.hostname())),
        "state": protocol.LOST,
        "reason": protocol.REASON_LOST,
    }


def _array_status(
    root: Root, engine: Engine, array_id: str, elements: list[str], tail_bytes: int, whole: bool, counts: bool
) -> Status:
    from ..protocol import array_status

    if counts:
        for job_id in elements:
            note_asked(root.job(job_id).path)
    found = [status_or_unknown(root, engine, job_id) for job_id in elements]
    if tail_bytes:
        for index in array_status.telling(found):
            size = tail_bytes // array_status.MOST_TAILS
            found[index]["log_tail"] = tail_of(root, found[index], size, whole=whole)
    return array_status.summary(array_id, found)


def _unknown(job_id: str, message: str) -> Status:
    return {"job_id": job_id, "state": protocol.UNKNOWN, "message": message}


def carry_on(job: JobDirectory, engine: Engine) -> Attempt | None:
    """
    Launch the attempt that follows the latest one by itself, if one does; do not call this under the job's lock.

    :return: that attempt; None when none follows, or somebody else has made it.
    """
    attempt = follow(job)
    if attempt is not None:
        # Whoever asks next finds out what is wrong, as with every other launch.
        with contextlib.suppress(Refused, OSError):
            engine.launch([attempt])
    return attempt


def status_of(attempt: Attempt, engine: Engine) -> Status:
    """Return the status of an attempt, without its secrets. If it is gone without a record, its engine settles it."""
    status = _with_kind(_status_of(attempt, engine))
    masks = None
    with contextlib.suppress(Refused):
        request = attempt.request()
        masks = request.get("masks")
        limit = request["spec"].get("memory_bytes")
        if status["state"] in protocol.FINAL_STATES:
            status["asked"] = _asked(request["spec"])
            if limit:
                status["memory_limit_bytes"] = limit
        orphan_timeout = orphan_timeout_s(request["spec"], request.get("settings") or {})
        if orphan_timeout and status["state"] not in protocol.FINAL_STATES:
            status["orphan_timeout_s"] = orphan_timeout
    if masks is None:
        return status
    from ..protocol.masks import are_masks, hidden_in

    if not are_masks(masks):
        return status
    shown: Status = hidden_in(status, masks)
    shown["masks"] = masks
    return shown


def _asked(spec: Spec) -> AskedFor:
    asked: AskedFor = {}
    cpus, memory, time_limit = spec.get("cpus"), spec.get("memory_bytes"), spec.get("time_limit_s")
    if cpus:
        asked["cpus"] = cpus
    if memory:
        asked["memory_bytes"] = memory
    if time_limit:
        asked["time_limit_s"] = time_limit
    return asked


def _with_kind(status: Status) -> Status:
    """Add the kind of an end about which nothing finer than its reason is known, and what to do about it."""
    reason = status.get("reason")
    if reason is None or status.get("kind"):
        return status
    from ..verdict.kinds import remedy_of

    return {**status, "kind": reason, "remedy": status.get("remedy") or remedy_of(reason)}


def _status_of(attempt: Attempt, engine: Engine) -> Status:
    ended = attempt.ended()
    if ended is None:
        claim = attempt.claimed()
        standing = engine.standing(attempt, claim)
        if standing is not None:
            status: Status = {**_base(attempt), "job_id": attempt.job.job_id, **standing}
            if claim and standing["state"] == protocol.RUNNING:
                return {**status, **_running(attempt, claim), **_so_far(attempt, claim), **standing}
            return status
        ended = attempt.ended()
        assert ended is not None
    if is_followed(ended):
        # Its logs are those of the attempt that follows, which nobody has made yet.
        return {**_base(attempt), **_between(ended), "job_id": attempt.job.job_id}
    # Everything in an exit record belongs in a status.
    return {**_base(attempt), **cast("Status", ended), "job_id": attempt.job.job_id}


def _between(ended: ExitRecord) -> Standing:
    """Return the state of a job whose next attempt is about to be made."""
    recovery = ended["next"]["recovery"]
    return {
        "state": protocol.QUEUED,
        "message": "{}; attempt {} follows".format(recovery["why"], ended["attempt"] + 1),
        "attempts": recovery["past"],
        "recovered": recovery["used"],
    }


def _base(attempt: Attempt) -> Observed:
    notes: list[str] = []
    status: Observed = {"attempt": attempt.number, "log_bytes": _log_bytes(attempt, notes)}
    progress = latest_progress(attempt.job, notes)
    if progress is not None:
        status["progress"] = progress
    recovery = _recovery(attempt)
    if recovery is not None:
        status["attempts"], status["recovered"] = recovery["past"], recovery["used"]
        status["log_attempt"] = attempt.log_number
    try:
        regular_files.check(os.lstat(attempt.at("exit.json")), attempt.at("exit.json"))
    except regular_files.NotRegular as error:
        notes.append(f"the record of its end is missing until it ends: {words_of(error)}")
    except OSError:
        # Usually there is none.
        pass
    if notes:
        status["notes"] = notes
    return status


def _recovery(attempt: Attempt) -> Recovery | None:
    """Return why an attempt exists that nobody has asked for."""
    with contextlib.suppress(OSError, ValueError):
        request = attempt.recorded_request()
        return None if request is None else request.get("recovery")
    return None


def _running(attempt: Attempt, claim: Claim) -> Started:
    facts = run_facts(claim)
    return {
        "submitted_at": attempt.request()["requested_at"],
        "started_at": facts["started_at"],
        "gpus": facts["gpus"],
        "host": facts["host"],
        "pid": facts["pid"],
    }


def _so_far(attempt: Attempt, claim: Claim) -> Used:
    """Return what a running attempt has used so far, and that it is idle if it is."""
    so_far = used_so_far(attempt.path)
    facts = run_facts(claim)
    facts["submitted_at"] = attempt.request()["requested_at"]
    used: Used = {"seconds": seconds_of(attempt.path, facts, so_far, now())}
    if "usage" in so_far:
        used["usage"] = so_far["usage"]
    note = idle_note(attempt.path)
    if note is not None:
        used["idle"] = note
    return used


def words_of(error: OSError) -> str:
    """Return what an error says: the path, and why."""
    if isinstance(error, regular_files.NotRegular):
        return str(error)
    why = error.strerror or str(error) or repr(error)
    return f"{error.filename}: {why}" if error.filename else why


def _log_size(path: str) -> int:
    """
    Return the size of a job's output.

    :raises OSError: there is none, something else is in its place, or it cannot be read.
    """
    found = os.stat(path)
    regular_files.check(found, path)
    if not os.access(path, os.R_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
    return found.st_size


def _log_bytes(attempt: Attempt, notes: list[str]) -> int:
    try:
        return _log_size(attempt.job.at("logs", "training.log"))
    except (FileNotFoundError, NotADirectoryError):
        return 0
    except OSError as error:
        notes.append(f"no output is shown: {words_of(error)}")
        return 0


def latest_progress(job: JobDirectory, notes: list[str]) -> Progress | None:
    """
    Return the last whole line of the progress file that is a JSON object.

    :param notes: gets what keeps it from being known.
    """
    path = job.at("logs", "progress.jsonl")
    try:
        # A job may keep its progress elsewhere, and put a link here.
        lines = regular_files.read_end(path, _PROGRESS_BYTES, follow=True).split(b"\n")[:-1]
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        notes.append(f"no progress is shown: {words_of(error)}")
        return None
    for line in reversed(lines):
        if line.count(b"[") + line.count(b"{") > _MOST_BRACKETS:
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            return value
    return None
