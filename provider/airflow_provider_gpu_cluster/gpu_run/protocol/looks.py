"""What pages ask about a job's outputs and an array's elements: the verbs that only look, in slices."""

from __future__ import annotations

from typing import Any, TypedDict

PAGE_ENTRIES = 1000
"""The greatest number of outputs in one reply."""
SLICE_BYTES = 1 << 19
"""The greatest number of bytes of a file in one reply."""
CHEAP_CHECKSUM_BYTES = 1 << 26
"""The size of the largest file whose checksum is computed for a reply."""
MOST_METRICS = 200
"""The greatest number of final metrics that are told of a job."""


class _ListOutputsRequest(TypedDict):
    job_id: str


class ListOutputsRequest(_ListOutputsRequest, total=False):
    """
    A job or an array whose outputs are to be listed.

    :param after: the path after which to begin, as an earlier reply has named it.
    :param limit: how many at most.
    :param contains: only paths that have this text in them, in upper or lower case.
    """

    after: str
    limit: int
    contains: str


class _ShownOutput(TypedDict):
    path: str
    kind: str
    size: int


class ShownOutput(_ShownOutput, total=False):
    """
    An output that is not a folder, or a folder of which not all can be listed.

    :param path: below the job's outputs; those of an array begin with the index of the element.
    :param kind: ``file``, or why it cannot be read: ``outside`` for a link that leaves the folder, ``broken``,
        ``special``, ``unreadable``, ``secret`` for one whose name has a secret in it, ``cut`` for a folder with more
        names than are looked at, and ``unknown`` for those of an element that has spoilt its records, which say what
        is secret.
    :param modified_at: when it was last written.
    :param target: of a link.
    :param sha256: its checksum, if that is cheap.
    """

    modified_at: str
    target: str
    sha256: str


class OutputTotals(TypedDict):
    """
    How much there is.

    :param is_whole: whether that is all; otherwise there is more, which was not counted.
    """

    files: int
    bytes: int
    is_whole: bool


class _ListOutputsReply(TypedDict):
    outputs: list[ShownOutput]
    next: str | None
    is_array: bool


class ListOutputsReply(_ListOutputsReply, total=False):
    """
    A page of outputs. It may have fewer than asked for although more follow.

    :param next: where the next page begins; None if there is none.
    :param totals: of the first page: of all that are asked for.
    """

    totals: OutputTotals


class _ReadOutputRequest(TypedDict):
    job_id: str
    path: str


class ReadOutputRequest(_ReadOutputRequest, total=False):
    """
    A part of an output.

    :param offset: where it begins, in bytes.
    :param size: how many bytes at most.
    :param stamp: of the file as it was when another part was read; another file is refused.
    :param as_text: whether to show it as text, without the job's secrets, as whole characters.
    :param checksum: whether the SHA-256 of the whole file is wanted, if it is not too large.
    """

    offset: int
    size: int
    stamp: str
    as_text: bool
    checksum: bool


class _ReadOutputReply(TypedDict):
    size: int
    modified_at: str
    stamp: str
    offset: int


class ReadOutputReply(_ReadOutputReply, total=False):
    """
    A part of an output.

    :param size: of the whole file.
    :param stamp: changes when the file does.
    :param data: the bytes, in base64.
    :param text: the text, without the job's secrets; missing if it is none.
    :param end: where the text ends in the file, in bytes.
    :param head: the first few bytes of what is no text, in base64.
    :param sha256: of the whole file.
    """

    data: str
    text: str
    end: int
    head: str
    sha256: str


class _SendOutputRequest(TypedDict):
    job_id: str
    path: str


class SendOutputRequest(_SendOutputRequest, total=False):
    """
    An output to be sent whole, as :mod:`.outputs.sending` sends files.

    :param only_checksum: send its SHA-256 instead.
    """

    only_checksum: bool


class SendOutputReply(TypedDict):
    """What follows, as ``read-output`` tells it."""

    size: int
    modified_at: str
    stamp: str


class ReadMetricsRequest(TypedDict):
    """A job whose final metrics are wanted."""

    job_id: str


class ReadMetricsReply(TypedDict, total=False):
    """
    What a job has left in its ``metrics.json``, without its secrets.

    :param metrics: each number, text or truth value in it by its name; that in an object has the names before it, with
        dots. What is no number in JSON is one of the texts ``NaN``, ``Infinity`` and ``-Infinity``.
    :param count: how many there are; not more than :data:`MOST_METRICS` are told.
    :param problem: why there are none, if there is a file.
    """

    metrics: dict[str, Any]
    count: int
    problem: str


class _ListElementsRequest(TypedDict):
    job_id: str


class ListElementsRequest(_ListElementsRequest, total=False):
    """
    An array whose elements are to be told.

    :param offset: how many to leave out, and ``limit``, how many to tell at most.
    :param failed_first: in the order of their states, those that have ended badly first; else in that of the array.
    :param indexes: only these, in this order.
    """

    offset: int
    limit: int
    failed_first: bool
    indexes: list[int]


class _ElementLook(TypedDict):
    index: int
    job_id: str
    state: str


class ElementLook(_ElementLook, total=False):
    """
    An element of an array, as its records tell it, without its secrets.

    :param arguments: of its program; ``command`` if it is a command, and not a script with arguments.
    :param env_names: its environment variables, whose values are not known.
    :param metrics: see :class:`ReadMetricsReply`, and ``metric_count`` and ``metrics_problem`` there.
    """

    reason: str | None
    kind: str | None
    message: str
    attempt: int
    exit_code: int | None
    submitted_at: str | None
    started_at: str | None
    ended_at: str | None
    gpus: list[int]
    host: str | None
    progress: dict[str, Any]
    arguments: list[str]
    command: str
    env_names: list[str]
    metrics: dict[str, Any]
    metric_count: int
    metrics_problem: str


class _ListElementsReply(TypedDict):
    elements: list[ElementLook]
    size: int
    next: int | None


class ListElementsReply(_ListElementsReply, total=False):
    """
    Some elements of an array. They may be fewer than asked for although more follow.

    :param size: how many elements the array has.
    :param next: how many to leave out for the next ones; None if there are none.
    :param counts: how many are in each state, if all were looked at.
    """

    counts: dict[str, int]
