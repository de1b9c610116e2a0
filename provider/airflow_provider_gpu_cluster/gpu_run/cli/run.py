"""For a person on the host: ``gpu-run --gpus 2 --memory 32G script.sh`` takes GPUs from the pool of all jobs."""

from __future__ import annotations

import argparse
import math
import os
import re
import shlex
import signal
import sys
import time
import traceback
import uuid
from typing import TYPE_CHECKING, NoReturn, Sequence

from .. import protocol
from ..engines.host.engine import POOL_FILE, HostEngine
from ..engines.host.root_queue import RootQueue
from ..errors import Refused
from ..gpus.allocator import Grant
from ..jobs.submission import add_attempt, note_submitted
from ..linux import detached, processes
from ..protocol.submit_request import submit_request, to_be_carried_out
from ..store import records
from ..store.claims import claim_by
from ..store.directories import Attempt, Root
from ..supervise.allocation import Allocation
from ..supervise.supervisor import supervise

if TYPE_CHECKING:
    from ..protocol.settings import Settings
    from ..protocol.spec import Spec

_LOOK_S = 0.5
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def run(*arguments: str, root: Root, program: str, umask: int) -> int:
    """
    Put a script into the queue, and print the id of a process that lives until the script has ended.

    :param umask: the person's own, for the files that the script makes.
    :return: the command's exit status: 0, or 2 when the script can never run here.
    """
    options = _parse(arguments)
    try:
        attempt = _make(root, program, options, umask)
    except Refused as refusal:
        print(f"gpu-run: {refusal.message}", file=sys.stderr)
        return 2
    # A TERM has to wait until the process can handle it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    with records.log_file(attempt.at("supervisor.log")) as log:
        process = detached.start_detached(detached.own_command(program, "wait-and-supervise", attempt.path), out=log)
    detached.leave(process)
    print(process.pid)
    print("output: {}".format(attempt.job.at("logs", "training.log")), file=sys.stderr)
    print("result: {} (SUCCESS or FAILED)".format(attempt.job.at("outputs")), file=sys.stderr)
    return 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = Parser(
        prog="gpu-run",
        description="Run a script on leased GPUs of this host; prints the id of a process to follow.",
        epilog="'gpu-run gc --help' says how to remove old jobs; 'gpu-run rehearse --help', how to interrupt one; "
        "'gpu-run audit --help', how to see who has done what with one; 'gpu-run usage --help', what was used by whom.",
    )
    parser.add_argument("--gpus", type=int, default=1, help="how many whole GPUs (default 1)")
    parser.add_argument("--gpu-type", help="only GPUs whose name contains this")
    parser.add_argument("--memory", type=_bytes, help="limit on host memory, such as 32G (default none)")
    parser.add_argument("--time-limit", type=float, metavar="SECONDS", help="limit on the run time (default none)")
    parser.add_argument("--priority", choices=protocol.PRIORITIES, default="normal")
    parser.add_argument("script", help="the script to run, in the current folder")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="its arguments")
    options = parser.parse_args(arguments)
    if options.gpus < 1:
        parser.error("--gpus must be at least 1")
    if options.time_limit is not None and not 0 < options.time_limit < math.inf:
        parser.error("--time-limit must be a number of seconds, more than 0")
    if not os.path.isfile(options.script):
        parser.error(f"there is no file {os.path.abspath(options.script)}")
    return options


class Parser(argparse.ArgumentParser):
    """Options of a person's call."""

    def error(self, message: str) -> NoReturn:
        """Print what is wrong in one line, and exit."""
        self.exit(2, f"gpu-run: {message} (see gpu-run --help)\n")


def _bytes(text: str) -> int:
    match = re.match(r"^(\d+(?:\.\d+)?)([KMGT]?)(?:i?B)?$", text.strip(), re.IGNORECASE)
    if not match or not float(match.group(1)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size; write 512M or 32G")
    return int(float(match.group(1)) * _UNITS[match.group(2).upper()])


def _make(root: Root, program: str, options: argparse.Namespace, umask: int) -> Attempt:
    pool: Settings | None = records.read_json(os.path.join(root.own, POOL_FILE))
    settings = pool or {}
    spec: Spec = {
        "gpus": options.gpus,
        "gpu_type": options.gpu_type,
        "memory_bytes": options.memory,
        "time_limit_s": options.time_limit,
        "priority": options.priority,
        # The person follows one process, and a next attempt would be another.
        "recover": {},
    }
    engine = HostEngine(root, settings, program)
    engine.check(spec)
    script = os.path.abspath(options.script)
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", os.path.basename(script)).strip("-._")[:60] or "script"
    job = root.job("{}-{}-{}".format(name, time.strftime("%Y%m%dT%H%M%S", time.gmtime()), uuid.uuid4().hex[:8]))
    job.create()
    command = [script] if os.access(script, os.X_OK) else ["bash", script]
    text = "#!/usr/bin/env bash\nexec {}\n".format(" ".join(shlex.quote(word) for word in command + options.arguments))
    request = submit_request(
        job.job_id,
        spec=spec,
        inputs=None,
        env={},
        run_script=text,
        request_key=job.job_id,
        generation="",
        record={"person": processes.user(), "folder": os.getcwd()},
        context={},
    )
    asked = to_be_carried_out(request, settings=settings, umask=umask, program=program)
    asked["cwd"], asked["waiter"] = os.getcwd(), True
    with job.lock():
        attempt = add_attempt(job, engine, asked)
    note_submitted(attempt, asked)
    return attempt


def wait_and_supervise(path: str) -> int:
    """Wait in the queue of the host, then run the attempt: one process with one id does both."""
    attempt = Attempt.at_path(path)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: _give_up(attempt))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    # The claim names this process, so that the attempt does not seem to wait after this process was killed.
    if not attempt.claim(claim_by("waiter")):
        return 0
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    try:
        grant = _wait(attempt)
        supervise(attempt, Allocation(grant.leased, records.now(), grant.fds), waited=True)
    except Exception:
        print(traceback.format_exc(), flush=True)
        attempt.finish(
            protocol.FAILED,
            protocol.LAUNCH_FAILED,
            "it could not be started: " + traceback.format_exc().strip().splitlines()[-1],
        )
        return 1
    return 0


def _wait(attempt: Attempt) -> Grant:
    request = attempt.request()
    queue = RootQueue(Root(os.path.dirname(attempt.job.path)), request["settings"])
    allocator = queue.allocator(f"{os.getuid()}-{os.getpid()}")
    queued = queue.queued_job(attempt, request, allocator.name)
    told = ""
    try:
        while True:
            try:
                grants, waits = allocator.grant([queued])
                if queued in grants:
                    return grants[queued]
                why = waits[queued].why if queued in waits else told
            except (Refused, OSError) as error:
                why = str(error)
            if why != told:
                told = why
                print(records.now(), f"waiting: {told}", flush=True)
            time.sleep(_LOOK_S)
    finally:
        allocator.close()


def _give_up(attempt: Attempt) -> NoReturn:
    attempt.finish(protocol.CANCELLED, protocol.REASON_CANCELLED, "its process was ended while it waited")
    raise SystemExit(0)
