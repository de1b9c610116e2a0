"""
The tracebacks in an output: of Python, in all the forms in which it and its libraries print them.

These are chained exceptions, exception groups, those that a worker process has sent to its parent (multiprocessing,
concurrent.futures, joblib, torch's DataLoader, Ray), those in a box (rich, typer) or behind a prefix (a logger, a
launcher), and what Python says of code that it cannot parse.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple, Sequence

from .output import Line

# How many lines of a message are looked at.
_MOST_LINES = 30
_HEADER = r"Traceback \(most recent call last\)"
_FRAME = r"\s*File \"(?P<path>[^\"\n]+)\", line (?P<line>\d+)(?:, in (?P<function>.*))?$"
_BOXED_FRAME = r"[│|]\s+(?:in )?(?P<path>[^\s:│]+\.py):(?P<line>\d+)(?: in | │)"
_EXCEPTION = r"(?P<type>[A-Za-z_][\w.]*(?:\(\w+\))?)(?:: ?(?P<message>.*))?$"
# What is no name of an exception stands after a traceback only by accident.
_NAMED = (
    r"(?:[\w.]*\.)?\w*(?:Error|Exception|Exit|Interrupt|Warning|Failure|Failed|Timeout|Abort|Iteration|Group|Invalid"
    r"|Killed|Traceback|OutOfMemory|OutOfResources|Fault|gaierror|herror|timeout|error|Disconnected|NotFound|Refused"
    r"|Incomplete\w*|Option|Parameter|BadZipFile|BadGzipFile|Unauthorized|NoSuch\w+|Missing\w*|\w+Canceled|\w+Cancelled"
    r"|Corrupt\w*|Mismatch|Full|Empty|Rejected|Denied|Limit|Required|Hang|Lost|Died|Crashed|NaN)\w{0,12}(?:\(\w+\))?$"
)
_INNER = r"Original Traceback|^-- Process \d+ terminated with the following error"
_CAUSE = "The above exception was the direct cause of the following exception"
_CONTEXT = "During handling of the above exception, another exception occurred"
# What Python prints of exceptions that end nothing.
_ASIDE = (
    r"Exception ignored (?:in|on|while)|Error in atexit\._run_exitfuncs|Exception in thread |Task exception was never"
    r" retrieved|Error in sys\.excepthook|Future exception was never retrieved|--- Logging error ---"
    r"|Exception in callback |Unhandled exception in (?:thread|worker)"
)
_FOREIGN = r"(?:site|dist)-packages/|/lib/python\d|^<|/lib\d*/python|\.pyenv/|/(?:mini|ana)conda\d?/lib/|\.pyx$"
_SYNTAX = r"(?:Syntax|Indentation|Tab)Error: "
_GROUP_LEAF = r"\s*\| +(?P<text>[A-Za-z_][\w.]*(?:: .*)?)$"
_RULE = r"[╭╰─━=*+-]{10}"


class Frame(NamedTuple):
    """
    A place in the code.

    :param path: of the file, as Python shows it.
    :param line: number of the line, from 1.
    """

    path: str
    line: str


class Traceback(NamedTuple):
    """
    An exception with its traceback.

    :param first: number of the first line.
    :param last: number of the line with the exception.
    :param rank: the process that has printed it, where that is marked.
    :param text: type and message, with the lines that may belong to the message.
    :param frames: from the outermost to the innermost.
    :param source: all lines of the traceback.
    :param before: the exception that it was raised from.
    :param is_cause: whether that one is said to be the cause.
    :param is_aside: whether it ended nothing.
    :param parts: of an exception group, the exceptions in it.
    """

    first: int
    last: int
    rank: str
    text: str
    frames: tuple[Frame, ...]
    source: str
    before: Traceback | None = None
    is_cause: bool = False
    is_aside: bool = False
    parts: tuple[str, ...] = ()

    @property
    def headline(self) -> str:
        """Return type and message on one line."""
        return one_line(self.text)

    def place(self, code: str) -> str:
        """
        Return the last place in the user's own code, such as ``train.py:41``; empty when there is none.

        :param code: the folder of the job's code.
        """
        found: Traceback | None = self
        best = ""
        # The same exception is shown twice, or more often, when it has come from another process.
        while found is not None:
            best = _own_place(found.frames, code) or best
            found = found.before if found.is_cause and found.before and _same(found, found.before) else None
        return best


def one_line(text: str) -> str:
    """Return the first line of an exception's text, with the next one if it would say nothing."""
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if len(lines) > 1 and lines[0].endswith(":"):
        return " ".join(lines[:2])
    return lines[0] if lines else ""


