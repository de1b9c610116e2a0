"""Which files of a folder are not sent: built-in patterns and the folder's own ``.gpujobignore``."""

from __future__ import annotations

import os

import pathspec

from airflow_provider_gpu_cluster.exceptions import SourceError

IGNORE_FILE = ".gpujobignore"

# No job needs these files, and they change on their own, which would defeat the cache of inputs.
DEFAULT_PATTERNS = (
    ".git",
    ".hg/",
    ".svn/",
    "__pycache__/",
    ".gpu-collect/",
    "*.py[co]",
    ".ipynb_checkpoints/",
    ".mypy_cache/",
    ".pytest_cache/",
    ".ruff_cache/",
    ".DS_Store",
)


class Ignore:
    """
    The excludes of one folder, in the syntax of ``.gitignore``.

    Virtual environments (any folder with a ``pyvenv.cfg``) are excluded too: they are large, and work only on the
    machine they were made on. ``!`` patterns in ``.gpujobignore`` bring back what is excluded by default.

    :param lines: patterns, which follow the built-in ones and so override them.
    :raises SourceError: a line is not a pattern.
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

        :raises SourceError: its ``.gpujobignore`` cannot be read, or a line in it is not a pattern.
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
        """Return whether the file or link at this path, relative to the folder, is excluded."""
        return bool(self._spec.check_file(_matchable(path)).include)

    def skips_folder(self, path: str, real_path: str) -> bool:
        """Return whether the folder at this path, which on this machine is ``real_path``, is excluded."""
        decision = self._spec.check_file(_matchable(path) + "/").include
        if decision is None:
            return os.path.lexists(os.path.join(real_path, "pyvenv.cfg"))
        return decision

    def brings_back(self, path: str) -> bool:
        """Return whether a pattern says that the folder at this path is sent, whatever is in it."""
        return self._spec.check_file(_matchable(path) + "/").include is False


def _matchable(path: str) -> str:
    """
    Replace characters that patterns cannot match: newlines, and the escapes of bytes that are not UTF-8.

    Wildcards match the replacement, so ``*.log`` finds such names too.
    """
    return path.replace("\n", "\ufffd").encode("utf-8", "replace").decode("utf-8")
