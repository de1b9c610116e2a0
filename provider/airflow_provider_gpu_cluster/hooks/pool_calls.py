"""What the hook does with a pool: finds the cluster of a job, and asks all members at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import structlog

from airflow_provider_gpu_cluster.connection.retry import RETRY_FOR_S
from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError, GpuClusterError, LaunchError
from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.hooks.pool_launch import launch_in_pool
from airflow_provider_gpu_cluster.hooks.pool_staging import stage_in_pool
from airflow_provider_gpu_cluster.hooks.summary import summary_of
from airflow_provider_gpu_cluster.jobs.handle import MOST_HOPS
from airflow_provider_gpu_cluster.jobs.identity import current_requester
from airflow_provider_gpu_cluster.jobs.status import JobState, JobStatus
from airflow_provider_gpu_cluster.pools.members import Members
from airflow_provider_gpu_cluster.pools.pool import Pool
from airflow_provider_gpu_cluster.pools.side_by_side import side_by_side

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.cluster import Cluster
    from airflow_provider_gpu_cluster.gpu_run.protocol.job_list import JobsReply
    from airflow_provider_gpu_cluster.gpu_run.protocol.ledger import UsageRow
    from airflow_provider_gpu_cluster.gpu_run.protocol.replies import Capacity
    from airflow_provider_gpu_cluster.jobs.handle import JobHandle
    from airflow_provider_gpu_cluster.jobs.identity import JobIdentity
    from airflow_provider_gpu_cluster.jobs.request import JobRequest
    from airflow_provider_gpu_cluster.jobs.submission import Submission
    from airflow_provider_gpu_cluster.sources import Source

log = structlog.get_logger(__name__)

_Result = TypeVar("_Result")

# What a silent member costs where the others' answers are of use without its own, in seconds. It may first have to
# install the program.
SILENT_S = 6.0
# Until a cluster has done what takes long, or is given up by the connection to it.
_AS_LONG_AS_IT_TAKES_S = 86_400.0
_ON_ITS_WAY = "it is being moved, and each of its clusters says that it is on another one"


class PoolCalls:
    """
    Calls to the members of a pool; :class:`.ClusterCalls` has the same methods for one cluster.

    :param pool: the pool.
    :param members: its clusters, open or not.
    """

    def __init__(self, pool: Pool, members: Members[Cluster]) -> None:
        self._pool = pool
        self._members = members

    def ask_all(
        self, ask: Callable[[Cluster], _Result], *, wait_s: float | None = None
    ) -> dict[str, _Result | GpuClusterError]:
        """
        Ask all members at once; return the answer of each in their order, or the error in its place.

        :param wait_s: how long to wait for those that are silent, in seconds; None for :data:`SILENT_S`.
        """
        wait_s = SILENT_S if wait_s is None else wait_s

        def ask_for_a_while(cluster: Cluster) -> _Result:
            # Whoever is given up while it still tries says nothing of why it is out of reach.
            return ask(cluster.retrying_for(min(RETRY_FOR_S, wait_s / 2)))

        return side_by_side(self._pool.conn_ids, ask_for_a_while, members=self._members, wait_s=wait_s)

    def conn_id_of(self, job_id: str, conn_id: str | None) -> str:
        """
        Return the connection of the cluster where a job is.

        :param conn_id: the one that its handle names, from which it may have moved; None to ask all members.
        """
        if conn_id is None:
            return self.conn_ids_of([job_id])[0]
        return self.conn_id_after(conn_id, job_id)

    def stage(self, request: JobRequest, identity: JobIdentity, sources: Sequence[Source]) -> JobHandle:
        """Copy a job's inputs to the member that has it, or to one that is chosen for it."""
        return stage_in_pool(self._pool, self._members, identity=identity, sources=sources, spec=request.needs())

    def launch(self, request: JobRequest, identity: JobIdentity, *, base_dir: Path) -> Submission:
        """
        Find a job on the member that has it, or choose one and launch it there.

        :param base_dir: folder that relative sources start from.
        """
        return launch_in_pool(self._pool, self._members, request, identity, base_dir=base_dir, by=current_requester())

    def conn_ids_of(self, job_ids: Sequence[str]) -> list[str]:
        """
        Return the connections of the members that have jobs, in the order of the jobs.

        :raises LaunchError: all have answered, and none has one of them.
        :raises GpuClusterConnectionError: none of those that have answered has it.
        """
        if not job_ids:
            return []
        found = self.ask_all(lambda cluster: dict(zip(job_ids, cluster.statuses(job_ids), strict=True)))
        return [_holder(job_id, found) for job_id in job_ids]

    def conn_id_after(self, conn_id: str, job_id: str) -> str:
        """Return the connection of the cluster to which a job went from one that a handle names, or that one."""
        return self._followed([(conn_id, job_id)], 0)[0][0]

    def statuses(self, jobs: Sequence[tuple[str | None, str]], *, tail_bytes: int = 0) -> list[JobStatus]:
        """
        Return the statuses of jobs on several clusters in the given order, from one call of each cluster.

        :param jobs: connection and id of each. A connection may be that of a cluster that is no member any more; for
            None, all members are asked.
        :raises GpuClusterError: a cluster did not answer.
        """
        bare = [job_id for conn_id, job_id in jobs if conn_id is None]
        where = dict(zip(bare, self.conn_ids_of(bare), strict=True))
        places = [(where[job_id] if conn_id is None else conn_id, job_id) for conn_id, job_id in jobs]
        return [status for _, status in self._followed(places, tail_bytes)]

    def _followed(self, jobs: Sequence[tuple[str, str]], tail_bytes: int) -> list[tuple[str, JobStatus]]:
        """Return where each job is, and its status there: a cluster that had it says where it went."""
        found: dict[tuple[str, str], tuple[str, JobStatus]] = {}
        seen: dict[tuple[str, str], list[str]] = defaultdict(list)
        asked = {job: job[0] for job in jobs}
        while asked:
            statuses = self._statuses_at([(conn_id, job_id) for (_, job_id), conn_id in asked.items()], tail_bytes)
            further = {}
            for (job, conn_id), status in zip(asked.items(), statuses, strict=True):
                seen[job].append(conn_id)
                found[job] = conn_id, status
                if status.moved_to is None or status.moved_to == conn_id:
                    continue
                # It may have been moved back while it was looked for.
                if seen[job].count(status.moved_to) < 2 and len(seen[job]) < MOST_HOPS:
                    further[job] = status.moved_to
                else:
                    found[job] = conn_id, replace(status, state=JobState.UNKNOWN, message=_ON_ITS_WAY)
            asked = further
        return [found[job] for job in jobs]

    def _statuses_at(self, jobs: Sequence[tuple[str, str]], tail_bytes: int) -> list[JobStatus]:
        by_cluster: dict[str, list[str]] = defaultdict(list)
        for conn_id, job_id in jobs:
            by_cluster[conn_id].append(job_id)

        def ask(cluster: Cluster) -> dict[str, JobStatus]:
            job_ids = list(dict.fromkeys(by_cluster[cluster.settings.conn_id]))
            return dict(zip(job_ids, cluster.statuses(job_ids, tail_bytes=tail_bytes), strict=True))

        found = side_by_side(list(by_cluster), ask, members=self._members, wait_s=_AS_LONG_AS_IT_TAKES_S)
        answers = _all_answers(found)
        return [answers[conn_id][job_id] for conn_id, job_id in jobs]

    def cancel(self, job_ids: Sequence[str], *, requested_by: str) -> None:
        """Cancel jobs on whichever members have them."""
        found = self.ask_all(lambda cluster: cluster.cancel(job_ids, requested_by=requested_by))
        _some_answers(found, "what of these jobs is there was not cancelled")

    def cancel_one(self, job_id: str, *, requested_by: str, wait_s: float) -> tuple[str, JobStatus]:
        """
        Cancel a job on all members that answer: some of its clusters may know nothing yet of where it has gone.

        :param wait_s: how long to wait for it to end, in seconds.
        :return: the connection of the cluster where it is, and its status there.
        :raises GpuClusterConnectionError: a member that may have it does not answer.
        """

        def ask(cluster: Cluster) -> JobStatus:
            return cluster.cancel([job_id], requested_by=requested_by, wait_s=wait_s)[0]

        found = side_by_side(
            self._pool.conn_ids,
            ask,
            members=self._members,
            wait_s=wait_s + SILENT_S,
            is_enough=lambda outcomes: _where_alone(outcomes) is not None,
            # As long as any call tries to reach a cluster.
            patience_s=RETRY_FOR_S + wait_s + SILENT_S,
        )
        silent = {conn_id: one for conn_id, one in found.items() if isinstance(one, GpuClusterError)}
        at = _where_alone(found)
        if at is None:
            told = {conn_id: one for conn_id, one in found.items() if not isinstance(one, GpuClusterError)}
            if silent:
                raise _not_cancelled(job_id, silent)
            at = max(told, key=lambda conn_id: _nearness(told[conn_id]))
        _tell_silent(silent, "the job is on another one")
        return at, cast("JobStatus", found[at])

    def capacity(self) -> tuple[dict[str, Any], dict[str, Capacity]]:
        """Return what :meth:`.GpuClusterHook.capacity` returns for a pool, and the capacity of each that answered."""
        found = self.ask_all(lambda cluster: cluster.capacity())
        answers = _some_answers(found, "its capacity is left out")
        free = [one["free_gpus"] for one in answers.values()]
        broken = {conn_id: one.get("broken_gpus", []) for conn_id, one in answers.items()}
        together = {
            "gpus": _rows({conn_id: one["gpus"] for conn_id, one in answers.items()}),
            "free_gpus": None if None in free else sum(number for number in free if number is not None),
            "waiting_jobs": sum(one["waiting_jobs"] for one in answers.values()),
            "waiting_gpus": sum(one["waiting_gpus"] for one in answers.values()),
            "broken_gpus": _rows(broken),
            "members": _told(found),
        }
        return together, answers

    def jobs(self) -> dict[str, JobsReply]:
        """Return the jobs that wait or run on each member that answers."""
        found = self.ask_all(lambda cluster: cluster.jobs())
        return _some_answers(found, "its jobs were not looked at")

    def usage(self, *, since: datetime | None, until: datetime | None, by: str) -> list[UsageRow]:
        """Return the rows of each member, in the order of the members, each with its connection."""
        found = self.ask_all(lambda cluster: cluster.usage(since=since, until=until, by=by)["rows"])
        return cast("list[UsageRow]", _rows(_some_answers(found, "what was used there is left out")))

    def collect_garbage(self, older_than_s: float | None, *, dry_run: bool) -> dict[str, Any]:
        """Return what was removed on all members together, and by each."""
        found = self.ask_all(
            lambda cluster: cluster.collect_garbage(older_than_s, dry_run=dry_run), wait_s=_AS_LONG_AS_IT_TAKES_S
        )
        answers = _some_answers(found, "nothing was removed there").values()
        lists: dict[str, list[Any]] = {
            name: [one for report in answers for one in report[name]] for name in ("jobs", "environments", "failed")
        }
        numbers: dict[str, int] = {
            name: sum(report[name] for report in answers)
            for name in ("cache_entries", "uploads", "programs", "bytes_freed", "failures")
        }
        return {
            "older_than_s": older_than_s,
            "dry_run": dry_run,
            "busy": all(report["busy"] for report in answers),
            **lists,
            **numbers,
            "members": _told(found),
        }

    def audit(self, job_id: str) -> list[dict[str, Any]]:
        """
        Return what was done with a job on all members that know it, the oldest first, each with its connection.

        :raises LaunchError: all have answered, and none knows it.
        :raises GpuClusterConnectionError: none of those that have answered knows it.
        """
        found = self.ask_all(lambda cluster: cluster.audit(job_id)["acts"])
        acts = _rows({conn_id: one for conn_id, one in found.items() if isinstance(one, list)})
        if not acts:
            raise _unknown(
                job_id, {name: one for name, one in found.items() if not isinstance(one, LaunchError)}, found
            )
        _tell_silent(
            {conn_id: one for conn_id, one in found.items() if not isinstance(one, LaunchError)}, "what was done there"
        )
        return sorted(acts, key=lambda act: str(act.get("at", "")))

    def test(self, warnings: Callable[[str], Iterable[str]]) -> tuple[bool, str]:
        """
        Return whether all members work, and what is known of each, for Airflow's button.

        :param warnings: returns what was found wrong with a connection on the Airflow side.
        """

        def ask(cluster: Cluster) -> str:
            found = cluster.check()
            return summary_of(cluster.settings, found, warnings=warnings(cluster.settings.conn_id))

        found = self.ask_all(ask)
        works = [conn_id for conn_id, one in found.items() if isinstance(one, str)]
        first = f"{len(works)} of {len(found)} clusters of the pool {'works' if len(works) == 1 else 'work'}."
        told = [
            f"{conn_id}: {one}" if isinstance(one, str) else f"{conn_id} DOES NOT WORK: {str(one).rstrip('.')}."
            for conn_id, one in found.items()
        ]
        return len(works) == len(found), "\n".join([first, *told])


