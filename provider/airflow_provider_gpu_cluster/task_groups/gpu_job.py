"""GpuJobTaskGroup."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import TaskGroup, XComArg

from airflow_provider_gpu_cluster.exceptions import InvalidJobError
from airflow_provider_gpu_cluster.jobs.parameters import spelled_out
from airflow_provider_gpu_cluster.jobs.request import NEEDS
from airflow_provider_gpu_cluster.operators.gpu_job import (
    CancelGpuJobOperator,
    CollectGpuJobOperator,
    StageGpuJobOperator,
    SubmitGpuJobOperator,
)
from airflow_provider_gpu_cluster.sensors.gpu_job import GpuJobSensor
from airflow_provider_gpu_cluster.task_groups.outage_retries import outlast_outages
from airflow_provider_gpu_cluster.tasks.deferral import DEFAULT_DEFERRABLE
from airflow_provider_gpu_cluster.tasks.handles import seconds

if TYPE_CHECKING:
    from airflow.sdk import BaseNotifier, ObjectStoragePath

    from airflow_provider_gpu_cluster.pools.pool import Policy
    from airflow_provider_gpu_cluster.sources.parse import Written


_OWN_TASKS = "it stages, submits and waits in tasks of its own"
_STAGED = "its stage task sends the inputs to one cluster; a SubmitGpuJobOperator without job takes this"
_NOT_TAKEN = {
    **dict.fromkeys(
        ("job", "task_id", "wait_for_completion", "poll_interval", "cancel_on_kill", "end_from_trigger"), _OWN_TASKS
    ),
    "spread": _STAGED,
}
# What only a task can do for its job that waits for it.
_IN_A_POOL = ("failover_after", "move_gain")


@spelled_out
class GpuJobTaskGroup(TaskGroup):
    """
    The whole life of a GPU job as tasks: stage, submit, wait, collect, and a cancel that runs when one of
    them fails.

    Its tasks have five retries for outages of Airflow's API server, unless you give them a ``retry_policy`` or more
    retries. After any other error, they have as many retries as you give them.

    ::

        train = GpuJobTaskGroup(
            "train", code="train_digits", entry_script="train.py", destination="/models/{{ ds }}"
        )
        prepare >> train
        report(train.output)

    :param group_id: id of the group; its tasks are ``<group_id>.stage`` and so on.
    :param destination: where the outputs go; see :class:`CollectGpuJobOperator`.
    :param code: source of the code: a local file or folder relative to the DAG file's folder, ``git+...``,
        ``cluster:...``, or a URL of an object store. A folder's content becomes the job's ``code/``, where it runs.
        (templated)
    :param data: one or more sources for the job's ``data/``. (templated)
    :param models: one or more sources for the job's ``models/``. (templated)
    :param include: patterns of the outputs to collect; by default everything.
    :param exclude: patterns of outputs to leave on the cluster.
    In a pool, with ``failover_after`` or ``move_gain``, the job goes to another cluster if its own is lost, or if
    another one is free much sooner. It is then the submit task that waits for the job, and shows its output; the wait
    task finds that it has ended. Each retry of the submit task is an attempt of the job.

    :param gpu_cluster_conn_id: connection of the cluster; or a pool: a list of connections, or a connection of type
        ``gpu_cluster_pool``. The stage task chooses one of its clusters. The job stays there, unless ``failover_after``
        or ``move_gain`` is given.
    :param policy: in a pool: how the cluster is chosen; see :class:`SubmitGpuJobOperator`.
    :param deferrable: wait in Airflow's triggerer; see :class:`GpuJobSensor`. By default the value of
        ``[operators] default_deferrable``.
    :param poke_interval: time between two pokes, in seconds or as a timedelta.
    :param timeout: how long to wait for the job, in seconds or as a timedelta; by default Airflow's own
        (``[sensors] default_timeout``). Where the submit task waits, it is the longest ``execution_timeout`` of each of
        its tries, by default none; the job is cancelled when it is over.
    :param resubmit_on_retry: let the retries of the wait task start the next attempt of the job; see
        :class:`GpuJobSensor`. The wait task then gets ``env`` and ``array`` as well. Where the submit task waits, its
        own retries do so in any case.
    :param get_logs: show the job's output in the log of the wait task.
    :param unreachable_timeout: how long the cluster may be unreachable while waiting.
    :param notify: when people are told about the job while it waits or runs, by ``notifier``; see
        :class:`GpuJobSensor`.
    :param notifier: a :class:`.GpuJobNotifier`, which tells them.
    :param durable: retries of stage and submit belong to the same job.
    :param default_args: default arguments of the group's tasks, such as ``{"retries": 2}``.
    :param tooltip: text shown over the group.
    :param group_display_name: name shown for the group.
    :param job: the other parameters of :class:`SubmitGpuJobOperator`, except those for waiting; among them
        ``failover_after`` and ``move_gain``, which are ten minutes by default if only the former is given.
    """

    def __init__(
        self,
        group_id: str,
        *,
        destination: str | os.PathLike[str] | ObjectStoragePath,
        code: Written | None = None,
        data: Written | Sequence[Written] | None = None,
        models: Written | Sequence[Written] | None = None,
        include: str | Sequence[str] | None = None,
        exclude: str | Sequence[str] | None = None,
        gpu_cluster_conn_id: str | Sequence[str] = "gpu_cluster_default",
        policy: Policy | None = None,
        deferrable: bool = DEFAULT_DEFERRABLE,
        poke_interval: timedelta | float = 30,
        timeout: timedelta | float | None = None,
        resubmit_on_retry: bool = False,
        get_logs: bool = True,
        unreachable_timeout: timedelta | float = timedelta(hours=6),
        notify: Mapping[str, Any] | None = None,
        notifier: BaseNotifier | None = None,
        durable: bool = True,
        default_args: dict[str, Any] | None = None,
        tooltip: str = "",
        group_display_name: str = "",
        **job: Any,
    ) -> None:
        for name, why in _NOT_TAKEN.items():
            if name in job:
                raise InvalidJobError(f"GpuJobTaskGroup takes no {name}: {why}")
        super().__init__(
            group_id,
            default_args=default_args or {},  # type: ignore[arg-type]  # attrs' converter hides the type
            tooltip=tooltip,
            group_display_name=group_display_name,
        )
        submit_waits = any(job.get(name) is not None for name in _IN_A_POOL)
        waiting: dict[str, Any] = {
            "deferrable": deferrable,
            "get_logs": get_logs,
            "unreachable_timeout": unreachable_timeout,
            "notify": notify,
            "notifier": notifier,
        }
        if submit_waits:
            # A copy is staged from them where the first one is out of reach.
            job.update(waiting, code=code, data=[] if data is None else data, models=models)
            job.update(wait_for_completion=True, poll_interval=seconds(poke_interval))
            waiting.update(notify=None, notifier=None)
        with self:
            self.stage = StageGpuJobOperator(
                task_id="stage",
                code=code,
                data=data,
                models=models,
                gpu_cluster_conn_id=gpu_cluster_conn_id,
                policy=policy,
                needs=_needs(job),
                durable=durable,
            )
            self.submit = SubmitGpuJobOperator(
                task_id="submit",
                job=self.stage.output,
                gpu_cluster_conn_id=gpu_cluster_conn_id,
                durable=durable,
                **job,
            )
            self.wait = GpuJobSensor(
                task_id="wait",
                job=self.submit.output,
                poke_interval=poke_interval,
                timeout=timeout,
                resubmit_on_retry=resubmit_on_retry and not submit_waits,
                env=job.get("env"),
                array=job.get("array"),
                **waiting,
            )
            self.collect = CollectGpuJobOperator(
                task_id="collect",
                job=self.wait.output,
                destination=destination,
                include=include,
                exclude=exclude,
            )
            # From the staged job, so that cancel finds the job even if the worker died just after the launch.
            self.cancel = CancelGpuJobOperator(
                task_id="cancel",
                job=self.stage.output,
                gpu_cluster_conn_id=gpu_cluster_conn_id if submit_waits else None,
            )
            # A teardown without setups: Airflow clears a task's setups with the task, and a user who clears a failed
            # collect does not want to train again.
            [self.submit, self.collect] >> self.cancel.as_teardown()
            if submit_waits:
                # Who ends the job tells people of its end.
                self.wait.answers_for_job = False
                if timeout is not None:
                    limits = (self.submit.execution_timeout, timedelta(seconds=seconds(timeout)))
                    self.submit.execution_timeout = min(limit for limit in limits if limit is not None)
            for task in (self.stage, self.submit, self.wait, self.collect, self.cancel):
                outlast_outages(task)

    @property
    def output(self) -> XComArg:
        """What the collect task returns: ``job_id``, ``destination``, ``files`` and ``metrics``."""
        return self.collect.output


def _needs(job: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what the stage task knows of a job's needs; it does not wait for outputs of other tasks."""
    return {name: job[name] for name in NEEDS if name in job and not _is_output(job[name])} or None


def _is_output(value: Any) -> bool:
    return any(True for _ in XComArg.iter_xcom_references(value))
