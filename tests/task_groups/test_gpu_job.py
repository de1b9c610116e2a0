"""GpuJobTaskGroup, in real DAG runs on a real SSH server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, task

from airflow_provider_gpu_cluster.exceptions import InvalidJobError
from airflow_provider_gpu_cluster.task_groups.gpu_job import GpuJobTaskGroup
from tests.harness.dag_runs import run_dag, states, xcom

DAG_FILE = """
from airflow.sdk import DAG, task
from airflow_provider_gpu_cluster.task_groups.gpu_job import GpuJobTaskGroup

with DAG("{dag_id}", schedule=None) as dag:
    train = GpuJobTaskGroup(
        "train",
        code="code",
        entry_script="train.py",
        env={{"TOKEN": "s3cret-value"}},
        gpus=2,
        destination="{destination}",
        poke_interval=0.5,
        timeout=60,
    )

    @task
    def report(result):
        return result["metrics"]

    report(train.output)
"""


PARTIAL = """
    from airflow_provider_gpu_cluster.operators.gpu_job import CollectGpuJobOperator

    partial = CollectGpuJobOperator(task_id="partial", job=train.submit.output, destination="{}")
    train.wait >> partial.as_teardown()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "dags" / "code").mkdir(parents=True)
    return tmp_path / "dags"


@pytest.mark.usefixtures("gpu_cluster_conn")
def test_job_goes_through_all_tasks(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / "code" / "train.py").write_text(
        "import json, os, time\n"
        "print('hello from the job')\n"
        "time.sleep(2)\n"
        "json.dump({'loss': float('nan'), 'token': len(os.environ['TOKEN'])},\n"
        "          open(os.environ['OUTPUT_DIR'] + '/metrics.json', 'w'))\n"
    )
    source = DAG_FILE.format(dag_id="group_ok", destination=folder / "home")
    run = run_dag(folder, source, monkeypatch)
    assert str(run.state) == "success"
    assert set(states(run).values()) == {"success"}
    assert xcom(run, "report") == {"loss": "NaN", "token": 12}
    assert (folder / "home" / "metrics.json").exists()
    for name in ("stage", "submit", "wait", "collect", "cancel"):
        assert xcom(run, f"train.{name}", "gpu_job_link").endswith(f"/tasks/train.{name}/plugin/gpu-job")
    output = "".join(capfd.readouterr())
    assert output.count("hello from the job") == 1
    assert "s3cret" not in output


@pytest.mark.usefixtures("gpu_cluster_conn")
def test_failed_job_fails_the_run_in_spite_of_the_teardown(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "code" / "train.py").write_text("raise SystemExit(3)\n")
    # What collects partial outputs after a failure is a teardown, too.
    source = DAG_FILE.format(dag_id="group_bad", destination=folder / "home") + PARTIAL.format(folder / "partial")
    run = run_dag(folder, source, monkeypatch)
    assert str(run.state) == "failed"
    found = states(run)
    assert found["train.wait"] == "failed"
    assert found["train.collect"] == "upstream_failed"
    assert found["train.cancel"] == "success"
    assert not (folder / "home").exists()
    assert found["partial"] == "success"
    assert (folder / "partial" / "FAILED").exists()


def test_neighbours_are_chained_to_the_ends() -> None:
    with DAG("lab", schedule=None) as dag:

        @task
        def before() -> None: ...

        @task
        def after() -> None: ...

        before() >> GpuJobTaskGroup("train", command="true", destination="/x") >> after()
    assert dag.get_task("train.stage").upstream_task_ids == {"before"}
    assert dag.get_task("after").upstream_task_ids == {"train.collect"}
    assert dag.get_task("train.cancel").upstream_task_ids == {"train.stage", "train.submit", "train.collect"}
    assert dag.get_task("train.cancel").is_teardown


def test_clearing_the_collect_does_not_train_again() -> None:
    with DAG("lab", schedule=None) as dag:
        GpuJobTaskGroup("train", command="true", destination="/x")
    cleared = dag.partial_subset("train.collect", include_downstream=True, include_upstream=False)
    assert set(cleared.task_ids) == {"train.collect", "train.cancel"}


@pytest.mark.parametrize("name", ["job", "wait_for_completion", "poll_interval"])
def test_what_the_group_decides_itself_cannot_be_given(name: str) -> None:
    arguments: dict[str, Any] = {"command": "true", "destination": "/x", name: True}
    with DAG("lab", schedule=None), pytest.raises(InvalidJobError, match=name):
        GpuJobTaskGroup("train", **arguments)


MAPPED_GROUP = """
from airflow.sdk import DAG, task, task_group
from airflow_provider_gpu_cluster.task_groups.gpu_job import GpuJobTaskGroup

with DAG("group_mapped", schedule=None) as dag:

    @task_group
    def trial(seed):
        GpuJobTaskGroup(
            "train",
            command='printf "$SEED" >"$OUTPUT_DIR/seed"',
            env={{"SEED": seed}},
            destination="{destination}/{{{{ ti.map_index }}}}",
            include="seed",
            poke_interval=0.5,
            timeout=60,
        )

    trial.expand(seed=["7", "8"])
"""


@pytest.mark.usefixtures("gpu_cluster_conn")
def test_group_can_be_mapped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_dag(folder, MAPPED_GROUP.format(destination=folder / "home"), monkeypatch)
    assert str(run.state) == "success"
    found = [(folder / "home" / str(index) / "seed").read_text() for index in range(2)]
    assert found == ["7", "8"]


ARRAY = """
from airflow.sdk import DAG
from airflow_provider_gpu_cluster.task_groups.gpu_job import GpuJobTaskGroup

with DAG("group_array", schedule=None) as dag:
    GpuJobTaskGroup(
        "train",
        code="code",
        entry_script="train.sh",
        array=["a", "b"],
        pass_output_dirs=False,
        destination="{destination}",
        poke_interval=0.5,
        timeout=60,
    )
"""


@pytest.mark.usefixtures("gpu_cluster_conn")
def test_array_goes_through_all_tasks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "code" / "train.sh").write_text('echo "$1" >"$OUTPUT_DIR/word"\n')
    run = run_dag(folder, ARRAY.format(destination=folder / "home"), monkeypatch)
    assert set(states(run).values()) == {"success"}
    assert [(folder / "home" / index / "word").read_text() for index in ("0", "1")] == ["a\n", "b\n"]
    assert xcom(run, "train.submit")["job_id"] == xcom(run, "train.stage")["job_id"]
