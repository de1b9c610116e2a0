"""What every engine does: the seam between a job's records and the system that runs it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Sequence

from ..store.directories import Attempt

if TYPE_CHECKING:
    from ..protocol.appraisal import Prospect
    from ..protocol.overview import EngineView
    from ..protocol.records import Claim
    from ..protocol.replies import Capacity
    from ..protocol.spec import Spec
    from ..protocol.status import Standing
    from ..store.placements import Promise
    from .wanted import Wanted


class Engine(Protocol):
    """
    Runs attempts, and knows the state of those that have not recorded their end.

    A process that runs an attempt claims it first (:meth:`.store.directories.Attempt.claim`), so no attempt runs twice,
    however often it is launched.
    """

    #: Its name in the connection.
    name: str

    def refresh(self) -> None:
        """Forget what was looked at only once, since most of this program's processes answer a single request."""
        ...

    def check(self, spec: Spec) -> None:
        """
        Refuse a job that can never run here.

        :raises Refused: with the reason.
        """
        ...

    def launch(self, attempts: Sequence[Attempt]) -> None:
        """Make attempts wait for their turn, together; this changes nothing for those that wait already."""
        ...

    def nudge(self) -> None:
        """Make sure that waiting jobs are served."""
        ...

    def standing(self, attempt: Attempt, claim: Claim | None) -> Standing | None:
        """
        Return the state of an attempt that has no exit record.

        If the attempt has ended without one, its record is written here.

        :param claim: of the process that runs or has cancelled it; None when there is none yet.
        :return: ``state`` and what else the engine knows for a status; None when the exit record exists by now.
        """
        ...

    def leave(self, attempt: Attempt) -> None:
        """Take an attempt out of the queue that will not run any more, since its cancel has claimed it."""
        ...

    def stop(self, attempt: Attempt, claim: Claim) -> None:
        """Have the process that has claimed an attempt end it."""
        ...

    def still_runs(self, job_id: str) -> bool:
        """
        Return whether a job runs, or holds GPUs, even if its directory is gone.

        :raises Refused: that is not known now.
        """
        ...

    def capacity(self) -> Capacity:
        """
        Return every GPU and who uses it, and how many jobs of all users wait.

        :raises Refused: that is not known now.
        """
        ...

    def prospects(self, wanted: Sequence[Wanted], promises: Sequence[Promise], *, within_s: float) -> list[Prospect]:
        """
        Return for each of these jobs whether it fits here, and when it could start if it was launched now.

        This changes nothing, and takes about as long for many jobs as for one. What cannot be found out now is said of
        each job.

        :param promises: GPUs that are free, and are promised to jobs that are about to be launched.
        :param within_s: how long to wait for the answers of a scheduler, in seconds.
        """
        ...

    def overview(self) -> EngineView:
        """
        Return every GPU, who has it and how busy it is, and the jobs of all users that wait.

        :raises Refused: that is not known now.
        """
        ...

    def warnings(self) -> list[str]:
        """Return problems to expect on this cluster, for a user who tests the connection."""
        ...
