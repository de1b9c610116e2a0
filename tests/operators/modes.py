"""The ways in which a task can wait for a GPU job, each driven as Airflow drives it, and what comes of them."""

from __future__ import annotations

import asyncio
import functools
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, BaseOperator, timezone
from airflow.sdk._shared.secrets_masker import _secrets_masker, redact
from airflow.sdk.bases.operator import TRIGGER_FAIL_REPR, TriggerFailureReason
from airflow.sdk.exceptions import AirflowRescheduleException, AirflowSkipException, AirflowTaskTimeout, TaskDeferred
from airflow.sdk.execution_time.task_runner import _run_execute_callable
from airflow.sdk.log import amask_secret, mask_secret
from airflow.serialization.serialized_objects import DagSerialization
from airflow.triggers.base import TaskSuccessEvent, TriggerEvent

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.exceptions import GpuJobError
from airflow_provider_gpu_cluster.hooks.gpu_cluster import GpuClusterHook
from airflow_provider_gpu_cluster.jobs import secrets
from airflow_provider_gpu_cluster.operators.gpu_job import SubmitGpuJobOperator
from airflow_provider_gpu_cluster.sensors.gpu_job import GpuJobSensor
from airflow_provider_gpu_cluster.tasks.job_notes import LAUNCH_XCOM_KEY
from airflow_provider_gpu_cluster.tasks.links import KILL_XCOM_KEY
from airflow_provider_gpu_cluster.triggers import gpu_job
from tests.harness import jobs
from tests.harness.deferral import TaskLogs, Triggerer, XComs, through_the_database
from tests.harness.patience import PATIENCE_S
from tests.harness.task_context import StateStore, TaskInstance, task_context
from tests.servers.proxy import CutProxy

RUNS = "GPU job runs"


class Scene:
    """
    One task that waits for one job, in one mode.

    :param cluster: the job's cluster, reached by a way of the test's own.
    :param connection: the Airflow connection of the cluster.
    :param proxy: another way there, that can be cut.
    """

    def __init__(
        self,
        name: str,
        *,
        cluster: Cluster,
        connection: dict[str, Any],
        proxy: CutProxy,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        logs: TaskLogs,
    ) -> None:
        self.cluster = cluster
        self.proxy = proxy
        self.folder = folder
        self.gate = folder / "gate"
        self.logs = logs
        self.ti = TaskInstance(name)
        self.store = StateStore()
        self.masked: list[str] = []
        self.job_id = f"job-{name}"
        self._connection = connection
        self._monkeypatch = monkeypatch
        self._xcoms = XComs(monkeypatch)
        self.connect("gpu_cluster_default")
        self._note_secrets()

    def connect(self, conn_id: str, *, extra: dict[str, Any] | None = None, **changes: Any) -> None:
        """Change an Airflow connection to the cluster, or add one."""
        connection = {**self._connection, **changes, "extra": {**self._connection["extra"], **(extra or {})}}
        self._monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(connection))

    def until(self, check: Callable[[], Any]) -> Any:
        """Wait until something is true."""
        pause = threading.Event()
        for _ in range(round(PATIENCE_S * 50)):
            if result := check():
                return result
            pause.wait(0.02)
        raise AssertionError(f"the log says only {[record.event for record in self.logs.records]}")

    def until_told(self, event: str) -> None:
        """Wait until the task's log says something of the job."""
        self.until(lambda: any(told.startswith(event) for told in self.logs.events))

    def open_gate(self) -> None:
        """Let the job go on."""
        self.gate.touch()

    @property
    def xcoms(self) -> dict[str, Any]:
        """What the task has left in XCom."""
        own = {key: value for (task_id, _, key), value in self._xcoms.items() if task_id == self.ti.task_id}
        return {**self.ti.xcoms, **own}

    @property
    def handle(self) -> dict[str, Any]:
        """What the task before has returned."""
        handle: dict[str, Any] = self._xcoms["train", -1, "return_value"]
        return handle

    @handle.setter
    def handle(self, handle: dict[str, Any]) -> None:
        self._xcoms["train", -1, "return_value"] = handle

    def on_worker(self, operator: BaseOperator, execute: Callable[..., Any]) -> Any:
        """Run a task as Airflow's task runner does, in a process that was started for it."""
        _secrets_masker().reset_masker()  # type: ignore[no-untyped-call]
        context = task_context(self.ti, store=self.store)
        result = _run_execute_callable(context, execute, operator)
        if operator.do_xcom_push and result is not None:
            # It replaces what a trigger has pushed; a trigger comes after everything else that a worker pushes.
            self._xcoms.pop((self.ti.task_id, -1, "return_value"), None)
            self.ti.xcom_push("return_value", result)
        return result

    def in_triggerer(
        self, classpath: str, kwargs: dict[str, Any], *, timeout: timedelta | None, dag: DAG | None = None
    ) -> TriggerEvent | None:
        """Run the task's trigger, and return what it fires; None when its time is over before."""
        _secrets_masker().reset_masker()  # type: ignore[no-untyped-call]
        self.masked.clear()

        async def run() -> TriggerEvent | None:
            triggerer = Triggerer(self.logs)
            trigger_id = await triggerer.start(self.ti, classpath, kwargs, dag=dag, timeout=timeout)
            task = triggerer.task(trigger_id)
            await asyncio.wait({task}, timeout=PATIENCE_S if timeout is None else timeout.total_seconds())
            if task.done():
                return await triggerer.event(trigger_id)
            assert timeout is not None, "the trigger does not end"
            # The scheduler goes on with the task, and the triggerer is told that the trigger is not needed any more.
            await triggerer.user_ends_task(trigger_id)
            await asyncio.wait({task}, timeout=PATIENCE_S)
            assert task.cancelled()
            return None

        return asyncio.run(run())

    def _note_secrets(self) -> None:

        def mask(secret: str, name: str | None = None) -> None:
            self.masked.append(secret)
            mask_secret(secret, name)

        async def amask(secret: str, name: str | None = None) -> None:
            self.masked.append(secret)
            await amask_secret(secret, name)

        self._monkeypatch.setattr(secrets, "mask_secret", mask)
        self._monkeypatch.setattr(gpu_job, "amask_secret", amask)


