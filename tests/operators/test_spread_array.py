"""Arrays whose elements are on several clusters, in every mode of waiting, and what comes after them."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import TaskDeferred
from airflow.triggers.base import TaskSuccessEvent

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.exceptions import GpuJobFailed, InvalidJobError, JobConflictError
from airflow_provider_gpu_cluster.hooks.gpu_cluster import GpuClusterHook
from airflow_provider_gpu_cluster.jobs import parameter_checks
from airflow_provider_gpu_cluster.jobs.handle import JobHandle, part_id
from airflow_provider_gpu_cluster.operators import spread
from airflow_provider_gpu_cluster.operators.gpu_job import (
    CancelGpuJobOperator,
    CollectGpuJobOperator,
    SubmitGpuJobOperator,
)
from airflow_provider_gpu_cluster.pools import holding, keeping
from airflow_provider_gpu_cluster.pools.parts import handle_of
from airflow_provider_gpu_cluster.pools.placement_options import check_spread
from airflow_provider_gpu_cluster.pools.spreading import PlannedPart, SpreadPlan
from airflow_provider_gpu_cluster.watch import watch
from tests.harness import jobs
from tests.harness.deferral import through_the_database
from tests.harness.task_context import TaskInstance, task_context
from tests.operators.modes import DEFERRABLE_SUBMIT, POKE, SCHEDULED, SUBMIT, Scene

COUNT = 5


@pytest.fixture(autouse=True)
def second(gpu_cluster_conn: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Return another cluster, which is another folder of the same server."""
    monkeypatch.setattr(watch, "RETRY_FOR_S", 0.1)
    extra = {**gpu_cluster_conn["extra"], "root_dir": str(tmp_path / "second"), "lease_dir": str(tmp_path / "leases2")}
    monkeypatch.setenv("AIRFLOW_CONN_SECOND", json.dumps({**gpu_cluster_conn, "extra": extra}))
    with GpuClusterHook("second") as hook:
        yield hook.cluster


def launch(first: Cluster, second: Cluster, command: str) -> dict[str, Any]:
    """Launch three elements on one cluster and two on the other, and return the handle of the whole."""
    parts = []
    for number, (cluster, start, count) in enumerate([(first, 0, 3), (second, 3, 2)]):
        submission = jobs.submit_array(
            cluster,
            command,
            [{"SEED": str(index)} for index in range(start, start + count)],
            job_id=part_id("a", number),
            part={"first": start, "count": COUNT},
        )
        parts.append(submission.handle)
    return handle_of(parts).to_json()


def lines(scene: Scene) -> list[str]:
    """Return what the task's log says, but for the starts of the elements."""
    told = [record.event for record in scene.logs.records]
    return sorted(event for event in told if event.startswith("[") and "GPU job runs" not in event)


@pytest.mark.parametrize("scene", [POKE, SCHEDULED], indirect=True, ids=lambda mode: mode.name)
def test_each_element_has_its_number_in_the_whole(
    scene: Scene, second: Cluster, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    command = (
        'echo "$ARRAY_INDEX of $ARRAY_COUNT"; echo "$SEED" >"$OUTPUT_DIR/seed"; '
        'echo "{\\"seed\\": $SEED}" >"$OUTPUT_DIR/metrics.json"; [ "$SEED" != 4 ] || exit 3'
    )
    scene.handle = launch(scene.cluster, second, command)
    with pytest.raises(
        GpuJobFailed, match=r"of 5 elements 4 succeeded, 1 failed: 4 \(user_error: .*exit code 3"
    ) as bad:
        request.node.callspec.params["scene"].wait(scene, {}, {})
    assert "[4/5] 4 of 5" in bad.value.log_tail
    ends = [f"[{index}/5] GPU job {'FAILED' if index == 4 else 'succeeded'}" for index in range(COUNT)]
    assert lines(scene) == sorted(ends + [f"[{index}/5] {index} of 5" for index in range(COUNT)])

    collect = CollectGpuJobOperator(
        task_id="collect", job=scene.handle, destination=str(tmp_path / "home"), include=["seed", "metrics.json"]
    )
    result = collect.execute(task_context(TaskInstance("collect")))
    assert [file["path"] for file in result["files"]] == [
        f"{index}/{name}" for index in range(COUNT) for name in ("metrics.json", "seed")
    ]
    assert result["metrics"] == [{"seed": index} for index in range(COUNT)]
    assert (tmp_path / "home/3/seed").read_text() == "3\n"


def test_all_parts_are_cancelled(cluster: Cluster, second: Cluster) -> None:
    job = launch(cluster, second, "exec sleep 60")
    CancelGpuJobOperator(task_id="cancel", job=job).execute(task_context(TaskInstance("cancel")))
    with GpuClusterHook() as hook:
        assert hook.status(job).message.partition(" (")[0] == "of 5 elements 5 were cancelled: 0, 1, 2, 3, 4"


@pytest.mark.parametrize("scene", [SUBMIT, DEFERRABLE_SUBMIT], indirect=True, ids=lambda mode: mode.name)
def test_the_elements_are_shared_out_once(scene: Scene, request: pytest.FixtureRequest) -> None:
    def run(count: int) -> None:
        job = {
            "command": f'echo x >>"$OUTPUT_DIR/runs"; [ "$ARRAY_INDEX" != 7 ] || [ -e {scene.gate} ]',
            "array": [{"SEED": str(index)} for index in range(count)],
            "gpu_cluster_conn_id": ["gpu_cluster_default", "second"],
            "spread": True,
        }
        request.node.callspec.params["scene"].wait(scene, job, {})

    with pytest.raises(GpuJobFailed, match="of 10 elements 9 succeeded, 1 failed: 7"):
        run(10)
    handle = JobHandle.from_json(scene.xcoms["return_value"])
    parts = [(part.gpu_cluster_conn_id, part.first, part.count) for part in handle.parts]
    assert parts == [("gpu_cluster_default", 0, 5), ("second", 5, 5)]
    assert [row.job_id for row in handle.arrays] == [handle.job_id, f"{handle.job_id}.p2"]
    told = [record.event for record in scene.logs.records if " go " in record.event]
    assert told == ["Of the 10 elements of the GPU job array go 5 to gpu_cluster_default, 5 to second"]
    scene.ti.try_number, scene.ti.max_tries = 2, 0
    scene.open_gate()
    run(10)
    assert scene.xcoms["return_value"]["parts"] == handle.to_json()["parts"]
    runs = [Path(element.job_dir, "outputs/runs").read_text() for element in handle.elements]
    assert runs == ["x\n"] * 7 + ["x\nx\n"] + ["x\n"] * 2
    with pytest.raises(JobConflictError, match="had 10 elements in an earlier try and has 9 now"):
        run(9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"array": None}, "no array is given"), ({"array": [[]], "is_staged": True}, "were staged on one")],
)
def test_what_cannot_be_spread(arguments: dict[str, Any], message: str) -> None:
    check_spread(**{"spread": False, "is_staged": False, **arguments})
    with pytest.raises(InvalidJobError, match=message):
        check_spread(**{"spread": True, "is_staged": False, **arguments})


