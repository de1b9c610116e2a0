"""The next attempt of a job, asked for by a task that has not launched it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.exceptions import InvalidJobError, LaunchError
from airflow_provider_gpu_cluster.gpu_run.errors import Refused
from airflow_provider_gpu_cluster.gpu_run.jobs import resubmission
from airflow_provider_gpu_cluster.gpu_run.protocol.masks import hidden
from airflow_provider_gpu_cluster.gpu_run.store.writing import write_text
from airflow_provider_gpu_cluster.hooks.gpu_cluster import GpuClusterHook
from airflow_provider_gpu_cluster.jobs.handle import element_id
from airflow_provider_gpu_cluster.jobs.status import JobState
from airflow_provider_gpu_cluster.jobs.submission import Submission
from tests.gpu_run.attempts import LONG_AGO, begin, first_attempt, waits_forever
from tests.gpu_run.host import Host
from tests.harness.jobs import submit, submit_array, wait


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    path = tmp_path / "runs"
    path.touch()
    return path


def resubmit(cluster: Cluster, job_id: str, key: str = "sensor-2", **more: Any) -> Submission:
    return cluster.resubmit({"job_id": job_id, "request_key": key, "env": {}, **more})  # type: ignore[typeddict-item]


def test_the_next_attempt_is_started_once_with_everything_as_at_the_launch(
    cluster: Cluster, gpu_cluster_conn: dict[str, Any], runs: Path
) -> None:
    command = f'echo "$ATTEMPT $SEED $AIRFLOW_CTX_DAG_ID $GPU_COUNT" >>{runs}; [ "$ATTEMPT" = 3 ]'
    first = submit(cluster, command, job_id="j", env={"SEED": "7"}, gpus=2)
    wait(cluster, "j")
    with pytest.raises(InvalidJobError, match=r"next attempt of j needs its environment variables SEED, whose values"):
        resubmit(cluster, "j", after=1)
    again = resubmit(cluster, "j", after=1, env={"SEED": "7", "MORE": "x"})
    assert (again.handle.job_id, again.handle.gpus, again.created) == ("j", 2, True)
    assert again.status.attempt == 2
    status = wait(cluster, "j")
    # The reply was lost, or the next poke asks again; neither needs the variables.
    for key, after in (("sensor-2", None), ("sensor-2", 1), ("sensor-3", 1)):
        found = resubmit(cluster, "j", key, **({} if after is None else {"after": after}))
        assert (found.created, found.status.attempt) == (False, 2)
    given: Any = {"env": {"SEED": "8", "MORE": "new-s3cret"}, "secrets": ["new-s3cret"]}
    third = resubmit(cluster, "j", "sensor-3", after=status.attempt, **given)
    assert (third.created, third.status.attempt) == (True, 3)
    status = wait(cluster, "j")
    assert status.state is JobState.SUCCEEDED
    assert hidden("new-s3cret", status.masks) == "***"
    with GpuClusterHook() as hook:
        assert hook.resubmit(first.handle.to_json()) == {**first.handle.to_json(), "submitted_at": ANY}
    assert runs.read_text().splitlines() == ["1 7 dag 2", "2 7 dag 2", "3 8 dag 2"]
    owner = json.loads(Path(first.handle.job_dir, ".job/attempts/3/request.json").read_text())
    assert owner["by"]["task_id"] == "task"


def test_it_begins_as_at_first_with_a_whole_budget(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    waits_forever(monkeypatch)
    attempt = first_attempt(host, "j", recover={"out_of_memory": [1, 2.0]}, memory_bytes=1 << 30)
    attempt.finish("FAILED", "out_of_memory", "too much", started_at=LONG_AGO)
    between: Any = {"job_id": "j", "request_key": "k", "env": {}, "settings": host.settings, "umask": 0o077}
    found = resubmission.answer(host.root, host.engine, host.program, between).value
    assert not found["created"], "it goes on by itself"
    attempt = host.attempt("j")
    assert attempt.request()["spec"]["memory_bytes"] == 2 << 30
    begin(attempt)
    attempt.finish("FAILED", "out_of_memory", "too much again", started_at=LONG_AGO)
    assert host.status("j")["recovered"] == {"out_of_memory": 1}
    after: Any = {**between, "after": 2}
    with pytest.raises(Refused, match=r"its .*/run\.sh cannot be read: No such file"):
        resubmission.answer(host.root, host.engine, host.program, after)
    write_text(host.job("j").at("run.sh"), "true")
    resubmission.answer(host.root, host.engine, host.program, after)
    status = host.wait("j")
    assert (status["state"], status["attempt"]) == ("SUCCEEDED", 3)
    assert "recovered" not in status
    request = host.attempt("j").request()
    assert request["spec"]["memory_bytes"] == 1 << 30
    assert "recovery" not in request


def test_of_an_array_only_those_that_have_failed(cluster: Cluster, runs: Path) -> None:
    command = f'echo "$COMMON $RATE $ATTEMPT" >>{runs}; [ "$RATE" = 1 ] || [ "$ATTEMPT" = 2 ]'
    submit_array(cluster, command, [{"RATE": "1"}, {"RATE": "2"}])
    wait(cluster, "a")
    with pytest.raises(InvalidJobError, match=r"next attempt of a_1 needs .* COMMON, RATE"):
        resubmit(cluster, "a")
    with pytest.raises(InvalidJobError, match="array a has 2 elements, and variables were given for 1"):
        resubmit(cluster, "a", elements=[{}])
    with pytest.raises(InvalidJobError, match=r"next attempt of a_1 needs .* RATE"):
        resubmit(cluster, "a", env={"COMMON": "yes"})
    given: Any = {"env": {"COMMON": "yes"}, "elements": [{"RATE": "1"}, {"RATE": "2"}]}
    again = resubmit(cluster, "a", **given)
    assert (again.created, again.launched, again.handle.array_size) == (True, 1, 2)
    assert wait(cluster, "a").state is JobState.SUCCEEDED
    assert resubmit(cluster, "a").created is False
    assert sorted(runs.read_text().splitlines()) == ["yes 1 1", "yes 2 1", "yes 2 2"]
    assert wait(cluster, element_id("a", 1)).attempt == 2


def test_what_was_never_launched(cluster: Cluster) -> None:
    with pytest.raises(LaunchError, match="job nothing was not launched here"):
        resubmit(cluster, "nothing")