@dataclass(frozen=True)
class Mode:
    """
    A way to wait.

    :param launches: whether the task that waits is the one that launches the job.
    :param wait: runs the task; the second parameter is what the task is given besides the job.
    """

    name: str
    launches: bool
    wait: Callable[[Scene, dict[str, Any], dict[str, Any]], Any]

    def launch(self, scene: Scene, job: dict[str, Any]) -> None:
        """Launch the job in a task before, unless the one that waits does so."""
        if self.launches:
            return
        with GpuClusterHook() as hook:
            scene.handle = hook.submit(job_id=scene.job_id, **job)

    def launch_and_see_it_end(self, scene: Scene, job: dict[str, Any]) -> None:
        """Let the job have ended when the task begins to wait; it is a retry then, if it is the one that launches."""
        if self.launches:
            operator = SubmitGpuJobOperator(task_id=scene.ti.task_id, **job)
            scene.ti.max_tries = 1
            handle = scene.on_worker(operator, operator.execute)
            scene.ti.try_number = 2
            scene.ti.xcoms.clear()
            scene.job_id = handle["job_id"]
        else:
            self.launch(scene, job)
        jobs.wait(scene.cluster, scene.job_id)


def _sensor(scene: Scene, arguments: dict[str, Any], **more: Any) -> GpuJobSensor:
    return GpuJobSensor(task_id=scene.ti.task_id, **{"job": scene.handle, "poke_interval": 0.1, **arguments, **more})


def _poke(scene: Scene, job: dict[str, Any], arguments: dict[str, Any]) -> None:
    sensor = _sensor(scene, arguments, mode="poke")
    scene.on_worker(sensor, sensor.execute)


def _reschedule(scene: Scene, job: dict[str, Any], arguments: dict[str, Any]) -> None:
    while True:
        sensor = _sensor(scene, arguments, mode="reschedule")
        scene.ti.xcoms.clear()
        started = timezone.utcnow()
        try:
            scene.on_worker(sensor, sensor.execute)
            return
        except AirflowRescheduleException as reschedule:
            scene.ti.first_reschedule = scene.ti.first_reschedule or started
            scene.until(functools.partial(_is_past, reschedule.reschedule_date))


