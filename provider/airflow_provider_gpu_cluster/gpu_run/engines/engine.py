"""What every engine does: the seam between a job's records and whatever runs it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Sequence

from ..store.directories import Attempt

if TYPE_CHECKING:
    from ..protocol.records import Claim
    from ..protocol.replies import Capacity
    from ..protocol.spec import Spec
    from ..protocol.status import Standing


class Engine(Protocol):
    """
    Runs attempts, and knows how those stand that have not recorded their end.

    Whoever runs an attempt claims it first (:meth:`.store.directories.Attempt.claim`), so none runs twice, however
    often it is launched.
    """

    #: What the connection calls it.
    name: str

    def refresh(self) -> None:
        """Look anew at what is looked at only once, as most of this program's processes answer one request."""
        ...

    def check(self, spec: Spec) -> None:
        """
        Refuse what can never run here.

        :raises Refused: saying why.
        """
        ...

    def launch(self, attempts: Sequence[Attempt]) -> None:
        """See to it that attempts wait for their turn, together; for those that do already, this changes nothing."""
        ...

    def nudge(self) -> None:
        """See to it that waiting jobs are served."""
        ...

    def standing(self, attempt: Attempt, claim: Claim | None) -> Standing | None:
        """
        Return how an attempt stands that has no exit record.

        One that has ended without is settled: it gets its record here.

        :param claim: who runs it, or has cancelled it; None when nobody has yet.
        :return: ``state`` and what else the engine knows for a status; None when the exit record is there by now.
        """
        ...

    def leave(self, attempt: Attempt) -> None:
        """Take out of the queue what will not run any more, since its cancel has claimed it."""
        ...

    def stop(self, attempt: Attempt, claim: Claim) -> None:
        """Have whoever has claimed an attempt end it."""
        ...

    def still_runs(self, job_id: str) -> bool:
        """
        Return whether a job runs, or holds GPUs, even if its directory is gone.

        :raises Refused: it cannot be told now.
        """
        ...

    def capacity(self) -> Capacity:
        """
        Return every GPU with who has it, and how many jobs of all users wait.

        :raises Refused: it cannot be told now.
        """
        ...

    def warnings(self) -> list[str]:
        """Return what will cause trouble here, for whoever tests the connection."""
        ...
