"""For a person on the host: ``gpu-run rehearse JOB_ID --as preempted`` tries out what a preemption does to a job."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ..errors import Refused
from ..jobs.interrupt import interrupt
from ..linux import processes
from ..protocol.interruption import INTERRUPTIONS
from ..store import records
from ..store.directories import Root
from .run import Parser

if TYPE_CHECKING:
    from ..protocol.requests import Caller


def run(*arguments: str, root: Root) -> int:
    """
    Interrupt a job, and print what was done.

    :return: the command's exit status: 0, or 2 when the job does not run.
    """
    parser = Parser(
        prog="gpu-run rehearse",
        description="Interrupt a running job as the real thing would, to see whether it saves its work in time.",
    )
    parser.add_argument("job_id", help="the job's id, which is the name of its directory")
    parser.add_argument(
        "--as",
        dest="kind",
        required=True,
        choices=INTERRUPTIONS,
        help="preempted and time_limit end the job after its grace; checkpoint only sends its warning signal",
    )
    options = parser.parse_args(arguments)
    try:
        user = processes.user()
        name = records.new_name()
        caller: Caller = {"person": user}
        print(interrupt(root, options.job_id, options.kind, by=user, name=name, caller=caller))
    except Refused as refusal:
        print(f"gpu-run: {refusal.message}", file=sys.stderr)
        return 2
    return 0
