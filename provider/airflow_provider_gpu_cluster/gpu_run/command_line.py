"""
The program's two faces: verbs for the Airflow side, and options for a person on the host.

A verb reads one request from standard input and writes one reply. A person's call takes a script, puts it in line
with everybody's jobs, and prints the process id to follow it by.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sys
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, Callable, Mapping, Optional, Tuple

from . import protocol
from .engines import engine_of
from .errors import Refused, traceback_text
from .protocol import lines
from .store.directories import Root

if TYPE_CHECKING:
    from .engines.engine import Engine
    from .protocol import requests
    from .protocol.inputs import UploadInput
    from .protocol.notes import BuildFault
    from .protocol.records import Environment
    from .protocol.replies import SendReply, StageReply, SubmitReply

_HEARTBEAT_S = 5.0
# From linux/fcntl.h; the module has it since Python 3.10. What everybody may ask for.
_F_SETPIPE_SZ = 1031
_PIPE_BYTES = 1 << 20
_MAX_REQUEST = 1 << 28
# How long a scheduler may take to answer.
_PATIENCE_S = 20.0
_WATCH_PATIENCE_S = 0.2

Reply = Tuple[Mapping[str, object], Optional[Callable[[BinaryIO], None]]]


def main(program: str, arguments: list[str]) -> int:
    """
    Run one command.

    :param program: path of the archive this runs from; it lies in ``<root_dir>/.gpu-run/``.
    :return: the process's exit status.
    """
    umask = os.umask(0o077)
    root = Root(os.path.dirname(os.path.dirname(program)))
    verb = arguments[0] if arguments else "--help"
    if verb == "gc" and (len(arguments) > 1 or sys.stdin.isatty()):
        from .cli.gc import run as run_gc

        return run_gc(root, program, arguments[1:])
    if verb in protocol.VERBS:
        return _answer(root, program, verb, umask)
    if verb == "dispatch":
        from .engines.host.dispatcher import dispatch

        dispatch(arguments[1], int(arguments[2]), program)
        return 0
    if verb == "supervise":
        return _supervise(program, arguments[1])
    if verb == "supervise-slurm":
        from .engines.slurm.supervise import supervise_slurm

        return supervise_slurm(arguments[1])
    if verb == "supervise-launched":
        from .engines.command.supervise import supervise_launched

        return supervise_launched(arguments[1])
    if verb == "launch-waiting":
        from .engines.command.launches import Launches
        from .engines.command.launching import Launching

        Launching(Launches(root)).launch_waiting()
        return 0
    if verb == "build-environment":
        return _build_environment(root, arguments[1])
    if verb == "wait-and-supervise":
        from .cli.run import wait_and_supervise

        return wait_and_supervise(arguments[1])
    from .cli.run import run

    return run(root, program, arguments, umask)


def _answer(root: Root, program: str, verb: str, umask: int) -> int:
    """Read a request, carry it out, and write the reply, with a sign of life while that takes long."""
    stream = sys.stdin.buffer
    # Nothing but the reply may get there; what else is printed goes to standard error.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    done = threading.Event()
    heart = threading.Thread(target=_beat, args=(out, done), daemon=True)
    heart.start()
    body: Callable[[BinaryIO], None] | None = None
    request: Any = {}
    try:
        line = stream.readline(_MAX_REQUEST)
        if not line.endswith(b"\n"):
            # The connection went away before the request was whole; nobody is there to be answered.
            return protocol.EXIT_REQUEST_CUT
        request = dict(json.loads(line), umask=umask)
        value, body = _carry_out(root, program, verb, request, stream)
        reply: dict[str, object] = {"ok": value}
    except Refused as refusal:
        reply = {"error": {"code": refusal.code, "message": refusal.message}}
    except Exception as error:
        reply = {
            "error": {
                "code": protocol.INTERNAL,
                "message": f"gpu-run {verb} failed on the cluster: {error!r}\n{traceback_text()}",
            }
        }
    done.set()
    heart.join()
    out.write(protocol.REPLY_MARK + b"\n" + json.dumps(reply).encode("ascii") + b"\n")
    # Who goes on in both directions waits for the reply.
    out.flush()
    if body is not None:
        for fd in (stream.fileno(), out.fileno()):
            _widen(fd)
        body(out)
        out.flush()
    if verb == "submit":
        from .jobs.retention import clear_if_due

        clear_if_due(root, program, request.get("settings", {}))
    return 0


def _widen(pipe: int) -> None:
    """Let sshd go on while this side works on what it has: by default a pipe holds 64 KiB."""
    # It may be no pipe, or its user may have too many of that size.
    with contextlib.suppress(OSError):
        fcntl.fcntl(pipe, _F_SETPIPE_SZ, _PIPE_BYTES)


def _beat(out: BinaryIO, done: threading.Event) -> None:
    while not done.wait(_HEARTBEAT_S):
        out.write(b"\n")
        out.flush()


def _carry_out(root: Root, program: str, verb: str, request: Any, stream: BinaryIO) -> Reply:
    """Carry out a verb. What a request holds is for its verb to say."""
    # Who watches must go on with what else there is to tell.
    patience_s = _WATCH_PATIENCE_S if verb == "watch" else _PATIENCE_S
    engine = engine_of(root, request["settings"], program, patience_s=patience_s)
    if verb == "install-check":
        from .jobs.install_check import check

        return check(root, engine), None
    if verb == "capacity":
        return engine.capacity(), None
    if verb in ("stage", "submit"):
        return _with_inputs(root, program, engine, verb, request, stream)
    if verb == "fill":
        from .staging.receiving import fill

        # It answers when all has come.
        return {}, lambda out: lines.write_line(out, fill(root, stream))
    if verb == "status":
        from .jobs.status import statuses

        look: requests.StatusRequest = request
        return {"jobs": statuses(root, engine, look["job_ids"], look["tail_bytes"])}, None
    if verb == "watch":
        from .jobs.launches import Launches
        from .watch.server import watch

        return {}, lambda out: watch(root, engine, Launches(root, program, request), stream, out)
    if verb == "cancel":
        from .jobs.cancel import cancel

        end: requests.CancelRequest = request
        return {"jobs": cancel(root, engine, end["job_ids"], end["by"], end["wait_s"])}, None
    if verb == "gc":
        from .gc.collection import collect_garbage

        old: requests.GcRequest = request
        settings = request["settings"]
        return collect_garbage(root, settings, program, old["older_than_s"], dry_run=old["dry_run"]), None
    if verb == "logs":
        from .watch.output import open_log, read_logs

        if "jobs" in request:
            replies, pieces = read_logs(root, engine, request)
            return replies, lambda out: out.writelines(pieces)
        value, log = open_log(root, engine, request)
        return value, None if log is None else lambda out: _copy(log, out, value["length"])
    from .outputs.folder import Outputs, OutputsFolder
    from .outputs.sending import answer

    send: requests.SendRequest = request
    folder: Outputs = OutputsFolder(root, send["job_id"])
    elements: list[str] = []
    if not root.job(send["job_id"]).attempts():
        from .outputs.array import ArrayOutputs
        from .store.arrays import elements_of

        elements = elements_of(root.job(send["job_id"]))
        folder = ArrayOutputs(root, elements) if elements else folder
    reply: SendReply = {"entries": folder.entries(), "is_array": bool(elements)} if send["list"] else {}
    # More is asked for when the reply is there, or sooner.
    return reply, lambda out: answer(folder, stream, out)


def _with_inputs(root: Root, program: str, engine: Engine, verb: str, request: Any, stream: BinaryIO) -> Reply:
    """Carry out a verb that may have to wait for inputs from the worker."""
    carry_out = _staging(root, engine, request) if verb == "stage" else _submitting(root, program, engine, request)
    value = carry_out()
    if not value.get("needs"):
        return value, None

    def go_on() -> StageReply | SubmitReply:
        # Sending may have taken long.
        engine.refresh()
        return carry_out()

    def body(out: BinaryIO) -> None:
        from .staging.receiving import receive

        inputs: list[UploadInput] = [request["inputs"][number] for number in value["needs"]]
        receive(root.job(request["job_id"]), inputs, stream, out, go_on)

    return {"needs": value["needs"]}, body


def _staging(root: Root, engine: Engine, request: requests.StageRequest) -> Callable[[], StageReply | SubmitReply]:
    from .jobs.submission import stage

    return partial(stage, root, engine, request)


def _submitting(root: Root, program: str, engine: Engine, request: Any) -> Callable[[], StageReply | SubmitReply]:
    from .protocol.submit_request import to_be_carried_out

    # The same object both times: what the first has noted in it counts for the second.
    asked = to_be_carried_out(request, settings=request["settings"], umask=request["umask"], program=program)
    if asked.get("elements"):
        from .jobs.array_submission import submit_array

        return partial(submit_array, root, engine, asked)
    from .jobs.submission import submit

    return partial(submit, root, engine, asked)


def _copy(source: BinaryIO, out: BinaryIO, length: int) -> None:
    with source:
        out.write(source.read(length))


def _supervise(program: str, path: str) -> int:
    from .engines.host.supervisor_start import run
    from .store.directories import Attempt

    run(program, Attempt.at_path(path), json.load(sys.stdin))
    return 0


def _build_environment(root: Root, path: str) -> int:
    from .environments.environment import BuildFailed, build
    from .store.directories import Attempt

    attempt = Attempt.at_path(path)
    parts = attempt.request()["environment"]
    assert parts is not None, "it needs no environment"
    result: Environment | BuildFault
    try:
        result = build(root, parts, attempt.job.at("code"))
    except (BuildFailed, OSError) as error:
        result = {"error": str(error)}
    print(json.dumps(result))
    return 0
