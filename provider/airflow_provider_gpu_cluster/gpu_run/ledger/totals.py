"""
What the lines of a ledger add up to. The sums are kept beside the ledger, with how much of each file is in them, so
that only new lines are read.

Names come into the sums in the order of the lines. So a DAG that was counted among the others is always counted there,
and no sum ever goes backwards.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from bisect import bisect_left
from typing import TYPE_CHECKING, Any, cast

from ..linux import regular_files
from ..protocol import SUCCEEDED
from ..protocol.ledger import END, TRANSFER
from .moved import is_no_end

if TYPE_CHECKING:
    from ..protocol.ledger import EndLine, TransferLine
    from ..protocol.totals import (
        CoveredFile,
        FinalNumbers,
        Histogram,
        KeptTotals,
        MonthTotals,
        PairTotals,
        TransferTotals,
    )
    from .ledger import Ledger

# Each pair of a DAG and a user becomes several time series in a monitoring system. Further ones are added up as OTHER.
MOST_PAIRS = 200
MOST_TASKS = 200
MOST_NUMBERS_OF_TASK = 4
OTHER = "other"
SUCCESS = "success"

_FILE = "totals.json"
_FORM = 1
_KEPT_MONTHS = 2
# Sums that are older by less than this many bytes of lines are not written again.
_UNSAVED_BYTES = 1 << 16
_MOST_BYTES = 1 << 26
_BEGINS_BYTES = 100
_MOST_REASONS = 30
_MOST_CHARACTERS = 250
# More than anything here amounts to; also, no number is infinite.
_LARGEST = 1e18
_JOB_BOUNDS_S = (1.0, 10.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0, 14400.0, 28800.0, 86400.0, 259200.0, 604800.0)
_TRANSFER_BOUNDS_S = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0)
# What final numbers tell how good a model is: accuracy, val_loss, eval/accuracy, top5_accuracy.
_IS_FINAL = re.compile(r"(?:.*[^a-z])?(?:accuracy|acc|loss)(?:[^a-z].*)?", re.IGNORECASE)


def read_totals(ledger: Ledger, *, within_s: float) -> KeptTotals:
    """
    Return what the ledger adds up to.

    A ledger of a million lines whose sums are lost takes several calls.

    :param within_s: how long to read, in seconds; after that ``is_complete`` is False.
    :raises OSError: the ledger cannot be read now.
    """
    deadline = time.monotonic() + within_s
    names = _months(ledger)
    totals = _kept(ledger.folder)
    if totals is None or not all(_is_as_covered(ledger.folder, name, read) for name, read in totals["covered"].items()):
        totals = _nothing()
    index = _Index(totals)
    added = 0
    totals["is_complete"] = True
    for name in names:
        added += _add_month(ledger, name, index, deadline)
        if time.monotonic() > deadline:
            totals["is_complete"] = False
            break
    for month in sorted(totals["months"])[:-_KEPT_MONTHS]:
        del totals["months"][month]
    if added >= _UNSAVED_BYTES:
        _keep(ledger.folder, totals)
    return totals


def _months(ledger: Ledger) -> list[str]:
    """Return the names of the months' files; a ledger that cannot be read now is not taken for an empty one."""
    try:
        os.listdir(ledger.folder)
    except FileNotFoundError:
        return []
    return ledger.months()


def _add_month(ledger: Ledger, name: str, index: _Index, deadline: float) -> int:
    """Add the new lines of a month's file, and return how many bytes they have."""
    path = os.path.join(ledger.folder, name)
    covered = index.totals["covered"].setdefault(name, {"bytes": 0, "begins": ""})
    before = covered["bytes"]
    if os.stat(path).st_size == before:
        return 0
    for end, line in ledger.lines_from(name, before, (END, TRANSFER)):
        index.add(name[:7], line)
        covered["bytes"] = end
        if time.monotonic() > deadline:
            break
    covered["begins"] = _beginning(path, min(covered["bytes"], _BEGINS_BYTES))
    return covered["bytes"] - before


def _is_as_covered(folder: str, name: str, covered: CoveredFile) -> bool:
    """Return whether a month's file is still the one whose lines are in the sums."""
    path = os.path.join(folder, name)
    try:
        return (
            _beginning(path, len(covered["begins"])) == covered["begins"]
            and _part(path, covered["bytes"] - 1, 1) == "\n"
        ) or not covered["bytes"]
    except (FileNotFoundError, regular_files.NotRegular):
        return False


def _beginning(path: str, size: int) -> str:
    return _part(path, 0, size)


def _part(path: str, offset: int, size: int) -> str:
    fd = regular_files.open_to_read(path)
    try:
        return os.pread(fd, size, max(0, offset)).decode("latin-1")
    finally:
        os.close(fd)


def _kept(folder: str) -> KeptTotals | None:
    """Return the sums that were kept; None if there are none, or a crash has spoilt them."""
    try:
        totals = json.loads(regular_files.read(os.path.join(folder, _FILE), _MOST_BYTES))
        return cast("KeptTotals", totals) if totals["form"] == _FORM else None
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def _keep(folder: str, totals: KeptTotals) -> None:
    """Write the sums. They can be made again, so this neither waits for the disk nor fails."""
    path = os.path.join(folder, _FILE)
    draft = f"{path}.{os.urandom(8).hex()}.tmp"
    with contextlib.suppress(OSError):
        try:
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                json.dump(totals, file)
            os.replace(draft, path)
        except OSError:
            os.unlink(draft)
            raise