def _holder(job_id: str, found: Mapping[str, dict[str, JobStatus] | GpuClusterError]) -> str:
    """
    Return the connection of the cluster that has a job.

    :param found: what each has told about jobs.
    """
    told = {conn_id: one[job_id] for conn_id, one in found.items() if not isinstance(one, GpuClusterError)}
    silent = {conn_id: one for conn_id, one in found.items() if isinstance(one, GpuClusterError)}
    has = [conn_id for conn_id, status in told.items() if status.attempt > 0 or status.elements]
    # A job that was only staged, or that its cluster cannot look at now; with one that is silent it may be as well.
    unknown = [conn_id for conn_id, status in told.items() if status.state is JobState.UNKNOWN]
    if has or (unknown and not silent):
        return max(has or unknown, key=lambda conn_id: _nearness(told[conn_id]))
    not_said = {conn_id: told[conn_id].message or "it does not know its state" for conn_id in unknown}
    raise _unknown(job_id, {**silent, **not_said}, found)


def _unknown(job_id: str, silent: Mapping[str, object], asked: Iterable[str]) -> GpuClusterError:
    """Return the error for a job that no cluster has that was asked."""
    if silent:
        return GpuClusterConnectionError(
            f"job {job_id} is on none of the clusters of the pool that have answered, and these have not: "
            f"{'; '.join(f'{conn_id}: {why}' for conn_id, why in silent.items())}"
        )
    return LaunchError(
        f"no cluster of the pool knows job {job_id} (asked were {', '.join(asked)}): it was deleted there, or it "
        "belongs to another connection"
    )


