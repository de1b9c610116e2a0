"""The rows of the table whose signs an exception, or a line of output, has."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Sequence

from .kinds import KINDS, Kind
from .tracebacks import Traceback

# A line without one of these words has no sign in it, which is found out sooner in this way.
_TRIGGERS = (
    r"(?i)err|fail|cannot|can't|could not|unable|denied|not found|no such|memory|kill|cuda|gpu|nccl|hip"
    r"|mpi|core|fault|signal"
    r"|space|quota|full|too |resource|limit|missing|no module|invalid|illegal|unknown|unrecogni|required"
    r"|requires|unexpected"
    r"|nan\b|finite|abort|interrupt|corrupt|truncated|checksum|magic|format|refused|resolve|unreachable"
    r"|timed out|timeout"
    r"|permission|unauthori|forbidden|credential|bad_alloc|alloc|\\r|\r|\^M|package|library|libr|symbol"
    r"|version|eof|unexpected"
    r"|option|argument|override|interpreter|execute|xid|terminat|exception|node|read-only|not permitted"
    r"|locate|rule to"
    r"|in use|not |archive|eaddr|watchdog|gloo|enoent|busy|access|struct|input|alternative|does not exist"
    r"|did not match|not a directory"
)
# Names of programs and places, times, levels of a log, and the like, at the beginning of a line.
_PREFIX = re.compile(
    r"(?:line )?[^\s:'\"]{1,120}:[ \t]+|line \d+:[ \t]+|\[[^\]\n]{1,80}\]:?[ \t]*|<[^>\n]{1,40}>:?[ \t]*"
    r"|(?:[Ff]atal|[Ii]nternal|[Rr]untime|[Uu]nhandled|[Uu]ncaught|HTTP) [Ee](?:rror|xception):[ \t]+"
    r"|(?:ERROR|Error|FATAL|Fatal|CRITICAL|Critical|E|F)\b[:\]]?[ \t]+|[\d\-T:.,/]{4,30}[ \t]+|[ \t│|]+"
)
_MOST_PREFIXES = 7
# Exceptions about a program's own values: their messages may quote anything. Only signs that name them count.
_OWN_VALUES = (
    r"(?:[\w.]*\.)?((?:Assertion|Attribute|Index|Key|Lookup|Name|Type|Value|Unicode\w*|JSONDecode"
    r"|ZeroDivision)Error)\b"
)


@lru_cache(maxsize=None)
def _compiled(signs: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{sign})" for sign in signs))


def kind_of_exception(one: Traceback) -> Kind | None:
    """Return the row of an exception, or of the one that is said to be its cause."""
    if one.parts:
        rows = [kind_of_text(part) for part in one.parts]
        return rows[0] if rows[0] and all(row and row.name == rows[0].name for row in rows) else None
    found = kind_of_text(one.text, one.source)
    if found is None and one.is_cause and one.before is not None:
        return kind_of_exception(one.before)
    return found


def kind_of_text(text: str, source: str = "") -> Kind | None:
    """
    Return the row of an exception.

    :param text: its type and message.
    :param source: its traceback.
    """
    own = re.match(_OWN_VALUES, text)
    for kind in KINDS:
        named = kind.raised if own is None else tuple(sign for sign in kind.raised if own.group(1) in sign)
        if named and _compiled(named).match(text) and re.search(kind.within, source + text):
            return kind
    return None


def kind_of_line(text: str) -> Kind | None:
    """Return the row of a line of output."""
    if not re.search(_TRIGGERS, text):
        return None
    starts = _starts(text)
    for kind in KINDS:
        if kind.printed:
            pattern = _compiled(kind.printed)
            if any(pattern.match(text, start) for start in starts):
                return kind
    return None


def _starts(text: str) -> Sequence[int]:
    """Return where the message of a line may begin."""
    found = [0]
    while len(found) <= _MOST_PREFIXES:
        prefix = _PREFIX.match(text, found[-1])
        if prefix is None or prefix.end() >= len(text):
            break
        found.append(prefix.end())
    return found
