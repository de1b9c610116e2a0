"""Launches an array whose elements go to several clusters of a pool: as an array on each of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_provider_gpu_cluster.exceptions import JobConflictError, PlacementUnknownError
from airflow_provider_gpu_cluster.hooks.airflow_outage import outlast
from airflow_provider_gpu_cluster.hooks.gpu_cluster import GpuClusterHook
from airflow_provider_gpu_cluster.hooks.placement_stores import RETENTION, store_of_job
from airflow_provider_gpu_cluster.jobs.array import listed
from airflow_provider_gpu_cluster.jobs.handle import part_id
from airflow_provider_gpu_cluster.operators.in_pool import JobInPool
from airflow_provider_gpu_cluster.operators.part import PartInPool
from airflow_provider_gpu_cluster.pools.asking import offers_of
from airflow_provider_gpu_cluster.pools.keeping import PLACE_EVERY_S, JobWentElsewhere
from airflow_provider_gpu_cluster.pools.parts import as_one, handle_of
from airflow_provider_gpu_cluster.pools.placement_record import PlacementRecord
from airflow_provider_gpu_cluster.pools.spreading import SpreadPlan, plan_of

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.gpu_run.protocol.appraisal import JobToAppraise
    from airflow_provider_gpu_cluster.gpu_run.protocol.requests import SubmitRequest
    from airflow_provider_gpu_cluster.jobs.status import JobStatus
    from airflow_provider_gpu_cluster.jobs.submission import Submission
    from airflow_provider_gpu_cluster.pools.keeping import KeepsPlace, PlaceMember
    from airflow_provider_gpu_cluster.pools.offer import Offer
    from airflow_provider_gpu_cluster.pools.placement_record import PlacementStore
    from airflow_provider_gpu_cluster.sources import Source
    from airflow_provider_gpu_cluster.triggers.pool_job import PoolArgument

# In the task's state store: which elements go where.
SPREAD_KEY = "gpu_cluster_spread"
# How long a task that is stopped waits for what keeps its parts' places, in seconds.
_STOP_WAIT_S = 2.0


class SpreadArray(JobInPool):
    """
    The array of one try of a task, in parts on several clusters, with the parameters of :class:`.JobInPool`.

    Each part is placed like a job of its own, and goes elsewhere like one.
    """

    def __init__(self, *arguments: Any, context: Mapping[str, Any], **options: Any) -> None:
        super().__init__(*arguments, context=context, **options)
        self._context = context
        self._given = options
        self._state: Any = context["task_state_store"]
        self._parts: list[PartInPool] = []

    def launch(self, *, pause: Callable[[float], None], patience_s: float) -> Submission:
        """
        Launch all parts, one after the other, or find them launched; see :meth:`.JobInPool.launch`.

        :raises NoClusterFitsError: no cluster can ever run an element.
        """
        self._tell_if_failover_is_of_little_use()
        self._parts = self._parts_of(self._plan(len(listed(self._request.array))))
        for part in self._parts:
            part.keep_what_is_launched()
        until, told, left = time.monotonic() + patience_s, "", self._parts
        while True:
            later = []
            for part in left:
                try:
                    part.launch(pause=pause, patience_s=-1)
                except PlacementUnknownError as error:
                    if time.monotonic() > until:
                        raise
                    later.append(part)
                    if str(error) != told:
                        told = str(error)
                        self._log.warning("A part of the GPU job array is not placed yet, trying again", error=told)
            left = later
            if not left:
                return self._as_one()
            pause(PLACE_EVERY_S)

    def _as_one(self, went: PartInPool | None = None) -> Submission:
        """
        Return how the whole array was launched, or found.

        :param went: the part that was launched on another cluster since.
        """
        submissions = [part.submission for part in self._parts]
        if went is not None:
            submissions = [
                one if part is went else replace(one, created=False, launched=0)
                for part, one in zip(self._parts, submissions, strict=True)
            ]
        return as_one(handle_of([submission.handle for submission in submissions]), submissions)

    def _plan(self, count: int) -> SpreadPlan:
        """Return what goes where: as in an earlier try, or shared out now. It is kept before anything is launched."""
        plan = self._known_plan()
        if plan is None:
            run_s = self._request.spec().time_limit_s
            offers = self._offers(self._request.sources(base_dir=self._folder))
            plan = plan_of(self._identity.job_id, count, offers, self._pool.policy, run_s=run_s)
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

    def _parts_of(self, plan: SpreadPlan) -> list[PartInPool]:
        array = listed(self._request.array)
        parts = []
        for part, job_id in zip(plan.parts, plan.part_ids(), strict=True):
            made = PartInPool(
                self._pool,
                self._hook,
                replace(self._identity, job_id=job_id),
                replace(self._request, array=array[part.first : part.first + part.count]),
                part=part,
                count=plan.count,
                context=self._context,
                store=self._store_of(job_id),
                **self._given,
            )
            if self._is_after_trigger:
                made.do_what_the_trigger_could_not()
            parts.append(made)
        return parts

    def _store_of(self, job_id: str) -> PlacementStore:
        return store_of_job(self._context, job_id, is_own=False)

    # -- waiting

    @property
    def keeper(self) -> KeepsPlace | None:
        """What keeps the places of all parts; None before they are launched."""
        return self if self._parts else None

    def in_contact(self, member: PlaceMember, status: JobStatus) -> None:
        """Tell what has become of the parts, whose places are kept beside this; see :class:`.KeepsPlace`."""
        if status.is_elsewhere:
            for part in self._parts:
                part.keep_on()
        self._tell_news()

    def out_of_reach(self) -> None:
        """Tell what has become of the parts, whose places are kept beside this; see :class:`.KeepsPlace`."""
        self._tell_news()

    def _tell_news(self) -> None:
        for part in self._parts:
            if part.take_news():
                raise JobWentElsewhere(self._as_one(part))

    def note_end(self) -> None:
        """Do nothing: a next try finds each part where it is."""

    def close(self) -> None:
        """End what goes on beside the task."""
        for part in self._parts:
            part.rest(wait_s=_STOP_WAIT_S)

    # -- waiting in a trigger

    def argument(self, launch: SubmitRequest | None) -> PoolArgument | None:
        """Return what a trigger is told that waits for the array, which a worker launches; and note that it does so."""
        for part in self._parts:
            part.rest()
        each = {part.job_id: one for part in self._parts if (one := part.argument(None)) is not None}
        parts = {
            job_id: {"record": one["record"], "is_precise": one["is_precise"], "move_gain_s": one["move_gain_s"]}
            for job_id, one in each.items()
        }
        return {**each[self._identity.job_id], "parts": parts}

    def may_be_launched_by_a_trigger(self) -> bool:
        """Return False: only a worker can launch an array."""
        return False

    def go_on(self, placement: Mapping[str, Any], *, has_ended: bool) -> None:
        """Take over from a trigger; see :meth:`.JobInPool.go_on`. What has ended stays where it was."""
        for job_id, record in placement.get("parts", {}).items():
            self._store_of(job_id).save(PlacementRecord.from_json(record))

    # -- cancelling

    def interrupt(self) -> None:
        """Make a call that waits for a cluster fail now. Safe in a signal handler."""
        super().interrupt()
        for part in self._parts:
            part.interrupt()

    @property
    def may_have_it(self) -> list[str]:
        """The clusters on which something of a part may wait or run, or may be on its way."""
        found = [conn_id for part in self._cancelled_parts() for conn_id in part.may_have_it]
        return list(dict.fromkeys((*self._pool.conn_ids, *found)))

    def _cancelled_parts(self) -> list[PartInPool]:
        plan = self._known_plan()
        return self._parts or ([] if plan is None else self._parts_of(plan))

    def cancel(self) -> None:
        """
        Cancel all parts, wherever they are or may be; see :meth:`.JobInPool.cancel`.

        :raises GpuClusterConnectionError: a cluster that may have one has not answered.
        """
        parts = self._cancelled_parts()
        job_ids = [part.job_id for part in parts] or [self._identity.job_id]
        keys = dict.fromkeys(job_ids, self._identity.request_key)
        with GpuClusterHook(self._hook.gpu_cluster_conn_id) as anew:
            answers, failed = self._cancel(job_ids, anew, at=self.may_have_it, by=self._by, request_keys=keys)
        for part in parts:
            part.check_cancelled(answers, failed)
        self._tell_uncancelled(self._identity.job_id, failed)

    def cancel_forerunners(self, job_ids: Sequence[str], *, by: str) -> None:
        """Cancel arrays that the task had before users cleared it, with all parts that they may have had."""
        numbers = range(len(self._pool.members))
        super().cancel_forerunners([part_id(job_id, number) for job_id in job_ids for number in numbers], by=by)
