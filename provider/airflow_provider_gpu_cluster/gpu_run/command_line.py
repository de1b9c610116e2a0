"""
The program's two interfaces: verbs for the Airflow side, and options for a person on the host.

A verb of the Airflow side reads one request from standard input and writes one reply; with the other verbs the program
starts itself. A person's call takes a script, puts it in the queue with all other jobs, and prints the id of a process
to follow it by.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import json
import os
import sys
import threading
from typing import TYPE_CHECKING, Any, BinaryIO, Callable, NamedTuple

from . import protocol
from .errors import Refused
from .reply import Reply
from .store.directories import Root
from .store.safe_folders import check_own

if TYPE_CHECKING:
    from .protocol.replies import Fault

_HEARTBEAT_S = 5.0
# From linux/fcntl.h; the module has it since Python 3.10. The size is what every user may ask for.
_F_SETPIPE_SZ = 1031
_PIPE_BYTES = 1 << 20
_MAX_REQUEST = 1 << 28


class Verb(NamedTuple):
    """
    The function that carries out a verb. Its module is imported when needed, since each call starts a process.

    :param module: its name in this package.
    :param function: its name there. It gets what it needs by name, and the arguments of the command line in order.
    :param needs: which of these to call it with: ``root``, ``program`` (the path of this program) and ``umask`` (the
        login's); for a verb of the Airflow side also its ``request``, the ``stream`` that it was read from, the
        ``engine`` that it names, and ``verbs``, which carries out others.
    :param is_asked: whether the Airflow side calls it. It then returns a :class:`.Reply`; other verbs return an exit
        status.
    :param engine_timeout_s: how long the engine may wait for a scheduler's answer, in seconds.
    :param clears: whether to start garbage collection afterwards, if the connection wants it and it is due.
    """

    module: str
    function: str
    needs: tuple[str, ...] = ()
    is_asked: bool = True
    engine_timeout_s: float = 20.0
    clears: bool = False

    def work(self) -> Callable[..., Any]:
        """Return the function that does the work."""
        module = __import__(f"{__package__}.{self.module}", fromlist=[self.function])
        work: Callable[..., Any] = getattr(module, self.function)
        if not gc.isenabled():
            # The program starts without, see __main__.py.
            gc.freeze()
            gc.enable()
        return work


_WITH_INPUTS = ("root", "engine", "program", "request", "stream")

VERBS = {
    "install-check": Verb("jobs.install_check", "answer", ("root", "engine")),
    "capacity": Verb("engines.capacity", "answer", ("engine",)),
    # Who chooses among several clusters waits only for a moment.
    "appraise": Verb("jobs.appraisal", "answer", ("root", "engine", "request"), engine_timeout_s=2.0),
    "overview": Verb("jobs.overview", "answer", ("root", "engine", "request")),
    "audit": Verb("jobs.audit", "answer", ("root", "request")),
    "totals": Verb("jobs.totals", "answer", ("root", "engine", "program")),
    "stage": Verb("jobs.with_inputs", "stage", _WITH_INPUTS),
    "submit": Verb("jobs.with_inputs", "submit", _WITH_INPUTS, clears=True),
    "resubmit": Verb("jobs.resubmission", "answer", ("root", "engine", "program", "request")),
    "fill": Verb("staging.fill", "answer", ("root", "stream")),
    "status": Verb("jobs.status", "answer", ("root", "engine", "request")),
    # A watch must not wait long, as it has other news to send.
    "watch": Verb("watch.server", "answer", (*_WITH_INPUTS, "verbs"), engine_timeout_s=0.2),
    "look-on": Verb("watch.followed_job", "answer", ("root", "engine", "request")),
    "logs": Verb("watch.output", "answer", ("root", "engine", "request")),
    "read-log": Verb("jobs.log_window", "answer", ("root", "request")),
    "copy-log": Verb("jobs.log_copy", "answer", ("root", "request")),
    "search-log": Verb("jobs.log_search", "answer", ("root", "request")),
    "place": Verb("jobs.placing", "answer", ("root", "engine", "request")),
    "renew": Verb("jobs.renewing", "answer", ("root", "engine", "request")),
    "cancel": Verb("jobs.cancel", "answer", ("root", "engine", "request")),
    "jobs": Verb("jobs.listing", "answer", ("root", "engine", "program", "request")),
    "usage": Verb("jobs.usage", "answer", ("root", "request")),
    "describe-job": Verb("jobs.describe", "answer", ("root", "engine", "request")),
    "read-ledger": Verb("jobs.ledger_reading", "answer", ("root", "request")),
    "interrupt": Verb("jobs.interrupt", "answer", ("root", "request")),
    "told": Verb("jobs.notices", "answer", ("root", "request")),
    "send": Verb("outputs.send", "answer", ("root", "request", "stream")),
    "carry-out": Verb("jobs.carrying", "answer_out", ("root", "request", "stream")),
    "carry-in": Verb("jobs.carrying", "answer_in", _WITH_INPUTS),
    "read-series": Verb("series.reading", "answer", ("root", "request")),
    "list-outputs": Verb("jobs.output_list", "answer", ("root", "request")),
    "read-output": Verb("jobs.output_reading", "answer_read", ("root", "request")),
    "send-output": Verb("jobs.output_reading", "answer_send", ("root", "request")),
    "read-metrics": Verb("jobs.final_metrics", "answer", ("root", "request")),
    "list-elements": Verb("jobs.elements", "answer", ("root", "request")),
    "gc": Verb("gc.collection", "answer", ("root", "program", "request")),
    # With the following verbs the program starts itself.
    "dispatch": Verb("engines.host.dispatcher", "dispatch", ("program",), is_asked=False),
    "supervise": Verb("engines.host.supervisor_start", "supervise_leased", ("program",), is_asked=False),
    "supervise-slurm": Verb("engines.slurm.supervise", "supervise_slurm", is_asked=False),
    "run-on-node": Verb("supervise.node_run", "run_on_node", ("umask",), is_asked=False),
    "supervise-launched": Verb("engines.command.supervise", "supervise_launched", is_asked=False),
    "may-start": Verb("supervise.start_check", "may_start", is_asked=False),
    "launch-waiting": Verb("engines.command.handover", "launch_waiting", ("root",), is_asked=False),
    "build-environment": Verb("environments.builds", "build_and_print", ("root",), is_asked=False),
    "wait-and-supervise": Verb("cli.run", "wait_and_supervise", is_asked=False),
}
# A person's calls.
_CLI_GC = Verb("cli.gc", "run", ("root", "program"), is_asked=False)
_CLI_REHEARSE = Verb("cli.rehearse", "run", ("root",), is_asked=False)
# They change nothing, so that an empty request may be taken for a person's call.
_CLI_LOOKS = {
    "usage": Verb("cli.usage", "run", ("root",), is_asked=False),
    "audit": Verb("cli.audit", "run", ("root",), is_asked=False),
}
_CLI_RUN = Verb("cli.run", "run", ("root", "program", "umask"), is_asked=False)


def main(program: str, arguments: list[str]) -> int:
    """
    Run one command.

    :param program: path of the archive this runs from; it lies in ``<root_dir>/.gpu-run/``.
    :return: the process's exit status.
    """
    given = {"umask": os.umask(0o077), "program": program, "root": Root(os.path.dirname(os.path.dirname(program)))}
    name = arguments[0] if arguments else "--help"
    if name == "gc" and (len(arguments) > 1 or sys.stdin.isatty()):
        return _start(_CLI_GC, given, arguments[1:])
    if name in _CLI_LOOKS and (len(arguments) > 1 or sys.stdin.isatty() or _is_empty(sys.stdin.buffer)):
        return _start(_CLI_LOOKS[name], given, arguments[1:])
    if name == "rehearse":
        return _start(_CLI_REHEARSE, given, arguments[1:])
    verb = VERBS.get(name)
    if verb is None:
        return _start(_CLI_RUN, given, arguments)
    return _answer(name, verb, given) if verb.is_asked else _start(verb, given, arguments[1:])


def _is_empty(stream: Any) -> bool:
    """Return whether there is nothing to read: a person's call may have no terminal, as in a cron job."""
    return not stream.peek(1)


def _start(verb: Verb, given: dict[str, Any], arguments: list[str]) -> int:
    """Do the work of a verb, and return the exit status."""
    status: int = verb.work()(*arguments, **{need: given[need] for need in verb.needs})
    return status


def _answer(name: str, verb: Verb, given: dict[str, Any]) -> int:
    """Read a request, carry it out, and write the reply; give signs of life while that takes long."""
    stream = sys.stdin.buffer
    # Standard output is only for the reply; other output goes to standard error.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    done = threading.Event()
    heart = threading.Thread(target=_beat, args=(out, done), daemon=True)
    heart.start()
    body: Callable[[BinaryIO], object] | None = None
    request: dict[str, Any] = {}
    try:
        line = b"\n"
        while line == b"\n":
            # Answers to what the login shell may have asked, and has not.
            line = stream.readline(_MAX_REQUEST)
        if not line.endswith(b"\n"):
            # The connection broke before the request was complete; nobody waits for a reply.
            return protocol.EXIT_REQUEST_CUT
        request = dict(_parsed(line), umask=given["umask"])
        value, body = _carry_out(verb, dict(given, request=request, stream=stream, verbs=_OtherVerbs(given, request)))
        reply: dict[str, object] = {"ok": value}
    except Exception as error:
        reply = {"error": _fault(name, error, given["root"])}
    done.set()
    heart.join()
    out.write(protocol.REPLY_MARK + b"\n" + json.dumps(reply).encode("ascii") + b"\n")
    # A client that goes on in both directions waits for the reply.
    out.flush()
    if body is not None:
        for fd in (stream.fileno(), out.fileno()):
            _widen(fd)
        body(out)
        out.flush()
    if verb.clears:
        from .jobs.retention import clear_if_due

        clear_if_due(given["root"], given["program"], request.get("settings", {}))
    return 0


class _OtherVerbs:
    """Verbs that are carried out for one that goes on."""

    def __init__(self, given: dict[str, Any], asked: dict[str, Any]) -> None:
        self._given = given
        self._asked: dict[str, Any] = {name: asked[name] for name in ("settings", "caller", "umask") if name in asked}

    def prepare(self, name: str) -> None:
        """Import what a verb needs."""
        VERBS[name].work()

    def answer(self, name: str, request: dict[str, Any]) -> dict[str, Any]:
        """Return the reply of a verb, without the bytes that may follow it, or the fault."""
        try:
            full: dict[str, Any] = {**request, **self._asked}
            given = dict(self._given, request=full)
            return {"reply": _carry_out(VERBS[name], given).value}
        except Exception as error:
            fault = _fault(name, error, self._given["root"])
            return {"code": fault["code"], "message": fault["message"]}


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        return dict(json.loads(line))
    except (ValueError, TypeError, RecursionError) as error:
        raise Refused(
            protocol.BAD_REQUEST,
            f"the request did not arrive as it was sent ({error}); see whether a start file of the login shell there "
            "reads standard input",
        ) from error


def _fault(name: str, error: Exception, root: Root) -> Fault:
    from .store.writing import fault_of

    fault = fault_of(error, f"gpu-run {name}", root.path)
    if name in protocol.LOOKS and fault["code"] in (protocol.NO_SPACE, protocol.ROOT_NOT_WRITABLE):
        fault["code"] = protocol.PASSING_FAULT
    return fault


def _carry_out(verb: Verb, given: dict[str, Any]) -> Reply:
    check_own(given["root"].cache)
    _keep_budget(given)
    if "engine" in verb.needs:
        from .engines import engine_of

        settings = given["request"]["settings"]
        given["engine"] = engine_of(given["root"], settings, given["program"], timeout_s=verb.engine_timeout_s)
    reply: Reply = verb.work()(**{need: given[need] for need in verb.needs})
    return reply


def _keep_budget(given: dict[str, Any]) -> None:
    """Keep the budget of GPU-hours of the connection, by which jobs go that wait for it."""
    root, settings = given["root"], given["request"].get("settings") or {}
    if settings.get("gpu_hours_budget") is not None or os.path.isdir(os.path.join(root.own, "budgets")):
        from .store.budgets import keep_budget

        keep_budget(root.own, given["request"])


def _widen(pipe: int) -> None:
    """Let sshd go on while this side works on its data: by default a pipe holds 64 KiB."""
    # It may not be a pipe, or its user may have too many of that size.
    with contextlib.suppress(OSError):
        fcntl.fcntl(pipe, _F_SETPIPE_SZ, _PIPE_BYTES)


def _beat(out: BinaryIO, done: threading.Event) -> None:
    while not done.wait(_HEARTBEAT_S):
        out.write(b"\n")
        out.flush()
