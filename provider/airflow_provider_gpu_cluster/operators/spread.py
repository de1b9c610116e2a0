"""Launches an array whose elements go to several clusters of a pool: as an array on each of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError, JobConflictError
from airflow_provider_gpu_cluster.hooks.airflow_outage import outlast
from airflow_provider_gpu_cluster.hooks.gpu_cluster import GpuClusterHook
from airflow_provider_gpu_cluster.hooks.placement_stores import RETENTION, store_of_job
from airflow_provider_gpu_cluster.jobs.array import listed
from airflow_provider_gpu_cluster.jobs.handle import part_id
from airflow_provider_gpu_cluster.operators.in_pool import JobInPool
from airflow_provider_gpu_cluster.pools.asking import offers_of
from airflow_provider_gpu_cluster.pools.launching import placing_of
from airflow_provider_gpu_cluster.pools.parts import as_one, handle_of
from airflow_provider_gpu_cluster.pools.pool import IN_ORDER
from airflow_provider_gpu_cluster.pools.spreading import PlannedPart, SpreadPlan, plan_of

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.cluster import Cluster
    from airflow_provider_gpu_cluster.gpu_run.protocol.appraisal import JobToAppraise
    from airflow_provider_gpu_cluster.gpu_run.protocol.requests import SubmitRequest
    from airflow_provider_gpu_cluster.jobs.request import JobRequest
    from airflow_provider_gpu_cluster.jobs.submission import Submission
    from airflow_provider_gpu_cluster.logs.job_log import Log
    from airflow_provider_gpu_cluster.pools.keeping import Keeper
    from airflow_provider_gpu_cluster.pools.offer import Offer
    from airflow_provider_gpu_cluster.pools.placement_record import PlacementRecord
    from airflow_provider_gpu_cluster.pools.placing import Placing
    from airflow_provider_gpu_cluster.sources import Source

# In the task's state store: which elements go where.
SPREAD_KEY = "gpu_cluster_spread"


class _WarningsOnly:
    """Leaves out the choice of each part, which the plan has told."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def info(self, event: str, **fields: Any) -> Any:
        return None

    def warning(self, event: str, **fields: Any) -> Any:
        return self._log.warning(event, **fields)


