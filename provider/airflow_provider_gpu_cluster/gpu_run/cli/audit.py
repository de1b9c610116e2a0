"""For a person on the host: ``gpu-run audit JOB_ID`` says who has done what with a job, from where, and when."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from ..errors import Refused
from ..jobs.audit import audit
from .run import Parser

if TYPE_CHECKING:
    from ..protocol.ledger import ActLine
    from ..store.directories import Root

_COLUMNS = ("TIME (UTC)", "ACT", "ATTEMPT", "WHO", "FROM", "DETAILS")


def run(*arguments: str, root: Root) -> int:
    """
    Print the acts on a job, the oldest first.

    :return: the command's exit status: 0, or 2 when nothing is known of the job.
    """
    parser = Parser(prog="gpu-run audit", description="Say who has done what with a job, from where, and when.")
    parser.add_argument("job_id", help="the job's id, which is the name of its directory")
    parser.add_argument("--json", action="store_true", help="a line of JSON for each act")
    options = parser.parse_args(arguments)
    try:
        reply = audit(root, options.job_id)
    except Refused as refusal:
        print(f"gpu-run: {refusal.message}", file=sys.stderr)
        return 2
    if options.json:
        for line in reply["acts"]:
            print(json.dumps(line))
        return 0
    rows = [_COLUMNS, *map(row_of, reply["acts"])]
    widths = [max(len(row[place]) for row in rows) for place in range(len(_COLUMNS) - 1)]
    for row in rows:
        text = "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[-1]])
        print(text.rstrip().encode(sys.stdout.encoding or "ascii", "replace").decode(sys.stdout.encoding or "ascii"))
    if not reply["acts"]:
        print("gpu-run: nothing was noted about this job; an earlier version may have run it", file=sys.stderr)
    elif reply["is_from_ledger"]:
        print("gpu-run: the job's own record is gone; this is what the ledger says", file=sys.stderr)
    return 0


def row_of(line: ActLine) -> tuple[str, ...]:
    """Return the cells of an act."""
    who = line.get("by", "")
    means = [line.get("through", ""), f"try {line['try_number']}" if "try_number" in line else ""]
    told = ", ".join(filter(None, means))
    return (
        line["at"][:19].replace("T", " "),
        line["act"],
        str(line.get("attempt", "")),
        f"{who} ({told})" if told else who,
        " from ".join(filter(None, [line.get("host", ""), line.get("address", "")])),
        line.get("details", ""),
    )
