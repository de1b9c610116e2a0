"""Arrays, in every mode of waiting, against a real cluster: what the task's log says, and how the task ends."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowTaskTimeout

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError, GpuJobCancelled, GpuJobFailed
from airflow_provider_gpu_cluster.operators.gpu_job import SubmitGpuJobOperator
from airflow_provider_gpu_cluster.watch import watch
from tests.harness import jobs
from tests.harness.deferral import own_watchers, task_logs
from tests.operators.modes import ALL, DEFERRABLE, DEFERRABLE_SUBMIT, POKE, SCHEDULED, SUBMIT, SUBMITS, Mode, Scene
from tests.operators.test_modes import FEW, GONE
from tests.servers.proxy import CutProxy


def in_few(modes: tuple[Mode, ...]) -> list[Any]:
    """Leave modes that go the way of others to the long tests."""
    return [mode if mode in FEW else pytest.param(mode, marks=pytest.mark.long) for mode in modes]


def in_modes(*modes: Any) -> pytest.MarkDecorator:
    """Run a test in modes, of which some may be parameters with marks."""
    return pytest.mark.parametrize("mode", modes, ids=lambda mode: mode.name)


@pytest.fixture(autouse=True)
def _quick_and_alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(watch, "RETRY_FOR_S", 0.1)
    with own_watchers(monkeypatch):
        yield


@pytest.fixture
def scene(
    mode: Mode, cluster: Cluster, gpu_cluster_conn: dict[str, Any], cut_proxy: CutProxy, tmp_path: Path
) -> Iterator[Scene]:
    with pytest.MonkeyPatch.context() as patch, task_logs(tmp_path / "log", patch) as logs:
        yield Scene(
            mode.name,
            cluster=cluster,
            connection=gpu_cluster_conn,
            proxy=cut_proxy,
            folder=tmp_path,
            monkeypatch=patch,
            logs=logs,
        )


def wait(mode: Mode, scene: Scene, command: str, array: list[Any], **arguments: Any) -> None:
    """Launch an array and wait for it, in one task or two."""
    job = {"command": command, "array": array}
    mode.launch(scene, job)
    mode.wait(scene, job, arguments)


def lines(scene: Scene) -> list[str]:
    """Return the lines of output, and those about elements that have ended, in the order of the log."""
    return [record.event for record in scene.logs.records if re.match(r"\[\d+/\d+\] (?!GPU job runs)", record.event)]


def summary(scene: Scene) -> str:
    (record,) = (record for record in scene.logs.told if record.event == "GPU job array ended")
    return str(record.fields["summary"])


@in_modes(*ALL)
def test_every_line_is_shown_once_with_its_element_and_every_end_is_told(mode: Mode, scene: Scene) -> None:
    wait(mode, scene, 'echo "seed $SEED"; echo two; printf three', [{"SEED": index} for index in range(5)])
    told = lines(scene)
    for index in range(5):
        own = [line.removeprefix(f"[{index}/5] ") for line in told if line.startswith(f"[{index}/5] ")]
        assert own == [f"seed {index}", "two", "three", "GPU job succeeded"]
    assert len(told) == 20
    assert (summary(scene), scene.xcoms["return_value"]["array_size"]) == ("of 5 elements 5 succeeded", 5)


@in_modes(*in_few(ALL))
def test_a_bad_end_of_one_fails_the_task_when_all_have_ended(mode: Mode, scene: Scene) -> None:
    command = 'run() { [ "$1" != 1 ] || { echo boom; exit 3; }; echo "done"; }; run'
    with pytest.raises(GpuJobFailed) as raised:
        wait(mode, scene, command, [["0"], ["1"], "2"])
    assert sorted(lines(scene)) == [
        *("[0/3] GPU job succeeded", "[0/3] done"),
        *("[1/3] GPU job FAILED", "[1/3] boom"),
        *("[2/3] GPU job succeeded", "[2/3] done"),
    ]
    expected = "of 3 elements 2 succeeded, 1 failed: 1 (user_error: it ended with exit code 3: boom)"
    assert summary(scene) == expected
    assert expected in str(raised.value)
    assert (raised.value.reason, raised.value.exit_code) == ("user_error", 3)
    assert "[1/3] boom\n" in raised.value.log_tail


@in_modes(POKE, DEFERRABLE)
def test_without_output_the_ends_are_told_all_the_same(mode: Mode, scene: Scene) -> None:
    wait(mode, scene, "echo x", [[], []], get_logs=False)
    assert sorted(lines(scene)) == ["[0/2] GPU job succeeded", "[1/2] GPU job succeeded"]


@in_modes(SUBMIT, SCHEDULED, DEFERRABLE_SUBMIT)
def test_much_output_at_the_end_is_shown_to_its_end(mode: Mode, scene: Scene) -> None:
    # More than a trigger shows when all have ended: it leaves the rest to a worker.
    wait(mode, scene, f"seq 1 5000 | sed 's/$/ {'x' * 60}/'", [[], []])
    for index in range(2):
        own = [line for line in scene.logs.output if line.startswith(f"[{index}/2] ")]
        assert own == [f"[{index}/2] {number} {'x' * 60}" for number in range(1, 5001)]
    assert lines(scene).count("[0/2] GPU job succeeded") == 1


@in_modes(POKE, DEFERRABLE, SUBMIT)
def test_an_outage_is_told_once_for_all_elements(mode: Mode, scene: Scene) -> None:
    scene.connect("gpu_cluster_default", port=scene.proxy.port)
    job = {"command": f"echo one; until [ -e {scene.gate} ]; do sleep 0.02; done", "array": [[], [], []]}
    mode.launch(scene, job)

    def cut() -> None:
        scene.until(lambda: len([line for line in scene.logs.output if line.endswith(" one")]) == 3)
        scene.proxy.refusing = True
        scene.proxy.cut_now()

    helper = threading.Thread(target=cut)
    helper.start()
    with pytest.raises(GpuClusterConnectionError):
        mode.wait(scene, job, {"unreachable_timeout": 0.5})
    helper.join()
    assert scene.logs.events.count(GONE) == 1
    job_id = scene.xcoms["return_value"]["job_id"]
    assert str(scene.cluster.statuses([job_id])[0].state) == "RUNNING"
    scene.open_gate()
    jobs.wait(scene.cluster, job_id)


@in_modes(*in_few(SUBMITS))
def test_execution_timeout_cancels_all_elements(mode: Mode, scene: Scene) -> None:
    with pytest.raises(AirflowTaskTimeout):
        wait(mode, scene, "exec sleep 60", [[]] * 6, execution_timeout=timedelta(seconds=5))
    status = jobs.wait(scene.cluster, scene.xcoms["return_value"]["job_id"])
    assert status.message.startswith("of 6 elements 6 were cancelled")


@in_modes(SUBMIT)
def test_a_retry_tries_again_only_what_failed_and_a_clear_tries_all(mode: Mode, scene: Scene, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    command = f'echo "$ARRAY_INDEX $ATTEMPT" >> {runs}; [ "$ARRAY_INDEX" != 1 ] || [ "$ATTEMPT" = 2 ]'
    scene.ti.max_tries = 1
    with pytest.raises(GpuJobFailed):
        wait(mode, scene, command, [[], [], []])
    scene.ti.try_number = 2
    wait(mode, scene, command, [[], [], []])
    assert sorted(runs.read_text().splitlines()) == ["0 1", "1 1", "1 2", "2 1"]
    (launched,) = (one for one in scene.logs.told if one.event == "GPU job array launched" and one.fields["found"])
    assert (launched.fields["launched"], launched.fields["found"]) == (1, 2)
    # A clear.
    scene.ti.try_number, scene.ti.max_tries = 3, 3
    with pytest.raises(GpuJobFailed):
        wait(mode, scene, command, [[], [], []])
    assert sorted(runs.read_text().splitlines()) == ["0 1", "0 1", "1 1", "1 1", "1 2", "2 1", "2 1"]


@in_modes(SUBMIT)
def test_a_user_who_ends_the_task_ends_all_elements(mode: Mode, scene: Scene) -> None:
    operator = SubmitGpuJobOperator(
        task_id=mode.name, command="exec sleep 60", array=[[]] * 6, wait_for_completion=True, poll_interval=0.1
    )
    scene.ti.state = "failed"

    def kill() -> None:
        scene.until_told("[0/6] GPU job runs")
        operator.on_kill()

    helper = threading.Thread(target=kill)
    helper.start()
    with pytest.raises(GpuJobCancelled):
        scene.on_worker(operator, operator.execute)
    helper.join()
    status = jobs.wait(scene.cluster, scene.xcoms["return_value"]["job_id"])
    assert status.message.startswith("of 6 elements 6 were cancelled")
