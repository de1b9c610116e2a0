"""For a person on the host: ``gpu-run usage --since 30d --by dag`` says how many GPU-hours were used, and by whom."""

from __future__ import annotations

import argparse
import json
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Sequence

from ..jobs.usage import usage
from ..protocol.ledger import BY_REASON, BYS
from ..protocol.moments import moment_of
from ..store.directories import Root
from .run import Parser

if TYPE_CHECKING:
    from ..protocol.ledger import UsageReply, UsageRow

_WIDTH = 80
_SINCE = "30d"
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
_HEADS = ("jobs", "ends", "failed", "GPU-h", "used", "idle", "kWh", "received", "sent")


def run(*arguments: str, root: Root) -> int:
    """
    Print what was used.

    :return: the command's exit status.
    """
    options = _parse(arguments)
    since = None if options.since is None else options.since.isoformat(timespec="milliseconds")
    until = None if options.until is None else options.until.isoformat(timespec="milliseconds")
    found = usage(root, since, until, options.by)
    if options.json:
        print(json.dumps({"since": since, "until": until, "by": options.by, **found}, indent=1))
    else:
        print(_heading(options.since, options.until))
        print("\n".join(table(found, options.by)))
    return 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = Parser(
        prog="gpu-run usage",
        description="Say how many GPU-hours the jobs have used that have ended, and by whom. Times are in UTC.",
    )
    parser.add_argument(
        "--since",
        type=_moment,
        default=_SINCE,
        metavar="TIME",
        help="from when on: 30d (the default), 2026-11, 2026-11-28, or all",
    )
    parser.add_argument("--until", type=_moment, metavar="TIME", help="up to, and not including, that moment")
    parser.add_argument("--by", choices=BYS, default=BYS[0], help="what a row is for (default user)")
    parser.add_argument("--json", action="store_true", help="print JSON, with exact numbers")
    return parser.parse_args(arguments)


def _moment(text: str) -> datetime | None:
    if text == "all":
        return None
    try:
        return moment_of(text, datetime.now(timezone.utc))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _heading(since: datetime | None, until: datetime | None) -> str:
    times = [] if since is None else [f"from {since:%Y-%m-%d %H:%M} UTC on"]
    times += [] if until is None else [f"before {until:%Y-%m-%d %H:%M} UTC"]
    return f"attempts that ended {' and '.join(times)}" if times else "all attempts that have ended"


def table(found: UsageReply, by: str) -> list[str]:
    """Return the lines of a table that is not wider than 80 characters, unless a number is very large."""
    if not found["rows"]:
        return ["no job has ended in that time"]
    cells = [[by, *_HEADS], *([_name(row, by), *_cells(row)] for row in found["rows"])]
    cells.append(["total", *_cells(found["total"])])
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    widths[0] = max(8, min(widths[0], _WIDTH - sum(width + 2 for width in widths[1:])))
    lines = [_line(line, widths) for line in cells]
    return [lines[0], *lines[1:-1], "-" * len(lines[0]), lines[-1]]


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    name = cells[0] if len(cells[0]) <= widths[0] else cells[0][: widths[0] - 3] + "..."
    numbers = (f"  {cell:>{width}}" for cell, width in zip(cells[1:], widths[1:]))
    return f"{name:<{widths[0]}}" + "".join(numbers)


def _name(row: UsageRow, by: str) -> str:
    # Names come from records that jobs can write to, and go to a terminal.
    name = "".join(character if character.isprintable() else "?" for character in row["key"])
    return name.encode("utf-8", "replace").decode() or ("succeeded" if by == BY_REASON else "(none)")


def _cells(row: UsageRow) -> list[str]:
    """Return the numbers of a row; a dash for what nobody has measured."""
    is_measured = row["measured_gpu_hours"] > 0
    return [
        str(row["jobs"]),
        str(row["attempts"]),
        str(row["failed"]),
        _hours(row["gpu_hours"]),
        _percent(row["used_gpu_hours"], row["measured_gpu_hours"]) if is_measured else "-",
        _percent(row["idle_gpu_hours"], row["measured_gpu_hours"]) if is_measured else "-",
        _hours(row["energy_kwh"]) if row["energy_kwh"] else "-",
        _bytes(row["received_bytes"]),
        _bytes(row["sent_bytes"]),
    ]


def _hours(number: float) -> str:
    return f"{number:.3f}" if number < 1 else f"{number:.2f}" if number < 100 else f"{number:.1f}"


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.0f}%"


def _bytes(count: float) -> str:
    for unit in _UNITS:
        if count < 999.5 or unit == _UNITS[-1]:
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "B" or count >= 99.95 else f"{count:.1f} {unit}"
