"""What is wrong in a DAG file is said at once, with the task, the file and the nearest good name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from airflow.sdk import DAG

from airflow_provider_gpu_cluster.exceptions import InvalidJobError
from airflow_provider_gpu_cluster.operators.gpu_job import (
    CancelGpuJobOperator,
    CollectGpuJobOperator,
    StageGpuJobOperator,
    SubmitGpuJobOperator,
)
from airflow_provider_gpu_cluster.sensors.gpu_job import GpuJobSensor
from airflow_provider_gpu_cluster.task_groups.gpu_job import GpuJobTaskGroup


def submit(**arguments: Any) -> Any:
    return SubmitGpuJobOperator(**{"task_id": "train", "command": "true", **arguments})


def test_all_that_is_wrong_is_told_with_task_and_file() -> None:
    with pytest.raises(InvalidJobError) as caught, DAG("wrong"):
        submit(gpus=0, memory="2X", priority="urgent", env={"A B": "1"})
    first, *lines = str(caught.value).split("\n")
    assert first == f"task 'train' in {__file__}:"
    assert [line.split("=")[0] for line in lines[:3]] == ["gpus", "memory", "priority"]
    assert lines[3].startswith("env has the name 'A B'")


def test_task_outside_of_a_dag_is_named() -> None:
    with pytest.raises(InvalidJobError, match=r"^task 'train': gpus=0"):
        submit(gpus=0)


@pytest.mark.parametrize(
    ("make", "hint"),
    [
        (lambda: submit(gpu=2), "gpu: did you mean gpus?"),
        (lambda: submit(gpus_count=2), "gpus_count: did you mean gpus?"),
        (lambda: submit(entryscript="x"), "entryscript: did you mean entry_script?"),
        (lambda: submit(retrie=2), "retrie: did you mean retries?"),
        (lambda: SubmitGpuJobOperator.partial(task_id="a", gpu=2), "gpu: did you mean gpus?"),
        (lambda: SubmitGpuJobOperator.partial(task_id="a").expand(gpu=[2]), "gpu: did you mean gpus?"),
        (lambda: CollectGpuJobOperator(task_id="a", job={}, destination="/x", includes=""), "did you mean include?"),
        (lambda: CollectGpuJobOperator.partial(task_id="a", destinatoin="/x"), "did you mean destination?"),
        (lambda: CancelGpuJobOperator(task_id="a", job={}, waits=1), "did you mean wait_s?"),
        (lambda: StageGpuJobOperator(task_id="a", model="x"), "did you mean models?"),
        (lambda: GpuJobSensor(task_id="a", job={}, poke_intervall=3), "did you mean poke_interval?"),
        (lambda: GpuJobTaskGroup("g", destination="/x", command="true", gpu=2), "gpu: did you mean gpus?"),
    ],
)
def test_unknown_argument_gets_the_nearest_good_name(make: Callable[[], Any], hint: str) -> None:
    with pytest.raises(TypeError) as caught, DAG("misspelled"):
        make()
    assert hint in str(caught.value)


def test_what_is_like_nothing_gets_no_hint_and_values_are_not_shown() -> None:
    with pytest.raises(TypeError) as caught:
        submit(zzz="s3cret-value", gpu=2)
    assert "zzz" in str(caught.value)
    assert "zzz: did" not in str(caught.value)
    assert "s3cret-value" not in str(caught.value)
