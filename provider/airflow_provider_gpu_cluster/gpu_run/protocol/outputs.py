"""A job's outputs in a transfer: how they are listed, and how a file is announced; see :mod:`.outputs.sending`."""

from __future__ import annotations

from typing import Any, TypedDict, final


class Writer(TypedDict, total=False):
    """
    Whose outputs they are: the task that launched the job, and the ``generation`` of the launch.

    :param run_id: missing if nobody in Airflow has launched it.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int | None
    generation: str


class _OutputEntry(TypedDict):
    path: str
    kind: str
    size: int
    mode: int


class OutputEntry(_OutputEntry, total=False):
    """
    An output that is not a folder.

    :param kind: ``file``, or why it cannot be sent: ``outside`` for a link that leaves the folder, ``broken``,
        ``special``, ``unreadable``.
    :param target: of a link.
    :param stamp: of a file that is not small: changes when the file does.
    :param needs: of such a file: how many bytes it takes up on a disk.
    """

    target: str
    stamp: str
    needs: int


class FileHeader(TypedDict):
    """
    What precedes a file that comes in pieces.

    :param file: its number.
    :param at: where the bytes that are sent begin, and ``until``, where they end.
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

    :param files: for each its path, the byte to start from, its stamp and, for a part, its end and possibly its start.
    """

    files: list[list[Any]]


@final
class ChecksumsRequest(TypedDict):
    """Files whose SHA-256 is asked for."""

    checksums_of: list[str]


@final
class CollectedNote(TypedDict):
    """How many bytes have arrived over all connections since this one was opened."""

    collected: int