@pytest.mark.long
@pytest.mark.parametrize("scene", [SUBMIT, DEFERRABLE_SUBMIT], indirect=True, ids=lambda mode: mode.name)
def test_a_part_whose_cluster_is_lost_is_run_elsewhere(
    scene: Scene, request: pytest.FixtureRequest, second: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parameter_checks, "SHORTEST_FAILOVER_S", 0.0)
    monkeypatch.setattr(holding, "MARGIN_S", 0.3)
    monkeypatch.setattr(keeping, "TELL_EVERY_S", 0.5)
    plan = (PlannedPart("gpu_cluster_default", 0, 2), PlannedPart("away", 2, 2))
    monkeypatch.setattr(spread, "plan_of", lambda job_id, *_, **__: SpreadPlan(job_id, plan))
    away = json.loads(os.environ["AIRFLOW_CONN_SECOND"])
    monkeypatch.setenv("AIRFLOW_CONN_AWAY", json.dumps({**away, "host": scene.proxy.host, "port": scene.proxy.port}))
    starts = tmp_path / "starts"
    command = (
        f"echo $ARRAY_INDEX $JOB_DIR >>{starts}; "
        f"[ $ARRAY_INDEX -lt 2 ] || while [ ! -e {scene.gate} ]; do sleep 0.1; done"
    )
    job = {
        "command": command,
        "array": [{} for _ in range(4)],
        "gpu_cluster_conn_id": ["gpu_cluster_default", "away"],
        "spread": True,
        "failover_after": 20.0,
        "orphan_timeout": 20.0,
        "grace": 0.5,
    }

    def begun() -> list[str]:
        return starts.read_text().splitlines() if starts.exists() else []

    def lose_it() -> None:
        scene.until(lambda: len(begun()) == 4)
        scene.proxy.refusing = True
        scene.proxy.cut_now()
        scene.until(lambda: len(begun()) == 6)
        scene.proxy.refusing = False
        part = f"{scene.xcoms['return_value']['job_id']}.p2"
        scene.until(lambda: second.statuses([part])[0].moved_to == "gpu_cluster_default")
        scene.open_gate()

    losing = threading.Thread(target=lose_it)
    losing.start()
    run_to_its_end(scene, job, deferrable=request.node.callspec.params["scene"] is DEFERRABLE_SUBMIT)
    losing.join()
    handle = JobHandle.from_json(scene.xcoms["return_value"])
    assert [part.gpu_cluster_conn_id for part in handle.parts] == ["gpu_cluster_default"] * 2
    places = [(index, Path(place).parent == tmp_path / "second") for index, place in map(str.split, begun())]
    assert sorted(places) == [("0", False), ("1", False), ("2", False), ("2", True), ("3", False), ("3", True)]
    # Each element is said to have ended once.
    ends = [event for event in scene.logs.events if event.endswith("GPU job succeeded")]
    assert sorted(ends) == [f"[{index}/4] GPU job succeeded" for index in range(4)]


def run_to_its_end(scene: Scene, job: dict[str, Any], *, deferrable: bool) -> None:
    """Run a task, from the worker to the triggerer and back as often as it wants."""

    def make() -> SubmitGpuJobOperator:
        more: Any = {"wait_for_completion": True, "deferrable": deferrable, "poll_interval": 0.2}
        return SubmitGpuJobOperator(task_id=scene.ti.task_id, **job, **more)

    operator = make()
    step: Any = operator.execute
    while True:
        try:
            scene.on_worker(operator, step)
            return
        except TaskDeferred as deferral:
            classpath, kwargs = deferral.trigger.serialize()
            event = scene.in_triggerer(classpath, through_the_database(kwargs), timeout=None)
            if isinstance(event, TaskSuccessEvent):
                return
            assert event is not None
            operator = make()
            told = through_the_database({"event": event.payload})
            step = partial(operator.resume_execution, next_method=deferral.method_name, next_kwargs=told)
