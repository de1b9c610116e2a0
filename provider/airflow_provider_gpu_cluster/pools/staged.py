"""
The job of a pool whose inputs a task before has staged on one of its clusters.

It is launched where they are, with what was staged. It goes to another cluster when that one is out of reach or cannot
take it: with its inputs from there, as long as that cluster can be reached, or else staged again from their sources.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_provider_gpu_cluster.connection.retry import RETRY_FOR_S
from airflow_provider_gpu_cluster.exceptions import (
    CannotCarryError,
    GpuClusterConnectionError,
    GpuClusterError,
    NoClusterFitsError,
    StagingError,
)
from airflow_provider_gpu_cluster.pools.appraised_job import job_to_appraise
from airflow_provider_gpu_cluster.pools.asking import offers_of
from airflow_provider_gpu_cluster.pools.choice import Choice, choose
from airflow_provider_gpu_cluster.pools.moving import carry_along
from airflow_provider_gpu_cluster.pools.placed_offers import last_of, state_of
from airflow_provider_gpu_cluster.pools.pool import Pool

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.cluster import Cluster
    from airflow_provider_gpu_cluster.gpu_run.protocol.placement import Placement
    from airflow_provider_gpu_cluster.jobs.submission import LaunchArguments, Submission
    from airflow_provider_gpu_cluster.logs.job_log import Log
    from airflow_provider_gpu_cluster.pools.members import Members
    from airflow_provider_gpu_cluster.pools.offer import Offer
    from airflow_provider_gpu_cluster.sources import Source

# How long a cluster that has the inputs may be out of reach before they are staged again on another one, in seconds.
WAIT_S = 30.0


@dataclass(frozen=True)
class Staged:
    """
    Where the inputs of a job are.

    :param at: the cluster on which a task before has staged them, by its connection.
    :param sources: reads from what they are staged again on another cluster; None if that is not known.
    """

    at: str
    sources: Callable[[], Sequence[Source]] | None = None


class StagedJob:
    """
    What :class:`.Placing` needs to place such a job.

    :param pool: the pool, with the policy that the task wants.
    :param members: the open clusters.
    :param arguments: what :func:`.submit_request` takes besides the inputs.
    """

    def __init__(
        self,
        pool: Pool,
        members: Members[Cluster],
        staged: Staged,
        *,
        job_id: str,
        arguments: LaunchArguments,
        log: Log,
    ) -> None:
        self._pool = pool
        self._members = members
        self._staged = staged
        self._job_id = job_id
        self._arguments = arguments
        self._log = log
        self._has_waited = False
        self._last: str | None = None
        # The clusters that have all inputs: they were staged there, have come along, or an attempt was made with them.
        self._there = {staged.at}

    # -- choosing

    def offers(self, pool: Pool) -> list[Offer]:
        """Return what each cluster offers, without what would have to be sent there."""
        offers = self._ask(pool, ())
        if self._is_to_be_waited_for(offers):
            self._wait()
            offers = self._ask(pool, ())
        self._last = last_of(offers)
        self._there.update(offer.conn_id for offer in offers if state_of(offer) is not None)
        return offers

    def _ask(self, pool: Pool, sources: Sequence[Source]) -> list[Offer]:
        spec, record = self._arguments["spec"].to_json(), self._arguments["record"]
        job = job_to_appraise(self._job_id, spec=spec, sources=sources, record=record)
        return offers_of(pool, [job], open_member=self._members)[0]

    def _is_to_be_waited_for(self, offers: Sequence[Offer]) -> bool:
        """Return whether the cluster that has the inputs is silent, and no other one knows anything of the job."""
        is_silent = any(offer.conn_id == self._staged.at and not offer.answered for offer in offers)
        return is_silent and not self._has_waited and all(offer.placed is None for offer in offers)

    def _wait(self) -> None:
        self._has_waited = True
        wait_s = RETRY_FOR_S if self._staged.sources is None else WAIT_S
        self._log.info(
            f"{self._staged.at}, which has the staged inputs of the GPU job, does not answer; trying for {wait_s:.0f} s"
        )
        spec, record = self._arguments["spec"].to_json(), self._arguments["record"]
        job = job_to_appraise(self._job_id, spec=spec, sources=(), record=record)
        with contextlib.suppress(GpuClusterError):
            self._members(self._staged.at).retrying_for(wait_s).appraise([job])

    def choose_among(self, offers: Sequence[Offer]) -> Choice:
        """
        Choose a cluster: the one where the inputs are staged, or anew after an attempt has ended.

        :raises NoClusterFitsError: none can ever run it.
        :raises GpuClusterConnectionError: none can now.
        """
        if self._last is not None:
            return choose(self._with_what_comes_along(offers), self._pool.policy)
        for offer in offers:
            if offer.conn_id == self._staged.at and offer.answered and offer.fits:
                return Choice(offer, "its inputs are staged there", (offer,))
        return choose(self._with_what_is_sent(offers), self._pool.policy)

    def _with_what_comes_along(self, offers: Sequence[Offer]) -> list[Offer]:
        """Return the offers with what the job would bring along to each cluster."""
        assert self._last is not None
        others = [offer.conn_id for offer in offers if offer.answered and offer.fits and offer.conn_id != self._last]
        if not others:
            return list(offers)
        known: dict[str, Any]
        try:
            job = self._members(self._last).to_carry(self._job_id, with_inputs=True)
            known = {"missing_bytes": job["bytes"], "send_s": None}
        except GpuClusterError as error:
            # That may be repaired there; as long as it is not, the job goes on where it was.
            known = {"fits": False, "is_passing": not isinstance(error, CannotCarryError), "why_not": str(error)}
        return [replace(offer, **known) if offer.conn_id in others else offer for offer in offers]

    def _with_what_is_sent(self, offers: Sequence[Offer]) -> list[Offer]:
        """
        Return the offers with what has to be sent to each cluster if the inputs are staged anew.

        :raises GpuClusterError: nobody has given their sources.
        """
        if self._staged.sources is None:
            self._give_up(next(offer for offer in offers if offer.conn_id == self._staged.at))
        self._log.info(f"GPU job cannot go to {self._staged.at}, where its inputs are; they are staged again elsewhere")
        may = [offer for offer in offers if offer.answered and offer.fits]
        if not may:
            return list(offers)
        asked = self._ask(replace(self._pool, members=tuple(offer.member for offer in may)), self._sources)
        anew = {offer.conn_id: offer for offer in asked}
        return [anew.get(offer.conn_id, offer) for offer in offers]

    def _give_up(self, offer: Offer) -> NoReturn:
        is_passing = not offer.answered or offer.is_passing
        why = "cannot run it" if offer.answered else "does not answer"
        raise (GpuClusterConnectionError if is_passing else NoClusterFitsError)(
            f"job {self._job_id}: its inputs are staged on {offer.conn_id} alone, which {why} ({offer.why_not}). Clear "
            "the task that has staged them, which then chooses another cluster. For such a job to go to another one by "
            "itself, give the task that launches it the code, data and models as well"
        )

    @cached_property
    def _sources(self) -> Sequence[Source]:
        assert self._staged.sources is not None
        return self._staged.sources()

    # -- launching

    def carry(self, origin: str, target: str) -> None:
        """Bring along what the job has saved, and its inputs."""
        record = self._arguments["record"]
        carry_along(self._members, self._job_id, origin, target, record=record, is_staged=True, log=self._log)
        self._there.add(target)

    def launch(self, cluster: Cluster, placement: Placement | None) -> Submission:
        """
        Launch it with the inputs that are there, or stage them first.

        :raises StagingError: they are not there, and nobody has given their sources.
        """
        conn_id = cluster.settings.conn_id
        placed: Any = {} if placement is None else {"placement": placement}
        if conn_id in self._there:
            return cluster.submit(self._job_id, sources=None, **{**self._arguments, **placed})
        if self._staged.sources is None:
            raise StagingError(f"job {self._job_id}: its inputs are staged on {self._staged.at}, and not on {conn_id}")
        return cluster.submit(self._job_id, sources=self._sources, **{**self._arguments, **placed})
