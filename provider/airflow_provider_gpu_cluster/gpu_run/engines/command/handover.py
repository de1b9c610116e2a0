"""Hand attempts to the site's launcher: it is called once for each, even if processes die meanwhile."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Sequence

from ... import protocol
from ...errors import Refused
from ...linux import detached, locks, processes, regular_files
from ...store import markers, records
from ...store.directories import Attempt, Root
from ...store.writing import write_text
from ...verdict import log_ends
from ..unstarted import end_unstarted
from .launch_notes import LaunchNotes
from .template import NotGiven, Template, values_of

if TYPE_CHECKING:
    from ...protocol.notes import LaunchNote
    from ...protocol.records import Claim, ProcessIdentity
    from ...protocol.settings import Settings

BY = "command"
# How long a launcher may take to print a process id, and how long to wait for one that has printed it and runs on.
TIMEOUT_S = 60.0
FOREGROUND_S = 3.0
# An array may have hundreds of elements, and other users need the login node, too.
_AT_ONCE = 4
_LOOK_S = 0.02
# How long an attempt waits at most that follows another one, however wrong a clock is, and how often to look.
_LONGEST_PAUSE_S = 600.0
_PAUSE_S = 0.2
_TERM_S = 2.0
_OUTPUTS = ("launcher.out", "launcher.err")
_MOST_READ = 1 << 16
_MOST_LINES = 3
_MOST_CHARACTERS = 600
# A number that is not part of a word, a path, a version, a date or a time.
_NUMBER = re.compile(rb"(?<![\w./-])(?<!\d:)\d+(?![\w/-])(?![.:]\w)")
# The launcher makes files under the umask of the user's login; gpu-run's own files are private.
_WITH_UMASK = ("sh", "-c", 'umask "$1"; shift; exec "$@"', "sh")
_SCRIPT = """\
#!/bin/sh
exec {command} < /dev/null >> {log} 2>&1
"""


def template_of(settings: Settings) -> Template:
    """
    Return the launch command of a cluster.

    :raises Refused: there is none, or it cannot be used.
    """
    text = settings.get("launch_command") or ""
    try:
        return Template(text)
    except ValueError as error:
        raise Refused(
            protocol.GPUS_UNAVAILABLE, f"launch_command {text!r} of the connection cannot be used: {error}"
        ) from None


def program_of(template: Template) -> str:
    """
    Return the path of the launcher.

    :raises Refused: this host has none.
    """
    name = os.path.expanduser(template.program)
    path = shutil.which(name) if os.path.isabs(name) or os.sep not in name else None
    if path is None:
        where = "" if os.sep in name else ", which is {}".format(os.environ.get("PATH", "empty"))
        raise Refused(
            protocol.GPUS_UNAVAILABLE,
            f"there is no program {template.program!r} on {processes.hostname()}; launch_command of the connection "
            "must begin with an absolute path (~ is the home), or with the name of a program in the PATH of "
            f"a login that runs one command{where}",
        )
    return path


def launch_waiting(root: Root) -> int:
    """Hand over the attempts whose own requests died before they could, and those whose time comes soon."""
    Handover(LaunchNotes(root)).launch_waiting()
    return 0


class Handover:
    """Hands the attempts of one root to the launcher."""

    def __init__(self, launches: LaunchNotes) -> None:
        self._notes = launches
        self._gave_no_answer = False

    def note(self, attempt: Attempt) -> None:
        """Note an attempt that is to be handed over."""
        note: LaunchNote = {
            "path": attempt.path,
            "host": processes.hostname(),
            "boot": processes.boot_id(),
            "noted_at": time.time(),
        }
        recovery = attempt.request().get("recovery")
        if recovery is not None:
            note["not_before"] = min(recovery["not_before"], time.time() + _LONGEST_PAUSE_S)
        self._notes.add(attempt, note)

    def launch(self, attempts: Sequence[Attempt]) -> None:
        """
        Hand attempts over, a few at a time; this changes nothing for those that were handed over before, or must wait.

        When the launcher does not answer, the remaining attempts wait until another process looks at them.

        :raises Refused: the launcher failed with one of them, which has ended.
        """
        for attempt in attempts:
            self.note(attempt)
        if len(attempts) == 1:
            self._launch(attempts[0])
            return
        refusals: list[Refused] = []

        def launch(attempt: Attempt) -> None:
            try:
                if not self._gave_no_answer:
                    self._launch(attempt)
            except Refused as refusal:
                refusals.append(refusal)

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(launch, attempts))
        if refusals:
            raise refusals[0]

    def launch_waiting(self) -> None:
        """Hand over the attempts whose own requests died before they could, and those whose time comes soon."""
        os.makedirs(self._notes.folder, exist_ok=True)
        fd = locks.lock(os.path.join(self._notes.folder, "launching.lock"))
        if fd is None:
            return
        try:
            while self._launch_due():
                time.sleep(_PAUSE_S)
        finally:
            os.close(fd)

    def _launch_due(self) -> bool:
        """Hand over the attempts whose time has come; return whether there are others."""
        waiting = False
        for attempt, note in self._notes.all():
            if "process" in note or note["host"] != processes.hostname():
                continue
            if _is_early(note):
                waiting = waiting or attempt.claimed() is None
                continue
            with contextlib.suppress(Refused):
                self._launch(attempt)
        return waiting

    def is_handing_over(self) -> bool:
        """Return whether a process is handing attempts over now."""
        os.makedirs(self._notes.folder, exist_ok=True)
        fd = locks.lock(os.path.join(self._notes.folder, "launching.lock"))
        if fd is not None:
            os.close(fd)
        return fd is None

    def _launch(self, attempt: Attempt) -> None:
        fd = locks.lock(attempt.at("launch.lock"))
        if fd is None:
            # Another process does.
            return
        try:
            note = self._notes.read(attempt)
            if note is None or "process" in note or note["host"] != processes.hostname() or _is_early(note):
                return
            called = None
            if "launcher" not in note:
                if attempt.claimed() is not None:
                    return
                called = self._call(attempt, note)
            self._await(attempt, note, called)
        finally:
            os.close(fd)

    # -- the call ------------------------------------------------------------------------------------------------

    def _call(self, attempt: Attempt, note: LaunchNote) -> subprocess.Popen[bytes]:
        """Call the launcher. It goes on when this process dies, and its output goes to files."""
        try:
            command = self._command(attempt)
        except Refused as refusal:
            self._fail(attempt, refusal.message, refusal.code)
            raise
        if "called_at" not in note:
            # Markers of an earlier attempt would look like this one's end.
            markers.clear(attempt.job.at("outputs"))
        note["called_at"] = note["noted_at"] = time.time()
        note["offsets"] = [_size(attempt.at(name)) for name in _OUTPUTS]
        self._notes.write(attempt, note)
        with records.log_file(attempt.at(_OUTPUTS[0])) as out, records.log_file(attempt.at(_OUTPUTS[1])) as errors:
            try:
                called = detached.start_detached(
                    [*_WITH_UMASK, f"{attempt.request()['umask']:03o}", *command],
                    out=out,
                    errors=errors,
                    cwd=attempt.job.path,
                )
            except OSError as error:
                message = f"its launcher {command[0]} cannot be started: {error.strerror}"
                self._fail(attempt, message)
                raise Refused(protocol.LAUNCH_REFUSED, message) from error
        note["launcher"], note["noted_at"] = processes.identity(called.pid), time.time()
        self._notes.write(attempt, note)
        attempt.event("launcher_called", command=command)
        return called

    def _command(self, attempt: Attempt) -> list[str]:
        request = attempt.request()
        template = template_of(request["settings"])
        # Sites show the script's name in their job lists.
        script = attempt.at(f"{attempt.job.job_id}.sh")
        supervise = detached.own_command(request["program"], "supervise-launched", attempt.path)
        write_text(script, _SCRIPT.format(command=_quoted(supervise), log=_quoted([attempt.at("supervisor.log")])))
        os.chmod(script, 0o700)
        values = values_of(
            request["spec"], request["settings"], script=script, job_id=attempt.job.job_id, job_dir=attempt.job.path
        )
        try:
            return [program_of(template), *template.arguments(values)]
        except NotGiven as error:
            raise Refused(protocol.BAD_REQUEST, str(error)) from None

    def _await(self, attempt: Attempt, note: LaunchNote, called: subprocess.Popen[bytes] | None) -> None:
        """
        Wait for a process id.

        :param called: the launcher, if this process has called it.
        :raises Refused: it printed none.
        """
        code: int | None = None
        while True:
            code = None if called is None else called.poll()
            is_over = code is not None if called is not None else processes.is_alive(note["launcher"]) is False
            pid = _printed_pid(attempt, note)
            claim = attempt.claimed()
            if is_over or (pid is not None and self._stays(note, pid, claim)):
                break
            if claim is not None and claim["by"] != "supervisor":
                # It was cancelled.
                _end(note["launcher"], called)
                return
            if claim is not None and self._is_long(note):
                # The job runs, so nothing the launcher prints matters any more.
                if called is not None:
                    detached.leave(called)
                return
            if time.time() > note["called_at"] + TIMEOUT_S:
                self._gave_no_answer = True
                _end(note["launcher"], called)
                self._refuse(attempt, f"has printed no process id in {TIMEOUT_S:g} s, and was ended")
                return
            time.sleep(_LOOK_S)
        if called is not None and not is_over:
            # Processes that are started later wait for it.
            detached.leave(called)
        if code:
            self._refuse(attempt, f"has ended with exit code {code}")
        elif pid is None:
            self._refuse(attempt, "has printed no process id")
        else:
            self._accept(attempt, note, pid)

    def _stays(self, note: LaunchNote, pid: int, claim: Claim | None) -> bool:
        """Return whether a launcher that has printed an id keeps running as long as the job."""
        return (self._is_long(note) or claim is not None) and not processes.has_ended(pid)

    def _is_long(self, note: LaunchNote) -> bool:
        return time.time() > note["called_at"] + FOREGROUND_S

    def _accept(self, attempt: Attempt, note: LaunchNote, pid: int) -> None:
        launcher = note["launcher"]
        process = processes.identity(pid)
        if launcher["boot"] != process["boot"]:
            # The launcher was called before the host was rebooted.
            process["boot"], process["start"] = launcher["boot"], None
        elif process["start"] is not None and process["start"] < (launcher["start"] or 0):
            self._refuse(
                attempt,
                f"has printed {pid} as the first number, which is an older process. The first whole number it prints "
                "must be the id of a process that lives as long as the job",
            )
            return
        note["process"], note["noted_at"] = process, time.time()
        self._notes.write(attempt, note)
        attempt.event("launched", pid=pid)
        claim = attempt.claimed()
        if claim is not None and claim["by"] != "supervisor":
            # It was cancelled meanwhile.
            end_process(process)

    # -- failures ------------------------------------------------------------------------------------------------

    def _refuse(self, attempt: Attempt, what: str) -> None:
        """End an attempt with which the launcher has failed, unless it runs nevertheless."""
        said = said_by_launcher(attempt)
        message = f"its launcher {what}; " + (f"it said: {said}" if said else "it said nothing")
        if self._fail(attempt, message):
            raise Refused(
                protocol.LAUNCH_REFUSED,
                f"{message} (launch_command is {attempt.request()['settings']['launch_command']!r}; what the launcher "
                f"has printed is in {attempt.at(_OUTPUTS[0])} and {_OUTPUTS[1]})",
            )

    def _fail(self, attempt: Attempt, message: str, code: str = protocol.LAUNCH_REFUSED) -> bool:
        recovery = attempt.request().get("recovery")
        if recovery is not None:
            message = "{}; attempt {}: {}".format(recovery["why"], attempt.number, message)
        attempt.event("launch_failed", message=message, code=code)
        if not end_unstarted(attempt, BY, protocol.FAILED, protocol.LAUNCH_FAILED, message):
            return False
        self._notes.remove(attempt)
        return True


def _is_early(note: LaunchNote) -> bool:
    """Return whether an attempt must still wait before the launcher is called for it."""
    return time.time() < note.get("not_before", 0.0)


def said_by_launcher(attempt: Attempt) -> str:
    """Return the last lines that the launcher has printed, errors last."""
    lines: list[str] = []
    for name in _OUTPUTS:
        text = log_ends.read_end(attempt.at(name), log_ends.TAIL_BYTES).decode("utf-8", "replace")
        lines += [line.strip() for line in text.splitlines() if line.strip()][-_MOST_LINES:]
    return " | ".join(lines)[-_MOST_CHARACTERS:]


def end_process(process: ProcessIdentity) -> None:
    """Tell the launcher's process for an attempt to end, if it still exists and is the same."""
    if processes.is_alive(process):
        processes.send_signal([process["pid"]], signal.SIGTERM)


