"""The hook: the cluster that an Airflow Connection describes, and what can be done on it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta, timezone
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook, ObjectStoragePath, get_current_context

from airflow_provider_gpu_cluster.exceptions import GpuClusterError, GpuClusterSetupError
from airflow_provider_gpu_cluster.gpu_run.protocol import durations
from airflow_provider_gpu_cluster.gpu_run.protocol.ledger import BY_USER, BYS
from airflow_provider_gpu_cluster.gpu_run.protocol.moments import in_utc, moment_of
from airflow_provider_gpu_cluster.hooks.given_job import Job, conn_id_in, job_id_of, spread_in
from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.jobs.identity import (
    JobIdentity,
    current_caller,
    current_identity,
    current_requester,
)
from airflow_provider_gpu_cluster.jobs.parameter_checks import connection_ids, patterns
from airflow_provider_gpu_cluster.jobs.parameters import JobParameters, spelled_out
from airflow_provider_gpu_cluster.jobs.request import JobRequest, checked_needs
from airflow_provider_gpu_cluster.jobs.status import JobStatus

if TYPE_CHECKING:
    import paramiko
    from airflow.sdk import Connection
    from typing_extensions import Unpack

    from airflow_provider_gpu_cluster.cluster import Cluster
    from airflow_provider_gpu_cluster.connection.settings import ClusterSettings
    from airflow_provider_gpu_cluster.gpu_run.protocol.ledger import UsageRow
    from airflow_provider_gpu_cluster.gpu_run.protocol.requests import Caller
    from airflow_provider_gpu_cluster.hooks.array_in_parts import ArrayInParts
    from airflow_provider_gpu_cluster.hooks.cluster_calls import ClusterCalls
    from airflow_provider_gpu_cluster.hooks.pool_calls import PoolCalls
    from airflow_provider_gpu_cluster.hooks.ssh import SshConnector
    from airflow_provider_gpu_cluster.hooks.whole_job import WholeJob
    from airflow_provider_gpu_cluster.jobs.orphan import OrphanedJob
    from airflow_provider_gpu_cluster.jobs.submission import Submission
    from airflow_provider_gpu_cluster.pools.members import Members
    from airflow_provider_gpu_cluster.pools.pool import Policy, Pool
    from airflow_provider_gpu_cluster.sources.parse import Written


class GpuClusterHook(BaseHook):
    """
    Run GPU jobs on a cluster that can only be reached by SSH.

    Its methods take and return plain values, so that a task can use them directly::

        @task
        def train():
            with GpuClusterHook() as hook:
                return hook.submit(code="train_digits", entry_script="train.py", gpus=1)

    The first call that needs the SSH connection opens it; :meth:`close` or the end of a ``with`` block closes it.

    With a pool of clusters, ``GpuClusterHook(["gpu01", "gpu02"])``, :meth:`submit` and :meth:`stage` choose one, and a
    method that is about a job asks the cluster that its handle names. With a bare job id, all are asked which one has
    it.

    :param gpu_cluster_conn_id: connection of type ``gpu_cluster``; or a pool: a list of them, or a connection of type
        ``gpu_cluster_pool``.
    :param policy: how a cluster of a pool is chosen, see :class:`.SubmitGpuJobOperator`; None for the pool
        connection's, which is ``"soonest"``.
    """

    conn_name_attr = "gpu_cluster_conn_id"
    default_conn_name = "gpu_cluster_default"
    conn_type = "gpu_cluster"
    hook_name = "GPU cluster"

    def __init__(
        self, gpu_cluster_conn_id: str | Sequence[str] = default_conn_name, policy: Policy | None = None
    ) -> None:
        super().__init__()
        ids = connection_ids(gpu_cluster_conn_id)
        self.gpu_cluster_conn_id: str | list[str] = str(gpu_cluster_conn_id) if ids is None else ids
        self.caller: Caller | None = None
        """Who asks, for the audit trails of jobs; None for the running task, or the person who runs this process."""
        self._policy = policy
        self._hooks: dict[str, GpuClusterHook] = {}

    @cached_property
    def pool(self) -> Pool | None:
        """The pool of clusters of which one is chosen for each job; None if this is one cluster."""
        from airflow_provider_gpu_cluster.hooks.pools import pool_in, pool_of
        from airflow_provider_gpu_cluster.pools.placement_options import checked_policy

        policy = checked_policy(self._policy)
        if isinstance(self.gpu_cluster_conn_id, str):
            return pool_in(self._connection, policy)
        return pool_of(self.gpu_cluster_conn_id, policy)

    @cached_property
    def members(self) -> Members[Cluster]:
        """The clusters of a pool, and others where its jobs are, by their connections."""
        from airflow_provider_gpu_cluster.pools.members import Members

        return Members(self._new_cluster)

    def _new_cluster(self, conn_id: str) -> Cluster:
        hook = self._hooks[conn_id] = GpuClusterHook(conn_id)
        hook.caller = self.caller
        return hook.cluster

    def member(self, conn_id: str) -> GpuClusterHook:
        """
        Return the hook of one cluster of a pool; :meth:`close` closes its connection too.

        :param conn_id: its connection, which may also be that of a cluster that was taken from the pool since.
        """
        if conn_id == self.gpu_cluster_conn_id:
            return self
        cluster = self.members(conn_id)
        member = self._hooks[conn_id]
        member.cluster = cluster
        return member

    def cluster_of(self, conn_id: str) -> Cluster:
        """Return the cluster of a connection; see :meth:`member`."""
        return self.member(conn_id).cluster

    @cached_property
    def _calls(self) -> ClusterCalls | PoolCalls:
        """What is done on the one cluster, or on those of the pool."""
        if self.pool is None:
            from airflow_provider_gpu_cluster.hooks.cluster_calls import ClusterCalls

            return ClusterCalls(str(self.gpu_cluster_conn_id), lambda: self.cluster)
        from airflow_provider_gpu_cluster.hooks.pool_calls import PoolCalls

        return PoolCalls(self.pool, self.members)

    def _hook_with(self, job: Job) -> GpuClusterHook:
        """Return the hook of the cluster where a job is."""
        job_id, conn_id = job_id_of(job), conn_id_in(job)
        return self.member(self._calls.conn_id_of(job_id, conn_id))

    def _at(self, job: Job) -> WholeJob | ArrayInParts:
        """Return the job where it is, on one cluster or on several."""
        job_id, spread = job_id_of(job), spread_in(job)
        if spread is None:
            from airflow_provider_gpu_cluster.hooks.whole_job import WholeJob

            return WholeJob(job_id, lambda: self._hook_with(job).cluster)
        from airflow_provider_gpu_cluster.hooks.array_in_parts import ArrayInParts

        return ArrayInParts(spread, self.cluster_of)

    @cached_property
    def settings(self) -> ClusterSettings:
        """Settings of the cluster, as the connection gives them."""
        from airflow_provider_gpu_cluster.hooks.settings import settings_of

        return settings_of(self._connection_of_cluster)

    @property
    def _connection_of_cluster(self) -> Connection:
        pool = self.pool
        if pool is not None:
            named = self.gpu_cluster_conn_id if pool.conn_id is None else f"connection {pool.conn_id}"
            raise GpuClusterSetupError(
                f"{named} is a pool of clusters ({', '.join(pool.conn_ids)}), and this needs one of them: use "
                f"member({pool.conn_ids[0]!r}) of the hook"
            )
        return self._connection

    @cached_property
    def _connection(self) -> Connection:
        # Reading it takes a request to Airflow's API server.
        from airflow_provider_gpu_cluster.hooks.defined_connection import defined_connection

        assert isinstance(self.gpu_cluster_conn_id, str)
        return defined_connection(self.gpu_cluster_conn_id)

    @cached_property
    def cluster(self) -> Cluster:
        """The cluster itself, for operations that the methods below do not offer."""
        # Imported late, because it imports all of SSH, and Airflow parses DAG files again and again.
        from airflow_provider_gpu_cluster.cluster import Cluster

        return Cluster(self.settings, self.connect, caller=self.caller or current_caller())

    def connect(self) -> paramiko.SSHClient:
        """
        Open an SSH connection; the caller closes it.

        :raises GpuClusterConnectionError: the cluster cannot be reached, or refuses the login.
        """
        return self._connector.connect()

    def get_conn(self) -> paramiko.SSHClient:
        """Open an SSH connection; the method name that all Airflow hooks share."""
        return self.connect()

    @cached_property
    def _connector(self) -> SshConnector:
        from airflow_provider_gpu_cluster.hooks.ssh import SshConnector

        return SshConnector(self._connection_of_cluster)

    def close(self) -> None:
        """Close the SSH connections that are open."""
        if "cluster" in self.__dict__:
            self.cluster.close()
            del self.__dict__["cluster"]
        if "members" in self.__dict__:
            self.members.close()

    def __enter__(self) -> GpuClusterHook:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def stage(
        self,
        *,
        code: Written | None = None,
        data: Written | Sequence[Written] | None = None,
        models: Written | Sequence[Written] | None = None,
        base_dir: str | os.PathLike[str] | None = None,
        job_id: str | None = None,
        needs: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """
        Copy code, data and models to the cluster without launching a job.

        :param code: source of the code: a local file or folder relative to the DAG file's folder, ``git+...``,
            ``cluster:...``, or a URL of an object store. A folder's content becomes the job's ``code/``, where it runs.
        :param data: one or more sources for the job's ``data/``.
        :param models: one or more sources for the job's ``models/``.
        :param base_dir: folder that relative sources start from; by default the DAG file's, or else the current
            directory.
        :param job_id: id of the job; by default it is derived from the running task.
        :param needs: in a pool: what the job will need, by which its cluster is chosen now, such as
            ``{"gpus": 4, "gpu_type": "A100"}``.
        :return: the job's handle, to pass to :meth:`submit`.
        """
        request = JobRequest(**{**checked_needs(needs), "code": code, "data": data, "models": models})
        return self.prepare(request, current_identity(job_id=job_id), base_dir=base_dir).to_json()

    @spelled_out
    def submit(
        self,
        *,
        job: Job | None = None,
        job_id: str | None = None,
        base_dir: str | os.PathLike[str] | None = None,
        **parameters: Unpack[JobParameters],
    ) -> dict[str, Any]:
        """
        Launch a job and return at once.

        A task launches one job: a second call, in a retry or after a lost reply, finds the existing job. To launch a
        second job from one task, give it a ``job_id``.

        :param job: handle of a staged job, whose sources are used.
        :param job_id: id of the job; by default it is derived from the running task.
        :param base_dir: folder that relative sources start from; by default the DAG file's, or else the current
            directory.
        :param parameters: what to run and what it needs; see :class:`.JobParameters`.
        :return: the job's handle, as the operators leave it in XCom.
        """
        staged = job_id_of(job) if job is not None else None
        identity = current_identity(job_id=staged if job_id is None else job_id)
        request = JobRequest(**parameters)
        hook = self if job is None else self._hook_with(job)
        return hook.launch(request, identity, base_dir=base_dir, staged=job is not None).handle.to_json()

    def resubmit(
        self,
        job: Job,
        *,
        env: Mapping[str, Any] | None = None,
        array: Sequence[Any] | None = None,
        after: int | None = None,
    ) -> dict[str, Any]:
        """
        Start the next attempt of a job that has ended badly, with the code, data and parameters that it was launched
        with, and the whole budget of ``recover``. If it waits or runs, or has succeeded, nothing is started.

        The values of the job's environment variables are not kept on the cluster: give ``env``, and the ``array`` of an
        array whose elements have variables of their own, as at the launch.

        A task starts one such attempt after each: a second call, in a retry or after a lost reply, finds it.

        :param job: handle of the job; of an array, the elements that have ended badly are started.
        :param env: environment variables of the job. The values are never shown in Airflow, are sent separately, and
            are not in the job's records on the cluster.
        :param array: makes an array of jobs: a list, or the output of a task that returns one, of what differs in each
            job. An element is a dict of environment variables, merged over ``env`` and hidden like it; or arguments, as
            a list or as text that is split as by a shell, which follow ``script_args`` or are appended to ``command``.
        :param after: number of the attempt that has ended badly: if there is another one since, nothing is started.
        :return: the job's handle.
        :raises InvalidJobError: the job was launched with an environment variable that is not given.
        """
        request_key = current_identity(job_id=job_id_of(job)).request_key
        submission = self._at(job).resubmit(request_key=request_key, env=env, array=array, after=after)
        return submission.handle.to_json()

    def prepare(
        self, request: JobRequest, identity: JobIdentity, *, base_dir: str | os.PathLike[str] | None = None
    ) -> JobHandle:
        """Stage the sources of a request, for a job with a known identity; in a pool, on a cluster that fits it."""
        sources = request.sources(base_dir=_base_dir(base_dir))
        return self._calls.stage(request, identity, sources)

    def launch(
        self,
        request: JobRequest,
        identity: JobIdentity,
        *,
        base_dir: str | os.PathLike[str] | None = None,
        staged: bool = False,
    ) -> Submission:
        """
        Launch the job that a request describes, under a known identity.

        :param staged: the job's sources are already on the cluster.
        :return: the job's handle, its status, and whether this call made the attempt or found it.
        """
        folder = _base_dir(base_dir)
        if not staged:
            return self._calls.launch(request, identity, base_dir=folder)
        arguments = request.launch_arguments(identity, base_dir=folder, staged=True)
        return self.cluster.submit(identity.job_id, sources=None, **arguments)

    def status(self, job: Job, *, tail_bytes: int = 0) -> JobStatus:
        """
        Return the status of a job.

        :param tail_bytes: how much of the end of its output to include, in bytes: of what it has printed to stderr, or
            of everything if that is nothing.
        """
        return self.statuses([job], tail_bytes=tail_bytes)[0]

    def statuses(self, jobs: Iterable[Job], *, tail_bytes: int = 0) -> list[JobStatus]:
        """
        Return the statuses of several jobs, in the given order, from one call; from one of each cluster for a pool.

        :raises GpuClusterError: a cluster has not answered.
        """
        jobs = list(jobs)
        spread = [spread_in(job) for job in jobs]
        places = [(conn_id_in(job), job_id_of(job)) for job, one in zip(jobs, spread, strict=True) if one is None]
        found = iter(self._calls.statuses(places, tail_bytes=tail_bytes))
        return [next(found) if one is None else self._status_of_parts(one, tail_bytes) for one in spread]

    def _status_of_parts(self, spread: JobHandle, tail_bytes: int) -> JobStatus:
        from airflow_provider_gpu_cluster.pools import parts
        from airflow_provider_gpu_cluster.pools.following import current_handle

        now = current_handle(spread, self.cluster_of)
        return parts.status_of(now, self.cluster_of, tail_bytes=tail_bytes)

    def logs(self, job: Job, *, tail_bytes: int = 64 * 1024) -> str:
        """
        Return the last part of a job's output, stdout and stderr in the order in which they came.

        :param tail_bytes: how much of it, in bytes.
        """
        cluster = self._hook_with(job).cluster
        return cluster.statuses([job_id_of(job)], tail_bytes=tail_bytes, whole_tail=True)[0].log_tail

    def cancel(
        self, job: Job, *, requested_by: str | None = None, wait_s: float = 0, request_key: str | None = None
    ) -> JobStatus:
        """
        Cancel a job, unless it has ended.

        :param requested_by: who cancels it, for the job's record; by default the running task.
        :param wait_s: how long to wait for the job to end, in seconds.
        :param request_key: the key of a try whose launch may still be on its way, see
            :class:`.JobIdentity`; it then launches nothing.
        :return: its status after that.
        """
        requested_by = requested_by or current_requester()
        return self._at(job).cancel(requested_by=requested_by, wait_s=wait_s, request_key=request_key)

    def cancel_in_pool(self, handle: JobHandle, *, wait_s: float) -> tuple[JobHandle, JobStatus]:
        """
        Cancel a job on whichever clusters of a pool have it, also if the one that its handle names is out of reach.

        :param wait_s: how long to wait for the job to end, in seconds.
        :return: its handle on the cluster where it is, and its status there.
        :raises GpuClusterConnectionError: a cluster that may have it does not answer.
        """
        requested_by = current_requester()
        conn_id, status = self._calls.cancel_one(handle.job_id, requested_by=requested_by, wait_s=wait_s)
        settings = self.member(conn_id).settings
        return handle.elsewhere(conn_id, root_dir=settings.root_dir, engine=settings.engine), status

    def cancel_wherever(self, job_ids: Sequence[str], *, requested_by: str) -> None:
        """
        Cancel jobs of which nobody knows on which cluster of a pool they are.

        A cluster of a pool that does not answer is named in the log.

        :param requested_by: who cancels them, for their records.
        """
        self._calls.cancel(job_ids, requested_by=requested_by)

    def interrupt(self, job: Job, *, as_: str, requested_by: str | None = None) -> str:
        """
        Interrupt a running job as the real thing would, to see whether it saves its work in time.

        :param as_: ``"preempted"`` or ``"time_limit"``: the job is warned and stopped, its end is recorded with that
            reason, and what follows is what follows a real one. ``"checkpoint"``: it only gets its ``warn_signal``,
            even without ``warn_before``, and goes on.
        :param requested_by: who asks, for the job's record; by default the running task.
        :return: what was done, as a sentence.
        :raises LaunchError: there is no such job, or it does not run (:class:`JobConflictError`).
        :raises InvalidJobError: it is an array, or ``as_`` is something else.
        """
        by = requested_by or current_requester()
        return self._hook_with(job).cluster.interrupt_job(job_id_of(job), kind=as_, requested_by=by)

    def audit(self, job: Job) -> list[dict[str, Any]]:
        """
        Return who has done what with a job, from where, and when: a dict for each act, the oldest first.

        Each has ``at`` (ISO 8601 in UTC), ``act`` (such as ``submit``, ``join``, ``recover``, ``cancel``, ``collect``),
        ``by`` (the user, or ``gpu-run`` for what happens by itself), and, as far as it is known, ``through`` (by what
        means), ``host`` and ``address`` (from where), ``attempt``, ``try_number`` and ``details``. It works for jobs
        that were removed, too, as the cluster's ledger stays.

        With a pool, it is what was done on all of its clusters, and each dict has ``gpu_cluster_conn_id``.

        :raises LaunchError: the cluster knows no such job, and its ledger does not either.
        """
        return self._calls.audit(job_id_of(job))

    def collect(
        self,
        job: Job,
        destination: str | os.PathLike[str] | ObjectStoragePath,
        *,
        include: str | Sequence[str] | None = None,
        exclude: str | Sequence[str] | None = None,
    ) -> dict[str, Any]:
        """
        Download a job's outputs. Each file is checked against its checksum before it gets its name.

        :param destination: an absolute local path, or the URL of an ``ObjectStoragePath``.
        :param include: patterns of paths below the job's ``outputs/``; by default everything.
        :param exclude: patterns of paths to leave on the cluster.
        :return: ``job_id``, ``destination``, ``files`` (path, size, sha256) and ``metrics``, the content of
            ``metrics.json``, or None if it is not among the files. For an array, the files of each element are in a
            folder named after its index, and ``metrics`` is a list with one item for each element.
        :raises CollectError: a file was damaged, cannot be written, or leads out of the outputs folder.
        """
        from airflow_provider_gpu_cluster.hooks.collecting import collect
        from airflow_provider_gpu_cluster.sinks import open_sink

        sink = open_sink(destination)
        wanted, unwanted = patterns("include", include), patterns("exclude", exclude)
        return collect(job, self._at(job), sink, include=wanted, exclude=unwanted)

    def capacity(self) -> dict[str, Any]:
        """
        Return which GPUs the cluster has, which are free or broken, and how many jobs wait.

        The numbers also go to Airflow's metrics, as gauges tagged with the connection: ``gpu_cluster.gpus``,
        ``gpu_cluster.free_gpus``, ``gpu_cluster.broken_gpus`` and ``gpu_cluster.waiting_jobs``.

        With a pool, it is about all clusters that answer: each GPU has its ``gpu_cluster_conn_id``, and ``members`` has
        the same for each cluster, or its ``error``.
        """
        from airflow_provider_gpu_cluster.hooks.capacity_gauges import send_gauges

        together, each = self._calls.capacity()
        for conn_id, capacity in each.items():
            send_gauges(capacity, conn_id)
        return together

    def orphans(
        self, older_than: str | float | timedelta | None = None, *, of_unknown_runs: bool = False
    ) -> list[OrphanedJob]:
        """
        Return the jobs that wait or run on the cluster although their task in Airflow is over.

        That is: the task has failed, was skipped or removed; it has succeeded, and its whole run has ended; it was
        cleared and has launched another job since; or Airflow knows no such run any more. Jobs that a person has
        launched on the cluster are never among them. Neither is a job of a run that this Airflow does not know, unless
        the job's record says that this Airflow has launched it (by the address in ``[api] base_url``).

        Works in a running task, because only there Airflow tells what has become of tasks. It counts as no question
        about the jobs, and so keeps none from its ``orphan_timeout``. To end a job, pass its ``job_id`` to
        :meth:`cancel`. With a pool, the jobs are those of all clusters that answer, and the log names the others.

        :param older_than: only jobs about which nobody has asked for that long: a duration such as ``"6h"``, or
            seconds; None for all.
        :param of_unknown_runs: also jobs that may be another Airflow's, which uses the same account.
        :raises ValueError: ``older_than`` is not a duration.
        """
        from airflow_provider_gpu_cluster.hooks.orphans import orphans_among

        if older_than is not None and not isinstance(older_than, timedelta):
            older_than = timedelta(seconds=durations.seconds_of(older_than))
        found: list[OrphanedJob] = []
        for conn_id, jobs in self._calls.jobs().items():
            if jobs["left_out"]:
                self.log.warning("Only a part of the cluster's jobs was looked at", left_out=jobs["left_out"])
            found += orphans_among(
                jobs["jobs"], conn_id=conn_id, older_than=older_than, of_unknown_runs=of_unknown_runs
            )
        return found

    def usage(
        self,
        since: datetime | timedelta | date | str | None = None,
        by: str = BY_USER,
        *,
        until: datetime | timedelta | date | str | None = None,
    ) -> list[UsageRow]:
        """
        Return what the jobs have used that ended in a time, and what was transferred in it, from the cluster's ledger.

        A job counts by the time at which each of its attempts ended. All times are in UTC, unless they say another time
        zone. It counts as no question about the jobs.

        :param since: the first moment: a ``datetime``, a ``date`` (its beginning), a ``timedelta`` (so long ago), or a
            text such as ``"30d"``, ``"2026-11"`` or ``"2026-11-28"``; None begins with the first job.
        :param by: what to add up by: ``user``, ``dag``, ``task``, ``day``, ``month`` or ``reason``.
        :param until: the first moment that does not belong to it, in the same form; None ends with the last job.
        :return: a row for each user (or DAG, ...), with ``key``, ``jobs``, ``attempts``, ``failed``, ``gpu_hours``,
            ``used_gpu_hours``, ``idle_gpu_hours``, ``measured_gpu_hours``, ``energy_kwh``, ``queued_hours``,
            ``received_bytes`` and ``sent_bytes``. The row with the most GPU-hours comes first; days and months come in
            their order. With a pool, the rows of its clusters follow one another, each with its
            ``gpu_cluster_conn_id``; the log names those that have not answered.
        :raises ValueError: ``since`` or ``until`` is no moment, or ``by`` is none of those.
        """
        if by not in BYS:
            raise ValueError(f"by must be one of {', '.join(BYS)}, and not {by!r}")
        now = datetime.now(timezone.utc)
        moments = {"since": _moment(since, now), "until": _moment(until, now)}
        return self._calls.usage(**moments, by=by)

    def collect_garbage(
        self, older_than: str | float | timedelta | None = None, *, dry_run: bool = False
    ) -> dict[str, Any]:
        """
        Remove jobs that ended long ago, and cached files that no job has used since. Nothing in use is removed.

        :param older_than: how long they must have been unused: a duration such as ``"14d"`` or ``"36h"``, or
            seconds; by default the connection's ``retention``.
        :param dry_run: remove nothing, and report what would be removed.
        :return: ``jobs`` and ``environments`` (names), ``cache_entries``, ``uploads`` and ``programs`` (counts),
            ``bytes_freed``, ``failed`` (a list of ``path`` and ``why``), ``failures`` (how many), and ``busy``: true
            when nothing was done because another process on the cluster was already cleaning up. With a pool, it is of
            all clusters that answer, and ``members`` has the same for each cluster, or its ``error``.
        :raises GpuClusterSetupError: neither this call nor the connection gives a duration.
        :raises ValueError: ``older_than`` is not a duration.
        """
        if isinstance(older_than, timedelta):
            older_than = older_than.total_seconds()
        older_than_s = None if older_than is None else durations.seconds_of(older_than)
        return self._calls.collect_garbage(older_than_s, dry_run=dry_run)

    def test_connection(self) -> tuple[bool, str]:
        """
        Test the connection, for Airflow's button: return whether it works, and a message.

        A pool works if all of its clusters do; the message tells of each.
        """
        try:
            with self:
                return self._calls.test(lambda conn_id: self._hooks.get(conn_id, self)._connector.warnings)
        except GpuClusterError as error:
            return False, str(error)


def _moment(value: datetime | timedelta | date | str | None, now: datetime) -> datetime | None:
    """Return the moment that a user has given, in UTC."""
    if value is None:
        return None
    if isinstance(value, timedelta):
        return now - value
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    return in_utc(value) if isinstance(value, datetime) else moment_of(str(value), now)


def _base_dir(base_dir: str | os.PathLike[str] | None) -> Path:
    if base_dir is not None:
        return Path(base_dir)
    try:
        return Path(get_current_context()["dag"].fileloc).parent
    except RuntimeError:
        return Path.cwd()
