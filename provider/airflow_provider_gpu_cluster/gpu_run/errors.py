"""Failures: a refused request, with a code that the other side turns into a class, and unexpected errors."""

from __future__ import annotations


class Refused(Exception):
    """
    A request cannot be carried out.

    :param code: one of the error codes in :mod:`.protocol`.
    :param message: what happened, where, and what to do next, for a person.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def traceback_text() -> str:
    """Return the traceback of the exception that is being handled."""
    # Imported late, as it is seldom needed: every request starts a process.
    import traceback

    return traceback.format_exc()
