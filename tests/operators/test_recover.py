"""The parameter recover, in all forms in which a DAG gives it."""

from __future__ import annotations

import json
from typing import Any

import jinja2
import pytest
from airflow.sdk import DAG, Param, task
from airflow.serialization.serialized_objects import DagSerialization

from airflow_provider_gpu_cluster.exceptions import InvalidJobError
from airflow_provider_gpu_cluster.operators.gpu_job import StageGpuJobOperator, SubmitGpuJobOperator
from airflow_provider_gpu_cluster.task_groups.gpu_job import GpuJobTaskGroup
from tests.harness.task_context import task_context

DEFAULT = {"preempted": 20, "node_failure": 3, "lost": 2, "checkpointed": 1000}


def recover_of(operator: Any, *, native: bool = False, **names: Any) -> Any:
    """Return the budgets that the cluster gets, when the templates are filled in with these names."""
    context: Any = {**task_context(), "task": operator, **names}
    environment = jinja2.nativetypes.NativeEnvironment() if native else jinja2.Environment()
    operator.render_template_fields(context, environment)
    return operator._request().spec().recover


@pytest.mark.parametrize(
    ("written", "budgets"),
    [
        (None, DEFAULT),
        (False, {}),
        ({"preempted": 5, "time_limit": "progress"}, {**DEFAULT, "preempted": 5, "time_limit": "progress"}),
        ({"preempted": "{{ times }}"}, {**DEFAULT, "preempted": 7}),
        ("{{ budgets }}", {**DEFAULT, "out_of_memory": [2, 1.5], "lost": 9}),
        ("{{ {'lost': times} }}", {**DEFAULT, "lost": 7}),
        ("{{ nothing }}", DEFAULT),
        ("{{ never }}", {}),
    ],
)
@pytest.mark.parametrize("native", [False, True])
def test_values_and_templates(written: Any, budgets: dict[str, Any], native: bool) -> None:
    with DAG("lab", render_template_as_native_obj=native):
        operator = SubmitGpuJobOperator(task_id="train", command="true", recover=written)
    names = {"times": 7, "budgets": {"out_of_memory": (2, 1.5), "lost": 9}, "nothing": None, "never": False}
    assert recover_of(operator, native=native, **names) == budgets


def test_everywhere_in_a_dag() -> None:
    with DAG("lab", default_args={"recover": {"lost": 5}}, params={"times": Param(3)}) as dag:
        plain = SubmitGpuJobOperator(task_id="plain", command="true")
        own = SubmitGpuJobOperator(task_id="own", command="true", recover=False)
        staged = SubmitGpuJobOperator(task_id="staged", job=StageGpuJobOperator(task_id="stage").output, command="true")
        group = GpuJobTaskGroup("group", command="true", destination="/x", recover={"hang": 1})
        mapped = SubmitGpuJobOperator.partial(task_id="mapped", command="true").expand(recover=[False, {"hang": 2}])

        @task
        def choose() -> dict[str, Any]:
            return {"preempted": 1}

        chosen = SubmitGpuJobOperator(task_id="chosen", command="true", recover=choose())  # type: ignore[arg-type]
    DagSerialization.from_dict(json.loads(json.dumps(DagSerialization.to_dict(dag))))
    staged.job = group.submit.job = None  # which is in XCom, where there is no Airflow
    assert recover_of(plain) == recover_of(staged) == {**DEFAULT, "lost": 5}
    assert recover_of(own) == {}
    assert recover_of(group.submit) == {**DEFAULT, "hang": 1}
    assert recover_of(mapped.unmap({"recover": {"hang": 2}})) == {**DEFAULT, "hang": 2}
    assert recover_of(mapped.unmap({"recover": False})) == {}
    assert chosen.upstream_task_ids == {"choose"}


def test_a_wrong_budget_is_told_when_the_dag_is_parsed() -> None:
    with pytest.raises(InvalidJobError, match=r"task 'train'.*: recover has the key 'preemptions' \(did you mean 'pre"):
        SubmitGpuJobOperator(task_id="train", command="true", recover={"preemptions": 3})
    with DAG("lab"), pytest.raises(InvalidJobError, match=r"recover\['lost'\]=-1"):
        GpuJobTaskGroup("group", command="true", destination="/x", recover={"lost": -1})
