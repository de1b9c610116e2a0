"""The operators and the hook in real DAG runs on a real cluster."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.harness.dag_runs import run_dag, states, xcom

pytestmark = pytest.mark.usefixtures("gpu_cluster_conn")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "dags").mkdir()
    return tmp_path / "dags"


def rendered(run: Any, task_id: str, map_index: int = -1) -> dict[str, Any]:
    """Return what Airflow's UI shows of a task's rendered template fields."""
    from airflow.models.renderedtifields import RenderedTaskInstanceFields
    from airflow.utils.session import create_session
    from sqlalchemy import select

    fields = RenderedTaskInstanceFields
    with create_session() as session:
        found = session.scalar(
            select(fields.rendered_fields).where(
                fields.dag_id == run.dag_id, fields.task_id == task_id, fields.map_index == map_index
            )
        )
    assert found is not None
    return dict(found)


MAPPED = """
from airflow.sdk import DAG, task
from airflow_provider_gpu_cluster.operators.gpu_job import CollectGpuJobOperator, SubmitGpuJobOperator

with DAG("mapped_env", schedule=None, params={{"word": "from-params"}}) as dag:

    @task
    def secret():
        return "from-xcom {{{{ not a template }}}}"

    train = SubmitGpuJobOperator.partial(
        task_id="train",
        command='printf "%s" "$VALUE" >"$OUTPUT_DIR/value"',
        wait_for_completion=True,
        poll_interval=0.5,
    ).expand(
        env=[
            {{"VALUE": "literal-s3cret"}},
            {{"VALUE": "{{{{ params.word }}}}"}},
            {{"VALUE": secret(), "API_TOKEN": "masked-s3cret"}},
        ]
    )

    @task
    def values(jobs):
        from airflow_provider_gpu_cluster.hooks.gpu_cluster import GpuClusterHook
        from pathlib import Path
        import tempfile

        found = []
        with GpuClusterHook() as hook:
            for job in jobs:
                home = tempfile.mkdtemp()
                hook.collect(job, home, include="value")
                found.append(Path(home, "value").read_text())
        return found

    values(train.output)
    apart = CollectGpuJobOperator.partial(task_id="apart", destination={home!r} + "/{{{{ ti.map_index }}}}")
    apart.expand(job=train.output)
    CollectGpuJobOperator.partial(task_id="together", destination={home!r} + "/same").expand(job=train.output)
"""


def test_mapped_jobs_get_their_own_environments_and_never_overwrite_each_other(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    run = run_dag(folder, MAPPED.format(home=str(tmp_path)), monkeypatch)
    ended = states(run)
    together = [ended.pop(f"together[{index}]") for index in range(3)]
    assert set(ended.values()) == {"success"}
    assert sorted(together) == ["failed", "failed", "success"]
    first = together.index("success")
    collected = [(tmp_path / name / "value").read_text() for name in ("0", "1", "2", "same")]
    assert collected[3] == collected[first]
    assert len(set(collected)) == 3
    assert xcom(run, "values") == ["literal-s3cret", "from-params", "from-xcom {{ not a template }}"]
    shown = [rendered(run, "train", index)["env"] for index in range(3)]
    assert shown == [{"VALUE": "***"}, {"VALUE": "***"}, {"VALUE": "***", "API_TOKEN": "***"}]
    said = "".join(capfd.readouterr())
    assert "masked-s3cret" not in said
    assert "of the same DAG run; nothing was collected" in said


ARRAY = """
from airflow.sdk import DAG, task
from airflow_provider_gpu_cluster.operators.gpu_job import CollectGpuJobOperator, SubmitGpuJobOperator

with DAG("array_from_xcom", schedule=None, params={{"word": "from-params"}}) as dag:

    @task
    def choose():
        return {choice}

    train = SubmitGpuJobOperator(
        task_id="train",
        command='printf "%s" "$VALUE" >"$OUTPUT_DIR/value"',
        env={{"VALUE": "{{{{ params.word }}}}"}},
        array=choose(),
        wait_for_completion=True,
        poll_interval=0.5,
    )
    CollectGpuJobOperator(task_id="collect", job=train.output, destination="{home}", include="value")
