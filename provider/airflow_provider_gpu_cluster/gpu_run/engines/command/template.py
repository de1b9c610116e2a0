"""``launch_command``: the site's own command, with placeholders for what a job asks for. Nothing here runs anything."""

from __future__ import annotations

import math
import re
import shlex
from typing import TYPE_CHECKING, Dict, NamedTuple, Optional

from ...protocol.grace import grace_s

if TYPE_CHECKING:
    from ...protocol.settings import Settings
    from ...protocol.spec import Spec

PLACEHOLDERS = ("gpus", "gpu_type", "cpus", "memory", "time_limit", "priority", "script", "job_id", "job_dir")
VALID = "valid are {}, and {{{{ and }}}} for braces themselves".format(
    ", ".join("{" + name + "}" for name in PLACEHOLDERS)
)

# The launcher's limits are wider than the supervisor's, so that the supervisor is the one to say why a job ended.
_MORE_TIME_S = 120.0
_MORE_MEMORY = 128 << 20
_PARTS = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]|[^{}]+")
_NAMED = re.compile(r"[A-Za-z_][\w.-]*=")

Values = Dict[str, Optional[str]]


class NotGiven(ValueError):
    """The launcher needs a value that the job does not give."""


class Word(NamedTuple):
    """
    A word of the command.

    :param written: as it is in the template.
    :param parts: its text and placeholders: for each, whether it is a placeholder, and the text or the name.
    """

    written: str
    parts: tuple[tuple[bool, str], ...]

    @property
    def names(self) -> list[str]:
        """The names of its placeholders."""
        return [text for is_placeholder, text in self.parts if is_placeholder]

    @property
    def is_bare_option(self) -> bool:
        """Whether it is an option whose value is the next word."""
        return self.written.startswith("-") and self.written != "--" and "=" not in self.written and not self.names

    @property
    def names_its_value(self) -> bool:
        """Whether it is an option together with its value, or such as ``NAME=value``."""
        is_placeholder, text = self.parts[0]
        return not is_placeholder and (text.startswith("-") or _NAMED.match(text) is not None)

    def filled(self, values: Values) -> str:
        """Return the word with values in place of its placeholders."""
        return "".join(str(values[text]) if is_placeholder else text for is_placeholder, text in self.parts)


class Template:
    """
    A launch command.

    It is split into words as a shell would, and each placeholder is filled into its word unchanged: no value becomes
    several words, and no shell interprets it.

    :raises ValueError: it cannot be used; the message says why.
    """

    def __init__(self, text: str) -> None:
        try:
            self._words = [_parse(word) for word in shlex.split(text)]
        except ValueError as error:
            if "quotation" not in str(error) and "escaped" not in str(error):
                raise
            raise ValueError(f"its quotes do not match ({error})") from None
        if not self._words:
            raise ValueError("it is empty")
        if self._words[0].names:
            raise ValueError(f"it begins with {self._words[0].written!r}, which must be a program")
        if not self.has("script"):
            raise ValueError(f"it has no {{script}}, the path of what it is to run; {VALID}")

    def has(self, name: str) -> bool:
        """Return whether it has that placeholder."""
        return any(name in word.names for word in self._words)

    @property
    def program(self) -> str:
        """The program it begins with."""
        return self._words[0].filled({})

    def arguments(self, values: Values) -> list[str]:
        """
        Return the words after the program.

        An option whose placeholder has no value is left out, and so is ``NAME={placeholder}``. A placeholder alone in a
        word after an option is left out with that option.

        :param values: of every placeholder; None where the job gives none.
        :raises NotGiven: a word whose placeholder has no value cannot be left out.
        """
        arguments: list[str] = []
        for before, word in zip(self._words, self._words[1:]):
            missing = [name for name in word.names if values[name] is None]
            if not missing:
                arguments.append(word.filled(values))
                continue
            has_others = len(missing) < len(word.names)
            if before.is_bare_option and before is not self._words[0] and not has_others:
                arguments.pop()
            elif has_others or not word.names_its_value:
                name = missing[0]
                raise NotGiven(
                    f"{name} must be given here: launch_command has it in {word.written!r}, which cannot be left out. "
                    f"Only an option with its value can be, such as '--{name} {{{name}}}' or '--{name}={{{name}}}'"
                )
        return arguments


def _parse(word: str) -> Word:
    parts: list[tuple[bool, str]] = []
    for match in _PARTS.finditer(word):
        text = match.group()
        if text in ("{{", "}}"):
            parts.append((False, text[0]))
        elif match.group(1) is not None:
            if match.group(1) not in PLACEHOLDERS:
                raise ValueError(f"there is no placeholder {text}; {VALID}")
            parts.append((True, match.group(1)))
        elif text in "{}":
            raise ValueError(f"{word!r} has a {text} that belongs to no placeholder; {VALID}")
        else:
            parts.append((False, text))
    return Word(word, tuple(parts) or ((False, ""),))


def values_of(spec: Spec, settings: Settings, *, script: str, job_id: str, job_dir: str) -> Values:
    """
    Return the values of the placeholders for a job.

    :param spec: what it asks for.
    :param settings: of the cluster.
    :param script: path of the script that the launcher is to run.
    """
    memory, time_limit = spec.get("memory_bytes"), spec.get("time_limit_s")
    ending_s = grace_s(spec, settings) + _MORE_TIME_S
    return {
        "gpus": str(spec["gpus"]),
        "gpu_type": spec.get("gpu_type") or None,
        "cpus": str(spec["cpus"]) if spec.get("cpus") else None,
        "memory": _size(memory + _MORE_MEMORY) if memory else None,
        "time_limit": str(math.ceil(time_limit + ending_s)) if time_limit else None,
        "priority": spec.get("priority") or "normal",
        "script": script,
        "job_id": job_id,
        "job_dir": job_dir,
    }


def _size(count: int) -> str:
    mebibytes = -(-count // 2**20)
    return f"{mebibytes}M" if mebibytes % 1024 else f"{mebibytes // 1024}G"
