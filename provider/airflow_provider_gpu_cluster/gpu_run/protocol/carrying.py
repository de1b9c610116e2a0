"""
What a job brings along when it goes on on another cluster: the verbs ``carry-out`` and ``carry-in``.

The worker asks the old cluster with ``carry-out`` what there is, and offers it to the new one with ``carry-in``, which
asks for the contents that it lacks, as for the inputs of a job. The worker reads those from the old cluster while it
sends them on.
"""

from __future__ import annotations

from typing import TypedDict

from .inputs import ClusterInput, InputFacts, Row, UploadInput
from .recovery import Recovery
from .requests import Asker, Call


class _CarryOutRequest(TypedDict):
    job_id: str


class CarryOutRequest(_CarryOutRequest, total=False):
    """
    The verb ``carry-out``. After its reply the reader may ask for files as after that of ``send``, by paths relative
    to the job's directory.

    :param list: list what there is. The list follows the reply as a line of JSON, a :class:`CarriedJob`; empty lines
        of JSON before it are signs of life.
    :param with_inputs: with code, data and models, as they are in the job's directory.
    :param without_checksums: only count.
    :param to: the connection of the new cluster, for the audit trail.
    :param id: names the request there.
    """

    list: bool
    with_inputs: bool
    without_checksums: bool
    to: str
    id: str


class CarryOutCall(CarryOutRequest, Call):
    """A request to carry out as it arrives."""


class _CarriedFolder(TypedDict):
    kind: str
    name: str
    single_file: bool
    rows: list[Row]
    facts: InputFacts
    stamps: dict[str, str]


class CarriedFolder(_CarriedFolder, total=False):
    """
    A folder to be carried, or a single file.

    :param kind: ``outputs``, or the job's folder of inputs that it is in.
    :param name: its path there; empty for all of it.
    :param rows: see :mod:`.staging.placing`.
    :param facts: what is noted of it, for an input.
    :param stamps: of each file that is not small, by its path in it.
    :param modified_ns: of outputs: when each file was last modified, in nanoseconds since the epoch.
    """

    modified_ns: dict[str, int]


class _Continuation(TypedDict):
    attempt: int


class Continuation(_Continuation, total=False):
    """
    What the next attempt of a job goes on with, wherever it is.

    :param attempt: its number.
    :param recovery: which recoveries are used up, and what was before, if it goes on by itself.
    :param wait_s: for how long it must not begin yet, in seconds.
    :param memory_bytes: its limit on host memory, if it was raised.
    """

    recovery: Recovery
    wait_s: float
    memory_bytes: int


class _CarriedJob(TypedDict):
    files: int
    bytes: int
    why_not: str


class CarriedJob(_CarriedJob, total=False):
    """
    What there is to carry.

    :param files: how many files; ``bytes``, their size.
    :param why_not: a sentence, if something of it cannot be carried; then there is no list.
    :param linked: data and models that are links to what is on the old cluster.
    """

    folders: list[CarriedFolder]
    linked: list[ClusterInput]
    continuation: Continuation


class _CarriedUpload(UploadInput):
    facts: InputFacts


class CarriedUpload(_CarriedUpload, total=False):
    """
    A carried folder as an input that the worker sends.

    :param facts: see :class:`CarriedFolder`; so is ``modified_ns``.
    """

    modified_ns: dict[str, int]


class _CarryInRequest(TypedDict):
    job_id: str
    record: Asker
    inputs: list[CarriedUpload]


class CarryInRequest(_CarryInRequest, total=False):
    """
    The verb ``carry-in``. Its reply, and what follows, are those of ``stage``.

    :param record: who asks for the job.
    :param linked: see :class:`CarriedJob`.
    :param continuation: what the next attempt here goes on with.
    :param origin: the connection of the old cluster, for the audit trail.
    :param id: names the request there.
    :param is_staged: whether one task has staged the job, and another one, which asks, launches it.
    """

    linked: list[ClusterInput]
    continuation: Continuation
    origin: str
    id: str
    is_staged: bool


class CarryInCall(CarryInRequest, Call):
    """A request to carry in as it arrives."""
