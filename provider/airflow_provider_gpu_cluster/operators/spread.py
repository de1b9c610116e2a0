"""Launches an array whose elements go to several clusters of a pool: as an array on each of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from airflow_provider_gpu_cluster.exceptions import InvalidJobError, JobConflictError
from airflow_provider_gpu_cluster.hooks.airflow_outage import outlast
from airflow_provider_gpu_cluster.jobs.array import listed
from airflow_provider_gpu_cluster.jobs.identity import JobIdentity
from airflow_provider_gpu_cluster.jobs.request import JobRequest
from airflow_provider_gpu_cluster.pools.parts import as_one, handle_of
from airflow_provider_gpu_cluster.pools.spreading import SpreadPlan

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.gpu_run.protocol.requests import PartOfArray
    from airflow_provider_gpu_cluster.jobs.submission import Submission
    from airflow_provider_gpu_cluster.logs.job_log import Log

# In the task's state store: which elements go where.
SPREAD_KEY = "gpu_cluster_spread"


class LaunchPart(Protocol):
    """Launches an array as the job of a pool, preferably on one cluster."""

    def __call__(
        self, number: int, request: JobRequest, identity: JobIdentity, *, part: PartOfArray | None, prefers: str
    ) -> Submission:
        """
        Launch one part.

        :param number: of the part, from 0.
        :param part: which elements of the whole array it has; None if it has them all.
        :param prefers: the connection of the cluster that was planned.
        """
        ...


def check_spread(*, spread: bool, array: Any, is_staged: bool) -> None:
    """
    Check what can be checked before templates are known.

    :raises InvalidJobError: there is nothing to spread, or it was sent to one cluster already.
    """
    if spread and array is None:
        raise InvalidJobError("spread=True shares the elements of an array among clusters, and no array is given")
    if spread and is_staged:
        raise InvalidJobError(
            "spread=True sends the inputs to several clusters, and those of job were staged on one; give code, data "
            "and models to this task instead of job"
        )


def launch_spread(
    request: JobRequest,
    identity: JobIdentity,
    *,
    store: Any,
    make_plan: Callable[[int], SpreadPlan],
    launch: LaunchPart,
    log: Log,
) -> Submission:
    """
    Launch all parts of an array, or find them launched.

    :param store: the task's state store, which keeps what is shared out how.
    :param make_plan: shares out that many elements, if that was not done in an earlier try.
    """
    array = listed(request.array)
    plan = SpreadPlan.from_json(outlast(lambda: store.get(SPREAD_KEY)))
    if plan is None or plan.job_id != identity.job_id:
        plan = make_plan(len(array))
        made: Any = plan.to_json()
        outlast(lambda: store.set(SPREAD_KEY, made))
        log.info("GPU job array is spread over clusters", job_id=plan.job_id, **_told(plan))
    if plan.count != len(array):
        raise JobConflictError(
            f"array {plan.job_id} had {plan.count} elements in an earlier try and has {len(array)} now; the number "
            "must be the same in every try. To begin anew, clear the task"
        )
    submissions = []
    for number, (part, job_id) in enumerate(zip(plan.parts, plan.part_ids(), strict=True)):
        own: JobRequest = replace(request, array=array[part.first : part.first + part.count])
        submissions.append(
            launch(
                number,
                own,
                replace(identity, job_id=job_id),
                part={"first": part.first, "count": plan.count} if len(plan.parts) > 1 else None,
                prefers=part.conn_id,
            )
        )
    return as_one(handle_of([submission.handle for submission in submissions]), submissions)


def _told(plan: SpreadPlan) -> dict[str, str]:
    return {part.conn_id: f"{part.count} of {plan.count}" for part in plan.parts}