def end_launcher(launcher: ProcessIdentity) -> None:
    """Tell a launcher that has printed no process id yet to end, with the processes in its group."""
    if processes.is_alive(launcher):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(launcher["pid"], signal.SIGTERM)


def _end(launcher: ProcessIdentity, called: subprocess.Popen[bytes] | None) -> None:
    """Make sure that a launcher has ended."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + _TERM_S
        while time.monotonic() < deadline:
            if called.poll() is not None if called is not None else processes.is_alive(launcher) is False:
                return
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(launcher["pid"], number)
            time.sleep(_LOOK_S)


def _printed_pid(attempt: Attempt, note: LaunchNote) -> int | None:
    """Return the first whole number in the launcher's output, if its line is complete or the launcher has ended."""
    try:
        with os.fdopen(regular_files.open_to_read(attempt.at(_OUTPUTS[0])), "rb") as file:
            file.seek(note["offsets"][0])
            data = file.read(_MOST_READ)
    except OSError:
        return None
    if processes.is_alive(note["launcher"]) is not False:
        data = data[: data.rfind(b"\n") + 1]
    match = _NUMBER.search(data)
    if match is None:
        return None
    pid = int(match.group())
    return pid if 1 < pid < 1 << 31 else None


def _quoted(words: Sequence[str]) -> str:
    return " ".join(shlex.quote(word) for word in words)


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except FileNotFoundError:
        return 0