def _where_alone(found: Mapping[str, JobStatus | GpuClusterError]) -> str | None:
    """Return the cluster that has a job, and from which no failover can have followed; None if none has said so."""
    certain = {
        conn_id: _nearness(one)
        for conn_id, one in found.items()
        if not isinstance(one, GpuClusterError)
        and one.state is not JobState.LOST
        and one.reason != protocol.ORPHANED
        and any(_nearness(one))
    }
    return max(certain, key=lambda conn_id: certain[conn_id], default=None)


def _not_cancelled(job_id: str, silent: Mapping[str, GpuClusterError]) -> GpuClusterConnectionError:
    clusters = "; ".join(f"{conn_id}: {error}" for conn_id, error in silent.items())
    return GpuClusterConnectionError(
        f"job {job_id} may wait or run on a cluster that does not answer, and was not cancelled there ({clusters}). "
        "Try again when that is back; with an orphan_timeout, the job ends by itself"
    )


def _nearness(status: JobStatus) -> tuple[bool, bool, int]:
    """Return what is greatest for the cluster where a job is, if it was on several."""
    if status.moved_to is not None or status.placement is not None:
        return False, False, 0
    goes_on_or_succeeded = status.state in (JobState.QUEUED, JobState.RUNNING, JobState.SUCCEEDED)
    return bool(status.attempt or status.elements), goes_on_or_succeeded, status.attempt


