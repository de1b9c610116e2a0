"""Jobs that leave their GPUs idle, in every mode of waiting, against a real cluster: what the task's log says."""

from __future__ import annotations

import itertools
import json
import shlex
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.exceptions import GpuJobIdle
from airflow_provider_gpu_cluster.retry_policies.gpu_job import GpuJobRetryPolicy
from tests.operators.modes import ALL, DEFERRABLE, RESCHEDULE, SUBMIT, Mode, Scene

IDLE, BUSY = ({"gpus": [{"percent": percent, "memory_bytes": 1 << 30}]} for percent in (0.4, 90))
WINDOW_S = 2.0


def measure(scene: Scene, tmp_path: Path) -> Path:
    """Give the cluster's virtual GPUs something that tells of them, and return where that is written."""
    told = tmp_path / "gpus.json"
    told.write_text(json.dumps(IDLE))
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexport GPU_RUN_FAKE_NVML={shlex.quote(str(told))}\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    scene.connect("gpu_cluster_default", extra={"python": str(python)})
    return told


def in_modes(*modes: Mode, others: tuple[Mode, ...] = ()) -> pytest.MarkDecorator:
    slow = [pytest.param(mode, mode, id=mode.name, marks=pytest.mark.long) for mode in others]
    quick = [pytest.param(mode, mode, id=mode.name) for mode in modes]
    return pytest.mark.parametrize(("mode", "scene"), [*quick, *slow], indirect=["scene"])


def told_of_idleness(scene: Scene) -> list[str]:
    """Return what the log says of that, without numbers."""
    told = (event for event in scene.logs.events if " is idle:" in event or " was idle" in event)
    return [event.partition(" its GPU use")[0] for event in told]


@in_modes(DEFERRABLE, others=tuple(mode for mode in ALL if mode is not DEFERRABLE))
def test_it_is_warned_of_and_ended(mode: Mode, scene: Scene, tmp_path: Path) -> None:
    measure(scene, tmp_path)
    # It asks for another start while it is stopped, and does not get one.
    command = "trap 'exit 85' TERM; while :; do sleep 0.05; done"
    job: dict[str, Any] = {"command": command, "utilization_window": WINDOW_S, "on_idle": "cancel"}
    mode.launch(scene, job)
    with pytest.raises(GpuJobIdle, match=r"its GPU use was 0.4 % in the mean for \d s, less") as raised:
        mode.wait(scene, job, {})
    told = told_of_idleness(scene)
    assert told[0] == "GPU job is idle:"
    assert told[1] in ("GPU job is idle:", "GPU job was idle, and is ended:")
    assert len(told) == 2
    assert (raised.value.reason, dict(raised.value.recovered)) == ("idle", {})
    decision = GpuJobRetryPolicy().evaluate(raised.value, 1, 3)
    assert decision.action.name == "FAIL"


@pytest.mark.long
@in_modes(*ALL)
def test_it_is_only_warned_of_and_that_it_computes_again_is_told(mode: Mode, scene: Scene, tmp_path: Path) -> None:
    told = measure(scene, tmp_path)
    gate = f"until [ -e {scene.gate} ]; do sleep 0.02; done"
    job: dict[str, Any] = {"command": gate, "utilization_window": WINDOW_S}
    mode.launch(scene, job)

    def meanwhile() -> None:
        scene.until(lambda: len(told_of_idleness(scene)) == 2)
        told.write_text(json.dumps(BUSY))
        scene.until_told("GPU job is idle no more")
        scene.open_gate()

    helper = threading.Thread(target=meanwhile)
    helper.start()
    mode.wait(scene, job, {})
    helper.join()
    assert [event.split(":")[0] for event in scene.logs.events if " is idle" in event] == [
        "GPU job is idle",
        "GPU job is idle",
        "GPU job is idle no more",
    ]


@pytest.mark.long
@in_modes(DEFERRABLE, SUBMIT)
def test_each_element_of_an_array_is_idle_by_itself(mode: Mode, scene: Scene, tmp_path: Path) -> None:
    told = measure(scene, tmp_path)
    told.write_text(json.dumps({"gpus": [*IDLE["gpus"], *BUSY["gpus"]]}))
    command = 'run() { [ "$1" = 0 ] && exec sleep 600; sleep 8; }; run'
    job: dict[str, Any] = {"command": command, "array": [["0"], ["1"]], "utilization_window": WINDOW_S}
    job["on_idle"] = "cancel"
    mode.launch(scene, job)
    with pytest.raises(GpuJobIdle):
        mode.wait(scene, job, {})
    told_of = told_of_idleness(scene)
    assert set(itertools.chain.from_iterable(line.split(" GPU job")[:1] for line in told_of)) == {"[0/2]"}
    assert len(told_of) == 2


@pytest.mark.long
@pytest.mark.parametrize("array", [None, [["0"], ["1"]]], ids=["job", "array"])
@in_modes(DEFERRABLE, RESCHEDULE, SUBMIT)
def test_the_end_of_the_log_has_advice_once(mode: Mode, scene: Scene, tmp_path: Path, array: list[Any] | None) -> None:
    told = measure(scene, tmp_path)
    told.write_text(json.dumps({"gpus": [{"percent": 4, "memory_bytes": 30 << 30, "total_bytes": 80 << 30}]}))
    job = {"command": "sleep 11; true", "memory": "8G", **({} if array is None else {"array": array})}
    mode.launch(scene, job)
    mode.wait(scene, job, {})
    use, memory = (event for event in scene.logs.events if event.startswith("GPU job advice: "))
    assert use.startswith("GPU job advice: GPU use was 4 % in the mean; the job waited, most likely for its data: 0")
    assert memory.startswith("GPU job advice: asked for 8 GiB of host memory, used ")
    ends = ["GPU job succeeded" if array is None else "GPU job array ended", use, memory]
    assert [event for event in scene.logs.events if event in ends] == ends