def _same(one: Traceback, other: Traceback) -> bool:
    return one.text.split("\n")[0] == other.text.split("\n")[0]


def _own_place(frames: Sequence[Frame], code: str) -> str:
    own = [frame for frame in frames if not re.search(_FOREIGN, frame.path)]
    inside = [frame for frame in own if code and frame.path.startswith(code.rstrip("/") + "/")]
    if not own:
        return ""
    frame = (inside or own)[-1]
    path = os.path.relpath(frame.path, code) if inside else os.path.basename(frame.path)
    return f"{path}:{frame.line}"


def tracebacks_of(lines: Sequence[Line]) -> list[Traceback]:
    """Return the tracebacks that one process has printed, in their order."""
    found: list[Traceback] = []
    at = 0
    while at < len(lines):
        if re.match(_SYNTAX, lines[at].text):
            found.append(_syntax_error(lines, at))
            at += 1
            continue
        header = re.search(_HEADER, lines[at].text) if "Traceback (" in lines[at].text else None
        if header is None:
            at += 1
            continue
        one, at = _one(lines, at, header.start())
        if one is None:
            continue
        previous = found[-1] if found else None
        if previous is not None:
            one = _chained(lines, previous, one)
        found.append(one)
    return found


def _chained(lines: Sequence[Line], previous: Traceback, one: Traceback) -> Traceback:
    """Return a traceback with the one that it belongs to."""
    between = [line.text for line in lines if previous.last < line.number <= one.first]
    if len(between) > _MOST_LINES + 10:
        return one
    joined = "\n".join(between)
    if any(re.search(_INNER, text) for text in between):
        # What the parent says was raised here; `previous` only repeats it.
        return one._replace(first=previous.first, is_aside=previous.is_aside)
    if _CAUSE in joined:
        return one._replace(before=previous, is_cause=True, is_aside=previous.is_aside)
    if _CONTEXT in joined:
        return one._replace(before=previous, is_aside=previous.is_aside)
    return one


def _one(lines: Sequence[Line], start: int, column: int) -> tuple[Traceback | None, int]:
    """Return the traceback that begins with a line, and the index of the first line after it."""
    header = lines[start].text
    if header[:column].strip(" ") and set(header[:column].strip()) <= set("╭┌─━+- "):
        return _boxed(lines, start)
    prefix = header[:column]
    prefix = prefix[: -len("Exception Group ")] if prefix.endswith("Exception Group ") else prefix
    prefix = prefix[: -len("Original ")] if prefix.endswith("Original ") else prefix
    if prefix.strip() == "+":
        return _group(lines, start)
    follows = [line.text for line in lines[start + 1 : start + 4]]
    if prefix and not any(text.startswith(prefix) for text in follows):
        prefix = ""
    frames: list[Frame] = []
    source: list[str] = []
    indent = 0
    at = start + 1
    while at < len(lines):
        text = lines[at].text
        if prefix and not text.startswith(prefix):
            # A line of another process, or of this one's other output.
            if at - start > 500 or not any(line.text.startswith(prefix) for line in lines[at : at + 6]):
                return None, at
            at += 1
            continue
        text = text[len(prefix) :]
        frame = re.match(_FRAME, text)
        if frame:
            if not frames:
                indent = len(text) - len(text.lstrip()) - 2
            frames.append(Frame(frame.group("path"), frame.group("line")))
        elif text.strip() and len(text) - len(text.lstrip()) <= max(indent, 0):
            if not _is_foreign(lines, at, prefix):
                break
        elif not text.strip() and not frames:
            return None, at
        source.append(text)
        at += 1
    if at >= len(lines):
        return None, at
    last = at
    text = lines[at].text[len(prefix) :].strip()
    exception = re.match(_EXCEPTION, text)
    if exception is None or not (frames or re.match(_NAMED, exception.group("type"))):
        return None, at
    message = [text, *_message(lines, at, prefix)]
    inner = _repeated(lines, at, prefix) if exception.group("type").endswith(")") else None
    if inner is not None:
        more, text, last = inner
        frames += more
        message = [text, *_message(lines, last, prefix)]
    return (
        Traceback(
            lines[start].number,
            lines[last].number,
            lines[start].rank or _rank_in(header[:column]),
            "\n".join(message),
            tuple(frames),
            "\n".join(source),
            is_aside=_is_aside(lines, start, prefix),
        ),
        last + 1,
    )


