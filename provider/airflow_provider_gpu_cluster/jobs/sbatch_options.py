"""Free options of ``sbatch``: which may be given, and which are gpu-run's own."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

VALID = "options of sbatch, such as ['--reservation=maintenance', '--exclude=gpu07'], or one text"

# With these gpu-run tells its jobs apart, finds what they print, keeps secrets out and reads what sbatch answers.
RESERVED = (
    "--array",
    "--chdir",
    "--clusters",
    "--comment",
    "--error",
    "--export",
    "--export-file",
    "--get-user-env",
    "--help",
    "--input",
    "--job-name",
    "--open-mode",
    "--output",
    "--parsable",
    "--quiet",
    "--test-only",
    "--usage",
    "--verbose",
    "--version",
    "--wait",
    "--wrap",
)
_RESERVED_LETTERS = "aDMeihJoQvVW"


def sbatch_options(value: str | Sequence[str]) -> tuple[str, ...]:
    """
    Check free options of sbatch.

    :param value: the words, or one text of them as a shell would read it.
    :raises ValueError: one of them cannot be given.
    """
    words = shlex.split(value) if isinstance(value, str) else list(value)
    for word in words:
        if not word.isprintable():
            raise ValueError(f"{word!r} is not printable; valid are {VALID}")
        name = word.partition("=")[0]
        if name in RESERVED or (len(word) > 1 and word[0] == "-" and word[1] in _RESERVED_LETTERS):
            raise ValueError(f"{name} is an option that gpu-run sets itself; leave it out")
    if words and not words[0].startswith("-"):
        raise ValueError(f"{words[0]!r} is no option; valid are {VALID}")
    return tuple(words)
