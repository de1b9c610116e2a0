"""What a task remembers of where its job is: the choice, made before a launch, and what else may still have it."""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, NamedTuple, Protocol

# How far a launch has got on the chosen cluster. After ENDED nothing of the job waits or runs there any more.
CHOSEN, SENT, LAUNCHED, ENDED = STAGES = ("chosen", "sent", "launched", "ended")


# An epoch and a key: which of all choices for a job it is. A later one is higher.
Rank = tuple[int, str]


def key_of_one(asker: str) -> str:
    """
    Return the key of one that chooses. Two may do so for the same try: an executor may deliver it twice, and two
    triggerers may run one trigger for a while. Each must take only its own choices for its own.

    :param asker: the try of the task.
    """
    return f"{asker} {secrets.token_hex(4)}"


def try_of(key: str) -> str:
    """Return the try of the task of which a key is."""
    return key.rpartition(" ")[0]


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
    :param key: who has made it, see :func:`key_of_one`.
    :param conn_id: the chosen cluster; None while a trigger chooses.
    :param members: all clusters of the pool at that time.
    :param stage: how far it has got there, one of the words above.
    :param start_by: the last moment at which an attempt may start there, in seconds since the epoch by this side's
        clock; None for at any time.
    :param gone_after_s: for how long after ``start_by`` an attempt can run there at most while nobody renews it; None
        if there is no such limit.
    :param elsewhere: what may have it besides, by connection.
    :param clear: by connection, the choice up to which that cluster itself has said that nothing of the job is there,
        and that nothing will be.
    :param moves: how often the try has moved the job while it waited.
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
    clear: Mapping[str, Rank] = field(default_factory=dict)
    moves: int = 0

    @property
    def rank(self) -> Rank:
        """Which choice it is."""
        return self.epoch, self.key

    @property
    def may_have_it(self) -> tuple[str, ...]:
        """The clusters on which something of the job may wait or run, the chosen one first."""
        chosen = self.members if self.conn_id is None else (self.conn_id,)
        return tuple(dict.fromkeys((*chosen, *self.elsewhere)))

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        clear = {conn_id: list(rank) for conn_id, rank in self.clear.items()}
        return {**asdict(self), "members": list(self.members), "clear": clear}

    @classmethod
    def from_json(cls, value: object) -> PlacementRecord:
        """
        Return what :meth:`to_json` has made, perhaps in a later version.

        :raises ValueError: it is something else.
        """
        try:
            known = {item.name: value[item.name] for item in fields(cls) if item.name in value}  # type: ignore[operator, index]
            known["members"] = tuple(known["members"])
            known["elsewhere"] = {
                name: Elsewhere(one["epoch"], one.get("gone_at")) for name, one in known["elsewhere"].items()
            }
            known["clear"] = {name: (rank[0], rank[1]) for name, rank in known.get("clear", {}).items()}
            record = cls(**known)
        except (TypeError, LookupError, AttributeError) as error:
            raise ValueError(f"not the record of a placement: {error!r}") from None
        if not record._is_sound():
            raise ValueError("not the record of a placement: a value in it is of another kind")
        return record

    def _is_sound(self) -> bool:
        keys = (self.key, *(key for _, key in self.clear.values()))
        texts = (self.job_id, *keys, *self.members, *self.elsewhere, *self.clear)
        left = (one.epoch for one in self.elsewhere.values())
        epochs = (self.epoch, self.moves, *left, *(epoch for epoch, _ in self.clear.values()))
        moments = (self.start_by, self.gone_after_s, *(one.gone_at for one in self.elsewhere.values()))
        return (
            all(isinstance(text, str) for text in texts)
            and (self.conn_id is None or isinstance(self.conn_id, str))
            and self.stage in STAGES
            and all(isinstance(epoch, int) and not isinstance(epoch, bool) for epoch in epochs)
            and all(moment is None or _is_number(moment) for moment in moments)
        )


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


class Mark(NamedTuple):
    """
    That a cluster was chosen once, from before it was told.

    :param job_id: for this job.
    :param epoch: of the choice.
    :param key: who has chosen.
    """

    job_id: str
    epoch: int
    key: str

    @property
    def rank(self) -> Rank:
        """Which choice it is."""
        return self.epoch, self.key


class PlacementStore(Protocol):
    """
    Keeps the record of one task's job, for its next try and for a second worker.

    It has no way to write only if nobody else has. So it also keeps a mark for each cluster that was chosen: whoever
    chooses sets the mark of the chosen cluster first, and then reads those of the clusters that are silent. Of two that
    choose at once, at least one sees the mark of the other.
    """

    @property
    def is_precise(self) -> bool:
        """Whether the last :meth:`load` has told everything: what is in no record and no mark was never chosen."""
        ...

    @property
    def latest(self) -> PlacementRecord | None:
        """The last record that this process has found or was about to keep. It costs no call, as there is no time."""
        ...

    def load(self) -> PlacementRecord | None:
        """Return the record; None if there is none that can be read."""
        ...

    def save(self, record: PlacementRecord) -> None:
        """
        Keep a record, and for a choice the mark of the chosen cluster.

        When this returns, the next :meth:`load` finds them, wherever that is.
        """
        ...

    def mark_of(self, conn_id: str) -> Mark | None:
        """Return the last mark of a cluster; None if it was never chosen."""
        ...
