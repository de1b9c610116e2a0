"""SubmitGpuJobOperator, against a cluster that does what the test says."""

from __future__ import annotations

import contextlib
import json
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from airflow.sdk import DAG, Context, task
from airflow.sdk.exceptions import AirflowTaskTimeout, TaskDeferred

from airflow_provider_gpu_cluster.exceptions import (
    GpuClusterConnectionError,
    GpuClusterError,
    GpuJobCancelled,
    GpuJobOutOfMemory,
    InvalidJobError,
)
from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.jobs.status import JobState, JobStatus
from airflow_provider_gpu_cluster.operators.gpu_job import StageGpuJobOperator, SubmitGpuJobOperator
from airflow_provider_gpu_cluster.triggers.gpu_job import GpuJobTrigger
from airflow_provider_gpu_cluster.watch.end import WatchEnd
from tests.harness.fake_cluster import FakeCluster
from tests.harness.task_context import TaskInstance, execute, task_context

QUEUED = JobStatus("", JobState.QUEUED, attempt=1, queue_place=2, message="2 GPUs are free, it needs 4")
RUNNING = JobStatus("", JobState.RUNNING, attempt=1, host="gpu1", gpus=(0, 1))
GOES_ON = JobStatus("", JobState.QUEUED, attempt=2, log_attempt=1, message="attempt 1 was preempted; attempt 2 follows")
SUCCEEDED = JobStatus("", JobState.SUCCEEDED, attempt=1, gpu_seconds=12.0)
FAILED = JobStatus("", JobState.FAILED, attempt=1, reason="out_of_memory", exit_code=137, message="killed")


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Return the lines of the task's log, as they are written."""
    lines: list[dict[str, Any]] = []

    class Log:
        def info(self, event: str, **fields: Any) -> None:
            lines.append({"event": event, **fields})

        warning = error = info

    monkeypatch.setattr(SubmitGpuJobOperator, "log", Log())
    return lines


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that puts a fake in the place of every cluster."""

    def put(cluster: FakeCluster) -> FakeCluster:
        monkeypatch.setenv("AIRFLOW_CONN_GPU_CLUSTER_DEFAULT", '{"conn_type": "gpu_cluster", "host": "fake"}')
        monkeypatch.setattr("airflow_provider_gpu_cluster.cluster.Cluster", cluster)
        return cluster

    return put


def submit(**arguments: Any) -> SubmitGpuJobOperator:
    return SubmitGpuJobOperator(
        task_id="train", **{"command": "true", "wait_for_completion": True, "poll_interval": 0.01, **arguments}
    )


def run(operator: SubmitGpuJobOperator, ti: TaskInstance | None = None) -> dict[str, Any]:
    handle: dict[str, Any] = execute(operator, task_context(ti))
    return handle


def test_launch_returns_the_handle_and_pushes_the_link(use: Any) -> None:
    cluster, ti = use(FakeCluster(RUNNING)), TaskInstance()
    handle = run(submit(wait_for_completion=False, gpus="2"), ti)
    assert handle["job_id"] == cluster.submits[0]["job_id"]
    assert handle["job_id"].startswith("lab-train-20260102T030405-")
    assert handle["gpus"] == 2
    expected = "/dags/lab/runs/manual__1/tasks/train/plugin/gpu-job"
    assert ti.xcoms["gpu_job_link"] == expected


def test_handle_is_in_xcom_before_the_job_has_ended(use: Any) -> None:
    ti = TaskInstance()
    cluster = use(FakeCluster(RUNNING, SUCCEEDED))
    seen: list[Any] = []
    cluster.on_look = lambda: seen.append(ti.xcoms.get("return_value"))
    handle = run(submit(), ti)
    assert seen[0] == handle


def test_waiting_shows_the_life_of_the_job(use: Any, log: list[dict[str, Any]]) -> None:
    use(FakeCluster(QUEUED, QUEUED, RUNNING, b"epoch 1\nepo", b"ch 2\n", SUCCEEDED))
    run(submit())
    events = [line["event"] for line in log]
    assert events == [
        "GPU job launched",
        "GPU job waits for its turn",
        "GPU job runs",
        "epoch 1",
        "epoch 2",
        "GPU job succeeded",
    ]
    assert log[1]["place"] == 2
    assert log[2]["gpus"] == [0, 1]
    assert {"job_id", "cluster", "gpu_seconds"} <= log[-1].keys()


def test_job_that_ends_badly_raises_its_class(use: Any) -> None:
    use(FakeCluster(RUNNING, b"Traceback\n", FAILED))
    with pytest.raises(GpuJobOutOfMemory) as raised:
        run(submit())
    assert (raised.value.exit_code, raised.value.log_tail) == (137, "Traceback\n")


def test_reattaching_is_said(use: Any, log: list[dict[str, Any]]) -> None:
    cluster = use(FakeCluster(SUCCEEDED))
    run(submit(), TaskInstance(max_tries=1))
    run(submit(), TaskInstance(max_tries=1, try_number=2))
    first, second = cluster.submits
    assert first["job_id"] == second["job_id"]
    assert first["generation"] == second["generation"]
    assert first["request_key"] != second["request_key"]
    assert "GPU job found again; it is not launched twice" in [line["event"] for line in log]


def test_clear_and_non_durable_try_are_other_jobs(use: Any) -> None:
    cluster = use(FakeCluster(SUCCEEDED))
    run(submit(), TaskInstance(max_tries=0))
    run(submit(), TaskInstance(max_tries=1, try_number=2))
    run(submit(durable=False), TaskInstance(max_tries=1, try_number=2))
    assert len({one["job_id"] for one in cluster.submits}) == 3


def test_outage_is_waited_for(use: Any, log: list[dict[str, Any]]) -> None:
    gone = GpuClusterConnectionError("no route to host")
    use(FakeCluster(RUNNING, gone, gone, gone, SUCCEEDED))
    run(submit())
    outages = [line for line in log if "cannot be reached" in line["event"]]
    assert len(outages) == 1


def test_outage_that_does_not_end_fails_the_task_and_leaves_the_job(use: Any) -> None:
    cluster = use(FakeCluster(RUNNING, GpuClusterConnectionError("no route to host")))
    with pytest.raises(GpuClusterConnectionError, match="no route"):
        run(submit(unreachable_timeout=0.1))
    assert cluster.cancelled == []


@pytest.mark.parametrize("at", [RUNNING, GOES_ON], ids=["while it runs", "between two attempts"])
@pytest.mark.parametrize("state", ["failed", "success", "skipped", "restarting"])
def test_user_who_ends_the_task_ends_the_job(use: Any, state: str, at: JobStatus) -> None:
    cluster, ti, operator = use(FakeCluster(at)), TaskInstance(), submit()
    ti.state = state
    cluster.on_look = operator.on_kill
    with pytest.raises(GpuJobCancelled):
        run(operator, ti)
    job_id = cluster.submits[0]["job_id"]
    assert cluster.cancelled == [job_id]
    # Had the launch still been on its way, it would launch nothing.
    assert cluster.launches_stopped == {job_id: cluster.submits[0]["request_key"]}
    assert cluster.interrupts == 1


@pytest.mark.parametrize("state", ["running", "queued", "up_for_retry", None])
def test_worker_that_is_shut_down_leaves_the_job(use: Any, state: str | None) -> None:
    cluster, ti, operator = use(FakeCluster(RUNNING)), TaskInstance(), submit()
    ti.state = state
    cluster.on_look = operator.on_kill
    with pytest.raises(GpuClusterError, match="left alone"):
        run(operator, ti)
    assert cluster.cancelled == []


def test_unreadable_state_leaves_the_job(use: Any) -> None:
    cluster, ti, operator = use(FakeCluster(RUNNING)), TaskInstance(), submit()
    ti.state_error = RuntimeError("API server is away")
    cluster.on_look = operator.on_kill
    with pytest.raises(GpuClusterError, match="left alone"):
        run(operator, ti)
    assert cluster.cancelled == []


def test_job_can_be_kept_from_being_cancelled(use: Any) -> None:
    cluster, ti, operator = use(FakeCluster(RUNNING)), TaskInstance(), submit(cancel_on_kill=False)
    ti.state = "failed"
    cluster.on_look = operator.on_kill
    with pytest.raises(GpuClusterError, match="left alone"):
        run(operator, ti)
    assert cluster.cancelled == []


def test_kill_of_a_mapped_task_reads_its_own_state(use: Any) -> None:
    cluster, ti, operator = use(FakeCluster(RUNNING)), TaskInstance(map_index=3), submit()
    ti.state = "failed"
    cluster.on_look = operator.on_kill
    with pytest.raises(GpuJobCancelled):
        run(operator, ti)


def test_execution_timeout_cancels_the_job(use: Any) -> None:
    cluster = use(FakeCluster(RUNNING))

    def time_is_up() -> None:
        raise AirflowTaskTimeout

    cluster.on_look = time_is_up
    with pytest.raises(AirflowTaskTimeout):
        run(submit())
    assert len(cluster.cancelled) == 1


@pytest.mark.parametrize(("limit_s", "expected_s"), [(60.0, 50.0), (11.0, 7.5), (10.0, 7.5), (5.0, 7.5)])
def test_a_deferral_lasts_until_the_scheduler_has_seen_its_process_end(
    use: Any, monkeypatch: pytest.MonkeyPatch, limit_s: float, expected_s: float
) -> None:
    """With less, the scheduler fails the task, and nobody cancels the job."""
    monkeypatch.setenv("AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL", "5")
    use(FakeCluster(RUNNING))
    ti = TaskInstance()
    ti.start_date -= timedelta(seconds=10)
    with pytest.raises(TaskDeferred) as deferred:
        run(submit(deferrable=True, execution_timeout=timedelta(seconds=limit_s)), ti)
    assert deferred.value.timeout is not None
    assert deferred.value.timeout.total_seconds() == pytest.approx(expected_s, abs=5)
    assert deferred.value.timeout.total_seconds() >= 7.5


def test_record_says_who_asked(use: Any) -> None:
    cluster = use(FakeCluster(SUCCEEDED))
    run(submit())
    record = cluster.submits[0]["record"]
    asked = ("lab", "manual__1", "train", -1, 1, "ada")
    names = ("dag_id", "run_id", "task_id", "map_index", "try_number", "triggered_by")
    assert tuple(record[name] for name in names) == asked
    json.dumps(record)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"command": None}, "exactly one"),
        ({"entry_script": "train.py"}, "exactly one"),
        ({"gpus": 0}, "gpus"),
        ({"gpus": -1}, "gpus"),
        ({"memory": "32GG"}, "memory"),
        ({"time_limit": 0}, "time_limit"),
        ({"priority": "urgent"}, "priority"),
        ({"env": {"not a name": "1"}}, "name"),
        ({"env": "SEED=7"}, "env"),
        ({"job": "{{ x }}", "code": "train"}, "either job"),
        ({"array": []}, "array has 0 elements"),
        ({"array": [{"A": 1}, {"A B": 1}]}, r"array\[1\]: env has the name"),
    ],
)
def test_what_is_wrong_in_any_case_is_said_when_the_dag_is_read(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidJobError, match=message):
        submit(**arguments)


def test_what_is_known_only_later_is_not_checked_when_the_dag_is_read() -> None:
    operator = submit(
        gpus="{{ params.gpus }}",
        memory="{{ params.memory }}",
        command="{{ params.command }}",
        priority="{{ params.priority }}",
        time_limit="{{ params.limit }}",
        env={"SEED": "{{ params.seed }}"},
    )
    assert operator.gpus == "{{ params.gpus }}"


def test_bad_rendered_value_is_an_error(use: Any) -> None:
    use(FakeCluster(SUCCEEDED))
    operator = submit(gpus="{{ params.gpus }}")
    operator.gpus = "many"
    with pytest.raises(InvalidJobError, match="gpus='many'"):
        run(operator)


def test_relative_sources_start_at_the_dag_file(use: Any, tmp_path: Any) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "train.py").write_text("print(1)\n")
    cluster = use(FakeCluster(SUCCEEDED))
    with DAG("lab", schedule=None) as dag:
        operator = submit(command=None, code="code", entry_script="train.py")
    dag.fileloc = str(tmp_path / "dag.py")
    run(operator)
    assert [source.kind for source in cluster.submits[0]["sources"]] == ["code"]


def test_staged_job_keeps_its_id_and_connection(use: Any) -> None:
    cluster = use(FakeCluster(SUCCEEDED))
    staged = {
        "job_id": "staged-1",
        "gpu_cluster_conn_id": "gpu_cluster_default",
        "job_dir": "/jobs/staged-1",
        "engine": "host",
        "submitted_at": None,
        "gpus": 0,
    }
    run(submit(job=staged))
    run(submit(job=str(staged)))
    assert [one["job_id"] for one in cluster.submits] == ["staged-1", "staged-1"]
    assert cluster.submits[0]["sources"] is None


def test_staged_job_that_is_missing_is_an_error(use: Any) -> None:
    cluster = use(FakeCluster(SUCCEEDED))
    operator = submit(job="{{ ti.xcom_pull('stage') }}")
    operator.job = None
    with pytest.raises(InvalidJobError, match="not a job handle"):
        run(operator)
    assert cluster.submits == []


def test_kill_during_the_launch_is_not_forgotten(use: Any) -> None:
    cluster, ti = use(FakeCluster(RUNNING)), TaskInstance()
    operator = submit(wait_for_completion=False)
    ti.state = "failed"
    launch = cluster.submit

    def launch_and_kill(*arguments: Any, **more: Any) -> Any:
        operator.on_kill()
        return launch(*arguments, **more)

    cluster.submit = launch_and_kill
    with pytest.raises(GpuJobCancelled):
        run(operator, ti)
    assert len(cluster.cancelled) == 1


def test_stage_output_makes_the_tasks_dependent() -> None:
    with DAG("lab", schedule=None):
        stage = StageGpuJobOperator(task_id="stage", code="x")
        assert submit(job=stage.output).upstream_task_ids == {"stage"}


def test_values_of_env_are_nowhere_in_the_serialized_dag() -> None:
    from airflow.serialization.serialized_objects import DagSerialization

    with DAG("lab", schedule=None) as dag:

        @task
        def token() -> dict[str, str]:
            return {"TOKEN": "x"}

        made: Any = token()
        SubmitGpuJobOperator(task_id="one", command="true", env={"A": "s3cret", "B": made["TOKEN"]})
        SubmitGpuJobOperator(task_id="whole", command="true", env=made)
        partial = SubmitGpuJobOperator.partial(task_id="two", command="true", env={"A": "s3cret"})
        partial.expand(gpus=[1, 2])
        mapped = SubmitGpuJobOperator.partial(task_id="three", command="true")
        mapped.expand(env=[{"A": "s3cret"}, {"A": "s3cret", "B": made["TOKEN"]}])
        SubmitGpuJobOperator.partial(task_id="four", command="true").expand_kwargs([{"env": {"A": "s3cret"}}])
        SubmitGpuJobOperator(task_id="array", command="true", array=[{"A": "s3cret"}, ["--seen", made["TOKEN"]]])
        SubmitGpuJobOperator(task_id="later", command="true", array=made)
        SubmitGpuJobOperator.partial(task_id="five", command="true", array=[{"A": "s3cret"}]).expand(gpus=[1, 2])
        SubmitGpuJobOperator.partial(task_id="six", command="true").expand(array=[[{"A": "s3cret"}], [["--x"]]])
    text = json.dumps(DagSerialization.to_dict(dag))
    assert "s3cret" not in text
    assert dag.get_task("one").upstream_task_ids == {"token"}
    assert dag.get_task("whole").upstream_task_ids == {"token"}
    assert dag.get_task("three").upstream_task_ids == {"token"}
    assert dag.get_task("array").upstream_task_ids == {"token"}
    assert dag.get_task("later").upstream_task_ids == {"token"}
    assert "--seen" in text


# -- a job that the trigger launches -----------------------------------------------------------------------------


def deferred(operator: SubmitGpuJobOperator, ti: TaskInstance | None = None) -> GpuJobTrigger:
    """Return the trigger by which an operator waits."""
    with pytest.raises(TaskDeferred) as deferral:
        run(operator, ti)
    trigger = deferral.value.trigger
    assert isinstance(trigger, GpuJobTrigger)
    return trigger


def test_native_values_of_templates_mean_what_their_text_means() -> None:
    params = {"gpus": 1.0, "type": "4090", "none": None, "args": ["--n", 1]}
    with DAG("native", schedule=None, render_template_as_native_obj=True, params=params):
        operator = SubmitGpuJobOperator(
            task_id="train",
            code="{{ params.none }}",
            data=["{{ params.none }}"],
            entry_script="a.py",
            script_args="{{ params.args }}",
            gpus="{{ params.gpus }}",
            gpu_type="{{ params.type }}",
            account="123456",
            env={"CONFIG": '{"a": 1}', "GPUS": "{{ params.gpus }}"},
            time_limit="{{ 3600 }}",
            gpu_cluster_conn_id="{{ 4090 }}",
        )
    operator.render_template_fields(cast(Context, {"params": params, "task": operator}))
    request = operator._request()
    spec = request.spec()
    assert (spec.gpus, spec.gpu_type, spec.account) == (1, "4090", "123456")
    assert (spec.script_args, spec.time_limit_s) == (("--n", "1"), 3600.0)
    assert request.variables() == {"CONFIG": '{"a": 1}', "GPUS": "1.0"}
    assert request.sources(base_dir=Path()) == ()
    assert operator._hook(None).gpu_cluster_conn_id == "4090"


def test_a_mapped_task_leaves_the_launch_to_its_trigger(use: Any) -> None:
    cluster, ti = use(FakeCluster(RUNNING)), TaskInstance(map_index=3)
    trigger = deferred(submit(deferrable=True, env={"TOKEN": "s3cret"}, gpus=2), ti)
    assert (trigger.job, trigger.gpu_cluster_conn_id) == (None, "gpu_cluster_default")
    request = trigger.launch
    assert request is not None
    assert json.loads(json.dumps(request)) == request
    assert (request["inputs"], request["env"], request["spec"]["gpus"]) == ([], {"TOKEN": "s3cret"}, 2)
    assert request["context"]["AIRFLOW_CTX_MAP_INDEX"] == "3"
    # Nothing was launched, nor said to be.
    assert cluster.submits == []
    assert ti.xcoms == {}


@pytest.mark.parametrize(
    ("map_index", "arguments", "launches_there"),
    [
        (-1, {}, False),
        (3, {}, True),
        (-1, {"launch_from_trigger": True}, True),
        (3, {"launch_from_trigger": False}, False),
        (3, {"code": "cluster:/shared/code", "data": "git+https://host/data.git"}, True),
        (3, {"code": "folder"}, False),
        (3, {"data": ["cluster:/shared/x", "folder"]}, False),
        (3, {"array": [{"SEED": "1"}]}, False),
        (3, {"command": "true # " + 40_000 * "x"}, False),
    ],
)
def test_who_launches(
    use: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    map_index: int,
    arguments: dict[str, Any],
    launches_there: bool,
) -> None:
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    cluster = use(FakeCluster(RUNNING))
    trigger = deferred(submit(deferrable=True, **arguments), TaskInstance(map_index=map_index))
    assert (trigger.launch is not None, trigger.job is None, cluster.submits == []) == (launches_there,) * 3


def test_a_staged_job_is_launched_by_its_trigger(use: Any) -> None:
    use(FakeCluster(RUNNING))
    staged = JobHandle("staged", "gpu_cluster_default", "/jobs/staged", "host", None, 0).to_json()
    request = deferred(submit(deferrable=True, launch_from_trigger=True, job=staged)).launch
    assert request is not None
    assert (request["job_id"], request["inputs"]) == ("staged", None)


@pytest.mark.parametrize("arguments", [{}, {"deferrable": True}])
def test_who_does_not_wait_in_the_triggerer_launches_here(use: Any, arguments: dict[str, Any]) -> None:
    cluster = use(FakeCluster(SUCCEEDED))
    run(submit(launch_from_trigger=True, wait_for_completion=not arguments, **arguments), TaskInstance(map_index=3))
    assert len(cluster.submits) == 1


@pytest.mark.parametrize("how", [{}, {"deferrable": True, "launch_from_trigger": True}])
def test_what_was_launched_before_a_clear_is_cancelled_first(use: Any, how: dict[str, Any]) -> None:
    cluster = use(FakeCluster(SUCCEEDED))
    run(submit(), TaskInstance(max_tries=0))
    (before,) = cluster.submits
    assert cluster.cancelled == []
    with contextlib.suppress(TaskDeferred):
        run(submit(**how), TaskInstance(max_tries=1, try_number=2))
    assert cluster.cancelled == [before["job_id"]]


@pytest.mark.parametrize("arguments", [{"cancel_on_kill": False}, {"durable": False}, {"wait_for_completion": False}])
def test_it_is_left_alone_where_it_is_nobodys_business(use: Any, arguments: dict[str, Any]) -> None:
    cluster = use(FakeCluster(SUCCEEDED))
    run(submit(**arguments), TaskInstance(max_tries=1, try_number=2))
    assert cluster.cancelled == []


def test_what_is_templated_is_what_was_given() -> None:
    names = SubmitGpuJobOperator.template_fields
    assert {"code", "partition", "array", "gpu_cluster_conn_id"} < set(names)
    assert list(submit(partition="{{ params.partition }}").template_fields) == [
        name for name in names if getattr(submit(partition="x"), name) is not None
    ]


OTHER = JobHandle("another", "gpu_cluster_default", "/jobs/another", "host", None, 1)


@pytest.mark.parametrize("map_index", [-1, 3])
@pytest.mark.parametrize(
    "news",
    [
        WatchEnd(OTHER, JobStatus("another", JobState.CANCELLED, reason="cancelled")),
        WatchEnd(error=GpuClusterError("nobody waits for it"), job_id="another"),
    ],
)
def test_news_of_another_job_is_no_end(use: Any, log: list[dict[str, Any]], map_index: int, news: WatchEnd) -> None:
    """On SQLite, Airflow brings a task the event of a trigger that had the same id before."""
    use(FakeCluster(RUNNING))
    operator, ti = submit(deferrable=True), TaskInstance(map_index=map_index)
    before = deferred(operator, ti)
    with pytest.raises(TaskDeferred) as deferral:
        operator.execute_complete(task_context(ti), news.to_json())
    kinds = [(trigger.launch is None, trigger.job) for trigger in (before, deferral.value.trigger)]
    assert kinds[0] == kinds[1]
    assert [line["other_job_id"] for line in log if "other_job_id" in line] == ["another"]


# -- a job that nobody may leave alone ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("orphan_timeout", "of_connection", "poll_interval"), [(60, None, 60), (None, "1m", 90), ("0:00:30", "2h", 30)]
)
def test_who_would_ask_too_seldom_is_told_before_the_launch(
    use: Any,
    monkeypatch: pytest.MonkeyPatch,
    orphan_timeout: Any,
    of_connection: str | None,
    poll_interval: float,
) -> None:
    cluster = use(FakeCluster(SUCCEEDED))
    extra = {} if of_connection is None else {"orphan_timeout": of_connection}
    connection = {"conn_type": "gpu_cluster", "host": "fake", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_GPU_CLUSTER_DEFAULT", json.dumps(connection))
    with pytest.raises(InvalidJobError, match="Make poll_interval shorter, or orphan_timeout longer"):
        run(submit(orphan_timeout=orphan_timeout, poll_interval=poll_interval))
    assert cluster.submits == []


def test_who_asks_rather_seldom_is_warned(use: Any, log: list[dict[str, Any]]) -> None:
    use(FakeCluster(SUCCEEDED))
    run(submit(orphan_timeout=60, poll_interval=25))
    run(submit(orphan_timeout=600, poll_interval=25))
    assert [line["poll_interval"] for line in log if "orphan_timeout" in line] == [25]
