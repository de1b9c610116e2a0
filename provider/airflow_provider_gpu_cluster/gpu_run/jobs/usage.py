"""The verb ``usage``: what the ended attempts of a time have used. It counts as no question about them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import protocol
from ..errors import Refused
from ..ledger.ledger import MOMENT_S, Ledger
from ..ledger.sums import add_up
from ..protocol.ledger import BYS
from ..reply import Reply
from ..store.settling import settle_all

if TYPE_CHECKING:
    from ..protocol.ledger import UsageReply, UsageRequest
    from ..store.directories import Root


def answer(root: Root, request: UsageRequest) -> Reply:
    """Carry out the verb ``usage``."""
    return Reply(usage(root, request["since"], request["until"], request["by"]))


def usage(root: Root, since: str | None, until: str | None, by: str) -> UsageReply:
    """
    Return what the attempts have used that ended in a time, and what was transferred in it.

    :param since: the first moment, in the form of all records, in UTC; None begins with the first.
    :param until: the first moment that does not belong to it; None ends with the last.
    :param by: one of :data:`.protocol.ledger.BYS`.
    :raises Refused: usage is not added up by that.
    """
    if by not in BYS:
        raise Refused(protocol.BAD_REQUEST, f"usage is added up by {', '.join(BYS)}, and not by {by!r}")
    settle_all(root, wait_s=MOMENT_S)
    return add_up(Ledger(root.own), since, until, by)
