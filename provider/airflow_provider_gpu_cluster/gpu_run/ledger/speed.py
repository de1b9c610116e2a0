"""How fast inputs were sent to this cluster lately, and how long jobs had their GPUs, by the ledger."""

from __future__ import annotations

import contextlib
import json
import os
from itertools import islice
from typing import Any, Iterator

from ..linux import regular_files
from ..protocol.ledger import END, TRANSFER
from .ledger import Ledger

#: So many of the last transfers count,
_MOST_TRANSFERS = 20
#: if they were of so many bytes: smaller ones say how long a round trip takes.
_LEAST_BYTES = 1 << 20
# At the end of a month's file. Most lines are of other kinds.
_MOST_BYTES = 1 << 22
_MONTHS = 2
_LARGEST = 1e15
# Of so many of the last jobs it is said how long they had their GPUs.
_MOST_ENDS = 200


def received_per_s(ledger: Ledger) -> float | None:
    """Return how many bytes a second came in the last transfers to the cluster; None if there were none of late."""
    last = list(islice(filter(_counts, _last_lines(ledger, TRANSFER)), _MOST_TRANSFERS))
    return sum(line["bytes"] for line in last) / sum(line["seconds"] for line in last) if last else None


def mean_run_s(ledger: Ledger) -> float | None:
    """Return how long the last jobs had their GPUs on average, in seconds; None if there were none of late."""
    runs = (line.get("leased_s") for line in _last_lines(ledger, END))
    last = list(islice((run for run in runs if isinstance(run, (int, float)) and 0 < run < _LARGEST), _MOST_ENDS))
    return sum(last) / len(last) if last else None


def _counts(line: dict[str, Any]) -> bool:
    # Whoever may write to the ledger can have written anything.
    nbytes, seconds = line.get("bytes"), line.get("seconds")
    if line.get("direction") != "in" or not isinstance(nbytes, int) or not isinstance(seconds, (int, float)):
        return False
    return _LEAST_BYTES <= nbytes < _LARGEST and 0 < seconds < _LARGEST


def _last_lines(ledger: Ledger, kind: str) -> Iterator[dict[str, Any]]:
    """Yield the lines of a kind, the last one first."""
    begin = f'{{"kind": "{kind}"'.encode()
    for name in list(reversed(ledger.months()))[:_MONTHS]:
        with contextlib.suppress(OSError):
            for text in reversed(regular_files.read_end(os.path.join(ledger.folder, name), _MOST_BYTES).splitlines()):
                if text.startswith(begin):
                    with contextlib.suppress(ValueError, RecursionError):
                        yield json.loads(text)
