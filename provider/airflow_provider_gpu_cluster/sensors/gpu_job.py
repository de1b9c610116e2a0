"""GpuJobSensor."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk import BaseSensorOperator, PokeReturnValue
from airflow.sdk.definitions.xcom_arg import PlainXComArg
from airflow.sdk.exceptions import AirflowSensorTimeout, AirflowSkipException, AirflowTaskTimeout
from airflow.triggers.base import StartTriggerArgs

from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError, GpuClusterError, GpuJobError
from airflow_provider_gpu_cluster.hooks.airflow_outage import outlast
from airflow_provider_gpu_cluster.hooks.gpu_cluster import GpuClusterHook
from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.jobs.identity import identity_of, reader_of
from airflow_provider_gpu_cluster.jobs.notify import checked_notify
from airflow_provider_gpu_cluster.jobs.parameter_checks import connection_ids
from airflow_provider_gpu_cluster.jobs.rendered import is_open
from airflow_provider_gpu_cluster.jobs.status import JobStatus
from airflow_provider_gpu_cluster.pools.following import current_handle, next_handle
from airflow_provider_gpu_cluster.pools.placement_options import check_placement
from airflow_provider_gpu_cluster.tasks.arguments import naming_arguments, naming_task
from airflow_provider_gpu_cluster.tasks.asking import check_asks_often_enough
from airflow_provider_gpu_cluster.tasks.deferral import (
    DEFAULT_DEFERRABLE,
    is_of_another_job,
    long_enough,
    needs_no_worker_to_end,
    needs_no_worker_to_start,
    resume,
    shortest_absence_s,
    time_left,
)
from airflow_provider_gpu_cluster.tasks.handles import (
    FilledFields,
    JobArgument,
    handle_key,
    handle_of,
    hook_for,
    other_conn_id,
    publish,
    result_of,
    seconds,
)
from airflow_provider_gpu_cluster.tasks.hidden_env import HiddenArray, HiddenEnv, is_no_template
from airflow_provider_gpu_cluster.tasks.job_partial import JobPartial
from airflow_provider_gpu_cluster.tasks.links import GpuJobLink, tell_page
from airflow_provider_gpu_cluster.triggers.gpu_job import GpuJobTrigger

if TYPE_CHECKING:
    from airflow.sdk import BaseNotifier, Context, XComArg

MEMORY_KEY = "gpu_job_watch"
# The attempt whose bad end has failed an earlier try.
BAD_END_KEY = "gpu_job_bad_end"
# In what a poke remembers: the try in whose log the job's page was named.
_TOLD_IN_TRY = "page_told_in_try"
UNREACHABLE_TIMEOUT = timedelta(hours=6)


class GpuJobSensor(BaseSensorOperator):
    """
    Wait for a GPU job to end, and show its output in the task's log as it arrives.

    By default the sensor holds no worker slot between two pokes (``mode="reschedule"``). With ``deferrable=True`` it
    waits in Airflow's triggerer, which watches all jobs of a cluster over one connection. The sensor succeeds when the
    job has succeeded. When the job has ended badly, it raises the error class of the cause. An unreachable cluster
    does not count as a failed job: the sensor keeps waiting.

    :param job: output of the task that launched the job. (templated)
    :param poke_interval: time between two pokes, in seconds or as a timedelta. In reschedule mode it is at least
        :func:`.shortest_absence_s`; use ``mode="poke"`` for shorter intervals. When deferrable, this matters only on
        a cluster that forbids long commands; other clusters report changes by themselves.
    :param mode: ``reschedule``, or ``poke``, which holds its worker slot all the time. Ignored when deferrable.
    :param deferrable: wait in the triggerer; by default the value of ``[operators] default_deferrable``.
    :param start_from_trigger: when deferrable, also start the sensor in the triggerer, without a worker, where Airflow
        can: ``job`` is the output of a task, and the sensor is not mapped and has no ``pre_execute`` or
        ``on_execute_callback``.
    :param end_from_trigger: when deferrable, also end the sensor in the triggerer, without a worker, where Airflow
        can: the job has succeeded, little output is left to show, the sensor has no ``outlets``, ``post_execute`` or
        ``on_success_callback``, and no Airflow plugin has listeners.
    :param resubmit_on_retry: when the sensor has failed because its job has ended badly, let its retry start the next
        attempt of the job on the cluster: with the code, data and parameters that it was launched with, and with the
        whole budget of its ``recover``. Without this, retries only look again. The sensor then starts on a worker.
    :param env: for ``resubmit_on_retry``: the environment variables that the job was launched with, whose values are
        not kept on the cluster. They are hidden like those of :class:`.SubmitGpuJobOperator`. (templated)
    :param array: for ``resubmit_on_retry``: the elements that an array was launched with, if they have environment
        variables of their own. (templated)
    :param get_logs: show the job's output, each line once.
    :param unreachable_timeout: how long the cluster may be unreachable, in seconds or as a timedelta, before
        the task fails. The job keeps running.
    :param notify: when people are told about a job that waits or runs, by ``notifier``, once each: a dict with any of
        ``queued_for``, ``no_progress_for`` and ``time_limit_in`` (in seconds, or as a timedelta), ``recovered`` and
        ``idle`` (True); see docs/notifications.md.
    :param notifier: a :class:`.GpuJobNotifier`, which tells them.
    :param gpu_cluster_conn_id: another connection to the job's cluster; by default the one the job was launched
        with. Of a pool, it is the cluster where the job is. (templated)
    :return: the job's handle, so that this output can be used wherever the launching task's output can; with
        ``attempts`` and ``recovered`` if the job has gone on by itself.
    """

    template_fields = FilledFields("job", "env", "array", "gpu_cluster_conn_id")
    template_fields_renderers = {"env": "json", "array": "json"}
    operator_extra_links = (GpuJobLink(),)
    answers_for_job = True  # where it ends, notifiers speak of the job
    ui_color = "#e4ecf4"

    def __init__(
        self,
        *,
        job: JobArgument,
        poke_interval: timedelta | float = 30,
        mode: str = "reschedule",
        resubmit_on_retry: bool = False,
        env: Mapping[str, Any] | XComArg | str | None = None,
        array: Sequence[Any] | XComArg | str | None = None,
        get_logs: bool = True,
        unreachable_timeout: float | timedelta = UNREACHABLE_TIMEOUT,
        notify: Mapping[str, Any] | None = None,
        notifier: BaseNotifier | None = None,
        gpu_cluster_conn_id: str | Sequence[str] | None = None,
        deferrable: bool = DEFAULT_DEFERRABLE,
        start_from_trigger: bool = True,
        end_from_trigger: bool = True,
        **kwargs: Any,
    ) -> None:
        with naming_arguments(type(self), kwargs):
            super().__init__(poke_interval=poke_interval, mode=mode, **kwargs)
        if mode == "reschedule":
            self.poke_interval = max(self.poke_interval, shortest_absence_s())
        self.job = job
        self.resubmit_on_retry = resubmit_on_retry
        # The default arguments of a DAG give them to sensors that have no use for them.
        self.env = HiddenEnv(env) if resubmit_on_retry and env is not None else None
        self.array = HiddenArray(array) if resubmit_on_retry and array is not None else None
        if resubmit_on_retry:
            self._check_variables()
        self.get_logs = get_logs
        self.unreachable_timeout = unreachable_timeout
        self.notify = notify
        self.notifier = notifier
        with naming_task(self):
            check_placement(gpu_cluster_conn_id=gpu_cluster_conn_id)
            self._notify_when, self._written_notifier = checked_notify(notify, notifier)
        self.gpu_cluster_conn_id = gpu_cluster_conn_id
        self.deferrable = deferrable
        self.end_from_trigger = end_from_trigger and needs_no_worker_to_end(self)
        self._hook: GpuClusterHook | None = None
        self._at: JobHandle | None = None  # where the job is, once a poke knows that
        # The triggerer would have to render other forms of job, and templates, but it cannot read every XCom
        # (Airflow 3.3 leaves the trigger hanging).
        may_start_there = start_from_trigger and not resubmit_on_retry and not is_open(gpu_cluster_conn_id)
        if deferrable and may_start_there and isinstance(job, PlainXComArg):
            self.start_from_trigger = needs_no_worker_to_start(self)
            # Whether an id is that of a pool, of which the handle says more, is seen there.
            conn_ids = connection_ids(gpu_cluster_conn_id)
            trigger = self._trigger(
                job_from={"task_id": job.operator.task_id, "key": job.key},
                gpu_cluster_conn_id=conn_ids if isinstance(conn_ids, str) else None,
            )
            self.start_trigger_args = StartTriggerArgs(
                trigger_cls=trigger.serialize()[0],
                trigger_kwargs=trigger.serialize()[1],
                next_method="execute_complete",
                timeout=timedelta(seconds=self.timeout),
            )

    @classmethod
    def partial(cls, **kwargs: Any) -> JobPartial:
        """Begin a mapped task; see :meth:`airflow.sdk.BaseOperator.partial`."""
        with naming_arguments(cls, kwargs):
            return JobPartial.of(super().partial, **kwargs)

    def render_template(
        self, content: Any, context: Context, jinja_env: Any = None, seen_oids: set[int] | None = None
    ) -> Any:
        """Render a value; hidden values stay hidden."""
        if is_no_template(content):
            return content
        return super().render_template(content, context, jinja_env, seen_oids)

    def execute(self, context: Context) -> Any:
        """Poke, keeping the connection to the cluster open as long as this process lives; or defer."""
        if self.deferrable:
            with hook_for(handle_of(self.job), self.gpu_cluster_conn_id) as hook:
                self._resubmit_if_failed_before(context, hook)
            self._defer(context)
        try:
            return super().execute(context)
        finally:
            if self._hook is not None:
                self._hook.close()

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """
        Resume after a deferral.

        As in the other modes, ``soft_fail`` applies to timeouts and not to failed jobs, and Airflow retries the task if
        its ``execution_timeout`` is over, but not if its ``timeout`` is.
        """
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except AirflowSkipException as skip:
            if isinstance(skip.__cause__, GpuClusterError) and not self.never_fail:
                raise skip.__cause__ from None
            raise
        except AirflowSensorTimeout as error:
            if self.execution_timeout is not None and self.execution_timeout.total_seconds() < self.timeout:
                raise AirflowTaskTimeout(f"execution_timeout of {self.execution_timeout} is over") from error
            raise

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Continue after the trigger: show the output that is left, and succeed or fail as the job did."""
        from airflow_provider_gpu_cluster.watch.end import WatchEnd

        end = WatchEnd.from_json(event)
        if is_of_another_job(end, handle_of(self.job).job_id, self.log):
            self._defer(context)
        if end.error is not None:
            raise end.error
        assert end.handle is not None
        is_there = end.handle.gpu_cluster_conn_id == handle_of(self.job).gpu_cluster_conn_id
        conn_id = self.gpu_cluster_conn_id if is_there else None
        with hook_for(end.handle, conn_id) as hook, self._noting_a_bad_end(context, end.status):
            return resume(
                end,
                hook,
                log=self.log,
                pause=time.sleep,
                unreachable_timeout_s=seconds(self.unreachable_timeout),
            )

    def _defer(self, context: Context) -> NoReturn:
        handle = handle_of(self.job)
        publish(self, context, handle)
        tell_page(context["ti"], self.log, handle.job_id)
        self.defer(
            trigger=self._trigger(
                job=handle.to_json(),
                reader=reader_of(context),
                gpu_cluster_conn_id=other_conn_id(handle, self.gpu_cluster_conn_id),
            ),
            method_name="execute_complete",
            timeout=self._time_left(context),
        )

    def _time_left(self, context: Context) -> timedelta:
        timeout = timedelta(seconds=self.timeout)
        left = time_left(context, self.execution_timeout)
        return long_enough(timeout if left is None else min(timeout, left))

    def _trigger(self, **job: Any) -> GpuJobTrigger:
        return GpuJobTrigger(
            **job,
            get_logs=self.get_logs,
            poll_interval=self.poke_interval,
            unreachable_timeout=seconds(self.unreachable_timeout),
            end_from_trigger=self.end_from_trigger,
            handle_key=handle_key(self),
            notify=self._notify_when,
            notifier=self._written_notifier,
        )

    def poke(self, context: Context) -> bool | PokeReturnValue:
        """Check the job once."""
        from airflow_provider_gpu_cluster.logs.array_log import memory_elsewhere
        from airflow_provider_gpu_cluster.watch.job_or_array import watch_of
        from airflow_provider_gpu_cluster.watch.notices import notices_of

        reader = reader_of(context)
        handle, memory = self._recall(context, reader)
        if self._hook is None or self._at != handle:
            self._go_to(handle)
            publish(self, context, handle)  # Airflow has deleted what an earlier poke pushed
        assert self._hook is not None
        if memory.get(_TOLD_IN_TRY) != context["ti"].try_number:
            tell_page(context["ti"], self.log, handle.job_id)
            memory[_TOLD_IN_TRY] = context["ti"].try_number
        notices = notices_of(
            self._notify_when,
            self._written_notifier,
            conn_id=self._hook.settings.conn_id,
            ti=context["ti"],
            log=self.log,
        )
        watch = watch_of(
            self._hook.cluster,
            handle,
            log=self.log,
            reader=reader if self.get_logs else None,
            memory=memory,
            notices=notices,
            open_cluster=self._hook.cluster_of,
        )
        try:
            self._resubmit_if_failed_before(context, self._hook)
            status = watch.look()
            watch.settle(time.sleep)
        except GpuClusterConnectionError as error:
            if watch.unreachable_s(error) > seconds(self.unreachable_timeout):
                raise
            return False
        finally:
            self._remember(context, handle, reader, watch.memory)
        check_asks_often_enough("poke_interval", self.poke_interval, status.orphan_timeout_s)
        after = self._after_move(handle, status)
        if after is not None:
            cluster = ", ".join(after.conn_ids)
            self.log.info("GPU job is on another cluster now", job_id=after.job_id, cluster=cluster)
            # It has shown nothing of the output there yet.
            left = memory_elsewhere(watch.memory, handle, after)
            self._remember(context, after, reader, {**left, _TOLD_IN_TRY: memory[_TOLD_IN_TRY]})
            return False
        if not status.final or status.is_elsewhere:
            return False
        with self._noting_a_bad_end(context, status):
            watch.end(status)
        return PokeReturnValue(True, result_of(handle, status))

    def _after_move(self, handle: JobHandle, status: JobStatus) -> JobHandle | None:
        """Return where the job is if it went elsewhere since; None if it did not, as far as is known."""
        if handle.array_size is None:
            return next_handle(handle, status, GpuClusterHook)
        if not status.is_elsewhere:
            return None
        assert self._hook is not None
        try:
            # An element does not know where its array went.
            after = current_handle(handle, self._hook.cluster_of)
        except GpuClusterConnectionError:
            return None
        return after if after != handle else None

    @contextmanager
    def _noting_a_bad_end(self, context: Context, status: JobStatus | None) -> Iterator[None]:
        """Remember, when the job has ended badly, which attempt it was, for the next try."""
        try:
            yield
        except GpuJobError:
            if self.resubmit_on_retry and status is not None:
                value: Any = {"job_id": status.job_id, "attempt": status.attempt}
                store: Any = context["task_state_store"]
                outlast(lambda: store.set(BAD_END_KEY, value))
            raise

    def _resubmit_if_failed_before(self, context: Context, hook: GpuClusterHook) -> None:
        """Start the next attempt of a job whose bad end has failed an earlier try, unless that has been done."""
        if not self.resubmit_on_retry:
            return
        store: Any = context["task_state_store"]
        handle = handle_of(self.job)
        seen = outlast(lambda: store.get(BAD_END_KEY)) or {}
        if seen.get("job_id") != handle.job_id:
            return
        self._resubmit(context, hook, handle, seen["attempt"])
        # A try that dies before this asks again, and the cluster then finds the attempt that has been started.
        outlast(lambda: store.delete(BAD_END_KEY))

    def _check_variables(self) -> None:
        """Check what can be checked before templates and outputs of other tasks are known."""
        from airflow_provider_gpu_cluster.jobs.request import JobRequest

        env, array = (None if hidden is None else hidden.values for hidden in (self.env, self.array))
        with naming_task(self):
            JobRequest(command="true", env=env, array=array).check()

    def _resubmit(self, context: Context, hook: GpuClusterHook, handle: JobHandle, attempt: int) -> None:
        from airflow_provider_gpu_cluster.jobs.resubmission import resubmit_request
        from airflow_provider_gpu_cluster.logs.job_log import tell_submission

        started = time.monotonic()
        request_key = identity_of(context, job_id=handle.job_id).request_key
        env = None if self.env is None else self.env.values
        array = None if self.array is None else self.array.values
        if handle.parts:
            from airflow_provider_gpu_cluster.pools import parts

            handle = current_handle(handle, hook.cluster_of)
            submission = parts.resubmit(handle, hook.cluster_of, request_key=request_key, env=env, array=array)
        else:
            request = resubmit_request(
                handle.job_id,
                request_key=request_key,
                env=env,
                array=array,
                after=attempt or None,  # that of an array has no number
            )
            submission = hook.cluster.resubmit(request)
        duration_s = time.monotonic() - started
        tell_submission(submission, self.log, cluster=hook.settings.name, duration_s=duration_s)

    def _go_to(self, handle: JobHandle) -> None:
        """Open the cluster where the job is: that of its handle, or another one of its pool."""
        if self._hook is not None:
            self._hook.close()
        is_first = handle == handle_of(self.job)
        self._hook = hook_for(handle, self.gpu_cluster_conn_id if is_first else None)
        self._at = handle

    def _recall(self, context: Context, reader: str) -> tuple[JobHandle, dict[str, Any]]:
        """
        Return where the last poke has found the job, and what it remembered, unless that belongs to another job or
        precedes a clear.
        """
        handle = handle_of(self.job)
        store: Any = context["task_state_store"]
        stored: Any = outlast(lambda: store.get(MEMORY_KEY)) or {}
        if [stored.get("job_id"), stored.get("reader")] != [handle.job_id, reader]:
            return handle, {}
        at = stored.get("at")
        return handle if at is None else handle_of(at), dict(stored["memory"])

    def _remember(self, context: Context, handle: JobHandle, reader: str, memory: dict[str, Any]) -> None:
        value: Any = {"job_id": handle.job_id, "reader": reader, "memory": memory}
        if handle != handle_of(self.job):
            value["at"] = handle.to_json()
        store: Any = context["task_state_store"]
        outlast(lambda: store.set(MEMORY_KEY, value))