def _is_past(moment: datetime) -> bool:
    return timezone.utcnow() >= moment


def _defer(scene: Scene, make: Callable[[], BaseOperator]) -> None:
    operator = make()
    try:
        scene.on_worker(operator, operator.execute)
    except TaskDeferred as deferral:
        classpath, kwargs = deferral.trigger.serialize()
        event = scene.in_triggerer(classpath, through_the_database(kwargs), timeout=deferral.timeout)
        _go_on(scene, make(), deferral.method_name, event)
    else:
        raise AssertionError("it has not deferred")


def _deferrable_sensor(scene: Scene, job: dict[str, Any], arguments: dict[str, Any]) -> None:
    _defer(scene, lambda: _sensor(scene, arguments, deferrable=True))


def _scheduled_sensor(scene: Scene, job: dict[str, Any], arguments: dict[str, Any]) -> None:
    with DAG(scene.ti.dag_id, schedule=None) as dag:
        train = SubmitGpuJobOperator(task_id="train", command="true")
        made = _sensor(scene, arguments, job=train.output, deferrable=True)
    assert made.start_from_trigger
    # All that the scheduler has is the DAG as the database keeps it.
    stored = DagSerialization.from_dict(json.loads(json.dumps(DagSerialization.to_dict(dag))))
    args = stored.get_task(made.task_id).start_trigger_args
    assert args is not None
    event = scene.in_triggerer(args.trigger_cls, args.trigger_kwargs or {}, timeout=args.timeout, dag=dag)
    _go_on(scene, _sensor(scene, arguments, deferrable=True), args.next_method, event)


def _submit(scene: Scene, job: dict[str, Any], arguments: dict[str, Any], **more: Any) -> SubmitGpuJobOperator:
    values = {"poll_interval": 0.1, "wait_for_completion": True, **job, **arguments, **more}
    return SubmitGpuJobOperator(task_id=scene.ti.task_id, **values)


def _wait_in_submit(scene: Scene, job: dict[str, Any], arguments: dict[str, Any]) -> None:
    operator = _submit(scene, job, arguments)
    scene.on_worker(operator, operator.execute)


def _deferrable_submit(scene: Scene, job: dict[str, Any], arguments: dict[str, Any]) -> None:
    _defer(scene, lambda: _submit(scene, job, arguments, deferrable=True))


def _submit_from_trigger(scene: Scene, job: dict[str, Any], arguments: dict[str, Any]) -> None:
    _defer(scene, lambda: _submit(scene, job, arguments, deferrable=True, launch_from_trigger=True))


def _go_on(scene: Scene, operator: BaseOperator, method: str, event: TriggerEvent | None) -> None:
    """Go on where a trigger has ended, in another worker if one is needed."""
    if isinstance(event, TaskSuccessEvent):
        return
    kwargs: dict[str, Any] = {"event": event.payload} if event else {"error": TriggerFailureReason.TRIGGER_TIMEOUT}
    resume = functools.partial(
        operator.resume_execution,
        next_method=method if event else TRIGGER_FAIL_REPR,
        next_kwargs=through_the_database(kwargs),
    )
    scene.on_worker(operator, resume)


POKE = Mode("sensor-poke", False, _poke)
RESCHEDULE = Mode("sensor-reschedule", False, _reschedule)
DEFERRABLE = Mode("sensor-deferrable", False, _deferrable_sensor)
SCHEDULED = Mode("sensor-started-by-the-scheduler", False, _scheduled_sensor)
SUBMIT = Mode("submit", True, _wait_in_submit)
DEFERRABLE_SUBMIT = Mode("submit-deferrable", True, _deferrable_submit)
LAUNCHED_BY_TRIGGER = Mode("submit-launched-by-its-trigger", True, _submit_from_trigger)

SENSORS = (POKE, RESCHEDULE, DEFERRABLE, SCHEDULED)
SUBMITS = (SUBMIT, DEFERRABLE_SUBMIT, LAUNCHED_BY_TRIGGER)
ALL = SENSORS + SUBMITS


