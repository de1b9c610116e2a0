"""Turn a request for an array into an attempt of each element: found or made, and launched together."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Callable, Mapping, NamedTuple, TypeVar

from .. import protocol
from ..errors import Refused
from ..linux import copying
from ..linux.disk_space import check_room
from ..protocol import array_status
from ..protocol.acts import JOIN, SUBMIT
from ..protocol.submit_request import element_requests
from ..staging import inputs
from ..store import arrays
from ..store.acts import append_to_ledger, note_act
from ..store.budgets import Admission, admit, check_budget, has_budget
from ..store.directories import Attempt, JobDirectory, Root
from ..store.placed_launches import check_placed, note_launch, note_launched, placed_launch
from ..store.staging_time import staging_noted
from . import submission
from .status import carry_on, status_of

if TYPE_CHECKING:
    from ..engines.engine import Engine
    from ..protocol.cancellation import CancelRecord
    from ..protocol.ledger import ActLine
    from ..protocol.replies import SubmitReply
    from ..protocol.requests import Submit
    from ..store.budgets import PlannedAttempt

# Making records and files is mostly waiting for the disk, above all on a network file system.
_THREADS = 8
# Waiting elements are served in their order of submission, which has a resolution of a microsecond.
_APART_S = 1e-6

_Result = TypeVar("_Result")


class _AskedElement(NamedTuple):
    """
    An element at the time when the request arrived.

    :param request: for this element alone.
    :param seen: its latest attempt.
    """

    job: JobDirectory
    request: Submit
    seen: Attempt | None


def submit_array(root: Root, engine: Engine, request: Submit) -> SubmitReply:
    """
    Launch an array, or find what an earlier request for it has launched.

    Each element is a job of its own, and :func:`.jobs.submission.submit` defines when its attempt is found or made. So
    another try joins the elements that wait or run, takes the results of those that succeeded, and starts the next
    attempt of those that ended badly. The inputs are brought in once, for the array; its elements get copies.

    :param request: as for one job, with ``elements``: for each its ``job_id``, its ``run_script``, and the ``env`` and
        ``spec`` values that differ from those of all.
    :return: the handle, the status, ``created``, and ``launched``, the number of attempts that were made; or ``needs``,
        when the worker has to send inputs first.
    """
    array = root.job(request["job_id"])
    submission.take_placement(request)
    array.use()
    # Kept in the request, which is carried out again after inputs were sent.
    before = request.setdefault("cancelled", arrays.last_cancellation(array))
    elements = _elements(root, engine, request)
    if not _all_there(elements, engine):
        submission.check_not_cancelled(root, request)
        check_placed(root, request)
        engine.check(request["spec"])
        if request["inputs"] and has_budget(root.own, request):
            check_budget(root.own, _to_make(elements, engine))
        for element in elements:
            submission.check_not_running(element.job, engine)
        if request["inputs"] is None:
            submission.check_staged(array)
        else:
            array.create()
            submission.keep_identity(array, request["record"])
            submission.use_linked(root, request["inputs"])
            with staging_noted(array.path):
                needs = inputs.stage(root, array, request["inputs"])
            if needs:
                return {"needs": needs}
        submission.check_code(array, request["spec"])
        _prepare(array, [element for element in elements if not _is_there(element, engine)])
    with placed_launch(root, request), array.lock():
        _check_not_cancelled(array, before)
        if not _all_there(elements, engine):
            submission.check_not_cancelled(root, request)
            check_placed(root, request)
            note_launch(root, request)
        _check_size(array, elements, engine)
        arrays.keep_elements(array, [element.job.job_id for element in elements])
        to_make = _to_make(elements, engine) if has_budget(root.own, request) else []
        admission = admit(root.own, to_make) if to_make else Admission({})
        made = _attempts(elements, engine, admission.held)
        launched = sum(is_new for _, is_new in made)
        try:
            engine.launch([attempt for attempt, is_new in made if is_new or attempt.claimed() is None])
        finally:
            note_launched(root, request)
            _note(array, elements, made, request, launched)
    engine.refresh()
    status = array_status.summary(array.job_id, [status_of(attempt, engine) for attempt, _ in made])
    if admission.remark:
        status["notes"] = [admission.remark]
    handle = submission.handle_of(array, engine, status["submitted_at"], request["spec"]["gpus"])
    return {
        "handle": {**handle, "array_size": len(elements)},
        "status": status,
        "created": launched > 0,
        "launched": launched,
    }


def _note(
    array: JobDirectory, elements: list[_AskedElement], made: list[tuple[Attempt, bool]], request: Submit, launched: int
) -> None:
    """Note in the audit trails of the array, and of the elements that were launched, what was done."""
    key = request["request_key"]
    # The same request finds what it has made before.
    is_own = launched or any(attempt.request()["request_key"] == key for attempt, _ in made)
    act = request.get("act", SUBMIT) if is_own else JOIN
    details = f"{launched} of {len(elements)} elements launched"
    lines: list[ActLine] = []
    caller = submission.caller_of(request)
    note_act(array.path, act, caller=caller, key=key, details=details, asked=request, later=lines)
    for element, (attempt, is_new) in zip(elements, made):
        if is_new:
            submission.note_submitted(attempt, element.request, later=lines)
    append_to_ledger(os.path.dirname(array.path), lines)


def _elements(root: Root, engine: Engine, request: Submit) -> list[_AskedElement]:
    elements = []
    for one in element_requests(request):
        job = root.job(one["job_id"])
        if job.use():
            carry_on(job, engine)
        elements.append(_AskedElement(job, one, submission.latest_attempt(job)))
    return elements


def _is_there(element: _AskedElement, engine: Engine) -> bool:
    return submission.existing(element.job, engine, element.request) is not None


def _to_make(elements: list[_AskedElement], engine: Engine) -> list[PlannedAttempt]:
    """Return the attempts that are to be made."""
    return [submission.next_of(one.job, one.request) for one in elements if not _is_there(one, engine)]


def _all_there(elements: list[_AskedElement], engine: Engine) -> bool:
    return all(_is_there(element, engine) for element in elements)


def _prepare(array: JobDirectory, elements: list[_AskedElement]) -> None:
    """Make the directories of elements, and copy the inputs to them."""
    if not copying.shares_blocks(array.path):
        needed = inputs.bytes_of(array) * len(elements)
        check_room(array.path, needed, f"a copy of the inputs for each of {len(elements)} elements")

    def prepare(element: _AskedElement) -> None:
        element.job.create()
        submission.keep_identity(element.job, element.request["record"])
        with staging_noted(element.job.path):
            inputs.take_over(element.job, array)

    _each(prepare, elements)


def _attempts(elements: list[_AskedElement], engine: Engine, held: Mapping[str, str]) -> list[tuple[Attempt, bool]]:
    """
    Return an attempt of each element, and whether it was made now; call under the array's lock.

    :param held: by path of an element's job, why its attempt must wait for its budget.
    """
    now = time.time()

    def attempt(element: _AskedElement) -> tuple[Attempt, bool]:
        job, request = element.job, element.request
        request["submitted"] = now + request["array"]["index"] * _APART_S
        with job.lock():
            found = submission.existing(job, engine, request) or submission.newer(job, engine, element.seen)
            if found is not None:
                return found[0], False
            return submission.add_attempt(job, engine, request, why_held=held.get(job.path, "")), True

    return _each(attempt, elements)


def _each(work: Callable[[_AskedElement], _Result], elements: list[_AskedElement]) -> list[_Result]:
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(work, elements))


def _check_not_cancelled(array: JobDirectory, before: CancelRecord | None) -> None:
    """
    Refuse to launch an array that was cancelled after it was asked for.

    :raises Refused: it was.
    """
    last = arrays.last_cancellation(array)
    if last is not None and last != before:
        raise Refused(
            protocol.JOB_CONFLICT, f"array {array.job_id} was cancelled by {last['by']} while it was being launched"
        )


def _check_size(array: JobDirectory, elements: list[_AskedElement], engine: Engine) -> None:
    """
    Refuse another number of elements than in an earlier try, as an element's index would mean another one then.

    :raises Refused: the number differs.
    """
    earlier = arrays.elements_of(array)
    attempt = submission.latest_attempt(elements[0].job)
    if not earlier or len(earlier) == len(elements) or attempt is None:
        return
    if attempt.request()["generation"] == elements[0].request["generation"]:
        raise Refused(
            protocol.JOB_CONFLICT,
            f"array {array.job_id} had {len(earlier)} elements in an earlier try and has {len(elements)} now; the "
            "number must be the same in every try. To begin anew, clear the task",
        )
