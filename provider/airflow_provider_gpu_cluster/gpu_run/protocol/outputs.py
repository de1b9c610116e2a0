"""A job's outputs on their way: what is listed, and what announces a file; see :mod:`.outputs.sending`."""

from __future__ import annotations

from typing import Any, TypedDict, final


class _OutputEntry(TypedDict):
    path: str
    kind: str
    size: int
    mode: int


class OutputEntry(_OutputEntry, total=False):
    """
    An output that is no folder.

    :param kind: ``file``, or why it cannot be sent: ``outside`` for a link that leaves the folder, ``broken``,
        ``special``, ``unreadable``.
    :param target: of a link.
    :param stamp: of a file that is not small: what changes when it does.
    :param needs: of such a file: how many bytes it takes on a disk.
    """

    target: str
    stamp: str
    needs: int


class FileHeader(TypedDict):
    """
    What stands before a file that comes in pieces.

    :param file: its number.
    :param at: where what is sent begins, and ``until``, where it ends.
    """

    file: int
    size: int
    mode: int
    stamp: str
    at: int
    until: int


@final
class FilesRequest(TypedDict):
    """
    Files to be sent, in their order.

    :param files: of each its path, from which byte on, its stamp and, of a part of it, the end and perhaps the start.
    """

    files: list[list[Any]]


@final
class ChecksumsRequest(TypedDict):
    """Files whose SHA-256 is asked for."""

    checksums_of: list[str]
