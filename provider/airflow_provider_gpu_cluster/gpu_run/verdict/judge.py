"""
The verdict on a job that failed by itself.

What is known beats what was printed: the kernel's kills, the signal, a full disk. Of what was printed, the word closest
to the cause counts: the last exception of the process that failed first, unless the program went on after it.

Patterns of this room are text, which `re` compiles when it is first used, and keeps: each supervisor imports them, and
most jobs do not fail.
"""

from __future__ import annotations

import re
import signal
from typing import Callable, NamedTuple, Sequence

from .. import protocol
from . import aftermath, ranks, signs
from .kinds import KINDS, Kind
from .output import Line, by_process, lines_of
from .refused_options import ADVICE, refused_option
from .tracebacks import Traceback, one_line, tracebacks_of

_MOST_CHARACTERS = 300
# So many lines before a launcher's own exception, or at the end, may be what failed.
_NEAR = 12
_MOST_OF_A_LINE = 1500
_MOST_CONSEQUENCES = 5_000
# They follow from what another process did.
_SECONDARY = ("communication", "interrupted")
_WRITES = r"(?i)writ|\bsave|dump|flush|serializ|iostream|i/o error|\bclose\(|checkpoint|unexpected pos|savez?\("
_OWN_VALUES = r"(?:[\w.]*\.)?(?:Assertion|Attribute|Index|Key|Name|Type|Value|ZeroDivision|Syntax|Import)Error\b"
_BARE = r"(?:[\w.]*\.)?\w*(?:Error|Exception|Interrupt)(?:: |$)"
_CPP = r"terminate called after throwing an instance of '(?P<type>[^']*)'"
_ASSERTION = (
    r".*: .*Assertion [`'].*' failed"
    r"|.{0,80}(?:free\(\)|malloc\(\)|corrupted (?:size|double|unsorted)|stack smashing|double free)"
    r"|Fatal Python error: "
)


class Evidence(NamedTuple):
    """
    What is known of an end.

    :param exit_code: of the code; None after a signal.
    :param number: the signal that ended it.
    :param output: all that it printed, or the end of that.
    :param errors: the same of stderr alone.
    :param main_killed: whether the kernel has killed it for lack of memory.
    :param worker_killed: whether the kernel has killed another process of its for lack of memory.
    :param full: folders without room.
    :param is_over_quota: whether it has no room because of a quota.
    :param code: the folder of its code.
    :param run_script: what was run.
    :param hide: returns a text without the job's secrets.
    """

    exit_code: int | None
    number: int | None
    output: str
    errors: str = ""
    main_killed: bool = False
    worker_killed: bool = False
    full: tuple[str, ...] = ()
    is_over_quota: bool = False
    code: str = ""
    run_script: str = ""
    hide: Callable[[str], str] = str


class Verdict(NamedTuple):
    """Why a job failed; see ``EndFacts``."""

    reason: str
    kind: str
    message: str
    remedy: str


class _Found(NamedTuple):
    """
    What was printed about the cause.

    :param kind: its row; None if there is none for it.
    :param text: what was printed, on one line.
    :param place: in the user's code.
    :param rank: of the process, if known.
    :param is_exception: of Python.
    """

    kind: Kind | None
    text: str
    place: str = ""
    rank: str = ""
    is_exception: bool = False
    source: str = ""


def judge(evidence: Evidence) -> Verdict:
    """Return why a job failed."""
    return _Judge(evidence).verdict()