def _is_foreign(lines: Sequence[Line], at: int, prefix: str) -> bool:
    """Return whether a line in the middle of a traceback is another process's."""
    exception = re.match(_EXCEPTION, lines[at].text[len(prefix) :].strip())
    if exception is not None and re.match(_NAMED, exception.group("type")):
        return False
    follows = [line.text[len(prefix) :] for line in lines[at + 1 : at + 4]]
    return any(re.match(_FRAME, text) or text.startswith("    ") for text in follows) and not any(
        re.search(_HEADER, text) for text in follows
    )


def _rank_in(prefix: str) -> str:
    mark = re.search(r"\brank[ =:]?(\d+)", prefix)
    return mark.group(1) if mark else ""


def _is_aside(lines: Sequence[Line], start: int, prefix: str) -> bool:
    before = [line.text for line in lines[max(0, start - 3) : start]]
    return any(re.search(_ASIDE, text) for text in before if text.strip()) and not any(
        re.match(_FRAME, text) for text in before[-1:]
    )


def _message(lines: Sequence[Line], at: int, prefix: str) -> list[str]:
    """Return the lines after an exception, as far as they may belong to its message."""
    found = []
    for line in lines[at + 1 : at + 1 + _MOST_LINES]:
        text = line.text
        if prefix:
            if not text.startswith(prefix):
                break
            text = text[len(prefix) :]
        if re.search(_HEADER, text) or _CAUSE in text or _CONTEXT in text or re.search(_INNER, text):
            break
        found.append(text)
    while found and not found[-1].strip():
        found.pop()
    return found


def _repeated(lines: Sequence[Line], at: int, prefix: str) -> tuple[list[Frame], str, int] | None:
    """Return the frames and the exception that follow Ray's RayTaskError(...), and where that one is."""
    frames: list[Frame] = []
    for index in range(at + 1, min(at + 200, len(lines))):
        text = lines[index].text[len(prefix) :]
        frame = re.match(_FRAME, text)
        if frame:
            frames.append(Frame(frame.group("path"), frame.group("line")))
        elif frames and text.strip() and not text.startswith(" "):
            return (frames, text.strip(), index) if re.match(_EXCEPTION, text.strip()) else None
    return None


def _boxed(lines: Sequence[Line], start: int) -> tuple[Traceback | None, int]:
    """Return the traceback in a box, whose exception stands below it."""
    frames: list[Frame] = []
    source = []
    at = start + 1
    while at < len(lines) and not lines[at].text.startswith(("╰", "└", "+--")):
        frame = re.match(_BOXED_FRAME, lines[at].text)
        if frame:
            frames.append(Frame(frame.group("path"), frame.group("line")))
        source.append(lines[at].text)
        at += 1
    if at + 1 >= len(lines) or not re.match(_EXCEPTION, lines[at + 1].text):
        return None, at + 1
    last = at + 1
    text = "\n".join([lines[last].text, *_message(lines, last, "")])
    first = lines[start]
    aside = _is_aside(lines, start, "")
    one = Traceback(
        first.number, lines[last].number, first.rank, text, tuple(frames), "\n".join(source), is_aside=aside
    )
    return one, last + 1


def _group(lines: Sequence[Line], start: int) -> tuple[Traceback | None, int]:
    """Return the traceback of an exception group."""
    frames: list[Frame] = []
    source: list[str] = []
    texts: list[str] = []
    at = start + 1
    while at < len(lines) and re.match(r"\s*[|+]", lines[at].text):
        text = lines[at].text
        frame = re.match(_FRAME, re.sub(r"^[\s|+-]+", "  ", text))
        leaf = re.match(_GROUP_LEAF, text)
        if frame:
            if len(texts) == 0:
                frames.append(Frame(frame.group("path"), frame.group("line")))
        elif leaf and re.match(r"\s*\| [A-Za-z_]", text) and not re.search(_HEADER, text):
            texts.append(leaf.group("text"))
        source.append(text)
        at += 1
    if not texts:
        return None, at
    headline = texts[0] + (": " + "; ".join(texts[1:]) if len(texts) > 1 else "")
    first = lines[start]
    return (
        Traceback(
            first.number,
            lines[at - 1].number,
            first.rank,
            headline,
            tuple(frames),
            "\n".join(source),
            parts=tuple(texts[1:]),
        ),
        at,
    )


def _syntax_error(lines: Sequence[Line], at: int) -> Traceback:
    """Return what Python says of a script that it cannot parse, which has no traceback."""
    before = lines[max(0, at - 6) : at]
    found = [re.match(_FRAME, line.text) for line in before]
    frames = [Frame(frame.group("path"), frame.group("line")) for frame in found if frame]
    line = lines[at]
    return Traceback(line.number - len(before), line.number, line.rank, line.text, tuple(frames), "")
