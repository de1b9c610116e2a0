"""Tasks that have a pool: a stage task chooses a cluster, and the tasks after it go where its handle says."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import structlog
from airflow.sdk import DAG, task
from airflow.sdk.exceptions import TaskDeferred
from airflow.serialization.serialized_objects import DagSerialization

from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError, InvalidJobError
from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.jobs.parameters import PARAMETERS
from airflow_provider_gpu_cluster.jobs.request import NEEDS
from airflow_provider_gpu_cluster.notifications.gpu_job import GpuJobNotifier
from airflow_provider_gpu_cluster.operators import in_pool
from airflow_provider_gpu_cluster.operators.gpu_job import (
    CancelGpuJobOperator,
    CollectGpuJobOperator,
    StageGpuJobOperator,
    SubmitGpuJobOperator,
)
from airflow_provider_gpu_cluster.operators.in_pool import JobInPool
from airflow_provider_gpu_cluster.pools.offer import Offer
from airflow_provider_gpu_cluster.pools.placement_options import checked_policy
from airflow_provider_gpu_cluster.sensors.gpu_job import GpuJobSensor
from airflow_provider_gpu_cluster.task_groups.gpu_job import GpuJobTaskGroup
from airflow_provider_gpu_cluster.tasks.handles import other_conn_id
from tests.harness.task_context import TaskInstance, execute, task_context

HANDLE = JobHandle("job", "gpu02", "/jobs/job", "host", None, 1)


def test_each_task_of_a_job_goes_to_its_cluster(lab: list[str], tmp_path: Path, eventually: Any) -> None:
    stage = StageGpuJobOperator(task_id="stage", gpu_cluster_conn_id="lab", needs={"gpus": 3}, policy="in_order")
    ti = TaskInstance("stage")
    staged = execute(stage, task_context(ti))
    assert staged["gpu_cluster_conn_id"] == "gpu01" == ti.xcoms["gpu_job"]["gpu_cluster_conn_id"]
    submit = SubmitGpuJobOperator(
        task_id="submit", job=staged, gpu_cluster_conn_id="gpu02, gpu01", command="echo 1 > $OUTPUT_DIR/out", gpus=3
    )
    handle = execute(submit, task_context(TaskInstance("submit")))
    assert (handle["gpu_cluster_conn_id"], handle["job_id"]) == ("gpu01", staged["job_id"])
    sensor = GpuJobSensor(task_id="wait", job=handle, gpu_cluster_conn_id=lab)
    eventually(lambda: sensor.poke(task_context(TaskInstance("wait"))))
    deferred = GpuJobSensor(task_id="wait", job=handle, gpu_cluster_conn_id="lab", deferrable=True)
    with pytest.raises(TaskDeferred) as deferral:
        execute(deferred, task_context(TaskInstance("wait")))
    assert (deferral.value.trigger.job, deferral.value.trigger.gpu_cluster_conn_id) == (handle, None)
    collect = CollectGpuJobOperator(
        task_id="collect", job=handle, gpu_cluster_conn_id="['gpu02', 'gpu01']", destination=str(tmp_path / "home")
    )
    assert "out" in [file["path"] for file in execute(collect, task_context())["files"]]
    execute(CancelGpuJobOperator(task_id="cancel", job=handle, gpu_cluster_conn_id="lab"), task_context())


@pytest.mark.usefixtures("lab")
@pytest.mark.parametrize(
    ("given", "other"),
    [
        (None, None),
        ("gpu02", None),
        ("lab", None),
        (["gpu01", "gpu02"], None),
        ("['gpu01', 'gpu02']", None),
        ("gpu01", "gpu01"),
        ("missing", "missing"),
    ],
)
def test_a_pool_given_beside_a_handle_means_the_cluster_of_the_handle(given: Any, other: str | None) -> None:
    assert other_conn_id(HANDLE, given) == other


@pytest.mark.parametrize("given", [None, "lab", ["gpu01", "gpu02"]])
def test_a_sensor_that_starts_in_the_triggerer_finds_the_cluster_there(given: Any) -> None:
    with DAG("lab", schedule=None):
        submit = SubmitGpuJobOperator(task_id="submit", command="true", gpu_cluster_conn_id="lab")
        sensor = GpuJobSensor(task_id="wait", job=submit.output, gpu_cluster_conn_id=given, deferrable=True)
    assert sensor.start_trigger_args is not None
    kwargs = sensor.start_trigger_args.trigger_kwargs
    assert kwargs is not None
    assert kwargs["gpu_cluster_conn_id"] == (given if isinstance(given, str) else None)


def test_the_stage_task_of_a_group_knows_what_the_job_needs() -> None:
    @task
    def memory() -> str:
        return "1G"

    def made() -> tuple[DAG, GpuJobTaskGroup]:
        with DAG("lab", schedule=None) as dag:
            group = GpuJobTaskGroup(
                "train",
                destination="/models",
                command="true",
                gpus=4,
                gpu_type="{{ params.gpu_type }}",
                memory=memory(),
                env={"TOKEN": "secret"},
                gpu_cluster_conn_id=["gpu01", "gpu02"],
                policy="cheapest",
            )
        return dag, group

    dag, group = made()
    assert group.stage.needs == {"gpus": 4, "gpu_type": "{{ params.gpu_type }}"}
    assert (group.stage.policy, group.submit.policy) == ("cheapest", None)
    assert group.stage.upstream_task_ids == set()
    assert str(DagSerialization.to_dict(dag)) == str(DagSerialization.to_dict(made()[0]))
    assert set(NEEDS) < set(PARAMETERS)


def last(offers: Sequence[Offer], count: int = 1) -> Offer:
    return offers[-count]


class Chooser:
    def __call__(self, offers: Sequence[Offer]) -> Offer:
        return offers[0]


@pytest.mark.parametrize("policy", [last, partial(last, count=2), lambda offers: offers[0], Chooser()])
@pytest.mark.parametrize("make", [SubmitGpuJobOperator, StageGpuJobOperator])
def test_a_function_as_policy_is_not_called_where_templates_are_rendered(make: Any, policy: Any) -> None:
    more = {"command": "true"} if make is SubmitGpuJobOperator else {}
    with DAG("lab", schedule=None) as dag:
        plain = make(task_id="plain", gpu_cluster_conn_id="{{ 'lab' }}", policy=policy, **more)
        mapped = make.partial(task_id="mapped", policy=policy, **more).expand(gpu_cluster_conn_id=["lab"])
    assert "tests.operators.test_pool_tasks." in str(DagSerialization.to_dict(dag))
    for one in (plain, mapped.unmap({"gpu_cluster_conn_id": "lab"})):
        # As a mapped task is rendered: all fields of its class.
        one._do_render_template_fields(one, make.template_fields, task_context(), one.get_template_env(), set())
        assert (one.gpu_cluster_conn_id, checked_policy(one.policy)) == ("lab", policy)


def test_a_group_takes_nothing_that_would_mean_nothing() -> None:
    with DAG("lab", schedule=None), pytest.raises(InvalidJobError, match="its stage task sends the inputs to one"):
        GpuJobTaskGroup("train", destination="/models", command="true", spread=True)


def group(**arguments: Any) -> GpuJobTaskGroup:
    with DAG("lab", schedule=None, default_args={"execution_timeout": timedelta(hours=2)}):
        return GpuJobTaskGroup(
            "train",
            destination="/models",
            command="true",
            gpu_cluster_conn_id=["gpu01", "gpu02"],
            notify={"queued_for": 60},
            notifier=GpuJobNotifier(webhook_url="https://example.org/told"),
            resubmit_on_retry=True,
            poke_interval=timedelta(seconds=20),
            **arguments,
        )


@pytest.mark.parametrize("given", [{"failover_after": 600}, {"move_gain": 60}])
def test_a_group_whose_job_may_go_elsewhere_waits_where_it_launches(given: dict[str, Any]) -> None:
    found = group(**given, code="code", timeout=3600, deferrable=True)
    submit, wait = found.submit, found.wait
    assert (submit.wait_for_completion, submit.deferrable, submit.poll_interval) == (True, True, 20)
    assert (submit.code, submit.data, submit.models) == ("code", [], None)
    assert (submit.notify, wait.notify, wait.notifier) == ({"queued_for": 60}, None, None)
    assert submit.execution_timeout == timedelta(hours=1)
    assert (submit.answers_for_job, wait.answers_for_job, wait.resubmit_on_retry) == (True, False, False)
    assert found.cancel.gpu_cluster_conn_id == ["gpu01", "gpu02"]
    assert group(**given, timeout=timedelta(days=1)).submit.execution_timeout == timedelta(hours=2)


@pytest.mark.parametrize("given", [{}, {"failover_after": None}, {"move_gain": None}])
def test_a_group_whose_job_stays_waits_in_a_task_of_its_own(given: dict[str, Any]) -> None:
    found = group(**given, code="code", timeout=3600)
    assert (found.submit.wait_for_completion, found.submit.code, found.submit.notify) == (False, None, None)
    assert (found.wait.notify, found.wait.resubmit_on_retry, found.wait.answers_for_job) == (
        {"queued_for": 60},
        True,
        True,
    )
    assert found.cancel.gpu_cluster_conn_id is None


def test_a_job_that_is_staged_may_be_given_its_sources_in_a_pool_alone() -> None:
    with pytest.raises(InvalidJobError, match="give either job"):
        SubmitGpuJobOperator(task_id="t", job={}, command="true", code="code")
    SubmitGpuJobOperator(task_id="t", job={}, command="true", code="code", gpu_cluster_conn_id="lab")


def test_sources_beside_a_staged_job_are_of_no_use_on_one_cluster(lab: list[str]) -> None:
    staged = execute(StageGpuJobOperator(task_id="stage", gpu_cluster_conn_id=lab[0]), task_context())
    submit = SubmitGpuJobOperator(task_id="t", job=staged, gpu_cluster_conn_id=lab[:1], command="true", code="nowhere")
    assert execute(submit, task_context())["gpu_cluster_conn_id"] == lab[0]


@pytest.mark.parametrize("make", [StageGpuJobOperator, CollectGpuJobOperator, CancelGpuJobOperator, GpuJobSensor])
def test_what_names_no_cluster_is_told_when_the_dag_is_parsed(make: Any) -> None:
    more: dict[str, Any] = {} if make is StageGpuJobOperator else {"job": {}}
    more |= {"destination": "/x"} if make is CollectGpuJobOperator else {}
    with pytest.raises(InvalidJobError, match="task 't': gpu_cluster_conn_id names a more than once"):
        make(task_id="t", gpu_cluster_conn_id=["a", "a"], **more)


@pytest.mark.parametrize(
    ("needs", "told"),
    [
        (["gpus"], "needs is a list; it must be a dict such as {'gpus': 4}"),
        ({"gpu": 4}, "needs has the key 'gpu' (did you mean 'gpus'?); valid are gpus, gpu_type"),
        ({"gpus": 0}, "gpus=0 (int) is not valid"),
        ({"env": {}}, "needs has the key 'env'; valid are"),
    ],
)
def test_needs_that_cannot_be_used_are_told(needs: Any, told: str) -> None:
    with pytest.raises(InvalidJobError) as raised:
        StageGpuJobOperator(task_id="stage", needs=needs)
    assert told in str(raised.value)


def test_an_outage_of_all_clusters_is_waited_for_as_one_of_a_single_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    class OutOfReach:
        tries = 0

        def begin(self) -> str:
            self.tries += 1
            if self.tries < 3:
                raise GpuClusterConnectionError("no cluster of the pool has answered")
            return "placed"

    job: Any = JobInPool.__new__(JobInPool)
    job._log = structlog.get_logger()
    pauses: list[float] = []
    assert job._until_placed(OutOfReach(), pauses.append, 0) == "placed"
    assert len(pauses) == 2
    monkeypatch.setattr(in_pool, "RETRY_FOR_S", -1.0)
    with pytest.raises(GpuClusterConnectionError):
        job._until_placed(OutOfReach(), pauses.append, 3600)
