"""GpuJobTrigger."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.sdk import TaskInstanceState
from airflow.sdk.bases.xcom import BaseXCom
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
from airflow.sdk.execution_time.xcom import XCom
from airflow.sdk.log import amask_secret
from airflow.triggers.base import BaseTrigger, TaskSuccessEvent, TriggerEvent

from airflow_provider_gpu_cluster.exceptions import GpuClusterError, InvalidJobError
from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.jobs.status import JobState
from airflow_provider_gpu_cluster.tasks.deferral import shortest_absence_s
from airflow_provider_gpu_cluster.tasks.handles import handle_of, other_conn_id, published, result_of
from airflow_provider_gpu_cluster.tasks.job_notes import PLAIN_XCOM_KEYS, job_in, place_of
from airflow_provider_gpu_cluster.tasks.launch_notes import launch_note
from airflow_provider_gpu_cluster.tasks.links import KILL_XCOM_KEY, GpuJobLink, tell_page
from airflow_provider_gpu_cluster.tasks.states import state_of
from airflow_provider_gpu_cluster.triggers.first_request import make_first_request

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.gpu_run.protocol.notices import Notice, NotifyWhen
    from airflow_provider_gpu_cluster.gpu_run.protocol.requests import SubmitRequest
    from airflow_provider_gpu_cluster.jobs.status import JobStatus
    from airflow_provider_gpu_cluster.jobs.submission import Submission
    from airflow_provider_gpu_cluster.triggers.array_follower import ArrayFollower
    from airflow_provider_gpu_cluster.triggers.job_follower import JobFollower
    from airflow_provider_gpu_cluster.triggers.launcher import JobLauncher
    from airflow_provider_gpu_cluster.triggers.pool_array import PoolArray
    from airflow_provider_gpu_cluster.triggers.pool_job import PoolArgument, PoolJob
    from airflow_provider_gpu_cluster.watch.end import WatchEnd
    from airflow_provider_gpu_cluster.watch.notices import Notices
    from airflow_provider_gpu_cluster.watch.watcher import Watcher

# Airflow's own time limit is 30 s ([triggerer] on_kill_timeout).
KILL_TIMEOUT_S = 25.0
KILL_PAUSE_S = 1.0


class WatchEndEvent(TriggerEvent):
    """The event of a trigger; Airflow writes its ``repr()`` into the task's log."""

    def __repr__(self) -> str:
        """Say what it is about, and not all that the task is told."""
        status = self.payload["status"] or {}
        job_id = (self.payload["handle"] or self.payload)["job_id"]
        said = status.get("state") or "could not be watched on"
        if self.payload.get("placement") and not (status or self.payload["error"]):
            said = "goes on with a worker, which has its files"
        reason = f" ({status['reason']})" if status.get("reason") else ""
        return f"GPU job {job_id}: {said}{reason}"


