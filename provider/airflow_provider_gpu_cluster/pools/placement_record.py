"""What a task remembers of where its job is: the choice, made before a launch, and what else may still have it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

# How far a launch has got on the chosen cluster.
CHOSEN, SENT, LAUNCHED, ENDED = "chosen", "sent", "launched", "ended"


@dataclass(frozen=True)
class Elsewhere:
    """
    A cluster that may have an attempt of an earlier placement, and has not said that it has none.

    :param epoch: of that placement.
    :param gone_at: when it is sure that nothing of it waits or runs there any more, in seconds since the epoch by this
        side's clock; None if that is sure only when the cluster says so.
    """

    epoch: int
    gone_at: float | None = None


@dataclass(frozen=True)
class PlacementRecord:
    """
    Where a job is.

    :param job_id: the job; the record of another one is of before a clear.
    :param epoch: of the last choice.
    :param key: the try that has made it.
    :param conn_id: the chosen cluster; None while a trigger chooses.
    :param members: all clusters of the pool at that time.
    :param stage: how far it has got there, one of the words above.
    :param start_by: the last moment at which an attempt may start there, in seconds since the epoch by this side's
        clock; None for at any time.
    :param gone_after_s: for how long after ``start_by`` an attempt can run there at most while nobody renews it; None
        if there is no such limit.
    :param elsewhere: what may have it besides, by connection.
    """

    job_id: str
    epoch: int
    key: str
    conn_id: str | None
    members: tuple[str, ...]
    stage: str = CHOSEN
    start_by: float | None = None
    gone_after_s: float | None = None
    elsewhere: Mapping[str, Elsewhere] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {**asdict(self), "members": list(self.members)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> PlacementRecord:
        """
        Return what :meth:`to_json` has made.

        :raises ValueError: it is something else.
        """
        try:
            elsewhere = {name: Elsewhere(**one) for name, one in value["elsewhere"].items()}
            return cls(**{**value, "members": tuple(value["members"]), "elsewhere": elsewhere})
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"not the record of a placement: {error}") from None


class PlacementStore(Protocol):
    """Keeps the record of one task's job, for its next try and for a second worker."""

    def load(self) -> PlacementRecord | None:
        """Return the record; None if there is none."""
        ...

    def save(self, record: PlacementRecord) -> None:
        """Keep a record; when this returns, the next :meth:`load` finds it, wherever that is."""
        ...
