"""A task of a pool is ended, at whatever moment: nothing of its job runs or waits anywhere, and nothing is launched."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paramiko
import pytest
from airflow.sdk.exceptions import AirflowTaskTimeout

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError, GpuJobCancelled
from airflow_provider_gpu_cluster.operators.gpu_job import SubmitGpuJobOperator
from airflow_provider_gpu_cluster.pools import keeping, moving
from airflow_provider_gpu_cluster.watch import watch
from tests.harness.deferral import TaskLogs
from tests.harness.patience import PATIENCE_S
from tests.harness.pool_site import PoolSite, pool_site
from tests.harness.task_context import StateStore, TaskInstance, execute, task_context
from tests.servers.sshd import RealSshd

FAILOVER_S, ORPHAN_S = 12.0, 8.0


@pytest.fixture
def site(
    tmp_path: Path, sshd: RealSshd, ssh_connect: Callable[..., paramiko.SSHClient], monkeypatch: pytest.MonkeyPatch
) -> Iterator[PoolSite]:
    """Return two clusters, and let everything that takes minutes take seconds."""
    monkeypatch.setattr(watch, "RETRY_FOR_S", 0.0)
    monkeypatch.setattr(keeping, "MOVE_EVERY_S", 0.5)
    monkeypatch.setattr(moving, "APART_S", 0.1)
    with pool_site(tmp_path / "pool", sshd, ssh_connect, monkeypatch) as site:
        yield site


class Killed:
    """
    A task that is ended when a cluster is told something.

    :param how: ``user``, or ``timeout``.
    """

    def __init__(self, site: PoolSite, logs: TaskLogs, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
        self.site = site
        self.logs = logs
        self.ti = TaskInstance("train")
        self.ti.state = "running"
        self.how = how
        self.is_ended = threading.Event()
        self._monkeypatch = monkeypatch
        self.make()

    def make(self, **options: Any) -> None:
        """Make the operator."""
        self.operator = SubmitGpuJobOperator(
            task_id="train",
            **{
                "gpu_cluster_conn_id": ["gpu01", "gpu02"],
                "policy": "in_order",
                "command": self.site.command,
                "wait_for_completion": True,
                "poll_interval": 0.1,
                "grace": 0.5,
                **options,
            },
        )

    def at(self, verb: str, conn_id: str, when: str, is_it: Callable[[Any], bool] = lambda arguments: True) -> None:
        """End it when a cluster is asked something for the first time, before or after that is done there."""
        method = getattr(Cluster, verb)

        def asked(cluster: Cluster, *arguments: Any, **named: Any) -> Any:
            is_now = cluster.settings.conn_id == conn_id and is_it(arguments) and not self.is_ended.is_set()
            if is_now and when == "before":
                self.end()
            result = method(cluster, *arguments, **named)
            if is_now and when == "after":
                self.end()
            return result

        self._monkeypatch.setattr(Cluster, verb, asked)

    def end(self) -> None:
        """End it: Airflow interrupts its main thread, wherever that is."""
        self.is_ended.set()
        if self.how == "timeout":
            raise AirflowTaskTimeout
        self.ti.state = "failed"
        self.operator.on_kill()

    def run(self) -> BaseException:
        """Run it to its end, and return what it raises."""
        with pytest.raises((Exception, AirflowTaskTimeout)) as raised:
            execute(self.operator, task_context(self.ti, store=StateStore()))
        assert self.is_ended.is_set(), raised.value
        return raised.value


@pytest.fixture
def killed(site: PoolSite, logs: TaskLogs, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Killed]:
    return lambda how: Killed(site, logs, monkeypatch, how)


def is_claim(arguments: Any) -> bool:
    return bool(arguments[2] == "claim")


MOMENTS = [
    pytest.param("appraise", "before", id="before-the-choice"),
    pytest.param("appraise", "after", id="during-the-choice"),
    pytest.param("place", "after", id="after-the-claim"),
    pytest.param("submit", "before", id="before-the-launch"),
    pytest.param("submit", "after", id="after-the-launch"),
]


@pytest.mark.long
@pytest.mark.parametrize(("verb", "when"), MOMENTS)
def test_it_is_ended_on_its_way(
    killed: Callable[[str], Killed], site: PoolSite, eventually: Callable[..., Any], verb: str, when: str
) -> None:
    task = killed("user")
    task.at(verb, "gpu01", when, is_claim if verb == "place" else lambda arguments: True)
    assert isinstance(task.run(), GpuJobCancelled)
    eventually(lambda: not site.alive)
    assert len(site.attempts) == (verb == "submit")
    # Its GPU is not kept for it.
    with site.cluster("gpu01") as cluster:
        appraised: Any = {"job_id": "another", "spec": {"gpus": 1}, "inputs": []}
        eventually(lambda: cluster.appraise([appraised])["jobs"][0]["free_gpus"] == 1)


@pytest.mark.parametrize("when", [pytest.param("before", marks=pytest.mark.long), "after"])
def test_its_time_is_over_at_the_launch(
    killed: Callable[[str], Killed], site: PoolSite, eventually: Callable[..., Any], when: str
) -> None:
    task = killed("timeout")
    task.at("submit", "gpu01", when)
    assert isinstance(task.run(), AirflowTaskTimeout)
    eventually(lambda: not site.alive)
    assert [one.conn_id for one in site.attempts] == (["gpu01"] if when == "after" else [])
    assert "execution_timeout is over; GPU job cancelled" in task.logs.events


@pytest.mark.long
@pytest.mark.parametrize("how", ["user", "timeout"])
@pytest.mark.parametrize(
    ("verb", "conn_id", "when", "kind"),
    [
        ("place", "gpu02", "after", "claim"),
        ("place", "gpu01", "after", "withdraw"),
        ("submit", "gpu02", "before", ""),
        ("submit", "gpu02", "after", ""),
    ],
)
def test_it_is_ended_while_it_moves(
    killed: Callable[[str], Killed],
    site: PoolSite,
    eventually: Callable[..., Any],
    how: str,
    verb: str,
    conn_id: str,
    when: str,
    kind: str,
) -> None:
    if how == "timeout" and verb == "place":
        pytest.skip("words are told in other threads, which no timeout interrupts")
    site.block("gpu01", time_limit_s=7200.0)
    site.block("gpu02", time_limit_s=10800.0)
    task = killed(how)
    task.make(policy="soonest")

    def free_when_it_waits() -> None:
        eventually(lambda: site.alive == ["gpu01"])
        site.free("gpu02")

    waits = threading.Thread(target=free_when_it_waits)
    waits.start()
    task.at(verb, conn_id, when, (lambda arguments: arguments[2] == kind) if kind else lambda arguments: True)
    error = task.run()
    waits.join()
    assert isinstance(error, AirflowTaskTimeout if how == "timeout" else GpuJobCancelled)
    eventually(lambda: not site.alive)
    assert site.began() in ([], ["gpu02"])
    site.free("gpu01")
    assert not site.alive


@pytest.mark.long
@pytest.mark.parametrize("how", ["user", "timeout"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_it_is_ended_in_a_failover(
    killed: Callable[[str], Killed], site: PoolSite, eventually: Callable[..., Any], how: str, when: str
) -> None:
    task = killed(how)
    task.make(failover_after=FAILOVER_S, orphan_timeout=ORPHAN_S)
    task.at("submit", "gpu02", when)

    def cut_when_it_runs() -> None:
        eventually(site.began)
        site.cut("gpu01")

    cut = threading.Thread(target=cut_when_it_runs)
    cut.start()
    error = task.run()
    cut.join()
    assert isinstance(error, AirflowTaskTimeout if how == "timeout" else GpuJobCancelled)
    site.mend("gpu01")
    eventually(lambda: not site.alive)
    # A launch that was about to be sent may be sent all the same, and is taken back there then.
    assert len(site.attempts) <= 2


@pytest.mark.long
@pytest.mark.parametrize("orphan_timeout", [None, ORPHAN_S])
def test_it_is_ended_while_its_cluster_is_out_of_reach(
    killed: Callable[[str], Killed], site: PoolSite, eventually: Callable[..., Any], orphan_timeout: float | None
) -> None:
    task = killed("user")
    keeps = {} if orphan_timeout is None else {"failover_after": 60, "orphan_timeout": orphan_timeout}
    task.make(**keeps)

    def cut_and_end() -> None:
        eventually(lambda: site.began() and "GPU job runs" in task.logs.events)
        site.cut("gpu01")
        task.end()

    ends = threading.Thread(target=cut_and_end)
    ends.start()
    error = task.run()
    ends.join()
    assert isinstance(error, GpuClusterConnectionError)
    assert "could not be cancelled on gpu01, where it may wait or run" in str(error)
    if orphan_timeout is None:
        assert "When that cluster is back, end it there" in str(error)
        assert site.alive == ["gpu01"]
    else:
        assert "nothing of it can run there after" in str(error)
        eventually(lambda: not site.alive, timeout_s=PATIENCE_S)
    assert site.began() == ["gpu01"]
