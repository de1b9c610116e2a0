"""
Which of several clusters has a job, as far as this one was told: one small record for each job.

The records are in the root's own folder, since a cluster is told of jobs that never get a directory here. A record
changes under a lock of its own. It is kept as long as the job's directory exists, and for a week after its last change.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from typing import TYPE_CHECKING, Any, Iterator, Mapping, NamedTuple, cast

from .. import protocol
from ..errors import Refused
from ..linux import locks, regular_files
from ..protocol.placement import CLAIM, END, FENCE, WITHDRAW, order
from . import records
from .start_dates import is_past, start_date
from .writing import writing

if TYPE_CHECKING:
    from ..protocol.notes import PlacementNote, PromiseNote, StartBy
    from ..protocol.placement import Placement
    from ..protocol.spec import Spec
    from .directories import Root

# No word about a job is on its way for that long.
_KEPT_S = 7 * 86400.0
#: How long attempts that are about to start wait for the decision whether they are taken back.
WITHDRAWAL_S = 60.0
_PROMISED_S = 60.0
_KINDS = (CLAIM, FENCE, WITHDRAW, END)
_LARGEST = 1 << 53
_MOST_CHARACTERS = 500
_MOST_MEMBERS = 500
_MOST_CHOSEN = 100


def sound_placement(value: object) -> Placement:
    """
    Return a placement that was sent, without what does not belong into it.

    :raises Refused: it is none.
    """
    if _is_placement(value):
        known = ("epoch", "key", "conn_id", "members", "start_by", "renewed_only")
        return cast("Placement", {name: one for name, one in value.items() if name in known})  # type: ignore[attr-defined]
    raise Refused(protocol.BAD_REQUEST, f"this is no placement of a job: {repr(value)[:200]}")


def _is_placement(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    members, start_by = value.get("members", []), value.get("start_by", 0.0)
    return (
        is_count(value.get("epoch"))
        and is_text(value.get("key"))
        and is_text(value.get("conn_id", ""))
        and isinstance(members, list)
        and len(members) <= _MOST_MEMBERS
        and all(map(is_text, members))
        and is_moment(start_by)
        and isinstance(value.get("renewed_only", False), bool)
    )


def is_text(value: object) -> bool:
    """Return whether it is a text of a length that makes sense."""
    return isinstance(value, str) and len(value) <= _MOST_CHARACTERS


def is_count(value: object) -> bool:
    """Return whether it is a whole number, none below zero."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _LARGEST


def is_moment(value: object) -> bool:
    """Return whether it is a time, in seconds since the epoch."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and math.isfinite(cast(float, value)) and abs(cast(float, value)) < _LARGEST


def job_and_array(job_id: str, request: Mapping[str, Any]) -> list[str]:
    """Return the ids under which the placement of a job may be known: its own, and that of its array."""
    array = request.get("array")
    return [job_id, str(array["job_id"])] if array else [job_id]


# -- the record ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def placing(root: Root, job_id: str) -> Iterator[None]:
    """Keep others from placing or launching a job meanwhile; take its own lock only after this one."""
    with writing(root.path):
        os.makedirs(_folder(root), mode=0o700, exist_ok=True)
        fd = locks.lock(os.path.join(_folder(root), f"{job_id}.lock"), timeout_s=None)
    assert fd is not None
    try:
        yield
    finally:
        os.close(fd)


def placement_note(root: Root, job_id: str) -> PlacementNote | None:
    """
    Return what is known of a job's placement; None when this cluster was told of none.

    :raises Refused: the record is damaged.
    :raises OSError: it cannot be read now.
    """
    path = _path(root, job_id)
    try:
        note = records.read_json(path)
        if note is None or _is_note(note):
            return cast("PlacementNote | None", note)
        why = f"{path} holds no placement"
    except (ValueError, regular_files.NotRegular) as error:
        why = str(error)
    raise Refused(
        protocol.JOB_CONFLICT,
        f"which cluster has job {job_id} cannot be read here: {why}; remove it if no other cluster has the job",
    )


def _is_note(value: Any) -> bool:
    date = value.get("start_by")
    return (
        value.get("kind") in _KINDS
        and _is_placement(value.get("placement"))
        and (date is None or _is_date(date))
        and ("withdrawal" not in value or _is_placement(value["withdrawal"]))
        and isinstance(value.get("chosen", {}), dict)
        and all(map(_is_placement, value.get("chosen", {}).values()))
    )


def _is_date(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and is_moment(value.get("at"))
        and is_moment(value.get("boottime"))
        and is_text(value.get("boot"))
        and is_text(value.get("host"))
    )


def note_placement(root: Root, note: PlacementNote) -> None:
    """
    Keep what this cluster was told last; call while :func:`placing`.

    :raises Refused: it cannot be kept; what was kept before stays.
    """
    with writing(root.path):
        records.write_json(_path(root, note["job_id"]), note)


def forget_placement(root: Root, job_id: str) -> None:
    """Keep nothing of a job any more; call while :func:`placing`."""
    with writing(root.path), contextlib.suppress(FileNotFoundError):
        os.unlink(_path(root, job_id))


def new_note(job_id: str, placement: Placement, kind: str, known: PlacementNote | None) -> PlacementNote:
    """
    Return what is to be kept of a placement that this cluster is told of now.

    :param known: what was kept until now.
    """
    note: PlacementNote = {"job_id": job_id, "placement": placement, "kind": kind}
    chosen = dict(known.get("chosen", {})) if known is not None else {}
    where = placement.get("conn_id")
    if where and (where not in chosen or order(chosen[where]) < order(placement)):
        chosen[where] = {"epoch": placement["epoch"], "key": placement["key"], "conn_id": where}
    note["chosen"] = dict(sorted(chosen.items(), key=lambda one: order(one[1]))[-_MOST_CHOSEN:])
    if "start_by" in placement:
        note["start_by"] = start_date(placement["start_by"])
    return note


def is_outranked(note: PlacementNote | None, placement: Placement) -> bool:
    """Return whether a launch for a placement is refused: a higher one is known, or this one is not for here."""
    if note is None:
        return False
    known, asked = order(note["placement"]), order(placement)
    return known > asked or (known == asked and note["kind"] != CLAIM)


def forget_old(root: Root) -> None:
    """Remove the records of jobs that are gone, and about which nothing is on its way any more."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        names = os.listdir(_folder(root))
        for job_id in {name.rpartition(".")[0] for name in names if name.endswith((".json", ".lock"))}:
            with contextlib.suppress(OSError):
                _forget_if_old(root, job_id)


