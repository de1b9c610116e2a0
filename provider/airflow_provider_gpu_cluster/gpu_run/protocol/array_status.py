"""The status of an array, from the statuses of its elements. Pure; both ends of the channel use it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Sequence

from .. import protocol
from .array_usage import asked_by_elements, longest_seconds, usage_of_elements

if TYPE_CHECKING:
    from typing import Literal

    from .status import Status

_MOST_NAMED = 10
MOST_TAILS = 3
"""The greatest number of elements whose last lines are shown together."""

# States of the elements whose last lines say most, in this order.
_TELLING = (
    (protocol.FAILED, protocol.LOST, protocol.CANCELLED),
    (protocol.RUNNING,),
    (protocol.SUCCEEDED,),
)
_WORDS = (
    (protocol.SUCCEEDED, "succeeded"),
    (protocol.FAILED, "failed"),
    (protocol.LOST, "were lost"),
    (protocol.CANCELLED, "were cancelled"),
    (protocol.RUNNING, "run"),
    (protocol.QUEUED, "wait"),
    (protocol.UNKNOWN, "are unknown"),
)


def summary(array_id: str, elements: Sequence[Status]) -> Status:
    """
    Return the status of an array.

    It has ended when all of its elements have. If any of them ended badly, it ends like the one that did so first.

    :param elements: the statuses of its elements, in their order.
    """
    state, first = _state(elements)
    status: Status = {
        "job_id": array_id,
        "state": state,
        "message": message(elements),
        # A job that was never launched has no attempt, but an array was launched.
        "attempt": max(1, *(element.get("attempt", 0) for element in elements)),
        "elements": [[element["state"], element.get("reason")] for element in elements],
        "log_bytes": sum(element.get("log_bytes", 0) for element in elements),
        "log_tail": tails(elements),
    }
    if first is not None:
        status["reason"], status["exit_code"] = first.get("reason"), first.get("exit_code")
        status["signal"], status["kind"] = first.get("signal"), first.get("kind")
        status["remedy"] = first.get("remedy", "")
    recovered: Counter[str] = Counter()
    for element in elements:
        recovered.update(element.get("recovered", {}))
    if recovered:
        status["recovered"] = dict(recovered)
    ended = [element for element in elements if element["state"] in protocol.FINAL_STATES]
    status["submitted_at"] = _least(elements, "submitted_at")
    status["started_at"] = _least(elements, "started_at")
    if len(ended) == len(elements):
        status["ended_at"] = max((element.get("ended_at") or "" for element in elements), default="") or None
    else:
        status["progress"] = {"step": len(ended), "total": len(elements)}
    status["gpus"] = sorted(
        {gpu for one in elements if one["state"] == protocol.RUNNING for gpu in one.get("gpus", ())}
    )
    status["gpu_seconds"] = sum(element.get("gpu_seconds") or 0.0 for element in ended) if ended else None
    status["peak_memory_bytes"] = (
        max((element.get("peak_memory_bytes") or 0 for element in elements), default=0) or None
    )
    if ended:
        status["usage"], status["seconds"] = usage_of_elements(ended), longest_seconds(ended)
        status["asked"] = asked_by_elements(ended)
    return status


def _state(elements: Sequence[Status]) -> tuple[str, Status | None]:
    """Return the state, and the element that was the first to end badly if that determines the state."""
    states = {element["state"] for element in elements}
    for state in (protocol.RUNNING, protocol.UNKNOWN, protocol.QUEUED):
        if state in states:
            return state, None
    bad = [element for element in elements if element["state"] != protocol.SUCCEEDED]
    if not bad:
        return protocol.SUCCEEDED, None
    # Of those that nobody knows the time of, the first in their order; the others may have followed from it.
    first = min(bad, key=lambda element: element.get("ended_at") or "9999")
    return first["state"], first


def message(elements: Sequence[Status]) -> str:
    """Say how many elements are in each state, and which ended badly and why."""
    counts = [(sum(element["state"] == state for element in elements), word) for state, word in _WORDS]
    said = ", ".join(f"{count} {word}" for count, word in counts if count)
    bad = [
        index
        for index, element in enumerate(elements)
        if element["state"] in protocol.FINAL_STATES and element["state"] != protocol.SUCCEEDED
    ]
    if not bad:
        return f"of {len(elements)} elements {said}"
    by_cause: dict[str, list[int]] = {}
    for index in bad[:_MOST_NAMED]:
        by_cause.setdefault(_cause(elements[index]), []).append(index)
    named = [f"{', '.join(map(str, indexes))} ({cause})" for cause, indexes in by_cause.items()]
    more = f" and {len(bad) - _MOST_NAMED} more" if len(bad) > _MOST_NAMED else ""
    return f"of {len(elements)} elements {said}: {'; '.join(named)}{more}"


def _cause(element: Status) -> str:
    return ": ".join(
        filter(None, (element.get("kind") or element.get("reason") or element["state"], element.get("message")))
    )


def telling(elements: Sequence[Status]) -> list[int]:
    """Return the indexes of the elements whose last lines say most."""
    indexes = [index for states in _TELLING for index, one in enumerate(elements) if one["state"] in states]
    return indexes[:MOST_TAILS]


def tails(elements: Sequence[Status]) -> str:
    """Return the last lines of those elements, with the element's index before each line."""
    return "".join(
        f"{prefix(index, len(elements))}{line}\n"
        for index in telling(elements)
        for line in (elements[index].get("log_tail") or "").splitlines()
    )


def prefix(index: int, count: int) -> str:
    """Return what precedes each line about one element."""
    return f"[{index}/{count}] "


def _least(elements: Sequence[Status], name: Literal["submitted_at", "started_at"]) -> str | None:
    return min(filter(None, (element.get(name) for element in elements)), default=None)
