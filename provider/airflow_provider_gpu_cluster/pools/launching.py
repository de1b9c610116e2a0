"""Launches the job of a request in a pool of clusters, with the files of this machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_gpu_cluster.pools.appraised_job import job_to_appraise
from airflow_provider_gpu_cluster.pools.asking import offers_of
from airflow_provider_gpu_cluster.pools.moving import Moves, carry_along
from airflow_provider_gpu_cluster.pools.placing import JobToPlace, Placing
from airflow_provider_gpu_cluster.pools.staged import Staged, StagedJob

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.cluster import Cluster
    from airflow_provider_gpu_cluster.gpu_run.protocol.placement import Placement
    from airflow_provider_gpu_cluster.jobs.submission import LaunchArguments, Submission
    from airflow_provider_gpu_cluster.logs.job_log import Log
    from airflow_provider_gpu_cluster.pools.choice import Choice
    from airflow_provider_gpu_cluster.pools.members import Members
    from airflow_provider_gpu_cluster.pools.offer import Offer
    from airflow_provider_gpu_cluster.pools.placement_record import PlacementStore
    from airflow_provider_gpu_cluster.pools.pool import Pool
    from airflow_provider_gpu_cluster.sources import Source


def placing_of(
    pool: Pool,
    members: Members[Cluster],
    *,
    job_id: str,
    sources: Sequence[Source] | Staged,
    arguments: LaunchArguments,
    store: PlacementStore,
    log: Log,
    failover_after_s: float | None = None,
    check: Callable[[], None] = lambda: None,
    by: str = "",
    choose_among: Callable[[Sequence[Offer]], Choice] | None = None,
) -> Placing[Cluster]:
    """
    Return what places a job in a pool, for one try of a task; needs nothing of Airflow's.

    :param members: the open clusters.
    :param sources: the job's inputs; or where they are, if a task before has staged them.
    :param arguments: what else :func:`.submit_request` takes.
    :param store: what the task remembers.
    :param failover_after_s: see :class:`.JobToPlace`.
    :param check: raises an error when the task is to stop.
    :param by: who asks, in words.
    :param choose_among: see :class:`.Placing`.
    """
    job = JobToPlace(job_id, arguments["request_key"], arguments["spec"].to_json(), failover_after_s, by)
    common: Any = {"store": store, "members": members, "log": log, "check": check}
    if isinstance(sources, Staged):
        staged = StagedJob(pool, members, sources, job_id=job_id, arguments=arguments, log=log)
        return Placing(
            pool,
            job,
            offers=staged.offers,
            launch=staged.launch,
            carry=staged.carry,
            choose_among=staged.choose_among,
            **common,
        )

    def launch(cluster: Cluster, placement: Placement | None) -> Submission:
        placed: Any = {} if placement is None else {"placement": placement}
        return cluster.submit(job_id, sources=sources, **{**arguments, **placed})

    def carry(origin: str, target: str) -> None:
        carry_along(members, job_id, origin, target, record=arguments["record"], is_staged=False, log=log)

    offers = _asking(members, job_id, sources, arguments)
    return Placing(pool, job, offers=offers, launch=launch, carry=carry, choose_among=choose_among, **common)


def moves_of(
    pool: Pool,
    members: Members[Cluster],
    *,
    job_id: str,
    sources: Sequence[Source] | Staged,
    arguments: LaunchArguments,
    placing: Callable[[], Placing[Cluster]],
    move_gain_s: float,
    log: Log,
    is_second_look: bool = False,
) -> Moves:
    """
    Return what moves a job while it waits, for a process that has its files.

    :param placing: makes what places it, see :func:`placing_of`.
    :param move_gain_s: how much sooner it must start elsewhere, in seconds.
    :param is_second_look: whether a trigger has found that it should move.
    """
    is_staged = isinstance(sources, Staged)
    # What was staged is brought along, and counts as that.
    ask = _asking(members, job_id, () if isinstance(sources, Staged) else sources, arguments)

    def bytes_to_carry(conn_id: str) -> int:
        return members(conn_id).to_carry(job_id, with_inputs=is_staged)["bytes"]

    return Moves(
        offers=lambda: ask(pool),
        placing=placing,
        policy=pool.policy,
        move_gain_s=move_gain_s,
        log=log,
        bytes_to_carry=bytes_to_carry,
        is_staged=is_staged,
        is_second_look=is_second_look,
    )


def _asking(
    members: Members[Cluster], job_id: str, sources: Sequence[Source], arguments: LaunchArguments
) -> Callable[[Pool], list[Offer]]:
    """Return what asks the clusters of a pool for their offers for a job."""
    spec = arguments["spec"].to_json()
    appraised = job_to_appraise(job_id, spec=spec, sources=sources, record=arguments["record"])
    return lambda pool: offers_of(pool, [appraised], open_member=members)[0]
