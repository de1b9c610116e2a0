"""GpuJobRetryPolicy: which errors a task is retried after, and when."""

from __future__ import annotations

import json
import pickle
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG, RetryAction
from airflow.sdk.exceptions import AirflowRuntimeError, AirflowTaskTimeout, ErrorType
from airflow.sdk.execution_time.comms import ErrorResponse
from airflow.serialization.serialized_objects import DagSerialization

from airflow_provider_gpu_cluster import exceptions
from airflow_provider_gpu_cluster.exceptions import GpuClusterError, GpuJobError
from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.jobs.status import JobState, JobStatus
from airflow_provider_gpu_cluster.operators.gpu_job import SubmitGpuJobOperator
from airflow_provider_gpu_cluster.retry_policies.gpu_job import IS_RETRIED, GpuJobRetryPolicy
from airflow_provider_gpu_cluster.task_groups.gpu_job import GpuJobTaskGroup
from airflow_provider_gpu_cluster.watch.end import WatchEnd
from tests.conftest import REPOSITORY

RETRY, FAIL, DEFAULT = RetryAction.RETRY, RetryAction.FAIL, RetryAction.DEFAULT
POLICY = GpuJobRetryPolicy()
OUTAGE = AirflowRuntimeError(ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail={"status_code": 503}))


def action(error: BaseException) -> RetryAction:
    return POLICY.evaluate(error, try_number=1, max_tries=3).action


def ended(reason: str, **more: Any) -> GpuJobError:
    return JobStatus("j", JobState.FAILED, reason=reason, **more).error("me@gpu1")


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("user_error", FAIL),
        ("out_of_memory", FAIL),
        ("gpu_out_of_memory", FAIL),
        ("time_limit", FAIL),
        ("preempted", RETRY),
        ("node_failure", RETRY),
        ("disk_full", RETRY),
        ("launch_failed", RETRY),
        ("lost", RETRY),
        ("cancelled", FAIL),
        ("orphaned", RETRY),
        ("hang", RETRY),
        ("checkpointed", FAIL),
        ("of a later version", DEFAULT),
    ],
)
def test_ends_of_jobs(reason: str, expected: RetryAction) -> None:
    assert action(ended(reason)) is expected


def test_every_class_has_its_place_and_is_in_the_docs() -> None:
    assert set(exceptions.JOB_ERRORS.values()) <= set(IS_RETRIED)
    page = (REPOSITORY / "docs/recovery.md").read_text()
    assert [error.__name__ for error in IS_RETRIED if f"`{error.__name__}`" not in page] == []


@pytest.mark.parametrize("kind", ["gpu_fault", "gpu_not_found", "gpu_busy", "communication", "network"])
def test_a_failure_of_the_machine_is_not_the_codes(kind: str) -> None:
    assert action(ended("user_error", kind=kind)) is RETRY


@pytest.mark.parametrize("kind", ["user_error", "missing_module", "bad_arguments", "not_a_number", "crash"])
def test_a_failure_of_the_code(kind: str) -> None:
    assert action(ended("user_error", kind=kind)) is FAIL


@pytest.mark.parametrize("reason", ["preempted", "node_failure", "lost", "disk_full", "hang"])
def test_what_recovery_has_used_up_is_not_begun_again(reason: str) -> None:
    assert action(ended(reason, recovered={reason: 1})) is FAIL
    assert action(ended(reason, recovered={"checkpointed": 7})) is RETRY


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (exceptions.InvalidJobError("gpus=0"), FAIL),
        (exceptions.GpuClusterConnectionError("no route"), RETRY),
        (exceptions.GpuClusterFaultError("a disk"), RETRY),
        (exceptions.GpuClusterAuthenticationError("refused"), FAIL),
        (exceptions.GpuClusterHostKeyError("changed"), FAIL),
        (exceptions.GpuClusterSetupError("no Python"), FAIL),
        (exceptions.GpuClusterProtocolError("garbled"), RETRY),
        (exceptions.StagingError("broken"), RETRY),
        (exceptions.SourceError("no answer"), RETRY),
        (exceptions.ChecksumError("other bytes"), RETRY),
        (exceptions.NoSpaceError("full"), RETRY),
        (exceptions.LaunchError("refused"), RETRY),
        (exceptions.NotEnoughGpusError("it has 2"), FAIL),
        (exceptions.JobConflictError("another's"), FAIL),
        (exceptions.CollectError("not whole"), RETRY),
        (GpuClusterError("of no class"), DEFAULT),
        (OUTAGE, RETRY),
        (AirflowTaskTimeout("over"), DEFAULT),
        (ValueError("the author's own"), DEFAULT),
    ],
    ids=lambda value: type(value).__name__,
)
def test_other_errors(error: BaseException, expected: RetryAction) -> None:
    assert action(error) is expected