"""


def test_array_from_another_task_runs_and_comes_home(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choice = [{"VALUE": "one"}, [], {"VALUE": "three"}]
    run = run_dag(folder, ARRAY.format(choice=choice, home=tmp_path / "home"), monkeypatch)
    assert set(states(run).values()) == {"success"}
    found = [(tmp_path / "home" / str(index) / "value").read_text() for index in range(3)]
    assert found == ["one", "from-params", "three"]
    assert xcom(run, "train")["array_size"] == 3
    assert rendered(run, "train")["array"] == [{"VALUE": "***"}, [], {"VALUE": "***"}]


def test_empty_array_from_another_task_is_an_error_that_says_so(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    run = run_dag(folder, ARRAY.format(choice=[], home=tmp_path / "home"), monkeypatch)
    assert states(run) == {"choose": "success", "train": "failed", "collect": "upstream_failed"}
    assert "array has 0 elements" in "".join(capfd.readouterr())


HOOK = """
from airflow.sdk import DAG, task
from airflow_provider_gpu_cluster.hooks.gpu_cluster import GpuClusterHook

with DAG("hook_in_task", schedule=None) as dag:

    @task
    def train():
        with GpuClusterHook() as hook:
            staged = hook.stage(code="code")
            again = hook.submit(job=staged, entry_script="train.py", gpus=1)
            assert hook.submit(job=staged, entry_script="train.py", gpus=1) == again
            return again

    train()
"""


def test_hook_in_a_task_takes_the_tasks_identity(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "code").mkdir()
    (folder / "code" / "train.py").write_text("print(1)\n")
    run = run_dag(folder, HOOK, monkeypatch)
    handle = xcom(run, "train")
    assert handle["job_id"].startswith("hook_in_task-train-")
    spec = json.loads(Path(handle["job_dir"], ".job", "spec.json").read_text())
    assert '"hook_in_task"' in json.dumps(spec)
    assert '"dag_test"' in json.dumps(spec)


RETRIED = """
from datetime import timedelta
from airflow.sdk import DAG
from airflow_provider_gpu_cluster.operators.gpu_job import SubmitGpuJobOperator

with DAG("retried", schedule=None) as dag:
    SubmitGpuJobOperator(
        task_id="train",
        command='echo attempt $ATTEMPT; echo $ATTEMPT >>"$OUTPUT_DIR/attempts"; [ "$ATTEMPT" = 2 ]',
        wait_for_completion=True,
        retries=1,
        retry_delay=timedelta(seconds=0),
        poll_interval=0.5,
    )
"""


def test_retries_are_attempts_of_one_job(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_dag(folder, RETRIED, monkeypatch)
    assert states(run) == {"train": "success"}
    handle = xcom(run, "train")
    attempts = Path(handle["job_dir"], "outputs", "attempts").read_text()
    assert attempts == "1\n2\n"


COLLECTED = """
from airflow.sdk import DAG, Asset, AssetAlias
from airflow_provider_gpu_cluster.operators.gpu_job import CollectGpuJobOperator, SubmitGpuJobOperator

model = Asset("model", uri="file:///models/digits")

with DAG("collected", schedule=None) as dag:
    train = SubmitGpuJobOperator(
        task_id="train",
        command='cd "$OUTPUT_DIR"; printf weights >model.pth; printf 7 >metrics.json',
        wait_for_completion=True,
        poll_interval=0.5,
    )
    CollectGpuJobOperator(
        task_id="collect",
        job=train.output,
        destination={home!r},
        include=["*.pth", "metrics.json"],
        outlets=[model, AssetAlias("an alias")],
    )
    CollectGpuJobOperator.partial(
        task_id="mapped", job=train.output, include="*.pth", outlets=[Asset("mapped", uri="file:///models/mapped")]
    ).expand(destination=[{home!r} + "-1", {home!r} + "-2"])
"""


def test_the_event_of_an_asset_says_what_it_consists_of(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    run = run_dag(folder, COLLECTED.format(home=str(home)), monkeypatch)
    assert set(states(run).values()) == {"success"}
    sha256 = hashlib.sha256(b"weights").hexdigest()
    (event,) = asset_events("file:///models/digits")
    assert event["job_id"] == xcom(run, "train")["job_id"]
    assert event["destination"] == str(home)
    assert event["metrics"] == 7
    assert event["files"] == {"metrics.json": hashlib.sha256(b"7").hexdigest(), "model.pth": sha256}
    mapped = asset_events("file:///models/mapped")
    assert sorted(event["destination"] for event in mapped) == [f"{home}-1", f"{home}-2"]
    assert [event["files"] for event in mapped] == [{"model.pth": sha256}] * 2


def asset_events(uri: str) -> list[dict[str, Any]]:
    """Return what the events of an asset carry."""
    from airflow.models.asset import AssetEvent, AssetModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        chosen = select(AssetEvent.extra).join(AssetModel, AssetModel.id == AssetEvent.asset_id)
        return list(session.scalars(chosen.where(AssetModel.uri == uri)))
