"""A job that goes on by itself, seen from the task that waits for it, in every mode."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_gpu_cluster.exceptions import GpuJobCheckpointed
from airflow_provider_gpu_cluster.retry_policies.gpu_job import GpuJobRetryPolicy
from tests.operators.modes import ALL, DEFERRABLE, RESCHEDULE, SUBMIT, Mode, Scene

JOB = {
    "command": 'echo "attempt $ATTEMPT, $API_TOKEN"; >"$CHECKPOINT_DIR/step_$ATTEMPT"; [ "$ATTEMPT" = 2 ] || exit 85',
    "env": {"API_TOKEN": "a-s3cret-token"},
}
LINE = "gpu-run: attempt 1 saved and asked to go on after "


def case(mode: Mode, *, get_logs: bool) -> Any:
    is_quick = (mode, get_logs) in ((RESCHEDULE, False), (DEFERRABLE, True))
    marks = () if is_quick else pytest.mark.long
    return pytest.param(mode, mode, get_logs, marks=marks, id=f"{mode.name}-{'logs' if get_logs else 'no-logs'}")


@pytest.mark.parametrize(
    ("mode", "scene", "get_logs"),
    [case(mode, get_logs=get_logs) for mode in ALL for get_logs in (True, False)],
    indirect=["scene"],
)
def test_the_task_waits_on_and_tells_all_attempts(mode: Mode, scene: Scene, get_logs: bool) -> None:
    mode.launch(scene, JOB)
    mode.wait(scene, JOB, {"get_logs": get_logs})
    result = scene.xcoms["return_value"]
    assert result["recovered"] == {"checkpointed": 1}
    # Of the last attempt.
    assert result["usage"]["samples"] >= 2
    assert {"queued", "running"} <= set(result["seconds"])
    first, second = result["attempts"]
    assert (first["attempt"], first["reason"], first["exit_code"]) == (1, "checkpointed", 85)
    assert first["checkpoint"] == "checkpoints/step_1"
    assert (second["attempt"], second["reason"], second["exit_code"]) == (2, None, 0)
    told = [record.event for record in scene.logs.records]
    # That which waits between two attempts is queued, and never of an unknown state or an end.
    assert not [event for event in told if "not known" in event or "cannot be reached" in event]
    assert told.count("GPU job succeeded") == 1
    output = [line for line in scene.logs.output if line.startswith(("attempt", "gpu-run"))]
    if get_logs:
        assert output[0::2] == ["attempt 1, ***", "attempt 2, ***"]
        assert output[1].startswith(LINE)
        assert output[1].endswith("; attempt 2 goes on from checkpoints/step_1")
    else:
        assert output == []
        (line,) = [one.fields for one in scene.logs.records if one.event == "GPU job goes on in attempt 2"]
        assert line["why"].startswith("attempt 1 ")
        assert line["checkpoint"] == "checkpoints/step_1"


@pytest.mark.long
@pytest.mark.parametrize(("mode", "scene"), [(SUBMIT, SUBMIT)], indirect=["scene"])
def test_what_recovery_has_stopped_is_not_retried(mode: Mode, scene: Scene) -> None:
    with pytest.raises(GpuJobCheckpointed) as error:
        mode.wait(scene, {"command": "exit 85", "recover": {"checkpointed": 1}}, {})
    assert error.value.recovered == {"checkpointed": 1}
    assert "recover allows no more" in str(error.value)
    decision = GpuJobRetryPolicy().evaluate(error.value, 1, 3)
    assert decision.action.value == "fail"
    assert "as often as it may" in str(decision.reason)
