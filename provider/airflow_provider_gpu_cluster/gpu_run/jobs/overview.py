"""The verb ``overview``: what a cluster looks like now. A page asks for it as long as somebody looks at it."""

from __future__ import annotations

import contextlib
import re
import shutil
import sys
from typing import TYPE_CHECKING

from ..errors import Refused
from ..ledger.hours import hours_of_use
from ..ledger.ledger import Ledger
from ..linux import processes, regular_files
from ..reply import Reply
from ..store import records

if TYPE_CHECKING:
    from ..engines.engine import Engine
    from ..protocol.overview import EngineView, Overview, OverviewRequest
    from ..store.directories import Root

_MOST_HOURS = 24 * 7
_DRIVER = "/proc/driver/nvidia/version"
_VERSION = re.compile(rb"\s(\d+\.\d+(?:\.\d+)?)\s")


def answer(root: Root, engine: Engine, request: OverviewRequest) -> Reply:
    """Carry out the verb ``overview``."""
    return Reply(overview(root, engine, request["hours"]))


def overview(root: Root, engine: Engine, hours: int) -> Overview:
    """
    Return what is known of a cluster now. It changes nothing.

    :param hours: how many hours back the use of GPUs is told; at most a week.
    """
    seen: Overview = {
        "host": processes.hostname(),
        "engine": engine.name,
        "python": ".".join(map(str, sys.version_info[:3])),
        "hours": [],
    }
    with contextlib.suppress(OSError):
        disk = shutil.disk_usage(root.path)
        seen["disk"] = {"free": disk.free, "total": disk.total}
    driver = _driver()
    if driver:
        seen["driver"] = driver
    running: list[tuple[str, int]] = []
    try:
        seen["view"] = engine.overview()
        running = _own_running(seen["view"])
    except Refused as refusal:
        # A driver or a scheduler that is silent now is no reason to tell nothing.
        seen["fault"] = refusal.message
    with contextlib.suppress(OSError):
        seen["hours"] = hours_of_use(Ledger(root.own), records.now(), max(1, min(hours, _MOST_HOURS)), running)
    return seen


def _own_running(view: EngineView) -> list[tuple[str, int]]:
    """Return since when the jobs of this root run, and on how many GPUs."""
    return [(job["since"], job["gpus"]) for job in view["jobs"] if job["is_running"] and "by" in job and "since" in job]


def _driver() -> str:
    with contextlib.suppress(OSError):
        found = _VERSION.search(regular_files.read(_DRIVER, 1 << 12))
        return found.group(1).decode("ascii") if found else ""
    return ""