def test_a_source_that_is_not_there_is_a_mistake() -> None:
    with DAG("lab"):
        task = SubmitGpuJobOperator(task_id="train", code="/no/such/folder", command="true")
    with pytest.raises(exceptions.SourceError) as error:
        task._request().sources(base_dir=REPOSITORY)
    assert action(error.value) is FAIL


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (protocol.GPUS_UNAVAILABLE, RETRY),
        (protocol.ROOT_NOT_WRITABLE, RETRY),
        (protocol.PYTHON_TOO_OLD, FAIL),
        (protocol.NOT_STAGED, FAIL),
        (protocol.NO_SUCH_JOB, FAIL),
        (protocol.UNSAFE_OUTPUT, FAIL),
        (protocol.LAUNCH_REFUSED, RETRY),
    ],
)
def test_refusals_of_the_cluster(code: str, expected: RetryAction) -> None:
    error = exceptions.REPLY_ERRORS[code]("the cluster says no")
    error.code = code
    assert action(error) is expected
    through_a_trigger = WatchEnd.from_json(json.loads(json.dumps(WatchEnd(error=error).to_json()))).error
    assert through_a_trigger is not None
    assert action(through_a_trigger) is expected


def test_delays_grow_and_begin_anew_after_a_clear() -> None:
    policy = GpuJobRetryPolicy(delay=timedelta(seconds=10), longest_delay=timedelta(minutes=1))
    lost = ended("lost")

    def delays(*, cleared_after: int, context: Any) -> list[float | None]:
        decisions = [
            policy.evaluate(lost, try_number=cleared_after + number, max_tries=cleared_after + 5, context=context)
            for number in range(1, 6)
        ]
        return [None if one.retry_delay is None else one.retry_delay.total_seconds() for one in decisions]

    task: Any = {"task": SimpleNamespace(retries=5)}
    assert delays(cleared_after=0, context=None) == [10, 20, 40, 60, 60]
    assert delays(cleared_after=0, context=task) == [10, 20, 40, 60, 60]
    assert delays(cleared_after=3, context=task) == [10, 20, 40, 60, 60]
    endless = GpuJobRetryPolicy(delay=timedelta(days=1)).evaluate(lost, try_number=10**6, max_tries=10**6)
    assert endless.retry_delay == timedelta(days=1)


def test_it_goes_through_json_and_pickle() -> None:
    policy = GpuJobRetryPolicy(delay=timedelta(seconds=1), longest_delay=timedelta(minutes=2))
    assert GpuJobRetryPolicy.deserialize(json.loads(json.dumps(policy.serialize()))) == policy
    assert pickle.loads(pickle.dumps(policy)) == policy
    assert policy != GpuJobRetryPolicy()


@pytest.mark.parametrize("wrong", [{"delay": 30}, {"longest_delay": timedelta(seconds=-1)}])
def test_what_is_no_delay(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        GpuJobRetryPolicy(**wrong)


def test_a_dag_that_has_it_is_serialized() -> None:
    with DAG("lab", default_args={"retries": 2, "retry_policy": POLICY}) as dag:
        GpuJobTaskGroup("group", command="true", destination="/x")
        SubmitGpuJobOperator(task_id="train", command="true")
        SubmitGpuJobOperator.partial(task_id="trains").expand(command=["true", "false"])
    there = json.loads(json.dumps(DagSerialization.to_dict(dag)))
    read = DagSerialization.from_dict(there)
    for task_id in ("group.wait", "train", "trains"):
        assert read.get_task(task_id).has_retry_policy, task_id
        assert dag.get_task(task_id).retry_policy == POLICY
