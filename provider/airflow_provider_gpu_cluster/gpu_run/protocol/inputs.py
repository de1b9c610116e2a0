"""A job's inputs: how a request names them, what is noted of those in place, and what is said while they are sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, List, Literal, TypedDict, Union

if TYPE_CHECKING:
    from .replies import Fault, StageReply, SubmitReply

Row = List[Any]
"""One file, folder or link of an upload: path, kind, mode, content and, of a file, its size."""

Want = List[Any]
"""A content that the cluster lacks: its key, and the ranges of it as pairs of start and end."""


class _Input(TypedDict):
    """
    What every input has.

    :param kind: ``code``, ``data`` or ``models``: the folder of the job it goes into.
    :param name: its path in that folder; empty when its content becomes the folder's.
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

    :param credentials: ``user:token`` of an http URL. Secret: never recorded nor logged.
    """

    type: Literal["git"]
    url: str
    ref: str | None
    subdirectory: str | None
    credentials: str | None


class ClusterInput(_Input):
    """A file or folder that is on the cluster already."""

    type: Literal["cluster"]
    path: str


Input = Union[UploadInput, GitInput, ClusterInput]


class DescribedUpload(UploadInput):
    """An upload together with what it consists of."""

    rows: list[Row]


class InputFacts(TypedDict, total=False):
    """
    What is noted in ``inputs.json`` of an input that is in place.

    :param identity: what an input that is the same has as well.
    :param files: how many an upload has, and how many ``bytes`` they have together.
    :param commit: of a Git repository.
    :param path: where on the cluster it was taken from.
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
"""``inputs.json``: by where each input is, relative to the job's directory."""


class _PieceHeader(TypedDict):
    key: str
    at: int
    n: int


class PieceHeader(_PieceHeader, total=False):
    """
    What stands before a piece of a content: ``n`` bytes that begin at ``at``.

    :param whole: it is all of a small content.
    :param zeros: the bytes are zero, and are not sent.
    :param sha256: of the piece, where nobody knows that of the content.
    """

    whole: bool
    zeros: bool
    sha256: str


class UploadNews(TypedDict, total=False):
    """
    A line from the cluster to a worker that sends inputs; see :mod:`.staging.receiving`.

    :param want: contents that are lacking.
    :param send: how many bytes all of those are that were wanted.
    :param done: the reply of the verb, now that all inputs are in place.
    :param error: why that cannot be.
    """

    want: list[Want]
    send: int
    done: StageReply | SubmitReply
    error: Fault


# The first name is a word of Python's.
SpoolLine = TypedDict("SpoolLine", {"in": str, "fault": str}, total=False)
"""
Said of a file with the bytes of pieces; nothing is a sign of life. See :mod:`.staging.spool`.

``in`` is its name, and ``fault`` why it could not be written.
"""
