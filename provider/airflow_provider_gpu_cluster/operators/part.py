"""One part of an array on several clusters: placed and kept like a job of a pool."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow_provider_gpu_cluster.exceptions import JobConflictError
from airflow_provider_gpu_cluster.hooks.gpu_cluster import GpuClusterHook
from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.jobs.identity import current_caller
from airflow_provider_gpu_cluster.operators.in_pool import JobInPool
from airflow_provider_gpu_cluster.pools.choice import Choice, choose
from airflow_provider_gpu_cluster.pools.parts_keeping import PartKeeping
from airflow_provider_gpu_cluster.pools.placement_record import LAUNCHED

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.cluster import Cluster
    from airflow_provider_gpu_cluster.jobs.submission import LaunchArguments, Submission
    from airflow_provider_gpu_cluster.logs.job_log import Log
    from airflow_provider_gpu_cluster.pools.keeping import Keeper
    from airflow_provider_gpu_cluster.pools.offer import Offer
    from airflow_provider_gpu_cluster.pools.placement_record import PlacementRecord
    from airflow_provider_gpu_cluster.pools.placing import Placing
    from airflow_provider_gpu_cluster.pools.spreading import PlannedPart


class PartInPool(JobInPool):
    """
    One part of an array, with the parameters of :class:`.JobInPool`.

    It goes where it was planned, as long as that cluster takes it, and later where it is. If it has to leave, the
    policy of the pool decides.

    :param part: which elements it has, and where they were to go.
    :param count: number of elements of the whole array.
    """

    def __init__(self, *arguments: Any, part: PlannedPart, count: int, log: Log, **options: Any) -> None:
        super().__init__(*arguments, log=PartLog(log, part, count), **options)
        self._part = part
        self._count = count
        self._shared_hook = self._hook
        self._keeping: PartKeeping | None = None
        self._submission: Submission | None = None

    @property
    def job_id(self) -> str:
        """Its job id."""
        return self._identity.job_id

    @property
    def submission(self) -> Submission:
        """How it got to where it is."""
        assert self._submission is not None
        return self._submission

    # -- launching

    def launch(self, *, pause: Callable[[float], None], patience_s: float) -> Submission:
        """Launch it, or find it launched, and keep its place from then on; see :meth:`.JobInPool.launch`."""
        self.rest()
        submission = super().launch(pause=pause, patience_s=patience_s)
        handle = submission.handle
        if handle.array_size != self._part.count:
            raise JobConflictError(
                f"array {self.job_id} on {handle.gpu_cluster_conn_id} has {handle.array_size} elements and not "
                f"{self._part.count}: another try of this task has shared out its elements otherwise at the same time. "
                "To begin anew, clear the task"
            )
        self._submission = submission
        if self._failover_after_s is not None or self._options.move_gain_s is not None:
            self._keep(handle)
        return submission

    def keep_what_is_launched(self) -> None:
        """Keep its place, if an earlier try or a trigger has launched it, until it is its turn to be found again."""
        record = self._store.load()
        is_there = record is not None and record.job_id == self.job_id and record.stage == LAUNCHED
        if record is None or record.conn_id is None or not is_there or self._failover_after_s is None:
            return
        settings = self._hook.member(record.conn_id).settings
        job_dir = f"{settings.root_dir.rstrip('/')}/{self.job_id}"
        handle = JobHandle(self.job_id, record.conn_id, job_dir, settings.engine, None, 0, self._part.count)
        self._keeper = self._make_keeper(record)
        self._keep(handle)

    def _tell_if_failover_is_of_little_use(self) -> None:
        """Say nothing, as the whole array has."""

    def _arguments(self) -> LaunchArguments:
        arguments = super()._arguments()
        if self._part.count < self._count:
            arguments["part"] = {"first": self._part.first, "count": self._count}
        return arguments

    def _placing(self) -> Placing[Cluster]:
        record = self._store.load()
        is_own = record is not None and record.job_id == self.job_id and record.conn_id is not None
        here = record.conn_id if record is not None and is_own else self._part.conn_id

        def choose_among(offers: Sequence[Offer]) -> Choice:
            own = [offer for offer in offers if offer.conn_id == here and offer.answered and offer.fits]
            if not own:
                return choose(offers, self._pool.policy)
            return Choice(own[0], "this part of the array belongs there", tuple(offers))

        # Where it goes at first, the plan has told.
        log = _WarningsOnly(self._log) if self._keeper is None else self._log
        return self._placing_by(choose_among=choose_among, log=log)

    # -- waiting

    def _keep(self, array: JobHandle) -> None:
        assert self._keeper is not None
        self._keeping = PartKeeping(array, self._keeper, self._own_hook.members)

    def keep_on(self) -> None:
        """Keep its place again, if there seemed to be nothing more to do: another try may have placed it elsewhere."""
        if self._keeping is None or self._keeping.is_over:
            self._keep(self.submission.handle)

    def _make_keeper(self, record: PlacementRecord) -> Keeper:
        # It works in a thread.
        self._hook = self._own_hook
        return super()._make_keeper(record)

    @cached_property
    def _own_hook(self) -> GpuClusterHook:
        hook = GpuClusterHook(self._shared_hook.gpu_cluster_conn_id)
        hook.caller = current_caller()
        return hook

    def take_news(self) -> bool:
        """
        Take it over if it went to another cluster; return whether it did.

        :raises GpuClusterError: it is nowhere, and cannot be launched.
        """
        news = None if self._keeping is None else self._keeping.news()
        if news is None:
            return False
        self._submission = news
        return True

    def rest(self, wait_s: float | None = None) -> None:
        """
        Keep its place no more.

        :param wait_s: how long to wait for what was begun, in seconds; None for as long as it takes.
        """
        if self._keeping is not None:
            self._keeping.stop(wait_s)
            if self._submission is not None:
                self.take_news()
            self._keeping = None
        self._hook = self._shared_hook

    def interrupt(self) -> None:
        """Make a call of its own that waits for a cluster fail now. Safe in a signal handler."""
        self._own_hook.members.interrupt()


class PartLog:
    """Says of each line which elements it is about."""

    def __init__(self, log: Log, part: PlannedPart, count: int) -> None:
        self._log = log
        last = part.first + part.count - 1
        elements = f"Element {last}" if part.count == 1 else f"Elements {part.first} to {last}"
        self._start = "" if part.count == count else f"{elements} of {count}: "

    def info(self, event: str, **fields: Any) -> Any:
        """Log a line."""
        return self._log.info(self._start + event, **fields)

    def warning(self, event: str, **fields: Any) -> Any:
        """Log a warning."""
        return self._log.warning(self._start + event, **fields)


class _WarningsOnly:
    def __init__(self, log: Log) -> None:
        self._log = log

    def info(self, event: str, **fields: Any) -> Any:
        return None

    def warning(self, event: str, **fields: Any) -> Any:
        return self._log.warning(event, **fields)
