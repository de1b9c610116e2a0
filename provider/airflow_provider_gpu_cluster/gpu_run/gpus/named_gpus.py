"""Which of the GPUs that a driver lists are those of a job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Sequence

if TYPE_CHECKING:
    from ..protocol.records import LeasedGpu

_OF_UUIDS = ("GPU-", "MIG-")


def uuid_of(gpu: LeasedGpu, place: int, names: Sequence[str]) -> str | None:
    """
    Return the UUID of a job's GPU, or its beginning; None where only its index is known.

    :param place: which of the job's GPUs it is.
    :param names: what CUDA_VISIBLE_DEVICES calls them.
    """
    name = names[place] if place < len(names) else ""
    return next((word for word in (gpu["key"], name) if word.startswith(_OF_UUIDS)), None)


def index_of(gpus: Sequence[LeasedGpu], place: int, listed: Sequence[int]) -> int | None:
    """
    Return the index of a job's GPU among those that can be seen; None when it is not among them.

    In the control group of a scheduler's job there are no others, and they count from 0.

    :param place: which of the job's GPUs it is.
    :param listed: the indexes of those that can be seen.
    """
    if all(gpu["index"] in listed for gpu in gpus):
        return gpus[place]["index"]
    return listed[place] if place < len(listed) else None