def _forget_if_old(root: Root, job_id: str) -> None:
    if not _is_old(root, job_id):
        return
    fd = locks.lock(os.path.join(_folder(root), f"{job_id}.lock"))
    if fd is None:
        return
    try:
        if _is_old(root, job_id):
            # The lock last: who waits for it finds that it is gone, and makes a new one.
            for ending in ("json", "renewed", "lock"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(os.path.join(_folder(root), f"{job_id}.{ending}"))
    finally:
        os.close(fd)


def _is_old(root: Root, job_id: str) -> bool:
    changed = []
    for ending in ("json", "renewed", "lock"):
        with contextlib.suppress(FileNotFoundError):
            changed.append(os.lstat(os.path.join(_folder(root), f"{job_id}.{ending}")).st_mtime)
    is_there = os.path.lexists(os.path.join(root.path, job_id))
    return not is_there and max(changed, default=0.0) < time.time() - _KEPT_S


def _folder(root: Root) -> str:
    return os.path.join(root.own, "placements")


def _path(root: Root, job_id: str) -> str:
    return os.path.join(_folder(root), f"{job_id}.json")


# -- promises --------------------------------------------------------------------------------------------------------


class Promise(NamedTuple):
    """GPUs that are kept for a job that was claimed and is about to be launched."""

    job_id: str
    gpus: int
    gpu_type: str | None
    time_limit_s: float | None = None
    priority: str | None = None


@contextlib.contextmanager
def promising(root: Root) -> Iterator[None]:
    """Keep others from promising GPUs meanwhile, so that the same ones are not promised twice."""
    with writing(root.path):
        os.makedirs(_promises(root), mode=0o700, exist_ok=True)
        fd = locks.lock(os.path.join(_promises(root), "lock"), timeout_s=None)
    assert fd is not None
    try:
        yield
    finally:
        os.close(fd)


def promises(root: Root) -> list[Promise]:
    """Return the promises that count now: the jobs were not launched yet, and were claimed less than a minute ago."""
    found = []
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for name in os.listdir(_promises(root)):
            if name.endswith(".json"):
                promise = _promise(root, name[: -len(".json")])
                if promise is not None:
                    found.append(promise)
    return found


def _promise(root: Root, job_id: str) -> Promise | None:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        note: PromiseNote | None = records.read_json(_promise_path(root, job_id))
        if note is not None and not is_past(_until(note["made"]), is_here=True):
            return Promise(job_id, int(note["gpus"]), note["gpu_type"], note["time_limit_s"], note["priority"])
        forget_promise(root, job_id)
    return None


def _until(made: StartBy) -> StartBy:
    return {**made, "at": made["at"] + _PROMISED_S, "boottime": made["boottime"] + _PROMISED_S}


def promise(root: Root, job_id: str, spec: Spec) -> None:
    """Keep GPUs for a job for a short while."""
    note: PromiseNote = {
        "gpus": spec["gpus"] * (spec.get("nodes") or 1),
        "gpu_type": spec.get("gpu_type"),
        "time_limit_s": spec.get("time_limit_s"),
        "priority": spec.get("priority"),
        "made": start_date(time.time()),
    }
    with writing(root.path):
        records.write_json(_promise_path(root, job_id), note, sync=False)


def forget_promise(root: Root, job_id: str) -> None:
    """Keep no GPUs for a job any more, as it was launched, or will not be launched here."""
    with contextlib.suppress(OSError):
        os.unlink(_promise_path(root, job_id))


def _promises(root: Root) -> str:
    return os.path.join(_folder(root), "promises")


def _promise_path(root: Root, job_id: str) -> str:
    return os.path.join(_promises(root), f"{job_id}.json")
