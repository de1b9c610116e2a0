"""Free options of ``sbatch``: which ones a user may give, and which ones gpu-run sets."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

VALID = "options of sbatch, such as ['--reservation=maintenance', '--exclude=gpu07'], or one text"

# gpu-run uses these to identify its jobs, find their output, keep secrets out and read the answers of sbatch.
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
    :raises ValueError: one of them is not allowed.
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
