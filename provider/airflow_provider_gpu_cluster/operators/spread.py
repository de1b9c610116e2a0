"""Launches an array whose elements go to several clusters of a pool: as an array on each of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_gpu_cluster.exceptions import InvalidJobError, JobConflictError
from airflow_provider_gpu_cluster.hooks.airflow_outage import outlast
from airflow_provider_gpu_cluster.jobs.array import listed
from airflow_provider_gpu_cluster.pools.pool import IN_ORDER

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.cluster import Cluster
    from airflow_provider_gpu_cluster.gpu_run.protocol.appraisal import JobToAppraise
    from airflow_provider_gpu_cluster.jobs.identity import JobIdentity
    from airflow_provider_gpu_cluster.jobs.request import JobRequest
    from airflow_provider_gpu_cluster.jobs.submission import LaunchArguments, Submission
    from airflow_provider_gpu_cluster.logs.job_log import Log
    from airflow_provider_gpu_cluster.pools.members import Members
    from airflow_provider_gpu_cluster.pools.offer import Offer
    from airflow_provider_gpu_cluster.pools.placement_record import PlacementStore
    from airflow_provider_gpu_cluster.pools.pool import Pool
    from airflow_provider_gpu_cluster.pools.spreading import SpreadPlan
    from airflow_provider_gpu_cluster.sources import Source

# In the task's state store: which elements go where.
SPREAD_KEY = "gpu_cluster_spread"


def check_spread(*, spread: Any, array: Any, is_staged: bool) -> None:
    """
    Check what can be checked before templates are known.

    :raises InvalidJobError: there is nothing to spread, or it was sent to one cluster already.
    """
    if spread is not True:
        return
    if array is None:
        raise InvalidJobError(
            "spread=True shares the elements of an array among clusters, and no array is given; give array=[...], or "
            "leave spread out"
        )
    if is_staged:
        raise InvalidJobError(
            "spread=True sends the inputs to several clusters, and those of job were staged on one; give code, data "
            "and models to this task instead of job"
        )


class SpreadArray:
    """
    An array that is launched in parts, for one try of a task.

    :param members: the open clusters.
    :param base_dir: folder that relative sources start from.
    :param state: the task's state store, which keeps what was shared out how.
    :param store_of: returns where a part keeps its placement, by its job id.
    :param log: the task's log.
    :param check: raises an error when the task is to stop.
    """

    def __init__(
        self,
        request: JobRequest,
        identity: JobIdentity,
        *,
        pool: Pool,
        members: Members[Cluster],
        base_dir: str,
        state: Any,
        store_of: Callable[[str], PlacementStore],
        log: Log,
        check: Callable[[], None],
    ) -> None:
        self._request = request
        self._identity = identity
        self._pool = pool
        self._members = members
        self._base_dir = Path(base_dir)
        self._state = state
        self._store_of = store_of
        self._log = log
        self._check = check

    def launch(self) -> Submission:
        """
        Launch all parts, one after the other, or find them launched.

        :raises NoClusterFitsError: no cluster can ever run an element.
        """
        from airflow_provider_gpu_cluster.pools.parts import as_one, handle_of

        array = listed(self._request.array)
        sources = self._request.sources(base_dir=self._base_dir)
        plan = self._plan(len(array), sources)
        submissions = []
        for part, job_id in zip(plan.parts, plan.part_ids(), strict=True):
            request: JobRequest = replace(self._request, array=array[part.first : part.first + part.count])
            identity = replace(self._identity, job_id=job_id)
            arguments = request.launch_arguments(identity, base_dir=self._base_dir, staged=False)
            if len(plan.parts) > 1:
                arguments["part"] = {"first": part.first, "count": plan.count}
            submission = self._launch_part(part.conn_id, job_id, sources, arguments)
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
        from airflow_provider_gpu_cluster.pools.spreading import SpreadPlan, plan_of

        plan = SpreadPlan.from_json(outlast(lambda: self._state.get(SPREAD_KEY)))
        if plan is None or plan.job_id != self._identity.job_id:
            run_s = self._request.spec().time_limit_s
            plan = plan_of(self._identity.job_id, count, self._offers(sources), self._pool.policy, run_s=run_s)
            made: Any = plan.to_json()
            outlast(lambda: self._state.set(SPREAD_KEY, made))
            told = {part.conn_id: f"{part.count} of {count}" for part in plan.parts}
            self._log.info("GPU job array is spread over clusters", job_id=plan.job_id, **told)
        if plan.count != count:
            raise JobConflictError(
                f"array {plan.job_id} had {plan.count} elements in an earlier try and has {count} now; the number must "
                "be the same in every try. To begin anew, clear the task"
            )
        return plan

    def _offers(self, sources: Sequence[Source]) -> list[Offer]:
        """Return what each cluster offers for one element."""
        from airflow_provider_gpu_cluster.pools.asking import offers_of

        one: JobToAppraise = {
            "job_id": self._identity.job_id,
            "spec": self._request.spec().to_json(),
            "inputs": [source.to_json() for source in sources],
            "record": self._identity.record,
        }
        return offers_of(self._pool, [one], open_member=self._members)[0]

    def _launch_part(
        self, conn_id: str, job_id: str, sources: Sequence[Source], arguments: LaunchArguments
    ) -> Submission:
        from airflow_provider_gpu_cluster.pools.launching import placing_of

        # If that of the plan cannot be used now, and nothing was sent there, the next one gets the part.
        planned = sorted(self._pool.members, key=lambda member: member.conn_id != conn_id)
        placing = placing_of(
            replace(self._pool, members=tuple(planned), policy=IN_ORDER),
            self._members,
            job_id=job_id,
            sources=sources,
            arguments=arguments,
            store=self._store_of(job_id),
            log=self._log,
            check=self._check,
        )
        submission, _ = placing.begin()
        return submission