def _nothing() -> KeptTotals:
    return {
        "form": _FORM,
        "is_complete": True,
        "covered": {},
        "months": {},
        "pairs": [],
        "job_durations": _histogram(_JOB_BOUNDS_S),
        "queue_durations": _histogram(_JOB_BOUNDS_S),
        "transfers": [],
        "final_numbers": [],
    }


def _histogram(bounds_s: tuple[float, ...]) -> Histogram:
    return {"bounds_s": list(bounds_s), "counts": [0] * (len(bounds_s) + 1), "sum_s": 0.0}


class _Index:
    """Finds what a line adds to."""

    def __init__(self, totals: KeptTotals) -> None:
        self.totals = totals
        self._pairs = {(pair["dag_id"], pair["user"]): pair for pair in totals["pairs"]}
        self._transfers = {transfers["direction"]: transfers for transfers in totals["transfers"]}
        self._tasks = {(task["dag_id"], task["task_id"]): task for task in totals["final_numbers"]}

    def add(self, month: str, line: dict[str, Any]) -> None:
        """Add a line of a month's file."""
        if line["kind"] == END:
            self._add_end(month, cast("EndLine", line))
        else:
            self._add_transfer(cast("TransferLine", line))

    def _add_end(self, month: str, line: EndLine) -> None:
        if is_no_end(line):
            return
        pair = self._pair(_text(line.get("dag_id")), _text(line.get("user")))
        _count(pair, _reason(line))
        gpu_seconds = _number(line.get("gpu_seconds"))
        pair["gpu_seconds"] += gpu_seconds
        pair["running_s"] += _number(line.get("running_s"))
        pair["used_gpu_seconds"] += _number(line.get("used_gpu_seconds"))
        pair["idle_gpu_seconds"] += _number(line.get("idle_gpu_seconds"))
        pair["energy_j"] += _number(line.get("energy_j"))
        if "running_s" in line:
            _observe(self.totals["job_durations"], _number(line["running_s"]))
        if "queued_s" in line:
            _observe(self.totals["queue_durations"], _number(line["queued_s"]))
        self._note_final_numbers(line)
        self._add_to_month(month, line, gpu_seconds)

    def _pair(self, dag_id: str, user: str) -> PairTotals:
        pair = self._pairs.get((dag_id, user))
        if pair is None and len(self._pairs) >= MOST_PAIRS:
            dag_id, user = OTHER, OTHER
            pair = self._pairs.get((dag_id, user))
        if pair is None:
            pair = self._pairs[(dag_id, user)] = {
                "dag_id": dag_id,
                "user": user,
                "ends": [],
                "running_s": 0.0,
                "gpu_seconds": 0.0,
                "used_gpu_seconds": 0.0,
                "idle_gpu_seconds": 0.0,
                "energy_j": 0.0,
            }
            self.totals["pairs"].append(pair)
        return pair

    def _note_final_numbers(self, line: EndLine) -> None:
        given = line.get("metrics")
        if not isinstance(given, dict) or "task_id" not in line:
            return
        names = sorted(filter(_IS_FINAL.fullmatch, given))[:MOST_NUMBERS_OF_TASK]
        key = _text(line.get("dag_id")), _text(line["task_id"])
        task: FinalNumbers | None = self._tasks.get(key)
        if task is None and names and len(self._tasks) < MOST_TASKS:
            task = self._tasks[key] = {"dag_id": key[0], "task_id": key[1], "numbers": []}
            self.totals["final_numbers"].append(task)
        if task is not None:
            task["numbers"] = [
                {"name": _text(name), "value": float(given[name])} for name in names if _is_number(given[name])
            ]

    def _add_to_month(self, month: str, line: EndLine, gpu_seconds: float) -> None:
        sums: MonthTotals = self.totals["months"].setdefault(month, {"dags": {}, "users": {}, "owners": {}, "all": 0.0})
        sums["all"] += gpu_seconds
        for by, name in (
            (sums["dags"], line.get("dag_id")),
            (sums["users"], line.get("user")),
            (sums["owners"], line.get("owner")),
        ):
            if isinstance(name, str):
                by[name] = by.get(name, 0.0) + gpu_seconds

    def _add_transfer(self, line: TransferLine) -> None:
        direction = "in" if line.get("direction") == "in" else "out"
        transfers: TransferTotals | None = self._transfers.get(direction)
        if transfers is None:
            transfers = self._transfers[direction] = {
                "direction": direction,
                "bytes": 0,
                "durations": _histogram(_TRANSFER_BOUNDS_S),
            }
            self.totals["transfers"].append(transfers)
        transfers["bytes"] += int(_number(line.get("bytes")))
        _observe(transfers["durations"], _number(line.get("seconds")))


def _count(pair: PairTotals, reason: str) -> None:
    for end in pair["ends"]:
        if end["reason"] == reason:
            end["count"] += 1
            return
    if len(pair["ends"]) >= _MOST_REASONS and reason != OTHER:
        _count(pair, OTHER)
    else:
        pair["ends"].append({"reason": reason, "count": 1})


def _reason(line: EndLine) -> str:
    if line.get("state") == SUCCEEDED:
        return SUCCESS
    return _text(line.get("reason")) or _text(line.get("state")).lower() or OTHER


def _observe(histogram: Histogram, seconds: float) -> None:
    histogram["counts"][bisect_left(histogram["bounds_s"], seconds)] += 1
    histogram["sum_s"] += seconds


def _text(value: object) -> str:
    return value[:_MOST_CHARACTERS] if isinstance(value, str) else ""


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -_LARGEST < value < _LARGEST


def _number(value: Any) -> float:
    """Return a number of a line; 0 for what is missing, or makes no sum larger."""
    return float(value) if _is_number(value) and value > 0 else 0.0
