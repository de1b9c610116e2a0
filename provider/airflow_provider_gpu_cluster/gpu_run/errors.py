"""The one exception of this program: a request that is refused, with a code the other side turns into a class."""

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