def _rows(rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Return the rows of all clusters, each with the connection of its cluster."""
    return [{**row, "gpu_cluster_conn_id": conn_id} for conn_id, some in rows.items() for row in some]


def _told(found: Mapping[str, object]) -> dict[str, dict[str, Any]]:
    """Return for each member what it has answered, or why it has not."""
    return {
        conn_id: {"error": str(one)} if isinstance(one, GpuClusterError) else dict(one)  # type: ignore[call-overload]
        for conn_id, one in found.items()
    }


def _all_answers(found: Mapping[str, _Result | GpuClusterError]) -> dict[str, _Result]:
    """
    Return the answers of all.

    :raises GpuClusterError: one has none.
    """
    answers = {}
    for conn_id, one in found.items():
        if isinstance(one, GpuClusterError):
            raise one
        answers[conn_id] = one
    return answers


def _some_answers(found: Mapping[str, _Result | GpuClusterError], without: str) -> dict[str, _Result]:
    """
    Return the answers of those that have one, and tell of the others.

    :param without: what that means, for the log.
    :raises GpuClusterError: none has.
    """
    answers = {conn_id: one for conn_id, one in found.items() if not isinstance(one, GpuClusterError)}
    if not answers:
        return _all_answers(found)
    _tell_silent(found, without)
    return answers


def _tell_silent(found: Mapping[str, object], without: str) -> None:
    for conn_id, one in found.items():
        if isinstance(one, GpuClusterError):
            log.warning(
                f"A cluster of the pool has not answered; {without}", gpu_cluster_conn_id=conn_id, error=str(one)
            )