class SpreadArray(JobInPool):
    """
    The array of one try of a task, in parts on several clusters, with the parameters of :class:`.JobInPool`.

    Each part is placed once across the clusters, and stays where it is until it has ended.
    """

    def __init__(self, *arguments: Any, context: Mapping[str, Any], **options: Any) -> None:
        super().__init__(*arguments, context=context, **options)
        self._context = context
        self._state: Any = context["task_state_store"]

    def launch(self, *, pause: Callable[[float], None], patience_s: float) -> Submission:
        """
        Launch all parts, one after the other, or find them launched; see :meth:`.JobInPool.launch`.

        :raises NoClusterFitsError: no cluster can ever run an element.
        """
        array = listed(self._request.array)
        sources = self._request.sources(base_dir=self._folder)
        plan = self._plan(len(array), sources)
        submissions = []
        for part, job_id in zip(plan.parts, plan.part_ids(), strict=True):
            request: JobRequest = replace(self._request, array=array[part.first : part.first + part.count])
            placing = self._placing_of_part(part, job_id, request, sources, plan)
            submission, _ = self._until_placed(placing, pause, patience_s)
            if submission.handle.array_size != part.count:
                raise JobConflictError(
                    f"array {job_id} on {submission.handle.gpu_cluster_conn_id} has {submission.handle.array_size} "
                    f"elements and not {part.count}: another try of this task has shared out its elements otherwise at "
                    "the same time. To begin anew, clear the task"
                )
            submissions.append(submission)
        return as_one(handle_of([submission.handle for submission in submissions]), submissions)

    def _plan(self, count: int, sources: Sequence[Source]) -> SpreadPlan:
        """Return what goes where: as in an earlier try, or shared out now. It is kept before anything is launched."""
        plan = self._known_plan()
        if plan is None:
            run_s = self._request.spec().time_limit_s
            plan = plan_of(self._identity.job_id, count, self._offers(sources), self._pool.policy, run_s=run_s)
            made: Any = plan.to_json()
            outlast(lambda: self._state.set(SPREAD_KEY, made, retention=RETENTION))
            told = ", ".join(f"{part.count} to {part.conn_id}" for part in plan.parts)
            self._log.info(f"Of the {count} elements of the GPU job array go {told}", job_id=plan.job_id)
        if plan.count != count:
            raise JobConflictError(
                f"array {plan.job_id} had {plan.count} elements in an earlier try and has {count} now; the number must "
                "be the same in every try. To begin anew, clear the task"
            )
        return plan

    def _known_plan(self) -> SpreadPlan | None:
        plan = SpreadPlan.from_json(outlast(lambda: self._state.get(SPREAD_KEY)))
        return plan if plan is not None and plan.job_id == self._identity.job_id else None

    def _offers(self, sources: Sequence[Source]) -> list[Offer]:
        """Return what each cluster offers for one element."""
        one: JobToAppraise = {
            "job_id": self._identity.job_id,
            "spec": self._request.spec().to_json(),
            "inputs": [source.to_json() for source in sources],
            "record": self._identity.record,
        }
        return offers_of(self._pool, [one], open_member=self._hook.members)[0]

    def _placing_of_part(
        self, part: PlannedPart, job_id: str, request: JobRequest, sources: Sequence[Source], plan: SpreadPlan
    ) -> Placing[Cluster]:
        identity = replace(self._identity, job_id=job_id)
        arguments = request.launch_arguments(identity, base_dir=self._folder, staged=False)
        if len(plan.parts) > 1:
            arguments["part"] = {"first": part.first, "count": plan.count}
        # If that of the plan cannot be used now, and nothing was sent there, the next one gets the part.
        planned = sorted(self._pool.members, key=lambda member: member.conn_id != part.conn_id)
        return placing_of(
            replace(self._pool, members=tuple(planned), policy=IN_ORDER),
            self._hook.members,
            job_id=job_id,
            sources=sources,
            arguments=arguments,
            store=store_of_job(self._context, job_id, is_own=False),
            log=_WarningsOnly(self._log),
            check=self._check,
            by=self._by,
        )

    @property
    def keeper(self) -> Keeper | None:
        """None: its parts stay where they are."""
        return None

    def note_end(self) -> None:
        """Do nothing: a next try finds each part where it was."""

    def argument(self, launch: SubmitRequest | None) -> None:
        """Return None: its trigger only waits."""
        return

    def go_on(self, record: PlacementRecord, *, has_ended: bool) -> None:
        """Do nothing: its trigger has changed nothing."""

    def cancel(self) -> None:
        """
        Cancel all parts, wherever they are or may be; see :meth:`.JobInPool.cancel`.

        :raises GpuClusterConnectionError: a cluster that is to have one has not answered.
        """
        plan = self._known_plan()
        job_ids = [self._identity.job_id] if plan is None else plan.part_ids()
        keys = dict.fromkeys(job_ids, self._identity.request_key)
        with GpuClusterHook(self._hook.gpu_cluster_conn_id) as anew:
            _, failed = self._cancel(job_ids, anew, at=self.may_have_it, by=self._by, request_keys=keys)
        planned = () if plan is None else [part.conn_id for part in plan.parts]
        for conn_id in planned:
            if conn_id in failed:
                raise GpuClusterConnectionError(
                    f"elements of array {self._identity.job_id} could not be cancelled on {conn_id}, where they may "
                    f"wait or run: {failed[conn_id]}"
                ) from failed[conn_id]
        self._tell_uncancelled(self._identity.job_id, failed)

    def cancel_forerunners(self, job_ids: Sequence[str], *, by: str) -> None:
        """Cancel arrays that the task had before users cleared it, with all parts that they may have had."""
        numbers = range(len(self._pool.members))
        super().cancel_forerunners([part_id(job_id, number) for job_id in job_ids for number in numbers], by=by)
