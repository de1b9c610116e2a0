"""A sensor whose retry starts the next attempt of its job, in every mode."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest
from airflow.sdk import DAG
from airflow.serialization.serialized_objects import DagSerialization

from airflow_provider_gpu_cluster.exceptions import GpuJobFailed, InvalidJobError
from airflow_provider_gpu_cluster.operators.gpu_job import SubmitGpuJobOperator
from airflow_provider_gpu_cluster.sensors.gpu_job import GpuJobSensor
from airflow_provider_gpu_cluster.task_groups.gpu_job import GpuJobTaskGroup
from tests.operators.modes import DEFERRABLE, POKE, RESCHEDULE, Mode, Scene

ENV = {"SEED": "7", "API_TOKEN": "a-s3cret-token"}
COMMAND = 'echo "attempt $ATTEMPT with $SEED, $API_TOKEN"; echo $ATTEMPT >>"$OUTPUT_DIR/ran"; [ "$ATTEMPT" = 2 ]'


def retry(scene: Scene) -> None:
    scene.ti.try_number += 1
    scene.ti.id = uuid.uuid4()
    scene.ti.xcoms.clear()
    scene.logs.records.clear()


def shown(scene: Scene) -> list[str]:
    return [line for line in scene.logs.output if line.startswith("attempt")]


@pytest.mark.parametrize(
    ("mode", "scene"),
    [pytest.param(POKE, POKE, marks=pytest.mark.long), (RESCHEDULE, RESCHEDULE), (DEFERRABLE, DEFERRABLE)],
    indirect=["scene"],
)
def test_a_retry_starts_the_next_attempt(mode: Mode, scene: Scene) -> None:
    scene.ti.max_tries = 3
    job = {"command": COMMAND, "env": ENV, "recover": False}
    mode.launch(scene, job)
    with pytest.raises(GpuJobFailed):
        mode.wait(scene, job, {"resubmit_on_retry": True, "env": ENV})
    assert shown(scene) == ["attempt 1 with 7, ***"]
    retry(scene)
    with pytest.raises(InvalidJobError, match=r"variables API_TOKEN, SEED, .* env= .* resubmit_on_retry=True"):
        mode.wait(scene, job, {"resubmit_on_retry": True})
    retry(scene)
    mode.wait(scene, job, {"resubmit_on_retry": True, "env": ENV})
    assert shown(scene) == ["attempt 2 with 7, ***"]
    assert Path(scene.handle["job_dir"], "outputs/ran").read_text() == "1\n2\n"


def test_a_group_gives_its_wait_task_what_it_needs() -> None:
    with DAG("lab", default_args={"retries": 2}) as dag:
        group = GpuJobTaskGroup("group", command="true", destination="/x", env=ENV, resubmit_on_retry=True)
        plain = GpuJobTaskGroup("plain", command="true", destination="/x", env=ENV)
        train = SubmitGpuJobOperator(task_id="train", command="true", array=[{"RATE": "1"}])
        GpuJobSensor.partial(task_id="mapped", job=train.output, resubmit_on_retry=True, deferrable=True).expand(
            env=[{"TOKEN": "hush-hush"}]
        )
        done = GpuJobSensor(
            task_id="done", job=train.output, deferrable=True, resubmit_on_retry=True, array=[{"RATE": "hush-hush"}]
        )
    assert group.wait.env is not None
    assert group.wait.env.values == ENV
    assert (plain.wait.env, plain.wait.resubmit_on_retry) == (None, False)
    for wrong in ({"env": {"JOB_ID": "x"}}, {"array": [{"A B": "x"}]}):
        with pytest.raises(InvalidJobError, match=r"task 'wrong'.*(JOB_ID|'A B')"):
            GpuJobSensor(task_id="wrong", job=train.output, resubmit_on_retry=True, **wrong)
    assert not done.start_from_trigger, "a worker has to start the next attempt"
    stored = json.dumps(DagSerialization.to_dict(dag))
    assert "s3cret" not in stored
    assert "hush" not in stored