class GpuJobTrigger(BaseTrigger):
    """
    Watches a GPU job for a deferred task: shows its output in the task's log, and fires when the job has ended.

    All triggers in a triggerer share one SSH connection per cluster.

    :param job: handle of the job; None if one of the next two parameters provides it.
    :param job_from: ``task_id`` and ``key`` of the XCom that holds the handle; set when the scheduler starts the
        trigger, because the scheduler does not know the handle.
    :param launch: request to launch the job, from :func:`.submit_request`, without files to send.
    :param gpu_cluster_conn_id: connection to launch the job with; or another connection to the job's cluster, by
        default the one the job was launched with.
    :param get_logs: show the job's output.
    :param reader: name under which the cluster remembers how much output was shown; None for a name of this try.
    :param poll_interval: time between two polls of the job in seconds, on a cluster that forbids long commands.
    :param unreachable_timeout: how long the cluster may be unreachable, in seconds.
    :param cancel_on_kill: cancel the job when a user ends the task.
    :param end_from_trigger: when the job has succeeded, end the task here, without a worker.
    :param handle_key: key of the XCom in which the task keeps its job's handle.
    :param masked: values that must not appear in the log; Airflow encrypts the arguments of triggers.
    :param notify: when people are to be told about the job, see :func:`.notify_when`; None for never.
    :param notifier: path and arguments of the notifier that tells them.
    :param pool: of a job in a pool of clusters: what a :class:`.PoolArgument` has.
    :param ended: of an array: indexes of the elements whose ends the task's log has told already.
    """

    def __init__(
        self,
        job: dict[str, Any] | None = None,
        *,
        job_from: dict[str, str] | None = None,
        launch: SubmitRequest | None = None,
        gpu_cluster_conn_id: str | None = None,
        get_logs: bool = True,
        reader: str | None = None,
        poll_interval: float = 10,
        unreachable_timeout: float = 6 * 3600,
        cancel_on_kill: bool = False,
        end_from_trigger: bool = False,
        handle_key: str = BaseXCom.XCOM_RETURN_KEY,
        masked: Sequence[str] = (),
        notify: NotifyWhen | None = None,
        notifier: Sequence[Any] | None = None,
        pool: PoolArgument | None = None,
        ended: Sequence[int] = (),
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.job = job
        self.job_from = job_from
        self.launch = launch
        self.gpu_cluster_conn_id = gpu_cluster_conn_id
        self.get_logs = get_logs
        self.reader = reader
        self.poll_interval = poll_interval
        self.unreachable_timeout = unreachable_timeout
        self.cancel_on_kill = cancel_on_kill
        self.end_from_trigger = end_from_trigger
        self.handle_key = handle_key
        self.masked = list(masked)
        self.notify = notify
        self.notifier = notifier
        self.pool = pool
        self.ended = list(ended)
        self._follower: JobFollower | ArrayFollower | None = None
        self._pool_job: PoolJob | PoolArray | None = None
        self._launcher: JobLauncher | None = None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class and the arguments that recreate this trigger, perhaps in another triggerer."""
        names = (
            "job",
            "job_from",
            "launch",
            "gpu_cluster_conn_id",
            "get_logs",
            "reader",
            "poll_interval",
            "unreachable_timeout",
            "cancel_on_kill",
            "end_from_trigger",
            "handle_key",
            "masked",
        )
        arguments = {name: getattr(self, name) for name in names}
        if self.notify:
            # A triggerer of an earlier version does not know them.
            arguments.update(notify=self.notify, notifier=self.notifier)
        if self.pool is not None:
            arguments.update(pool=self.pool)
        if self.ended:
            arguments.update(ended=self.ended)
        return f"{__name__}.GpuJobTrigger", arguments

    def __repr__(self) -> str:
        """Name only the job, because the arguments hold secrets."""
        return f"<GpuJobTrigger {self.job or self.job_from or self._job_to_launch}>"

    @property
    def _job_to_launch(self) -> str | None:
        return None if self.launch is None else self.launch["job_id"]

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Watch the job to its end."""
        # Imported late: every DAG file imports the trigger, but only a triggerer watches.
        from airflow_provider_gpu_cluster.pools.keeping import WorkerNeeded
        from airflow_provider_gpu_cluster.watch.end import WatchEnd

        began = time.monotonic()
        if self._ti is not None:
            make_first_request(self._ti)
        for secret in self.masked:
            await amask_secret(secret)
        if self.launch is not None and not await self._is_awaited():
            # A user ended the task while its triggerer was down or busy.
            told = "Nobody waits for the GPU job any more; it is not launched"
            self.log.info(told, job_id=self.launch["job_id"])
            yield await self._resume(WatchEnd(error=GpuClusterError(told), job_id=self.launch["job_id"]), began)
            return
        try:
            end, follower = await self._follow(await self._handle())
        except WorkerNeeded:
            yield await self._resume(self._ended(), began)
            return
        except GpuClusterError as error:
            yield await self._resume(replace(self._ended(), error=error), began)
            return
        if self._ends_here(end) and await self._publish_result(end):
            follower.tell_success()
            yield TaskSuccessEvent()
        else:
            yield await self._resume(end, began)

    def _ended(self) -> WatchEnd:
        """Return what there is to say of a job that is not watched to its end."""
        from airflow_provider_gpu_cluster.triggers.array_follower import ArrayFollower
        from airflow_provider_gpu_cluster.watch.end import WatchEnd

        memory = self._follower.memory if isinstance(self._follower, ArrayFollower) else {}
        try:
            return WatchEnd(handle_of(self.job), memory=memory)
        except InvalidJobError:
            return WatchEnd(job_id=self._job_to_launch)

    async def _follow(self, handle: JobHandle) -> tuple[WatchEnd, JobFollower | ArrayFollower]:
        """
        Follow the job to its end, from cluster to cluster.

        :raises WorkerNeeded: only a worker can launch it on another one.
        """
        from airflow_provider_gpu_cluster.logs.array_log import memory_elsewhere
        from airflow_provider_gpu_cluster.triggers.array_follower import ArrayFollower
        from airflow_provider_gpu_cluster.triggers.job_or_array import follower_of
        from airflow_provider_gpu_cluster.triggers.place_keeping import Trail, first_of
        from airflow_provider_gpu_cluster.triggers.watchers import watcher_of
        from airflow_provider_gpu_cluster.watch.end import WatchEnd

        memory: dict[str, Any] = {"ended": self.ended}
        while True:
            watcher = self._watcher()
            pool_job = self._pool_job_of(handle.job_id)
            keeping = Trail(handle) if pool_job is None else await pool_job.keeping(handle)
            self._follower = follower = follower_of(
                handle,
                watcher,
                watcher_of=watcher_of,
                log=self.log,
                reader=self._reader_name() if self.get_logs else None,
                ti=self._ti,
                poll_interval_s=self.poll_interval,
                unreachable_timeout_s=self.unreachable_timeout,
                notices=self._notices(handle, watcher),
                observe=keeping.take,
                memory=memory,
            )
            end = await first_of(follower, keeping)
            if isinstance(end, WatchEnd):
                return end, follower
            if isinstance(follower, ArrayFollower):
                memory = memory_elsewhere(follower.memory, handle, end.handle)
            handle = end.handle
            self.job, self.gpu_cluster_conn_id = handle.to_json(), None
            event = "GPU job is on another cluster now"
            self.log.info(event, job_id=handle.job_id, cluster=", ".join(handle.conn_ids))
            await self._publish(handle, self._launch_note(end))

    def _pool_job_of(self, job_id: str) -> PoolJob | PoolArray | None:
        """Return what sees to a job of a pool; None if there is only one cluster."""
        if self.pool is None:
            return None
        if self._pool_job is None:
            from airflow_provider_gpu_cluster.triggers.pool_array import PoolArray
            from airflow_provider_gpu_cluster.triggers.pool_job import PoolJob

            how: Any = {"log": self.log, "unreachable_timeout_s": self.unreachable_timeout}
            is_spread = "parts" in self.pool
            self._pool_job = (
                PoolArray(self.pool, self._ti, **how) if is_spread else PoolJob(job_id, self.pool, self._ti, **how)
            )
        return self._pool_job

    async def _resume(self, end: WatchEnd, began: float) -> TriggerEvent:
        """Return the event that makes a worker continue the task, as soon as Airflow allows that."""
        if self._pool_job is not None:
            end = replace(end, placement=await self._pool_job.placement())
        was_on_worker = self.job_from is None and self._ti is not None
        if was_on_worker:
            await asyncio.sleep(began + shortest_absence_s() - time.monotonic())
        return WatchEndEvent(payload=end.to_json())

    async def on_kill(self) -> None:
        """
        Cancel the job if a user has ended the task.

        Airflow also calls this when it has moved the trigger to another triggerer (apache/airflow#73454). After a
        clear, it calls this only when the next try is deferred.
        """
        if not self.cancel_on_kill:
            return
        work = asyncio.ensure_future(self._cancel_if_abandoned())
        # Airflow 3.3 tells a trigger to stop once a second until it has stopped, and cancels this call each time.
        deadline = asyncio.get_running_loop().time() + KILL_TIMEOUT_S
        while not work.done() and (left := deadline - asyncio.get_running_loop().time()) > 0:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({work}, timeout=left)
        if not work.done():
            work.cancel()
            self.log.error("The GPU job is left alone: no more time to cancel it")

    async def _cancel_if_abandoned(self) -> None:
        """Try until it succeeds; log each obstacle only once."""
        if self._launcher is not None:
            self._launcher.take_back()
        if self._pool_job is not None:
            self._pool_job.stop()
        job_id = self.launch["job_id"] if self.launch is not None else (await self._handle()).job_id
        told = ""
        while True:
            try:
                if await self._is_abandoned(job_id):
                    await self._cancel(job_id)
                else:
                    event = "The GPU job is left alone: its task waits for it in another triggerer"
                    self.log.info(event, job_id=job_id)
                return
            except Exception as error:
                if str(error) != told:
                    told = str(error)
                    self.log.warning("GPU job could not be cancelled, trying again", job_id=job_id, error=told)
            await asyncio.sleep(KILL_PAUSE_S)

    async def _cancel(self, job_id: str) -> None:
        from airflow_provider_gpu_cluster.triggers.watchers import watcher_of

        # All tasks use the same text, so that one call can cancel many jobs.
        by = "Airflow, as a user ended its task"
        # A launch that is under way, or that another triggerer has asked for, launches nothing after this.
        request_key = None if self.launch is None else self.launch["request_key"]
        if self.pool is not None:
            await self._cancel_in_pool(job_id, by)
            return
        cancelled = [self._watcher().cancel(job_id, requested_by=by, request_key=request_key)]
        # An array on several clusters is cancelled on each.
        for part in handle_of(self.job).arrays[1:] if self.job is not None else ():
            cancelled.append(watcher_of(part.gpu_cluster_conn_id).cancel(part.job_id, requested_by=by))
        status, *_ = await asyncio.gather(*map(asyncio.wrap_future, cancelled))
        if self.launch is not None and not status.attempt:
            self.log.info("A user ended the task before its GPU job was launched", job_id=job_id)
            return
        event = "GPU job is being cancelled, because a user ended the task"
        self.log.info(event, job_id=job_id, state=str(status.state))

    async def _cancel_in_pool(self, job_id: str, by: str) -> None:
        """
        Cancel the job wherever it is or may be.

        :raises GpuClusterConnectionError: a cluster that may have it has not answered.
        """
        from airflow_provider_gpu_cluster.triggers.watchers import watcher_of

        pool_job, pool = self._pool_job_of(job_id), self.pool
        assert pool_job is not None
        assert pool is not None

        async def ask(conn_id: str, part: str) -> JobStatus:
            return await asyncio.wrap_future(watcher_of(conn_id).cancel(part, requested_by=by, request_key=pool["key"]))

        arrays = () if self.job is None else handle_of(self.job).arrays
        chosen = [(array.gpu_cluster_conn_id, array.job_id) for array in arrays]
        places = list(dict.fromkeys([*chosen, *await pool_job.cancelled_at()]))
        answers = await asyncio.gather(*(ask(*place) for place in places), return_exceptions=True)
        failed = {place: one for place, one in zip(places, answers, strict=True) if isinstance(one, Exception)}
        for part in dict.fromkeys(part for _, part in places):
            told = [
                one
                for place, one in zip(places, answers, strict=True)
                if place[1] == part and not isinstance(one, BaseException)
            ]
            silent = {place[0]: error for place, error in failed.items() if place[1] == part}
            await pool_job.part(part).check_cancelled(told, silent)
        for (conn_id, part), error in failed.items():
            event = "GPU job could not be cancelled on a cluster where it may have been"
            self.log.warning(event, job_id=part, cluster=conn_id, error=str(error))
        event = "GPU job is being cancelled, because a user ended the task"
        clusters = list(dict.fromkeys(place[0] for place in places if place not in failed))
        self.log.info(event, job_id=job_id, clusters=clusters)

    @property
    def _ti(self) -> Any:
        """The task instance; None in ``dag.test()``."""
        return self.task_instance

    def _watcher(self) -> Watcher:
        from airflow_provider_gpu_cluster.triggers.watchers import watcher_of

        return watcher_of(self.gpu_cluster_conn_id or handle_of(self.job).gpu_cluster_conn_id)

    def _notices(self, handle: JobHandle, watcher: Watcher) -> Notices | None:
        from airflow_provider_gpu_cluster.watch.notices import notices_of

        return notices_of(
            self.notify,
            self.notifier,
            conn_id=self.gpu_cluster_conn_id or handle.gpu_cluster_conn_id,
            ti=self._ti,
            log=self.log,
            note_told=watcher.note_told if not handle.parts else partial(_note_told_of_part, handle),
        )

    def _reader_name(self) -> str:
        # A trigger that the scheduler starts cannot tell a clear from a retry.
        return self.reader or f"try-{self._ti.id}"

    async def _handle(self) -> JobHandle:
        """Return the job's handle, after pushing it to the task's XCom."""
        if self.job is None:
            note = None
            if self.job_from is not None:
                self.job = await self._pull(**self.job_from)
                self.gpu_cluster_conn_id = await asyncio.to_thread(
                    other_conn_id, handle_of(self.job), self.gpu_cluster_conn_id
                )
            elif self.launch is not None:
                submission = await self._launch(self.launch)
                self.job = submission.handle.to_json()
                note = self._launch_note(submission)
            await self._publish(handle_of(self.job), note)
        return handle_of(self.job)

    def _launch_note(self, submission: Submission) -> dict[str, Any] | None:
        asked = self.pool["launch"] if self.pool is not None else self.launch
        if asked is None:
            return None
        return launch_note(submission, spec=asked["spec"], record=asked["record"], masks=asked.get("masks"))

    async def _launch(self, request: SubmitRequest) -> Submission:
        pool_job = self._pool_job_of(request["job_id"])
        if pool_job is not None:
            from airflow_provider_gpu_cluster.triggers.pool_job import PoolJob

            assert isinstance(pool_job, PoolJob)
            return await pool_job.begin()
        from airflow_provider_gpu_cluster.triggers.launcher import JobLauncher

        self._launcher = JobLauncher(request, self._watcher(), log=self.log)
        return await self._launcher.to_the_end()

    async def _publish(self, handle: JobHandle, launch: dict[str, Any] | None) -> None:
        """
        Push what an operator or sensor pushes on a worker.

        :param launch: the note about the launch, if this is one.
        """
        ti = self._ti
        if ti is None:
            # In dag.test() a trigger cannot push XComs; a worker does so at the end.
            return
        place = place_of(ti, ti.task_id, ti.map_index)
        link = GpuJobLink().xcom_key
        # Another triggerer may have told it before. A try that began here still has the XComs of the one before.
        before: Any = await asyncio.to_thread(_backend_of(link).get_one, key=link, **place)
        is_told = before is not None and self.job_from is None
        values = published(ti, handle, self.handle_key, ends_with_task=self.cancel_on_kill, launch=launch)
        for key, value in values.items():
            await asyncio.to_thread(_backend_of(key).set, key, value, **place)
        if not is_told:
            tell_page(ti, self.log, handle.job_id)

    async def _publish_result(self, end: WatchEnd) -> bool:
        """
        Push what the task would return if it ended on a worker, unless its handle is all of that.

        :return: whether that is done; if not, a worker has to end the task.
        """
        ti = self._ti
        assert end.handle is not None
        assert end.status is not None
        result = result_of(end.handle, end.status)
        if self.handle_key != BaseXCom.XCOM_RETURN_KEY or result == end.handle.to_json():
            return True
        place = place_of(ti, ti.task_id, ti.map_index)
        try:
            await asyncio.to_thread(_backend_of(self.handle_key).set, self.handle_key, result, **place)
        except Exception as error:
            self.log.warning("The result cannot be stored from here; a worker ends the task", error=str(error))
            return False
        return True

    async def _pull(self, task_id: str, key: str) -> Any:
        """Return an XCom of another task: in a mapped task group from the same instance, else from the only one."""
        ti = self._ti
        backend = _backend_of(key)
        for map_index in dict.fromkeys((ti.map_index, -1)):
            place = place_of(ti, task_id, map_index)
            if (value := await asyncio.to_thread(backend.get_one, key=key, **place)) is not None:
                return value
        return None

    async def _is_awaited(self) -> bool:
        """Return whether the task is still deferred; assume so if its state cannot be read."""
        if self._ti is None:
            return True
        try:
            return await self._task_state() == TaskInstanceState.DEFERRED
        except Exception as error:
            self.log.debug("The state of the task cannot be read", error=str(error))
            return True

    async def _task_state(self) -> str:
        return await asyncio.to_thread(state_of, self._ti, RuntimeTaskInstance.get_task_states)

    async def _is_abandoned(self, job_id: str) -> bool:
        """
        Return whether the task no longer waits for the job, because of what a user did.

        :raises Exception: the state cannot be read now.
        """
        state = await self._task_state()
        self.log.info("Trigger was told to stop", state=state)
        if state != TaskInstanceState.DEFERRED:
            return True
        # Was it cleared, and does it already wait for another job? Or for this one, in another triggerer?
        current = job_in(await self._pull(self._ti.task_id, KILL_XCOM_KEY))
        if current is None:
            raise GpuClusterError("the task waits for a job again, and which one is not known yet")
        return current[1] != job_id

    def _ends_here(self, end: WatchEnd) -> bool:
        succeeded = end.status is not None and end.status.state is JobState.SUCCEEDED
        # dag.test() runs triggers without a task instance, and does not support events that end a task.
        return self.end_from_trigger and succeeded and end.reader is None and self._ti is not None


def _note_told_of_part(array: JobHandle, job_id: str, notice: Notice) -> None:
    """Note, where an element of an array on several clusters is, that people were told about it."""
    from airflow_provider_gpu_cluster.triggers.watchers import watcher_of

    conn_id = next(one.gpu_cluster_conn_id for one in array.elements if one.job_id == job_id)
    watcher_of(conn_id).note_told(job_id, notice)


def _backend_of(key: str) -> type[BaseXCom]:
    """Return what stores an XCom: this package's own stay in Airflow's database, whatever is configured."""
    backend: type[BaseXCom] = BaseXCom if key in PLAIN_XCOM_KEYS else XCom
    return backend
