"""Which files of a folder stay at home: built-in patterns and the folder's own ``.gpujobignore``."""

from __future__ import annotations

import os

import pathspec

from airflow_provider_gpu_cluster.exceptions import SourceError

IGNORE_FILE = ".gpujobignore"

# Nothing here belongs to a job, and all of it changes on its own, which would defeat the cache of inputs.
DEFAULT_PATTERNS = (
    ".git",
    ".hg/",
    ".svn/",
    "__pycache__/",
    "*.py[co]",
    ".ipynb_checkpoints/",
    ".mypy_cache/",
    ".pytest_cache/",
    ".ruff_cache/",
    ".DS_Store",
)


class Ignore:
    """
    The excludes of one folder, in the language of ``.gitignore``.

    Virtual environments (any folder with a ``pyvenv.cfg``) stay at home too: they are large, and bound to the
    machine they were made on. ``!`` patterns in ``.gpujobignore`` bring back what is left out by default.

    :param lines: patterns, which come after the built-in ones and so win over them.
    :raises SourceError: a line is no pattern.
    """

    def __init__(self, lines: list[str], where: str = IGNORE_FILE) -> None:
        for number, line in enumerate(lines, 1):
            try:
                pathspec.GitIgnoreSpec.from_lines([line])
            except ValueError as error:
                raise SourceError(
                    f"{where!r}, line {number}: {line!r} is no .gitignore pattern ({error}); correct it"
                ) from error
        self._spec = pathspec.GitIgnoreSpec.from_lines([*DEFAULT_PATTERNS, *lines])

    @classmethod
    def of_folder(cls, folder: str) -> Ignore:
        """
        Read the excludes of a folder.

        :raises SourceError: its ``.gpujobignore`` cannot be read or holds something that is no pattern.
        """
        path = os.path.join(folder, IGNORE_FILE)
        try:
            with open(path, encoding="utf-8-sig", errors="surrogateescape") as stream:
                lines = [_matchable(line.rstrip("\n")) for line in stream]
        except FileNotFoundError:
            lines = []
        except OSError as error:
            raise SourceError(f"cannot read {path!r}: {error.strerror}; make it readable") from error
        return cls(lines, path)

    def skips_file(self, path: str) -> bool:
        """Return whether the file or link at this path, relative to the folder, stays at home."""
        return bool(self._spec.check_file(_matchable(path)).include)

    def skips_folder(self, path: str, real_path: str) -> bool:
        """Return whether the folder at this path, which on this machine is ``real_path``, stays at home."""
        decision = self._spec.check_file(_matchable(path) + "/").include
        if decision is None:
            return os.path.lexists(os.path.join(real_path, "pyvenv.cfg"))
        return decision


def _matchable(path: str) -> str:
    """
    Replace what a pattern cannot be matched against: a newline, and the escapes of bytes that are no UTF-8.

    Wildcards match the replacement, so ``*.log`` finds such names too.
    """
    return path.replace("\n", "\ufffd").encode("utf-8", "replace").decode("utf-8")
