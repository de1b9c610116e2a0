"""A job's inputs: how a request names them, notes of those in place, and messages while they are sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, List, Literal, TypedDict, Union

if TYPE_CHECKING:
    from .replies import Fault, StageReply, SubmitReply

Row = List[Any]
"""One file, folder or link of an upload: path, kind, mode, content and, for a file, its size."""

Want = List[Any]
"""A missing content: its key, and its missing ranges as pairs of start and end."""


class _Input(TypedDict):
    """
    The fields of every input.

    :param kind: ``code``, ``data`` or ``models``: the folder of the job it goes into.
    :param name: its path in that folder; empty when its contents become those of the folder.
    :param written: as the user wrote it, without credentials.
    """

    kind: str
    name: str
    written: str


class UploadInput(_Input):
    """
    Files that the worker sends.

    :param digest: the identity of the content.
    :param single_file: whether it is one file, whose only row has the path ``name``.
    """

    type: Literal["upload"]
    digest: str
    single_file: bool


class GitInput(_Input):
    """
    A Git repository that the cluster fetches.

    :param credentials: ``user:token`` of an http URL. Secret: never recorded or logged.
    """

    type: Literal["git"]
    url: str
    ref: str | None
    subdirectory: str | None
    credentials: str | None


class ClusterInput(_Input):
    """A file or folder that is already on the cluster."""

    type: Literal["cluster"]
    path: str


Input = Union[UploadInput, GitInput, ClusterInput]


class DescribedUpload(UploadInput):
    """An upload together with its rows."""

    rows: list[Row]


class InputFacts(TypedDict, total=False):
    """
    Notes in ``inputs.json`` about an input that is in place.

    :param identity: equal for two inputs if they are the same.
    :param files: how many files an upload has, and ``bytes``, their total size.
    :param commit: of a Git repository.
    :param path: its source on the cluster.
    :param checksums: the record with the checksum of every file, relative to the job's directory.
    :param at: when it was put in place.
    """

    identity: list[Any]
    written: str
    files: int
    bytes: int
    commit: str
    path: str
    checksums: str
    at: str


InputNotes = Dict[str, InputFacts]
"""``inputs.json``: the notes by the path of each input, relative to the job's directory."""


class _PieceHeader(TypedDict):
    key: str
    at: int
    n: int


class PieceHeader(_PieceHeader, total=False):
    """
    What precedes a piece of a content: ``n`` bytes that begin at ``at``.

    :param whole: the piece is all of a small content.
    :param zeros: the bytes are zero, and are not sent.
    :param sha256: of the piece, if the one of the content is unknown.
    """

    whole: bool
    zeros: bool
    sha256: str


class UploadNews(TypedDict, total=False):
    """
    A line from the cluster to a worker that sends inputs; see :mod:`.staging.receiving`.

    :param want: missing contents.
    :param send: the total size of all contents in the ``want`` lines before.
    :param done: the reply of the verb, now that all inputs are in place.
    :param error: why the verb failed.
    """

    want: list[Want]
    send: int
    done: StageReply | SubmitReply
    error: Fault


# ``in`` is a keyword of Python.
SpoolLine = TypedDict("SpoolLine", {"in": str, "fault": str}, total=False)
"""
Announces a file with the bytes of pieces; an empty line object is a sign of life. See :mod:`.staging.spool`.

``in`` is the file's name, and ``fault`` says why it could not be written.
"""