class _Judge:
    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        code = evidence.exit_code
        self.number = evidence.number
        if self.number is None and code is not None and 128 < code < 128 + signal.NSIG:
            # A shell reports a child's signal in this way.
            self.number = code - 128
        self.lines = lines_of(evidence.output, evidence.hide)
        #: Numbers of the lines of tracebacks.
        self.shown: set[int] = set()
        self.texts = [line.text for line in self.lines]
        self.how = f"signal {signal_name(self.number)}" if self.number is not None else f"exit code {code}"

    def verdict(self) -> Verdict:
        evidence = self.evidence
        if evidence.main_killed:
            return self._said(_row(protocol.OUT_OF_MEMORY), cause="the kernel killed it for lack of memory")
        if evidence.worker_killed:
            cause = f"the kernel killed one of its worker processes for lack of memory ({self.how})"
            return self._said(_row(protocol.OUT_OF_MEMORY), cause=cause)
        found = self._found()
        refused = refused_option(evidence.run_script, "\n".join(self.texts[-400:]))
        if refused is not None and self.number is None:
            message, remedy = ADVICE
            return Verdict(protocol.USER_ERROR, "bad_arguments", message.format(refused, self.how), remedy)
        if found is not None and found.kind is not None and not (self.number and self._is_stronger(found.kind)):
            return self._said(found.kind, found)
        if self._lacks_room(found):
            return self._without_room(found)
        if self.number is not None:
            kind = next((kind for kind in KINDS if self.number in kind.signals), None)
            if kind is not None:
                return self._said(kind, found, cause=f"{kind.cause} ({self.how})")
        return self._unknown(found)

    # -- the sentence --------------------------------------------------------------------------------------------------

    def _said(self, kind: Kind, found: _Found | None = None, cause: str = "") -> Verdict:
        message = cause or kind.cause
        if found is not None and found.text:
            message += f": {self._quoted(found)}"
        if not cause and not (found is not None and found.is_exception and self.evidence.exit_code == 1):
            message += f" ({self.how})"
        return Verdict(kind.reason, kind.name, message, kind.remedy)

    def _unknown(self, found: _Found | None) -> Verdict:
        if found is not None and found.is_exception:
            message = self._quoted(found)
            if self.evidence.exit_code != 1:
                message += f" ({self.how})"
        else:
            said = found.text if found is not None else self._own_words()
            message = f"it ended with {self.how}" + (f": {self._cut(said)}" if said else "")
        return Verdict(protocol.USER_ERROR, protocol.USER_ERROR, message, "")

    def _quoted(self, found: _Found) -> str:
        text = self._cut(found.text)
        if found.place:
            text += f" ({found.place})"
        return text + (f", in rank {found.rank}" if found.rank.isdigit() else "")

    def _cut(self, text: str) -> str:
        return text if len(text) <= _MOST_CHARACTERS else text[:_MOST_CHARACTERS].rstrip() + " ..."

    def _own_words(self) -> str:
        """Return the last line it printed, on stdout if it judges its result there, as stderr may arrive late."""
        for text in self._on_stdout()[-2:][::-1]:
            if aftermath.is_own_verdict(text):
                return self._hidden(text)
        return self._hidden(aftermath.last_words(self.texts))

    def _on_stdout(self) -> list[str]:
        """Return the lines that are on stdout alone."""
        errors = self.evidence.errors.split("\n")
        known = set(errors)
        found = [text for text in self.texts[-1000:] if text.strip() and text not in known]
        if found:
            # Python writes the end of a line by itself, so a line of stderr may stand before it.
            glued = max((line for line in errors[-200:] if line and found[-1].endswith(line)), key=len, default="")
            found[-1] = found[-1][: len(found[-1]) - len(glued)]
        return [text for text in found if text.strip()]

    def _hidden(self, text: str) -> str:
        return one_line(self.evidence.hide(text))

    # -- the disk ------------------------------------------------------------------------------------------------------

    def _lacks_room(self, found: _Found | None) -> bool:
        if not self.evidence.full:
            return False
        if self.number == signal.SIGBUS:
            return True
        if found is None or re.match(_OWN_VALUES, found.text):
            return False
        return re.search(_WRITES, found.text) is not None or re.search(_WRITES, found.source[-2000:]) is not None

    def _without_room(self, found: _Found | None) -> Verdict:
        folder = self.evidence.full[0]
        if folder == "/dev/shm":
            return self._said(_row("shared_memory_full"), found)
        kind = _row("quota" if self.evidence.is_over_quota else protocol.DISK_FULL)
        return self._said(kind._replace(cause=f"{kind.cause} in {folder}"), found)

    # -- what was printed ----------------------------------------------------------------------------------------------

    def _is_stronger(self, kind: Kind) -> bool:
        """Return whether the signal says more than what was printed."""
        row = next((row for row in KINDS if self.number in row.signals), None)
        return row is not None and row.name == kind.name and not kind.raised and not kind.printed

    def _found(self) -> _Found | None:
        """Return what was printed about the cause; None when nothing was."""
        by_system = self._by_system()
        if by_system is not None:
            return by_system
        root = ranks.root_cause(self.lines)
        found = [one for lines in by_process(self.lines) for one in tracebacks_of(lines)]
        if not any(not one.is_aside for one in found) and self.evidence.errors:
            # Lines of stdout may stand in the middle of a traceback.
            lines = lines_of(self.evidence.errors, self.evidence.hide)
            found = [one for one in tracebacks_of(lines) if not one.is_aside]
            found = [one._replace(first=self.lines[-1].number, last=self.lines[-1].number) for one in found]
        found = sorted((one for one in found if not one.is_aside), key=lambda one: one.last)
        self.shown = {number for one in found for number in range(one.first, one.last + 1)}
        chosen = self._chosen([one for one in found if not ranks.is_wrapper(one.text)], root)
        wrapper = next((one for one in reversed(found) if ranks.is_wrapper(one.text)), None)
        if root is not None and root.number is not None and (chosen is None or chosen.rank != root.rank):
            ended = self._by_signal_of(root)
            if ended is not None:
                return ended
        if chosen is not None and self._went_on(chosen, wrapper):
            chosen = None
        if chosen is None:
            printed = self._printed(None if wrapper is None else wrapper.first)
            return printed or (None if wrapper is None else self._of_traceback(wrapper))
        later = self._later(chosen)
        if later is not None:
            return later
        found_one = self._of_traceback(chosen)
        if chosen.text.startswith("KeyboardInterrupt"):
            # Libraries interrupt the program that they are used by, after a word of why.
            found_one = self._printed(chosen.first) or found_one
        if root is not None and not found_one.rank:
            found_one = found_one._replace(rank=root.rank)
        return found_one

    def _by_system(self) -> _Found | None:
        """Return what Slurm's own programs have said about memory."""
        for line in reversed(self.lines[-200:]):
            if re.match(_OF_SLURM, line.text):
                kind = signs.kind_of_line(line.text)
                if kind is KINDS[0]:
                    return _Found(kind, self._hidden(line.text))
        return None

    def _chosen(self, found: Sequence[Traceback], root: ranks.RootCause | None) -> Traceback | None:
        """Return the exception that ended the process that failed first."""
        if not found:
            return None
        if root is not None:
            own = [one for one in found if one.rank == root.rank]
            if own:
                return own[-1]
            if root.number is not None:
                return None
        last = list({one.rank: one for one in found}.values())
        if len(last) == 1 and not (root is not None or ranks.are_several(self.evidence.output)):
            return found[-1]
        candidates = [one for one in found if not one.rank] if len(last) == 1 or root is not None else last
        candidates = sorted(candidates or found, key=lambda one: one.last)
        primary = [one for one in candidates if not self._is_secondary(one)]
        if len(last) > 1 and root is None:
            # Those that are marked with no rank, such as Ray's, belong to one program, whose last word counts.
            if not any(one.rank.isdigit() for one in last):
                return (primary or candidates)[-1]
            return (primary or candidates)[0]
        return (primary or candidates)[-1]

    def _is_secondary(self, one: Traceback) -> bool:
        kind = signs.kind_of_exception(one)
        return kind is not None and kind.name in _SECONDARY

    def _went_on(self, one: Traceback, wrapper: Traceback | None) -> bool:
        end = wrapper.first if wrapper is not None and wrapper.first > one.last else None
        after = [line.text for line in self.lines if line.number > one.last and (end is None or line.number < end)]
        while after and not after[-1].strip():
            after.pop()
        message = one.text.split("\n")[1:]
        # The lines of its message may be there, or its program's next ones.
        if len(after) <= len(message) and "" not in message and signs.kind_of_exception(one) is not None:
            after = [text for text in after if aftermath.is_progress(text)]
        code = self.evidence.exit_code if self.number is None else None
        if code is not None and 0 < code < 126 and wrapper is None and self.evidence.errors.strip():
            # What it printed to stdout later may stand before the exception, as stderr arrives late.
            told = self._on_stdout()
            if (code != 1 and any(map(aftermath.is_own_verdict, told[-2:]))) or any(
                map(aftermath.is_failed_test, told[-1:])
            ):
                return True
        return aftermath.went_on(after, code)

    def _of_traceback(self, one: Traceback) -> _Found:
        kind = signs.kind_of_exception(one)
        text = one_line(self.evidence.hide(one.text))
        named = one
        while kind is not None and signs.kind_of_text(named.text, named.source) is not kind:
            if named.before is None or not named.is_cause:
                break
            named = named.before
        if named is not one:
            text = one_line(self.evidence.hide(named.text))
        return _Found(kind, text, one.place(self.evidence.code), one.rank, True, f"{one.source}\n{one.text}")

    def _by_signal_of(self, root: ranks.RootCause) -> _Found | None:
        """Return how the rank ended that failed first by a signal."""
        if root.number == signal.SIGABRT:
            printed = self._printed(None, anywhere=True)
            if printed is not None:
                return printed._replace(rank=root.rank)
        kind = next((kind for kind in KINDS if root.number in kind.signals), None)
        if kind is None:
            return None
        name = signal_name(root.number)
        one = next(row for row in KINDS if row.name == kind.name and row.raised)
        return _Found(one, f"rank {root.rank} was ended by {name}", is_exception=True)

    def _printed(self, before: int | None, *, anywhere: bool = False) -> _Found | None:
        """
        Return the last line with a sign that nothing but its consequences follow.

        :param before: number of the line at which a launcher's exception begins.
        :param anywhere: it may be followed by anything.
        """
        code = self.evidence.exit_code
        seen = 0
        fallback: _Found | None = None
        for line in self.lines[: -_MOST_CONSEQUENCES - 1 : -1]:
            if before is not None and line.number >= before:
                continue
            text = line.text[:_MOST_OF_A_LINE]
            if line.number in self.shown:
                # It has been judged already.
                continue
            if aftermath.is_noise(text) and not re.match(_CPP, text) and not re.match(_KEPT, text):
                continue
            kind = None if aftermath.is_handled(text) and not re.match(_CPP, text) else signs.kind_of_line(text)
            if kind is None and re.match(_BARE, text):
                kind = signs.kind_of_text(text)
            seen += 1
            if kind is not None and not (kind.exit_code and code == 1 and before is None and seen > 1):
                return _Found(kind, self._hidden(text), rank=line.rank)
            if fallback is None and (re.match(_CPP, text) or re.match(_ASSERTION, text) or re.match(_PANIC, text)):
                fallback = _Found(None, self._hidden(self._whole(line, text)), rank=line.rank)
            is_near = seen <= _NEAR and (anywhere or before is not None or code in (126, 127))
            if not (is_near or anywhere) and not aftermath.is_consequence(text):
                break
        return fallback

    def _whole(self, line: Line, text: str) -> str:
        """Return a line of C++ with what() below it."""
        if not re.match(_CPP, text):
            return text
        at = self.lines.index(line)
        follows = next((one.text.strip() for one in self.lines[at + 1 : at + 3] if "what():" in one.text), "")
        return f"{text} {follows}".strip()

    def _later(self, chosen: Traceback) -> _Found | None:
        """Return a line that counts more than an exception before it, which a script has survived; None without one."""
        if self.number is not None or self.evidence.exit_code == 1:
            return None
        printed = self._printed(None)
        if printed is None or printed.kind is None:
            return None
        at = max((line.number for line in self.lines if line.text.strip() and printed.text in line.text), default=0)
        return printed if at > chosen.last else None


_OF_SLURM = r"(?:slurmstepd(?:-[^\s:]+)?|srun): "
_KEPT = r"srun: error: .*(?:Out Of Memory|Segmentation fault|Bus error)|make: \*\*\* No rule"
_PANIC = (
    r"thread '.*' (?:\(\d+\) )?panicked at|panic: |Error in .* : |ERROR: LoadError: |(?:Uncaught )?\w*Error: "
    r"|Exception in thread \"main\""
)


def _row(name: str) -> Kind:
    """Return the first row of a kind that speaks of the job itself."""
    rows = [kind for kind in KINDS if kind.name == name]
    return next((kind for kind in rows if kind.raised and not kind.within), rows[0])


def signal_name(number: int | None) -> str:
    """Return the name of a signal, or its number where it has none."""
    try:
        return signal.Signals(number or 0).name
    except ValueError:
        return str(number)