@dataclass(frozen=True)
class Outcome:
    """
    What comes of a task, in whatever mode.

    :param end: ``success``, ``skipped``, or the class of the error.
    :param job: state of the job when the task has ended.
    :param cause: of a job that ended badly: its state, reason, exit code and last lines, as the error carries them.
    :param output: lines of output in the task's log.
    :param events: what the log says of the job, but for how it was launched and waited for GPUs.
    :param xcoms: keys of the job's handle and of the link to its page in XCom.
    :param masked: what the process that shows the output has told Airflow, and Airflow masks.
    """

    end: str = "success"
    job: str = "SUCCEEDED"
    cause: tuple[str, str | None, int | None, str] | None = None
    output: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=lambda: [RUNS, "GPU job succeeded"])
    xcoms: set[str] = field(default_factory=lambda: {"gpu_job_link", "return_value"})
    masked: set[str] = field(default_factory=set)


_OF_AIRFLOW = "Success criteria met. Exiting."
_NOT_OF_THE_WAIT = (
    "GPU job launched",
    "GPU job found again; it is not launched twice",
    "GPU job waits for its turn",
    "execution_timeout is over; GPU job cancelled",
)


def outcome(
    mode: Mode,
    scene: Scene,
    *,
    job: dict[str, Any],
    arguments: dict[str, Any],
    before: Callable[[Scene], object],
    meanwhile: Callable[[Scene], object],
    has_ended: bool,
) -> Outcome:
    """
    Run a task, and return what came of it.

    :param job: what the job is.
    :param arguments: what the task is given that waits.
    :param before: called when the job was launched, if a task before has done that, and before the task begins.
    :param meanwhile: called in another thread while the task runs.
    :param has_ended: whether the job has ended already when the task begins to wait.
    """
    if has_ended:
        mode.launch_and_see_it_end(scene, job)
    else:
        mode.launch(scene, job)
    scene.logs.records.clear()
    before(scene)
    errors: list[BaseException] = []

    def help_along() -> None:
        try:
            meanwhile(scene)
        except BaseException as error:
            errors.append(error)
            _end_job(scene)

    helper = threading.Thread(target=help_along)
    helper.start()
    raised: BaseException | None = None
    try:
        mode.wait(scene, job, arguments)
    except AirflowSkipException as error:
        raised, end = error, "skipped"
    except (Exception, AirflowTaskTimeout) as error:
        raised, end = error, type(error).__name__
    else:
        end = "success"
    helper.join()
    if errors:
        raise errors[0] from raised
    job_after = scene.cluster.statuses([_job_id(scene)])[0]
    found = Outcome(
        end=end,
        job=str(job_after.state),
        cause=_cause(raised),
        output=[line for line in scene.logs.output if line != _OF_AIRFLOW],
        events=[event for event in scene.logs.events if event not in _NOT_OF_THE_WAIT],
        xcoms=set(scene.xcoms) - {KILL_XCOM_KEY, LAUNCH_XCOM_KEY},
        masked={secret for secret in scene.masked if redact(secret) != secret},
    )
    _check_what_is_said(scene, mode)
    if not job_after.final:
        _end_job(scene)
    return found


def _cause(error: BaseException | None) -> tuple[str, str | None, int | None, str] | None:
    if not isinstance(error, GpuJobError):
        return None
    return error.state, error.reason, error.exit_code, error.log_tail


def _job_id(scene: Scene) -> str:
    """Return the job that the task has left in XCom."""
    handles = [value for value in scene.xcoms.values() if isinstance(value, dict)]
    (job_id,) = {handle["job_id"] for handle in handles}
    return str(job_id)


def _check_what_is_said(scene: Scene, mode: Mode) -> None:
    """Check what is the same for all outcomes: which job on which cluster the log and the link are about."""
    user, _, host = scene.cluster.settings.name.partition("@")
    ways = {f"{user}@{host}", f"{user}@{scene.proxy.host}:{scene.proxy.port}"}
    for record in scene.logs.told:
        assert record.fields["job_id"] == _job_id(scene), record
        assert record.fields.get("cluster") in {None, *ways}, record
    assert f"/tasks/{mode.name}/plugin/gpu-job" in scene.xcoms["gpu_job_link"]


def _end_job(scene: Scene) -> None:
    """Give the job's GPUs back."""
    if scene.xcoms:
        scene.cluster.cancel([_job_id(scene)], requested_by="the test", wait_s=5)
