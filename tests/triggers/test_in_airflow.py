"""Deferrable tasks in real DAG runs on a real cluster; ``dag.test()`` runs their triggers in the same process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.triggers.output_log import OutputLog
from tests.harness.dag_runs import run_dag, states, xcom

pytestmark = pytest.mark.usefixtures("gpu_cluster_conn")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "dags").mkdir()
    return tmp_path / "dags"


DEFERRED = """
from airflow.sdk import DAG
from airflow_provider_gpu_cluster.operators.gpu_job import SubmitGpuJobOperator
from airflow_provider_gpu_cluster.sensors.gpu_job import GpuJobSensor

with DAG("deferred", schedule=None) as dag:
    train = SubmitGpuJobOperator(
        task_id="train",
        command='echo "trained for $EPOCHS epochs"; printf "no %s" end',
        env={"EPOCHS": "3"},
        wait_for_completion=True,
        deferrable=True,
    )
    # Started on a worker: what dag.test() starts from a trigger, it cannot tell which task it is.
    done = GpuJobSensor(task_id="done", job=train.output, deferrable=True, start_from_trigger=False)
    train >> done
"""


def test_deferred_tasks_wait_for_their_job(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr(OutputLog, "line", lambda log, text: shown.append(text))
    run = run_dag(folder, DEFERRED, monkeypatch)
    assert states(run) == {"train": "success", "done": "success"}
    handle = xcom(run, "train")
    assert Path(handle["job_dir"], "outputs/SUCCESS").exists()
    assert xcom(run, "done") == handle
    for task_id in ("train", "done"):
        assert f"/tasks/{task_id}/plugin/gpu-job" in xcom(run, task_id, "gpu_job_link")
    # Each task's trigger shows all of the output, and each of its lines once.
    assert shown == ["trained for 3 epochs", "no end"] * 2


FAILED = """
from airflow.sdk import DAG
from airflow_provider_gpu_cluster.operators.gpu_job import SubmitGpuJobOperator
from airflow_provider_gpu_cluster.sensors.gpu_job import GpuJobSensor

with DAG("deferred_and_failed", schedule=None) as dag:
    train = SubmitGpuJobOperator(task_id="train", command="echo boom >&2; exit 3")
    done = GpuJobSensor(task_id="done", job=train.output, deferrable=True, start_from_trigger=False)
    SubmitGpuJobOperator(
        task_id="again",
        command='echo $ATTEMPT >>"$OUTPUT_DIR/attempts"; [ "$ATTEMPT" = 2 ]',
        wait_for_completion=True,
        deferrable=True,
        retries=1,
        retry_delay=0,
    )
"""


def test_deferred_tasks_fail_and_are_retried(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    run = run_dag(folder, FAILED, monkeypatch)
    assert states(run) == {"train": "success", "done": "failed", "again": "success"}
    attempts = Path(xcom(run, "again")["job_dir"], "outputs/attempts").read_text()
    assert attempts == "1\n2\n"
    shown = "".join(capfd.readouterr())
    assert "GpuJobFailed" in shown
    assert "Its last lines were" in shown


def test_default_is_airflows_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read when the module is imported, as by Airflow's own operators."""
    import subprocess
    import sys

    script = (
        "from airflow_provider_gpu_cluster.operators.gpu_job import SubmitGpuJobOperator\n"
        "from airflow_provider_gpu_cluster.sensors.gpu_job import GpuJobSensor\n"
        "submit, sensor = SubmitGpuJobOperator(task_id='x', command='true'), GpuJobSensor(task_id='y', job={})\n"
        "print(submit.deferrable, sensor.deferrable)"
    )

    def defaults(**environ: Any) -> str:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environ.items():
                patch.setenv(name, value)
            return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout

    assert defaults(AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE="True").splitlines()[-1] == "True True"
