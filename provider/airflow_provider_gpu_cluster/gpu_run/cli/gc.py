"""For a person on the host: ``gpu-run gc --older-than 14d`` removes old jobs."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from typing import TYPE_CHECKING, Sequence

from ..engines.host.engine import POOL_FILE
from ..errors import Refused
from ..gc.collection import collect_garbage
from ..linux import processes
from ..protocol import durations
from ..store import records
from ..store.directories import Root
from .run import Parser

if TYPE_CHECKING:
    from ..protocol.replies import GcReport
    from ..protocol.requests import Caller
    from ..protocol.settings import Settings


def run(*arguments: str, root: Root, program: str) -> int:
    """
    Remove what has not been used for long enough, and print what was removed.

    :return: the command's exit status: 0, 1 when something could not be removed, 2 when it cannot begin.
    """
    options = _parse(arguments)
    with contextlib.suppress(OSError):
        # Jobs have priority.
        os.nice(10)
    pool: Settings | None = records.read_json(os.path.join(root.own, POOL_FILE))
    try:
        caller: Caller | None = None if options.of_retention else {"person": processes.user()}
        report = collect_garbage(root, pool or {}, program, options.older_than, dry_run=options.dry_run, caller=caller)
    except Refused as refusal:
        print(f"gpu-run: {refusal.message}", file=sys.stderr)
        return 2
    if report["busy"]:
        print(f"gpu-run: another 'gpu-run gc' is at work in {root.path}", file=sys.stderr)
        return 2
    _print(report)
    return 1 if report["failures"] else 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = Parser(
        prog="gpu-run gc",
        description="Remove jobs that ended long ago, and files and Python environments that no job has used since.",
    )
    parser.add_argument(
        "--older-than", type=_seconds, required=True, metavar="DURATION", help="such as 14d, 36h, 90m or seconds"
    )
    # How a connection's retention calls this.
    parser.add_argument("--of-retention", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--dry-run", action="store_true", help="remove nothing, and say what would be removed")
    return parser.parse_args(arguments)


def _seconds(text: str) -> float:
    try:
        return durations.seconds_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _print(report: GcReport) -> None:
    for job_id in report["jobs"]:
        print(job_id)
    done = "would remove" if report["dry_run"] else "removed"
    print(
        "{} {} jobs, {} environments, {} cache entries, {} partial uploads, {} old programs: {:.1f} MB".format(
            done,
            len(report["jobs"]),
            len(report["environments"]),
            report["cache_entries"],
            report["uploads"],
            report["programs"],
            report["bytes_freed"] / 1e6,
        )
    )
    for failed in report["failed"]:
        print("could not remove {}: {}".format(failed["path"], failed["why"]), file=sys.stderr)
    if report["failures"] > len(report["failed"]):
        print("... and {} more".format(report["failures"] - len(report["failed"])), file=sys.stderr)
