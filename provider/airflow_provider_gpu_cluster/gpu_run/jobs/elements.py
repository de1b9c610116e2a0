"""The verb ``list-elements``: the elements of an array, as their records tell them, to compare them."""

from __future__ import annotations

import contextlib
import shlex
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, cast

from .. import protocol
from ..errors import Refused
from ..protocol.masks import hidden, hidden_in
from ..reply import Reply
from ..store import records
from ..store.arrays import elements_of
from ..store.claims import run_facts
from ..store.next_attempt import is_followed
from .final_metrics import final_metrics
from .hiding import masks_of
from .status import latest_progress

if TYPE_CHECKING:
    from ..protocol.looks import ElementLook, ListElementsReply, ListElementsRequest
    from ..protocol.masks import Masks
    from ..store.directories import Attempt, JobDirectory, Root

_MOST = 250
_PAGE_S = 0.4
# So that a reply of elements with long arguments and many metrics is not too large.
_MOST_CHARACTERS = 1 << 19
_MOST_TEXT = 500
_MOST_COMMAND = 1 << 14
_MOST_ITEMS = 100
_MOST_VALUES = 50

_BAD_FIRST = (
    protocol.FAILED,
    protocol.LOST,
    protocol.CANCELLED,
    protocol.UNKNOWN,
    protocol.RUNNING,
    protocol.QUEUED,
    protocol.SUCCEEDED,
)
_FACTS = ("reason", "kind", "message", "exit_code", "submitted_at", "started_at", "ended_at", "gpus", "host")


def answer(root: Root, request: ListElementsRequest) -> Reply:
    """Carry out the verb ``list-elements``."""
    return Reply(list_elements(root, request))


def list_elements(root: Root, request: ListElementsRequest) -> ListElementsReply:
    """
    Return elements of an array.

    :raises Refused: there is no such array.
    """
    array = root.job(request["job_id"])
    job_ids = elements_of(array)
    if not job_ids:
        raise Refused(protocol.NO_SUCH_JOB, f"there is no array {array.job_id} under {root.path} on this cluster")
    reply: ListElementsReply = {"elements": [], "size": len(job_ids), "next": None}
    order = list(range(len(job_ids)))
    if "indexes" in request:
        order = [index for index in request["indexes"] if index in range(len(job_ids))]
    elif request.get("failed_first", False):
        states = [_standing(root.job(job_id))["state"] for job_id in job_ids]
        order.sort(key=lambda index: _BAD_FIRST.index(states[index]))
        reply["counts"] = dict(Counter(states))
    offset = max(0, request.get("offset", 0))
    wanted = order[offset:][: max(1, min(request.get("limit", _MOST), _MOST))]
    characters = 0
    until = time.monotonic() + _PAGE_S
    for index in wanted:
        element = _element(root, root.job(job_ids[index]), index)
        reply["elements"].append(element)
        characters += len(str(element))
        if characters > _MOST_CHARACTERS or time.monotonic() > until:
            break
    after = offset + len(reply["elements"])
    reply["next"] = after if after < len(order) else None
    return reply


def _standing(job: JobDirectory) -> ElementLook:
    """Return the state of a job as its records tell it; nobody is asked who knows more, and nothing is written."""
    element: ElementLook = {"index": 0, "job_id": job.job_id, "state": protocol.UNKNOWN}
    attempts = job.attempts()
    if not attempts:
        if not job.exists():
            element["state"], element["message"] = protocol.LOST, f"there is no {job.path}"
        return element
    attempt = attempts[-1]
    element["attempt"] = attempt.number
    # A job can write to its records.
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError, Refused):
        element.update(cast("ElementLook", _told(attempt)))
    if element["state"] not in _BAD_FIRST:
        element["state"] = protocol.UNKNOWN
    return element


def _told(attempt: Attempt) -> dict[str, Any]:
    ended: Any = attempt.ended()
    if ended is not None and not is_followed(ended):
        return {"state": ended["state"], **{name: ended[name] for name in _FACTS if name in ended}}
    if ended is not None:
        return {"state": protocol.QUEUED, "message": f"attempt {attempt.number + 1} follows"}
    claim: Any = attempt.claimed()
    if claim is None:
        return {"state": protocol.QUEUED}
    if "end" in claim:
        return {"state": claim["end"]["state"], "reason": claim["end"]["reason"], "message": claim["end"]["message"]}
    facts: Any = run_facts(claim)
    return {"state": protocol.RUNNING, **{name: facts[name] for name in _FACTS if name in facts}}


def _element(root: Root, job: JobDirectory, index: int) -> ElementLook:
    element = _standing(job)
    if not job.exists():
        return {**element, "index": index}
    try:
        masks = masks_of(job)
    except (Refused, OSError):
        # Without them nothing of what it has written can be shown.
        return {"index": index, "job_id": job.job_id, "state": element["state"]}
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError, Refused):
        element.update(cast("ElementLook", _asked(job, masks)))
    with contextlib.suppress(OSError):
        progress = latest_progress(job, [])
        if progress:
            element["progress"] = dict(list(progress.items())[:_MOST_VALUES])
    shown: ElementLook = {**cast("ElementLook", _cut(hidden_in(element, masks))), "index": index, "job_id": job.job_id}
    # These are hidden before they are cut.
    with contextlib.suppress(OSError, Refused):
        found = final_metrics(root, job)
        if "metrics" in found:
            shown["metrics"], shown["metric_count"] = found["metrics"], found["count"]
        if "problem" in found:
            shown["metrics_problem"] = found["problem"]
    return shown


def _asked(job: JobDirectory, masks: Masks | None) -> dict[str, Any]:
    """Return what an element was given to do."""
    request: Any = job.attempts()[-1].recorded_request()
    if request is None:
        return {}
    spec = request["spec"]
    asked: dict[str, Any] = {"submitted_at": request["requested_at"]}
    if spec.get("command"):
        # A secret may look otherwise when it is no longer quoted.
        asked["command"] = hidden(str(spec["command"])[:_MOST_COMMAND], masks)
        with contextlib.suppress(ValueError):
            asked["arguments"] = shlex.split(asked["command"])
    else:
        asked["arguments"] = [str(argument) for argument in spec.get("script_args") or ()]
    described: Any = records.read_json(job.spec, records.MOST_BYTES_OF_LISTS)
    names = [] if described is None else described.get("environment_names") or []
    asked["env_names"] = [str(name) for name in names]
    return asked


def _cut(value: Any, depth: int = 4) -> Any:
    """Return a JSON value of limited size."""
    if isinstance(value, str):
        return value if len(value) <= _MOST_TEXT else f"{value[:_MOST_TEXT]}…"
    if isinstance(value, dict):
        return {name[:_MOST_TEXT]: _cut(item, depth - 1) for name, item in value.items()} if depth else "…"
    if isinstance(value, list):
        return [_cut(item, depth - 1) for item in value[:_MOST_ITEMS]] if depth else "…"
    return value
