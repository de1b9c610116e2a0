"""SubmitGpuJobOperator."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowTaskTimeout, TaskDeferralTimeout

from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError, GpuClusterError, GpuJobCancelled
from airflow_provider_gpu_cluster.hooks.gpu_cluster import GpuClusterHook
from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.jobs.identity import JobIdentity, forerunners_of, identity_of, reader_of
from airflow_provider_gpu_cluster.jobs.notify import checked_notify
from airflow_provider_gpu_cluster.jobs.parameter_checks import connection_ids
from airflow_provider_gpu_cluster.jobs.parameters import PARAMETERS
from airflow_provider_gpu_cluster.jobs.request import JobRequest
from airflow_provider_gpu_cluster.operators.launch import request_for_trigger
from airflow_provider_gpu_cluster.pools.placement_options import (
    MOVE_GAIN,
    PlacementOptions,
    check_placement,
    check_spread,
    placement_options,
)
from airflow_provider_gpu_cluster.pools.policy_function import PolicyFunction
from airflow_provider_gpu_cluster.tasks.arguments import naming_arguments, naming_task
from airflow_provider_gpu_cluster.tasks.asking import check_asks_often_enough
from airflow_provider_gpu_cluster.tasks.deferral import (
    DEFAULT_DEFERRABLE,
    is_of_another_job,
    long_enough,
    needs_no_worker_to_end,
    resume,
    time_left,
)
from airflow_provider_gpu_cluster.tasks.handles import (
    FilledFields,
    JobArgument,
    dag_folder,
    handle_key,
    handle_of,
    hook_for,
    is_cancelled_by_teardown,
    pool_with,
    publish,
    result_of,
    seconds,
)
from airflow_provider_gpu_cluster.tasks.hidden_env import HiddenArray, HiddenEnv, is_no_template
from airflow_provider_gpu_cluster.tasks.job_partial import JobPartial
from airflow_provider_gpu_cluster.tasks.links import GpuJobLink, tell_page
from airflow_provider_gpu_cluster.tasks.states import asked_by_a_user
from airflow_provider_gpu_cluster.triggers.gpu_job import GpuJobTrigger

if TYPE_CHECKING:
    from airflow.sdk import BaseNotifier, Context, XComArg

    from airflow_provider_gpu_cluster.gpu_run.protocol.requests import SubmitRequest
    from airflow_provider_gpu_cluster.jobs.submission import Submission
    from airflow_provider_gpu_cluster.operators.in_pool import JobInPool
    from airflow_provider_gpu_cluster.pools.keeping import KeepsPlace
    from airflow_provider_gpu_cluster.pools.pool import Policy
    from airflow_provider_gpu_cluster.sources.parse import Written
    from airflow_provider_gpu_cluster.watch.end import WatchEnd

UNREACHABLE_TIMEOUT = timedelta(hours=6)


class SubmitGpuJobOperator(BaseOperator):
    """
    Launch a GPU job on a cluster.

    By default the task ends as soon as the job is launched or queued, and a :class:`GpuJobSensor` waits for the job.
    With ``wait_for_completion=True`` one task does both, so that each of Airflow's ``retries`` is an attempt of the
    job.

    The job is launched only once, however often the task asks for it. A retry waits on for a running attempt, takes
    the result of a job that has succeeded, or starts the next attempt of a job that has failed. A clear starts a
    new job.

    With ``array`` the task launches many jobs that differ in their environment variables or arguments. Each of them is
    launched and retried independently. The task ends when all of them have ended, and fails if any has failed.

    :param job: output of a :class:`StageGpuJobOperator`, whose sources are used; without it, ``code``,
        ``data`` and ``models`` are staged first. In a pool, give these as well: from them the job is staged again if
        it has to go to another cluster and the one where it was staged is out of reach. What was staged is what runs
        there, whatever has become of the sources since; an empty list says that there are none. (templated)
    :param code: source of the code: a local file or folder relative to the DAG file's folder, ``git+...``,
        ``cluster:...``, or a URL of an object store. A folder's content becomes the job's ``code/``, where it runs.
        (templated)
    :param entry_script: script to run, relative to the code. Either this or ``command``. (templated)
    :param script_args: arguments of the entry script, as a list. (templated)
    :param command: shell text to run instead of an entry script. (templated)
    :param data: one or more sources for the job's ``data/``. (templated)
    :param models: one or more sources for the job's ``models/``. (templated)
    :param gpus: number of whole GPUs. (templated)
    :param gpu_type: only GPUs whose name contains this text, such as ``"A100"``; None for any. (templated)
    :param cpus: CPU cores; None leaves it to the cluster. (templated)
    :param memory: limit on host memory, in bytes or as text such as ``"32G"``; None for no limit. (templated)
    :param time_limit: limit on the job's run time, in seconds, as a timedelta, or as its text ``1:00:00``; None for no
        limit. (templated)
    :param stop_signal: the signal that asks the job's main process to end: at its time limit, a cancel, or a
        preemption. (templated)
    :param stop_signal_to: ``main``: that signal goes to the main process alone; ``all``: to every process of the job.
        (templated)
    :param grace: how long the job may take to end after that signal, in seconds, as a timedelta, or as its text, before
        all of its processes are killed; None for the connection's, which is 30 s. (templated)
    :param warn_before: how long before its time limit the job gets ``warn_signal``, in seconds, as a timedelta, or as
        its text. It also gets it at once when it is cancelled or preempted. None for no warning. (templated)
    :param warn_signal: the signal of that warning. (templated)
    :param recover: how often the job goes on in a next attempt by itself, by the reason of its end, within one try of
        its task. What a mapping names replaces the default of ``{'preempted': 20, 'node_failure': 3, 'lost': 2,
        'checkpointed': 1000}``; False for never. (templated)
    :param checkpoint_exit_code: the exit code by which the job says "saved, start me again". (templated)
    :param hang_timeout: end the job when it has printed nothing, saved nothing and used no processor time for that
        long, in seconds, as a timedelta, or as its text; None for never. (templated)
    :param orphan_timeout: end the job when nobody has asked about it for that long, in seconds, as a timedelta, or as
        its text; None for the connection's, which is never. (templated)
    :param min_gpu_utilization: use of its GPUs in percent, in the mean over the window, below which the job is idle; 0
        for never; None for the connection's, which is 5. (templated)
    :param utilization_window: over how long that is looked at, in seconds, as a timedelta, or as its text; None for the
        connection's, which is half an hour. (templated)
    :param on_idle: what is done about an idle job: ``warn`` says so in the task's log, ``cancel`` also ends it after
        the whole window; None for the connection's, which is ``warn``. (templated)
    :param env: environment variables of the job. The values are never shown in Airflow, are sent separately, and are
        not in the job's records on the cluster. (templated)
    :param array: makes an array of jobs: a list, or the output of a task that returns one, of what differs in each job.
        An element is a dict of environment variables, merged over ``env`` and hidden like it; or arguments, as a list
        or as text that is split as by a shell, which follow ``script_args`` or are appended to ``command``. (templated)
    :param priority: ``high``, ``normal`` or ``low``: waiting jobs are served in this order. (templated)
    :param nodes: number of nodes, with ``gpus``, ``cpus`` and ``memory`` on each; more than one requires Slurm.
        (templated)
    :param partition: Slurm partition; None for the connection's. Clusters without Slurm ignore this and the next four
        parameters. (templated)
    :param account: Slurm account; None for the connection's. (templated)
    :param qos: Slurm QOS; None for the connection's. (templated)
    :param constraint: features that Slurm's nodes must have; None for the connection's. (templated)
    :param sbatch_options: further options of Slurm's ``sbatch``, as a list or one text, after the connection's.
        (templated)
    :param requirements: Python packages, as a list or as the text of a requirements file; None takes
        ``requirements.txt`` from the code if it is there. (templated)
    :param setup: shell lines to run first, such as ``["module load cuda/12.4"]``. (templated)
    :param pass_output_dirs: pass ``--output_dir`` and ``--log_dir`` to the entry script.
    :param run_script_template: path of a Jinja2 template to use instead of the package's ``run.sh.j2``, relative to the
        DAG file's folder.
    :param gpu_cluster_conn_id: connection of the cluster; by default the one of ``job``, or
        ``gpu_cluster_default``. Or a pool of clusters, of which one is chosen for each job: a list of connections, such
        as ``["gpu01", "slurm-a"]``, or a connection of type ``gpu_cluster_pool``. A staged ``job`` is launched where it
        was staged, as long as that cluster can be reached and can run it. (templated)
    :param policy: how a cluster of a pool is chosen among those that the job fits: ``"soonest"``, where it is expected
        to start first; ``"cheapest"``, by ``price_per_gpu_hour``; ``"in_order"``, the first of the list that answers;
        or a function that takes the offers and returns one of them, or the id of its connection. None for the pool
        connection's, which is ``"soonest"``. (templated)
    :param failover_after: in a pool, while the task waits for the job: after how long without contact to its cluster it
        is launched on another one, as a timedelta or in seconds, at least 30 s, and only when it is sure that it does
        not run on the first, for which ``orphan_timeout`` is needed once it has begun. None for never. (templated)
    :param move_gain: in a pool, while the task waits for the job: a queued job is moved to another cluster if it is
        expected to start there sooner by this, as a timedelta or in seconds, and in less than half the time. None for
        never.
    :param spread: in a pool: elements of an ``array`` may go to different clusters, and what is on each fails over and
        moves like a job. False keeps them together.
    :param wait_for_completion: wait until the job has ended, and fail if it has ended badly.
    :param deferrable: wait in Airflow's triggerer, which watches all jobs of a cluster over one connection, instead
        of on a worker; by default the value of ``[operators] default_deferrable``.
    :param launch_from_trigger: when deferrable, also launch the job from the triggerer, over the same connection for
        any number of tasks. A worker would spend most of its time on the login; a trigger launches about a second
        later. By default only mapped tasks do so. A worker still launches arrays, staged jobs of a pool, and jobs whose
        files must be sent (code, data or models that are neither on the cluster, nor from git, nor staged).
    :param end_from_trigger: when deferrable, also end the task in the triggerer, without a worker, where Airflow can:
        the job has succeeded, little output is left to show, the task has no ``outlets``, ``post_execute`` or
        ``on_success_callback``, and no Airflow plugin has listeners.
    :param poll_interval: longest time between two polls of the job while waiting, in seconds. The first polls
        come sooner, so that a short job is not waited for longer than it runs. When deferrable, this matters only on
        a cluster that forbids long commands; other clusters report changes by themselves.
    :param unreachable_timeout: how long the cluster may be unreachable while waiting, in seconds or as a
        timedelta, before the task fails. The job keeps running.
    :param durable: a retry belongs to the same job. False makes every try a separate job.
    :param cancel_on_kill: cancel the job when a user ends the task (marks or clears it) while it waits, or
        when its ``execution_timeout`` is over. A worker or triggerer that is shut down never cancels the job.
    :param get_logs: show the job's output in the task's log while waiting.
    :param notify: when people are told about a job that waits or runs, by ``notifier``, once each: a dict with any of
        ``queued_for``, ``no_progress_for`` and ``time_limit_in`` (in seconds, or as a timedelta), ``recovered`` and
        ``idle`` (True); see docs/notifications.md. While the task waits.
    :param notifier: a :class:`.GpuJobNotifier`, which tells them.
    :return: the job's handle: ``job_id``, ``gpu_cluster_conn_id``, ``job_dir``, ``engine``, ``submitted_at``,
        ``gpus``, and for an array its ``array_size``. It is in XCom from the moment of the launch. If the task waits,
        and the job has gone on by itself, it also has ``attempts`` and ``recovered`` at the end.
    """

    template_fields = FilledFields(
        "job",
        *(name for name, parameter in PARAMETERS.items() if parameter.templated),
        "gpu_cluster_conn_id",
        "policy",
        "failover_after",
    )
    template_fields_renderers = {
        name: parameter.renderer for name, parameter in PARAMETERS.items() if parameter.renderer is not None
    }
    operator_extra_links = (GpuJobLink(),)
    answers_for_job = True  # where it ends, notifiers speak of the job
    ui_color = "#e4ecf4"

    def __init__(
        self,
        *,
        job: JobArgument | None = None,
        # The parameters of a job; scripts/write_parameters.py writes them here, as below and in the docstring.
        code: Written | None = None,
        entry_script: str | None = None,
        script_args: Sequence[Any] | None = None,
        command: str | None = None,
        data: Written | Sequence[Written] | None = None,
        models: Written | Sequence[Written] | None = None,
        gpus: int | str = 1,
        gpu_type: str | None = None,
        cpus: int | str | None = None,
        memory: int | str | None = None,
        time_limit: float | str | timedelta | None = None,
        stop_signal: str = "TERM",
        stop_signal_to: str = "main",
        grace: float | str | timedelta | None = None,
        warn_before: float | str | timedelta | None = None,
        warn_signal: str = "USR1",
        recover: Mapping[str, Any] | bool | str | None = None,
        checkpoint_exit_code: int | str = 85,
        hang_timeout: float | str | timedelta | None = None,
        orphan_timeout: float | str | timedelta | None = None,
        min_gpu_utilization: float | str | None = None,
        utilization_window: float | str | timedelta | None = None,
        on_idle: str | None = None,
        env: Mapping[str, Any] | XComArg | str | None = None,
        array: Sequence[Any] | XComArg | str | None = None,
        priority: str = "normal",
        nodes: int | str = 1,
        partition: str | None = None,
        account: str | None = None,
        qos: str | None = None,
        constraint: str | None = None,
        sbatch_options: str | Sequence[str] | None = None,
        requirements: str | Sequence[str] | None = None,
        setup: str | Sequence[str] | None = None,
        pass_output_dirs: bool = True,
        run_script_template: str | None = None,
        gpu_cluster_conn_id: str | Sequence[str] | None = None,
        policy: Policy | None = None,
        failover_after: float | str | timedelta | None = None,
        move_gain: float | timedelta | None = MOVE_GAIN,
        spread: bool = False,
        wait_for_completion: bool = False,
        deferrable: bool = DEFAULT_DEFERRABLE,
        launch_from_trigger: bool | None = None,
        end_from_trigger: bool = True,
        poll_interval: float = 10,
        unreachable_timeout: float | timedelta = UNREACHABLE_TIMEOUT,
        durable: bool = True,
        cancel_on_kill: bool = True,
        get_logs: bool = True,
        notify: Mapping[str, Any] | None = None,
        notifier: BaseNotifier | None = None,
        **kwargs: Any,
    ) -> None:
        with naming_arguments(type(self), kwargs):
            super().__init__(**kwargs)
        self.job = job
        self.code = code
        self.entry_script = entry_script
        self.script_args = script_args
        self.command = command
        self.data = data
        self.models = models
        self.gpus = gpus
        self.gpu_type = gpu_type
        self.cpus = cpus
        self.memory = memory
        self.time_limit = time_limit
        self.stop_signal = stop_signal
        self.stop_signal_to = stop_signal_to
        self.grace = grace
        self.warn_before = warn_before
        self.warn_signal = warn_signal
        self.recover = recover
        self.checkpoint_exit_code = checkpoint_exit_code
        self.hang_timeout = hang_timeout
        self.orphan_timeout = orphan_timeout
        self.min_gpu_utilization = min_gpu_utilization
        self.utilization_window = utilization_window
        self.on_idle = on_idle
        self.priority = priority
        self.nodes = nodes
        self.partition = partition
        self.account = account
        self.qos = qos
        self.constraint = constraint
        self.sbatch_options = sbatch_options
        self.requirements = requirements
        self.setup = setup
        self.pass_output_dirs = pass_output_dirs
        self.run_script_template = run_script_template
        self.env = HiddenEnv(env)
        self.array = None if array is None else HiddenArray(array)
        self.gpu_cluster_conn_id = gpu_cluster_conn_id
        self.policy = PolicyFunction.of(policy)
        self.failover_after = failover_after
        self.move_gain = move_gain
        self.spread = spread
        self.wait_for_completion = wait_for_completion
        self.deferrable = deferrable
        self.launch_from_trigger = launch_from_trigger
        self.end_from_trigger = end_from_trigger and needs_no_worker_to_end(self)
        self.poll_interval = poll_interval
        self.unreachable_timeout = unreachable_timeout
        self.durable = durable
        self.cancel_on_kill = cancel_on_kill
        self.get_logs = get_logs
        self.notify = notify
        self.notifier = notifier
        self._interrupt: Callable[[], None] | None = None
        self._killed = False
        self._in_pool: JobInPool | None = None
        self._is_staged = job is not None  # job may turn out to be None when the task runs, which is an error
        with naming_task(self):
            # Whether a connection is that of a pool is known when the task runs. On one cluster they are of no use.
            self._request().check(staged=job is not None and gpu_cluster_conn_id is None)
            check_spread(spread=spread, array=array, is_staged=job is not None)
            check_placement(gpu_cluster_conn_id=gpu_cluster_conn_id, **self._written_placement())
            self._notify_when, self._written_notifier = checked_notify(notify, notifier)

    @classmethod
    def partial(cls, **kwargs: Any) -> JobPartial:
        """Begin a mapped task; see :meth:`airflow.sdk.BaseOperator.partial`."""
        with naming_arguments(cls, kwargs):
            return JobPartial.of(super().partial, **kwargs)

    def render_template(
        self, content: Any, context: Context, jinja_env: Any = None, seen_oids: set[int] | None = None
    ) -> Any:
        """Render a value; hidden values stay hidden."""
        if isinstance(content, (HiddenEnv, HiddenArray)):
            return type(content)(self.render_template(content.values, context, jinja_env, seen_oids))
        if is_no_template(content):
            # Airflow would make a number of "4090" where templates give native values.
            return content
        return super().render_template(content, context, jinja_env, seen_oids)

    def execute(self, context: Context) -> dict[str, Any]:
        """Launch the job, wait for it if asked to, and return its handle."""
        return self._launch_and_wait(context)

    def _launch_and_wait(self, context: Context, *, after: WatchEnd | None = None) -> dict[str, Any]:
        """
        Launch the job, or find it, and wait for it if asked to.

        :param after: what a trigger has said that could not do it.
        """
        on_worker = after is not None
        staged = handle_of(self.job) if self._is_staged else None
        identity = self._identity(context, staged)
        hook = self._hook(staged)
        self._in_pool = self._job_in_pool(context, hook, identity, staged)
        if on_worker and self._in_pool is not None:
            self._in_pool.do_what_the_trigger_could_not()
        if not on_worker and self._may_launch_from_trigger(context):
            self._defer_unless_a_worker_is_needed(context, hook, identity, staged=staged is not None)
        if self.wait_for_completion and not self.deferrable:
            orphan_timeout_s = self._orphan_timeout_s(hook)
            check_asks_often_enough("poll_interval", self.poll_interval, orphan_timeout_s, log=self.log)
        with self._stoppable(context, hook, identity):
            handle = self._launch(context, hook, identity, staged=staged is not None)
            self._stop_if_killed()
            if self.wait_for_completion and not self.deferrable:
                return self._wait(context, hook, identity, handle)
            if self.wait_for_completion and self._in_pool is not None:
                launch = self._request_for_trigger(identity, staged=staged is not None)
                pool = self._in_pool.argument(launch)
                self._defer(context, job=handle.to_json(), pool=pool, ended=_told_ends(after, handle))
        if self.wait_for_completion and self.deferrable:
            self._defer(context, job=handle.to_json())
        return handle.to_json()

    def _orphan_timeout_s(self, hook: GpuClusterHook) -> float | None:
        if self._in_pool is not None:
            return self._in_pool.orphan_timeout_s
        own = self._request().spec().orphan_timeout_s
        return hook.settings.orphan_timeout_s if own is None else own

    def _job_in_pool(
        self, context: Context, hook: GpuClusterHook, identity: JobIdentity, staged: JobHandle | None
    ) -> JobInPool | None:
        """Return what sees to the job in a pool; None if there is only one cluster, or it stays where it was staged."""
        pool = hook.pool
        if pool is None:
            return None
        from airflow_provider_gpu_cluster.operators.in_pool import JobInPool
        from airflow_provider_gpu_cluster.operators.spread import SpreadArray

        options = self._placement_options()
        is_spread = options.spread and self.array is not None and len(pool.members) > 1
        return (SpreadArray if is_spread else JobInPool)(
            pool if options.policy is None else dataclasses.replace(pool, policy=options.policy),
            hook,
            identity,
            self._request(),
            context=context,
            options=options,
            staged_at=None if staged is None else staged.gpu_cluster_conn_id,
            base_dir=dag_folder(self),
            is_awaited=self.wait_for_completion,
            check=self._stop_if_killed,
            log=self.log,
        )

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Continue after the trigger: show the output that is left, and succeed or fail as the job did."""
        from airflow_provider_gpu_cluster.watch.end import WatchEnd

        end = WatchEnd.from_json(event)
        staged = handle_of(self.job) if self._is_staged else None
        identity = self._identity(context, staged)
        if is_of_another_job(end, identity.job_id, self.log):
            return self._launch_and_wait(context)
        hook = self._hook(staged)
        if end.placement is not None:
            self._in_pool = self._job_in_pool(context, hook, identity, staged)
            if self._in_pool is not None:
                has_ended = end.status is not None and end.status.final
                self._in_pool.go_on(end.placement, has_ended=has_ended)
            if end.status is None and end.error is None:
                # The trigger could not launch it on another cluster.
                return self._launch_and_wait(context, after=end)
        if end.error is not None:
            raise end.error
        assert end.handle is not None
        if end.handle.parts:
            self._in_pool = self._job_in_pool(context, hook, identity, staged)
        self._request().variables()  # masks their values in this process's log
        conn_id = end.handle.gpu_cluster_conn_id
        with self._stoppable(context, hook if self._in_pool is not None else GpuClusterHook(conn_id), identity) as hook:
            patience_s = seconds(self.unreachable_timeout)
            return resume(end, hook.member(conn_id), log=self.log, pause=self._sleep, unreachable_timeout_s=patience_s)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume after a deferral; cancel the job if the deferral took longer than ``execution_timeout``."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except TaskDeferralTimeout as error:
            staged = handle_of(self.job) if self._is_staged else None
            hook, identity = self._hook(staged), self._identity(context, staged)
            self._in_pool = self._job_in_pool(context, hook, identity, staged)
            self._cancel_after_timeout(hook, identity)
            raise AirflowTaskTimeout(f"execution_timeout of {self.execution_timeout} is over") from error

    def on_kill(self) -> None:
        """
        Stop waiting; :meth:`execute` decides whether to cancel the job.

        Airflow calls this in a signal handler, and then lets ``execute`` run for five more seconds.
        """
        self._killed = True
        if self._interrupt is not None:
            self._interrupt()

    def _identity(self, context: Context, staged: JobHandle | None) -> JobIdentity:
        return identity_of(context, durable=self.durable, job_id=staged.job_id if staged else None)

    def _hook(self, staged: JobHandle | None) -> GpuClusterHook:
        if staged is not None:
            return self._pool_of_staged(staged) or hook_for(staged, self.gpu_cluster_conn_id)
        return GpuClusterHook(connection_ids(self.gpu_cluster_conn_id) or GpuClusterHook.default_conn_name)

    def _pool_of_staged(self, staged: JobHandle) -> GpuClusterHook | None:
        """Return the hook of the pool in which a staged job may go elsewhere; None if it stays where it was staged."""
        may_go = self.wait_for_completion or self._request().has_sources
        return pool_with(staged, self.gpu_cluster_conn_id) if may_go else None

    @contextlib.contextmanager
    def _stoppable(self, context: Context, hook: GpuClusterHook, identity: JobIdentity) -> Iterator[GpuClusterHook]:
        """Open a hook for a job; if the task is stopped meanwhile, decide whether to cancel the job."""
        with hook:
            try:
                self._interrupt = hook.cluster.interrupt if self._in_pool is None else self._in_pool.interrupt
                yield hook
            except AirflowTaskTimeout:
                self._cancel_after_timeout(hook, identity)
                raise
            except GpuClusterError:
                if not self._killed:
                    raise
                self._end_after_kill(context, hook, identity)
            finally:
                self._interrupt = None
                if self._in_pool is not None:
                    self._in_pool.close()

    def _may_launch_from_trigger(self, context: Context) -> bool:
        if not (self.wait_for_completion and self.deferrable):
            return False
        map_index = context["ti"].map_index
        is_mapped = map_index is not None and map_index >= 0
        return is_mapped if self.launch_from_trigger is None else self.launch_from_trigger

    def _defer_unless_a_worker_is_needed(
        self, context: Context, hook: GpuClusterHook, identity: JobIdentity, *, staged: bool
    ) -> None:
        """Defer the task and let its trigger launch the job, if a trigger can."""
        if self._in_pool is not None and not self._in_pool.may_be_launched_by_a_trigger():
            return
        request = self._request_for_trigger(identity, staged=staged)
        if request is None:
            return
        with hook:
            self._cancel_forerunners(context, hook)
        if self._in_pool is None:
            self._defer(context, launch=request, gpu_cluster_conn_id=hook.settings.conn_id)
        self._defer(context, launch=request, pool=self._in_pool.argument(request))

    def _request_for_trigger(self, identity: JobIdentity, *, staged: bool) -> SubmitRequest | None:
        folder = Path(dag_folder(self))
        return request_for_trigger(self._request_to_launch(staged), identity, base_dir=folder, staged=staged)

    def _request_to_launch(self, staged: bool) -> JobRequest:
        request = self._request()
        return request.without_sources() if staged else request

    def _defer(self, context: Context, **job: Any) -> NoReturn:
        trigger = GpuJobTrigger(
            **job,
            get_logs=self.get_logs,
            reader=reader_of(context),
            poll_interval=self.poll_interval,
            unreachable_timeout=seconds(self.unreachable_timeout),
            cancel_on_kill=self.cancel_on_kill,
            end_from_trigger=self.end_from_trigger,
            handle_key=handle_key(self),
            masked=self._request().secrets() if self.get_logs else (),
            notify=self._notify_when,
            notifier=self._written_notifier,
        )
        left = time_left(context, self.execution_timeout)
        timeout = None if left is None else long_enough(left)
        self.defer(trigger=trigger, method_name="execute_complete", timeout=timeout)

    def _written_placement(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("policy", "failover_after", "move_gain", "spread")}

    def _placement_options(self) -> PlacementOptions:
        return placement_options(**self._written_placement())

    def _request(self) -> JobRequest:
        values = {name: getattr(self, name) for name in PARAMETERS}
        values["env"] = self.env.values
        values["array"] = None if self.array is None else self.array.values
        return JobRequest(**values)

    def _launch(self, context: Context, hook: GpuClusterHook, identity: JobIdentity, *, staged: bool) -> JobHandle:
        started = time.monotonic()
        self._cancel_forerunners(context, hook)
        if self._in_pool is None:
            submission = self._launched_there(hook, identity, staged=staged)
        else:
            patience_s = seconds(self.unreachable_timeout) if self.wait_for_completion else 0
            submission = self._in_pool.launch(pause=self._sleep, patience_s=patience_s)
            hook = self._in_pool.member(submission.handle.gpu_cluster_conn_id)
        self._tell_launch(context, hook, identity, submission, duration_s=time.monotonic() - started)
        return submission.handle

    def _launched_there(self, hook: GpuClusterHook, identity: JobIdentity, *, staged: bool) -> Submission:
        """Launch the job on its only cluster, or where it was staged and stays."""
        try:
            request = self._request_to_launch(staged)
            return hook.launch(request, identity, base_dir=dag_folder(self), staged=staged)
        except GpuClusterConnectionError as error:
            if not staged or pool_with(handle_of(self.job), self.gpu_cluster_conn_id) is None:
                raise
            raise type(error)(
                f"{str(error).rstrip('.')}. The inputs of job {identity.job_id} are staged there alone: try again when "
                "that cluster is back, or clear the task that has staged them, which then chooses another one"
            ) from error

    def _tell_launch(
        self,
        context: Context,
        hook: GpuClusterHook,
        identity: JobIdentity,
        submission: Submission,
        *,
        duration_s: float,
    ) -> None:
        """Leave the job's handle for others, and say in the log where it is."""
        # Imported late: a file of DAGs is parsed again and again, and says nothing of launches.
        from airflow_provider_gpu_cluster.gpu_run.protocol.masks import masks_of
        from airflow_provider_gpu_cluster.logs.job_log import tell_submission
        from airflow_provider_gpu_cluster.tasks.launch_notes import launch_note

        request = self._request()
        asked = request.spec().to_json()
        masks = masks_of(request.secrets())
        publish(
            self,
            context,
            submission.handle,
            ends_with_task=self.wait_for_completion and self.cancel_on_kill,
            ends_with_teardown=is_cancelled_by_teardown(self),
            launch=launch_note(submission, spec=asked, record=identity.record, masks=masks),
        )
        handle = submission.handle
        name = ", ".join(handle.conn_ids) if handle.parts else hook.settings.name
        tell_submission(submission, self.log, cluster=name, duration_s=duration_s)
        tell_page(context["ti"], self.log, submission.handle.job_id)

    def _cancel_forerunners(self, context: Context, hook: GpuClusterHook) -> None:
        """Cancel the jobs that this task launched before a user cleared it, unless that has been done already."""
        # A staged job keeps its id after a clear, and a job that is not durable has another id in every try.
        if self.wait_for_completion and self.cancel_on_kill and self.durable and not self._is_staged:
            forerunners = forerunners_of(context, retries=self.retries or 0)
            by = "Airflow, as a user cleared its task"
            if forerunners and self._in_pool is not None:
                self._in_pool.cancel_forerunners(forerunners, by=by)
            elif forerunners:
                hook.cluster.cancel(forerunners, requested_by=by)

    def _wait(self, context: Context, hook: GpuClusterHook, identity: JobIdentity, handle: JobHandle) -> dict[str, Any]:
        """Wait for the job, from cluster to cluster of its pool."""
        from airflow_provider_gpu_cluster.logs.array_log import memory_elsewhere
        from airflow_provider_gpu_cluster.pools.keeping import JobWentElsewhere

        if self._in_pool is None:
            return self._wait_there(context, hook, handle, memory={})
        memory: dict[str, Any] = {}
        while True:
            hook = self._in_pool.member(handle.gpu_cluster_conn_id)
            try:
                return self._wait_there(context, hook, handle, memory=memory, keeper=self._in_pool.keeper)
            except JobWentElsewhere as went:
                before, handle = handle, went.submission.handle
                memory = memory_elsewhere(memory, before, handle)
                hook = self._in_pool.member(handle.gpu_cluster_conn_id)
                self._tell_launch(context, hook, identity, went.submission, duration_s=0)

    def _wait_there(
        self,
        context: Context,
        hook: GpuClusterHook,
        handle: JobHandle,
        *,
        memory: dict[str, Any],
        keeper: KeepsPlace | None = None,
    ) -> dict[str, Any]:
        from airflow_provider_gpu_cluster.watch.job_or_array import watch_of
        from airflow_provider_gpu_cluster.watch.notices import notices_of

        reader = reader_of(context) if self.get_logs else None
        notices = notices_of(
            self._notify_when,
            self._written_notifier,
            conn_id=hook.settings.conn_id,
            ti=context["ti"],
            log=self.log,
        )
        watch = watch_of(
            hook.cluster,
            handle,
            log=self.log,
            reader=reader,
            memory=memory,
            notices=notices,
            open_cluster=hook.cluster_of,
        )
        try:
            status = watch.wait(
                pause=self._sleep,
                longest_pause_s=self.poll_interval,
                unreachable_timeout_s=seconds(self.unreachable_timeout),
                keeper=keeper,
            )
        finally:
            memory.update(watch.memory)
        if self._in_pool is not None:
            self._in_pool.note_end()
        watch.end(status)
        return result_of(handle, status)

    def _sleep(self, seconds: float) -> None:
        """Sleep in short pieces, because a signal handler that returns does not end a sleep."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self._killed:
            time.sleep(min(left, 0.2))
        self._stop_if_killed()

    def _stop_if_killed(self) -> None:
        if self._killed:
            raise GpuClusterError("the task was told to stop")

    def _end_after_kill(self, context: Context, hook: GpuClusterHook, identity: JobIdentity) -> None:
        name, job_id = self._where(hook), identity.job_id
        if self.cancel_on_kill and asked_by_a_user(context):
            self._cancel_anew(hook, identity)
            message = f"job {job_id} on {name} was cancelled, because a user ended the task"
            raise GpuJobCancelled(message, job_id=job_id, state="CANCELLED", reason="cancelled")
        raise GpuClusterError(f"the task was told to stop; job {job_id} on {name} is left alone")

    def _cancel_after_timeout(self, hook: GpuClusterHook, identity: JobIdentity) -> None:
        if not self.cancel_on_kill:
            return
        name, job_id = self._where(hook), identity.job_id
        try:
            self._cancel_anew(hook, identity)
            self.log.warning("execution_timeout is over; GPU job cancelled", job_id=job_id, cluster=name)
        except GpuClusterError as error:
            self.log.error("execution_timeout is over; GPU job could not be cancelled", job_id=job_id, error=str(error))

    def _where(self, hook: GpuClusterHook) -> str:
        return hook.settings.name if self._in_pool is None else ", ".join(self._in_pool.may_have_it)

    def _cancel_anew(self, hook: GpuClusterHook, identity: JobIdentity) -> None:
        """
        Cancel over new connections, because the old one was interrupted in a call, which may have been the launch; in a
        pool wherever the job may be.
        """
        if self._in_pool is not None:
            self._in_pool.cancel()
            return
        with GpuClusterHook(hook.gpu_cluster_conn_id) as anew:
            anew.cancel(identity.job_id, request_key=identity.request_key)


def _told_ends(after: WatchEnd | None, handle: JobHandle) -> list[int]:
    """Return the elements of an array of which a trigger has told the ends, and that are still where they were."""
    from airflow_provider_gpu_cluster.logs.array_log import memory_elsewhere

    if after is None or after.handle is None or after.handle.array_size != handle.array_size:
        return []
    ended: list[int] = memory_elsewhere(after.memory, after.handle, handle).get("ended", [])
    return ended
