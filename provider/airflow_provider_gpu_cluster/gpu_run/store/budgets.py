"""
Budgets of GPU-hours: which jobs may start, and which must wait until the month, or others, leave them room.

Counted are the attempts that have ended in this month, by the ledger, and those that wait or run. Who counts and lets
one more start does so under a lock, so that a hundred that come at the same moment are counted one after another. A
budget that cannot be looked at keeps no job from starting.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
import zlib
from datetime import datetime
from typing import TYPE_CHECKING, Any, Iterator, Mapping, NamedTuple, Sequence

from .. import protocol
from ..errors import Refused
from ..ledger.ledger import Ledger
from ..ledger.totals import read_totals
from ..linux import locks
from ..protocol.budgets import WAIT
from . import records
from .budget_limits import (
    Count,
    HoursLimit,
    begin_of_next_month,
    count_of,
    is_used_up,
    least_seconds,
    limits_of,
    month_of,
    what_helps,
    why,
)
from .unfinished import all_unfinished, is_noted, note_unfinished, unfinished_note

if TYPE_CHECKING:
    from ..protocol.notes import HeldNote, KeptBudget, UnfinishedNote
    from ..protocol.records import AttemptRequest
    from ..protocol.requests import Call, Submit
    from ..protocol.settings import Settings
    from ..protocol.totals import MonthTotals
    from .directories import Attempt

#: How long a launch may read a ledger whose sums are lost, in seconds.
_READ_S = 2.5
#: How long a look may do that.
_LOOK_S = 0.2
_LOCK_S = 10.0
#: How often an attempt that waits for its budget is looked at.
RECHECK_S = 5.0
# A message with numbers that grow all the time would fill the task's log.
_TELL_ANEW_S = 600.0
_HELD, _ADMITTED = "over_budget.json", "within_budget.json"


class PlannedAttempt(NamedTuple):
    """
    An attempt that is about to be made.

    :param job: path of the job's directory.
    :param number: of the attempt.
    """

    job: str
    number: int
    request: Submit


class Admission(NamedTuple):
    """
    Which attempts may start.

    :param held: by path of a job, why its attempt must wait.
    :param remark: what kept the budget from being looked at; empty usually.
    """

    held: dict[str, str]
    remark: str = ""


class _Used(NamedTuple):
    """What was used in this month, by the ledger, and the attempts that wait or run with what they count."""

    sums: MonthTotals | None
    others: list[tuple[UnfinishedNote, float]]

    def most_used_up(self, budget: Mapping[str, Any], note: UnfinishedNote) -> tuple[HoursLimit, Count] | None:
        """Return the budget that keeps an attempt from starting; None if there is none."""
        if not note["gpus"]:
            return None
        for limit in limits_of(budget, note):
            count = count_of(limit, self.sums, self.others)
            if is_used_up(limit, count):
                return limit, count
        return None


# -- the connection's field ------------------------------------------------------------------------------------------


def keep_budget(own: str, call: Call) -> None:
    """
    Keep the budget of a connection if it is newer than the one that is kept: jobs that wait go by it.

    :param own: path of the root's folder ``.gpu-run``.
    :param call: a request as it arrives.
    """
    with contextlib.suppress(Exception):
        settings, read_at = call["settings"], float(call["caller"]["settings_read_at"])
        budget, conn_id = settings.get("gpu_hours_budget"), settings.get("conn_id")
        if not conn_id or (budget is None and not os.path.exists(_kept_path(own, conn_id))):
            return
        kept = _kept(own, conn_id)
        if kept is not None and kept["read_at"] >= read_at:
            return
        new: KeptBudget = {
            "conn_id": conn_id,
            "read_at": read_at,
            "gpu_hours_budget": None if budget is None else dict(budget),
            "over_budget": settings.get("over_budget"),
        }
        os.makedirs(_folder(own), mode=0o700, exist_ok=True)
        records.write_json(_kept_path(own, conn_id), new, sync=False)


def _kept(own: str, conn_id: str) -> KeptBudget | None:
    with contextlib.suppress(OSError, ValueError, TypeError):
        kept: KeptBudget | None = records.read_json(_kept_path(own, conn_id))
        if kept is not None and isinstance(kept.get("read_at"), (int, float)):
            return kept
    return None


def _budget_now(own: str, settings: Settings, read_at: float) -> tuple[Mapping[str, Any], str, float]:
    """Return the budget of a connection, what becomes of jobs beyond it, and when that was read, the newest."""
    kept = _kept(own, settings.get("conn_id") or "")
    if kept is not None and kept["read_at"] >= read_at:
        return _sound(kept.get("gpu_hours_budget")), kept.get("over_budget") or "", kept["read_at"]
    return _sound(settings.get("gpu_hours_budget")), settings.get("over_budget") or "", read_at


def _sound(budget: Any) -> dict[str, float]:
    """Return a budget, as far as it is what it should be: jobs can write to what is kept."""
    if not isinstance(budget, Mapping):
        return {}
    return {str(key): float(hours) for key, hours in budget.items() if type(hours) in (int, float)}


def _folder(own: str) -> str:
    return os.path.join(own, "budgets")


def _kept_path(own: str, conn_id: str) -> str:
    name = re.sub("[^A-Za-z0-9_-]", "_", conn_id)[:60]
    return os.path.join(_folder(own), f"{name}-{zlib.crc32(conn_id.encode('utf-8', 'surrogatepass')):08x}.json")


# -- attempts that are about to be made ------------------------------------------------------------------------------


def has_budget(own: str, request: Submit) -> bool:
    """
    Return whether a request goes through a connection that has a budget.

    :param own: path of the root's folder ``.gpu-run``.
    """
    return bool(_budget_of(own, request)[0])


def _budget_of(own: str, request: Submit) -> tuple[Mapping[str, Any], str, float]:
    read_at = request.get("caller", {}).get("settings_read_at")
    return _budget_now(own, request["settings"], float(read_at) if isinstance(read_at, (int, float)) else 0.0)


def check_budget(own: str, asked: Sequence[PlannedAttempt]) -> None:
    """
    Refuse attempts that no budget has room for, before anything is done for them.

    :raises Refused: a budget is used up.
    """
    _admit(own, asked, only_looks=True)


def admit(own: str, asked: Sequence[PlannedAttempt]) -> Admission:
    """
    Let attempts start, or wait until their budgets have room for them. They are counted from now on.

    :param own: path of the root's folder ``.gpu-run``.
    :param asked: all of one connection; call this under the locks of their jobs, or of their array.
    :raises Refused: a budget is used up; then none of them may start.
    """
    return _admit(own, asked, only_looks=False)


def why_it_would_wait(own: str, planned: PlannedAttempt) -> str:
    """
    Return why an attempt would have to wait for its budgets if it was made now; an empty text if it could start.

    This changes nothing. A budget that cannot be looked at keeps nobody waiting.

    :param own: path of the root's folder ``.gpu-run``.
    :raises Refused: a budget is used up, and the attempt would be refused.
    """
    budget, over_budget, _ = _budget_of(own, planned.request)
    note = unfinished_note(planned.request)
    if not note["gpus"] or not limits_of(budget, note):
        return ""
    try:
        used, _ = _used(own, {(planned.job, planned.number)}, _LOOK_S)
    except Exception:  # whatever is wrong with the books
        return ""
    conn_id = planned.request["settings"].get("conn_id") or ""
    return _held(used, budget, over_budget, [planned], [note], conn_id).get(planned.job, "")


def _admit(own: str, asked: Sequence[PlannedAttempt], *, only_looks: bool) -> Admission:
    first = asked[0].request
    budget, over_budget, _ = _budget_of(own, first)
    notes = [unfinished_note(one.request) for one in asked]
    if (only_looks and over_budget == WAIT) or not any(note["gpus"] and limits_of(budget, note) for note in notes):
        return Admission({})
    with _alone(own):
        held: dict[str, str] = {}
        try:
            used, remark = _used(own, {(one.job, one.number) for one in asked}, _READ_S)
            held = _held(used, budget, over_budget, asked, notes, first["settings"].get("conn_id") or "")
        except Refused:
            raise
        except Exception as error:  # whatever is wrong with the books
            remark = _cannot_be_checked(str(error) or repr(error))
        if not only_looks:
            for one, note in zip(asked, notes):
                note_unfinished(one.job, one.number, {**note, "is_held": one.job in held})
    return Admission(held, remark)


def _held(
    used: _Used,
    budget: Mapping[str, Any],
    over_budget: str,
    asked: Sequence[PlannedAttempt],
    notes: Sequence[UnfinishedNote],
    conn_id: str,
) -> dict[str, str]:
    """
    Return which attempts must wait, each counted before the next.

    :raises Refused: one of them must, and is not to.
    """
    held: dict[str, str] = {}
    now = time.time()
    for count, (one, note) in enumerate(zip(asked, notes)):
        found = used.most_used_up(budget, note)
        if found is None:
            used.others.append((note, least_seconds(note)))
        elif over_budget == WAIT:
            held[one.job] = _waits(*found, now)
        else:
            text = why(*found, now)
            if len(asked) > 1:
                text = f"{count} of the {len(asked)} jobs of the array could start, and then {text}"
            helps = what_helps(*found, now, conn_id)
            raise Refused(protocol.OVER_BUDGET, f"job {os.path.basename(one.job)} is not started: {text}. {helps}")
    return held


# -- attempts that wait ----------------------------------------------------------------------------------------------


def is_held(attempt: Attempt, request: AttemptRequest) -> bool:
    """Return whether an attempt must wait until its budget allows it to start."""
    return bool(request.get("over_budget")) and not os.path.lexists(attempt.at(_ADMITTED))


def why_held(attempt: Attempt, request: AttemptRequest) -> str:
    """
    Let an attempt start if its budgets have room for it by now; return why it must still wait, or an empty text.

    Looks are cheap: all processes together count once in a few seconds.
    """
    if not is_held(attempt, request):
        return ""
    own = os.path.join(os.path.dirname(attempt.job.path), ".gpu-run")
    said = str(request["over_budget"])
    # Jobs can write to their records.
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        before: HeldNote | None = records.read_json(attempt.at(_HELD))
        said = said if before is None else str(before["message"])
        budget, _, read_at = _budget_now(own, request["settings"], 0.0)
        if before is not None and 0 <= time.time() - before["checked_at"] < RECHECK_S and read_at == before["read_at"]:
            return said
        with _alone(own, timeout_s=0.0) as is_alone:
            if is_alone:
                return _recheck(own, attempt, request, budget, read_at, before)
    return said


def _recheck(
    own: str,
    attempt: Attempt,
    request: AttemptRequest,
    budget: Mapping[str, Any],
    read_at: float,
    before: HeldNote | None,
) -> str:
    if not is_held(attempt, request):
        return ""
    note = unfinished_note(request)
    used, remark = _used(own, {(attempt.job.path, attempt.number)}, _LOOK_S)
    found = used.most_used_up(budget, note)
    now = time.time()
    if found is None and not remark:
        note_unfinished(attempt.job.path, attempt.number, note)
        records.create_json(attempt.at(_ADMITTED), {"at": records.now()})
        attempt.event("within_budget")
        return ""
    key = "" if found is None else found[0].key
    told_at, message = now, remark if found is None else _waits(*found, now)
    if before is not None and before["key"] == key and 0 <= now - before["told_at"] < _TELL_ANEW_S:
        told_at, message = before["told_at"], str(before["message"])
    held: HeldNote = {"key": key, "message": message, "checked_at": now, "told_at": told_at, "read_at": read_at}
    records.write_json(attempt.at(_HELD), held, sync=False)
    return message


def _waits(limit: HoursLimit, count: Count, now: float) -> str:
    begin = f"the next month begins on {begin_of_next_month(now):%Y-%m-%d}"
    return f"{why(limit, count, now)}; it starts by itself as soon as there is room, and {begin}"


# -- counting --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _alone(own: str, timeout_s: float = _LOCK_S) -> Iterator[bool]:
    """
    Keep others from counting, and yield True; yield False when one of them takes too long.

    A disk without locks keeps no job waiting.
    """
    fd, is_alone = None, True
    with contextlib.suppress(OSError):
        os.makedirs(_folder(own), mode=0o700, exist_ok=True)
        fd = locks.lock(os.path.join(_folder(own), "lock"), timeout_s=timeout_s)
        is_alone = fd is not None
    try:
        yield is_alone
    finally:
        if fd is not None:
            os.close(fd)


def _used(own: str, leave_out: set[tuple[str, int]], within_s: float) -> tuple[_Used, str]:
    """
    Return what counts against budgets now, and what is missing in it, in words.

    :param leave_out: attempts that are not counted, as path of the job, and number.
    :raises OSError: the books cannot be read now.
    """
    now = time.time()
    root = os.path.dirname(own)
    totals = read_totals(Ledger(own), within_s=within_s)
    _note_earlier(root)
    others = []
    for path, note in all_unfinished(root):
        folder, number = os.path.split(path)
        job = os.path.dirname(os.path.dirname(folder))
        if not note["is_held"] and (job, int(number)) not in leave_out:
            others.append((note, _seconds(path, note, now)))
    remark = ""
    if not totals["is_complete"]:
        remark = _cannot_be_checked("the ledger is being added up anew, which takes a while")
    return _Used(totals["months"].get(month_of(now)), others), remark


def _seconds(path: str, note: UnfinishedNote, now: float) -> float:
    """Return what an attempt that is not in the ledger counts: what it has used so far, and something at least."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        ended = records.read_json(os.path.join(path, "exit.json"))
        if ended is not None:
            # Its line is yet to come.
            return float(ended["gpu_seconds"])
    least = least_seconds(note)
    if note["gpus"] * (now - note["noted_at"]) <= least:
        return least
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        claim = records.read_json(os.path.join(path, "claim.json"))
        if claim is not None:
            leased_at = datetime.fromisoformat(claim.get("leased_at") or claim["at"]).timestamp()
            return max(least, note["gpus"] * (now - leased_at))
    return least


def _note_earlier(root: str) -> None:
    """Note, once, the attempts that an earlier version of this program has launched."""
    mark = os.path.join(root, ".gpu-run", "unfinished", "complete")
    if os.path.exists(mark):
        return
    with os.scandir(root) as jobs:
        for job in jobs:
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
                attempts = os.path.join(job.path, ".job", "attempts")
                number = max((int(name) for name in os.listdir(attempts) if name.isdigit()), default=0)
                path = os.path.join(attempts, str(number))
                if any(os.path.lexists(os.path.join(path, name)) for name in ("exit.json", "booked.json")):
                    continue
                request = records.read_json(os.path.join(path, "request.json"), records.MOST_BYTES_OF_LISTS)
                if request is not None and not is_noted(job.path, number):
                    # When it has begun is in its claim.
                    note_unfinished(job.path, number, {**unfinished_note(request), "noted_at": 0.0})
    with contextlib.suppress(OSError):
        os.makedirs(os.path.dirname(mark), mode=0o700, exist_ok=True)
        os.close(os.open(mark, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))


def _cannot_be_checked(why_not: str) -> str:
    return f"its budget of GPU-hours cannot be looked at now: {why_not}"
