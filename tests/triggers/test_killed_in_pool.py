"""A triggerer is killed at each step of a launch, a move and a failover: another one goes on, and the job runs once."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paramiko
import pytest

from airflow_provider_gpu_cluster.operators.gpu_job import SubmitGpuJobOperator
from tests.harness.killed_trigger import DeferredTask, defer
from tests.harness.patience import PATIENCE_S
from tests.harness.pool_site import PoolSite, pool_site
from tests.harness.task_context import execute, task_context
from tests.servers.sshd import RealSshd

FAILOVER_S, ORPHAN_S = 8.0, 6.0


@pytest.fixture
def site(
    tmp_path: Path, sshd: RealSshd, ssh_connect: Callable[..., paramiko.SSHClient], monkeypatch: pytest.MonkeyPatch
) -> Iterator[PoolSite]:
    """Return two clusters whose jobs end when they like."""
    with pool_site(tmp_path / "pool", sshd, ssh_connect, monkeypatch, margin_s=1.0) as site:
        site.gate.touch()
        yield site


def options(site: PoolSite, **more: Any) -> dict[str, Any]:
    pool = {"gpu_cluster_conn_id": ["gpu01", "gpu02"], "policy": "in_order", "command": site.command, "grace": 0.5}
    return {**pool, "get_logs": False, "end_from_trigger": False, **more}


def check_ran_once(site: PoolSite, task: DeferredTask, event: dict[str, Any], story: object) -> str:
    """See in the records of all clusters that a job ran once, and return where."""
    assert event["status"] is not None, (story, event, task.log.read_text())
    assert event["status"]["state"] == "SUCCEEDED", (story, event, task.log.read_text())
    found = site.began(task.job_id)
    assert len(found) == 1, (story, found, task.log.read_text())
    attempts = [one for one in site.attempts if one.job_id == task.job_id]
    ran = [one.conn_id for one in attempts if one.end.get("started_at")]
    assert ran == found, (story, attempts)
    assert event["handle"]["gpu_cluster_conn_id"] == found[0]
    return found[0]


@pytest.mark.parametrize("steps", [[random.randrange(8, 20)], pytest.param(None, marks=pytest.mark.long)])
def test_a_triggerer_is_killed_at_a_step_of_a_launch(site: PoolSite, tmp_path: Path, steps: list[int] | None) -> None:
    for step in steps or itertools.count(1):
        task = defer(tmp_path, step, **options(site))
        is_killed = task.is_killed_at(step)
        assert len([one for one in site.attempts if one.job_id == task.job_id]) <= 1
        check_ran_once(site, task, task.fires(), step)
        assert len([one for one in site.attempts if one.job_id == task.job_id]) == 1
        if not is_killed:
            assert step > 20, task.log.read_text()
            break


@pytest.mark.long
def test_a_triggerer_is_killed_at_a_step_of_a_move(site: PoolSite, tmp_path: Path) -> None:
    site.block("gpu01", time_limit_s=7200.0)
    for step in itertools.count(random.randrange(1, 4), 3):
        site.block("gpu02", f"blocker-{step}", time_limit_s=10800.0)
        task = defer(tmp_path, step, **options(site, policy="soonest", launch_from_trigger=False))
        site.free("gpu02", f"blocker-{step}")
        is_killed = task.is_killed_at(step)
        where = check_ran_once(site, task, task.fires(), step)
        assert where == "gpu02"
        assert [one.conn_id for one in site.attempts if one.job_id == task.job_id] == ["gpu01", "gpu02"]
        if not is_killed:
            assert step > 20, task.log.read_text()
            break


@pytest.mark.long
def test_a_triggerer_is_killed_at_a_step_of_a_failover(site: PoolSite, tmp_path: Path) -> None:
    site.block("gpu01")
    keeps = {"failover_after": FAILOVER_S, "orphan_timeout": ORPHAN_S, "launch_from_trigger": False}
    for step in itertools.count(random.randrange(1, 4), 4):
        task = defer(tmp_path, step, **options(site, **keeps))
        site.cut("gpu01")
        is_killed = task.is_killed_at(step)
        event = task.fires()
        site.mend("gpu01")
        assert check_ran_once(site, task, event, step) == "gpu02"
        if not is_killed:
            assert step > 15, task.log.read_text()
            break
    # Where they waited first, none of them begins any more.
    site.free("gpu01")
    assert "gpu01" not in site.began()


# -- a user ends the task ----------------------------------------------------------------------------------------------


@pytest.mark.long
def test_a_user_ends_the_task_at_a_step_of_a_launch(site: PoolSite, tmp_path: Path) -> None:
    site.gate.unlink()
    for step in range(random.randrange(1, 3), 21, 2):
        task = defer(tmp_path, step, **options(site))
        assert task.is_ended_at(step), task.log.read_text()
        _until(lambda: not site.alive)
        assert len([one for one in site.attempts if one.job_id == task.job_id]) <= 1
    with site.cluster("gpu01") as cluster:
        appraised: Any = {"job_id": "another", "spec": {"gpus": 1}, "inputs": []}
        _until(lambda: cluster.appraise([appraised])["jobs"][0]["free_gpus"] == 1)


@pytest.mark.long
def test_a_user_ends_the_task_at_a_step_of_a_move(site: PoolSite, tmp_path: Path) -> None:
    site.gate.unlink()
    site.block("gpu01", time_limit_s=7200.0)
    for step in range(random.randrange(7, 9), 24, 2):
        site.block("gpu02", f"blocker-{step}", time_limit_s=10800.0)
        task = defer(tmp_path, step, **options(site, policy="soonest", launch_from_trigger=False))
        site.free("gpu02", f"blocker-{step}")
        assert task.is_ended_at(step), task.log.read_text()
        _until(lambda: not site.alive)
    site.free("gpu01")
    assert not site.alive


# -- several at once ---------------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("number", range(3))
def test_two_triggerers_run_one_trigger_at_once(site: PoolSite, tmp_path: Path, number: int) -> None:
    site.gate.unlink()
    task = defer(tmp_path, number, **options(site))
    both = [task.trigger_process(), task.trigger_process()]
    _until(lambda: site.began(task.job_id))
    site.gate.touch()
    for process in both:
        process.join(2 * PATIENCE_S)
        assert process.exitcode == 0
    check_ran_once(site, task, task.fires(), number)
    assert len(site.attempts) == 1


@pytest.mark.long
def test_two_tasks_want_the_last_gpu(site: PoolSite, tmp_path: Path) -> None:
    site.gate.unlink()
    tasks = [defer(tmp_path, number, **options(site, policy="soonest")) for number in (1, 2)]
    processes = [task.trigger_process() for task in tasks]
    # Neither waits for the other.
    _until(lambda: len(site.began()) == 2)
    assert sorted(site.began()) == ["gpu01", "gpu02"]
    site.gate.touch()
    for process in processes:
        process.join(2 * PATIENCE_S)
    assert [len(site.began(task.job_id)) for task in tasks] == [1, 1]


@pytest.mark.long
@pytest.mark.parametrize("number", range(3))
def test_a_worker_and_a_trigger_choose_at_once(site: PoolSite, tmp_path: Path, number: int) -> None:
    site.gate.unlink()
    task = defer(tmp_path, number, **options(site))
    trigger = task.trigger_process()
    # Somebody has restarted the worker's process of the same try, and it remembers what it remembered.
    worker = SubmitGpuJobOperator(task_id="train", **{**options(site), "get_logs": True})
    found: dict[str, Any] = execute(worker, task_context(task.ti, store=task.store))
    _until(lambda: site.began(task.job_id))
    site.gate.touch()
    trigger.join(2 * PATIENCE_S)
    event = task.fires()
    assert check_ran_once(site, task, event, number) == found["gpu_cluster_conn_id"]
    assert len(site.attempts) == 1


def _until(check: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.05)
